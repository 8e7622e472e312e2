//! The plain insert that the write side is held against: the very row that an order leaves in the
//! log, into a table of the same columns and indexes, one row per transaction.

use std::time::Duration;

use anyhow::Context as _;
use sqlx::{Executor as _, PgPool};

use super::{BenchDatabase, SqlLoad, SqlRate};

/// Inserts of one row per transaction by so many clients, modelled on the newest event in the log
/// of `ordering` in this database. They go into a table beside it that is made anew.
///
/// # Errors
/// When the log has no event, or PostgreSQL refuses.
pub async fn one_row_inserts(
    database: &BenchDatabase,
    clients: usize,
    duration: Duration,
) -> anyhow::Result<SqlRate> {
    let statement = prepare(&database.pool).await?;
    let load = SqlLoad {
        url: &database.url,
        statement: &statement,
        clients,
        duration,
    };
    load.run().await
}

/// Makes the table and gives the statement that fills it.
async fn prepare(pool: &PgPool) -> anyhow::Result<String> {
    pool.execute(
        "DROP TABLE IF EXISTS ordering.baseline;
         CREATE TABLE ordering.baseline (LIKE ordering.events INCLUDING ALL);
         DROP SEQUENCE IF EXISTS ordering.baseline_positions;
         CREATE SEQUENCE ordering.baseline_positions CACHE 1;",
    )
    .await?;
    // Ids as the log has them: a time in front, so that they grow at the right end of the index.
    let insert: Option<String> = sqlx::query_scalar(
        "SELECT format(
            'INSERT INTO ordering.baseline (position, version, previous, recorded_at, event_id,
                 schema_version, partition, stream, event_type, payload, metadata)
             VALUES (nextval(''ordering.baseline_positions''), 1, 1, now(), gen_random_uuid(), %s, 3,
                 ''order-'' || left(to_hex((extract(epoch FROM clock_timestamp()) * 1000)::bigint), 8)
                     || ''-'' || gen_random_uuid(), %L, %L, %L)',
            schema_version, event_type, payload, metadata)
         FROM ordering.events ORDER BY position DESC LIMIT 1",
    )
    .fetch_optional(pool)
    .await?;
    let insert = insert.context("the log has no event to model the baseline on")?;
    // pgbench takes a colon and a word for a variable, in a JSON text too (`"a":null`).
    Ok(insert.replace("\":", "\": "))
}
