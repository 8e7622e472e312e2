//! Making and upgrading a context's schema.

use std::time::Duration;

use millrace_es::{Context, PartitionCount};
use sqlx::{AssertSqlSafe, PgConnection, PgPool, postgres::PgDatabaseError};

use super::sql::schema_of;
use crate::{LogError, lane::limits::check_partitions};

/// A migration of a context's schema: applied once, in the order given, with the context's schema
/// as `search_path`. Migrations only expand (new tables, new columns with a default), because pods
/// of the release before are still running.
#[derive(Debug, Clone, Copy)]
pub struct Migration {
    /// The file's name, which says that it was applied.
    pub name: &'static str,
    /// The statements.
    pub sql: &'static str,
}

/// The log's own tables.
const LOG: [Migration; 1] = [Migration {
    name: "eventlog/0001_log",
    sql: include_str!("../../../../migrations/eventlog/0001_log.sql"),
}];

/// How long one try waits for a lock: an exclusive lock that waits holds up everybody behind it.
const MIGRATION_LOCK_WAIT_MS: u64 = 3_000;
/// How often a migration is tried before it is given up.
const MAX_MIGRATION_TRIES: u32 = 20;
/// The pause between two tries.
const MIGRATION_PAUSE_MS: u64 = 250;

/// Makes the schema of a context's log, or brings it up to date, and `extra`, the context's own
/// tables, after it. Safe to run twice, at the same time as others, and beside running pods.
///
/// # Errors
/// [`LogError::Misconfigured`] when the log exists with another partition count, or an applied
/// migration is no longer the same; [`LogError::Unreachable`] when the store does not answer, or
/// its locks could not be had in a minute.
pub async fn migrate(
    pool: &PgPool,
    context: &Context,
    partitions: PartitionCount,
    extra: &[Migration],
) -> Result<(), LogError> {
    let mut tries = 0;
    loop {
        tries += 1;
        match apply(pool, context, partitions, extra).await {
            Ok(result) => return result,
            Err(error) if tries < MAX_MIGRATION_TRIES && waits_for_a_lock(&error) => {
                tracing::info!(%context, tries, "a lock is held, the migration tries again");
                tokio::time::sleep(Duration::from_millis(MIGRATION_PAUSE_MS)).await;
            }
            Err(error) => return Err(LogError::unreachable(error)),
        }
    }
}

/// 55P03 is a lock not had in time, 40P01 a deadlock with running appends.
fn waits_for_a_lock(error: &sqlx::Error) -> bool {
    error
        .as_database_error()
        .and_then(|error| error.try_downcast_ref::<PgDatabaseError>())
        .is_some_and(|error| matches!(error.code(), "55P03" | "40P01"))
}

async fn apply(
    pool: &PgPool,
    context: &Context,
    partitions: PartitionCount,
    extra: &[Migration],
) -> Result<Result<(), LogError>, sqlx::Error> {
    let mut tx = pool.begin().await?;
    let schema = schema_of(context);
    sqlx::raw_sql(AssertSqlSafe(format!(
        "SET LOCAL lock_timeout = {MIGRATION_LOCK_WAIT_MS};
         SELECT pg_advisory_xact_lock(hashtextextended('millrace migrate {context}', 0));
         CREATE SCHEMA IF NOT EXISTS {schema};
         SET LOCAL search_path = {schema};
         CREATE TABLE IF NOT EXISTS schema_migrations (
             name       text PRIMARY KEY,
             sql        text NOT NULL,
             applied_at timestamptz NOT NULL DEFAULT now()
         )"
    )))
    .execute(&mut *tx)
    .await?;
    for migration in LOG.iter().chain(extra) {
        if let Err(error) = apply_one(&mut tx, migration).await? {
            return Ok(Err(error));
        }
    }
    let count = i16::try_from(partitions.get()).unwrap_or(i16::MAX);
    sqlx::query(
        "INSERT INTO log_lane (context, partition_count) VALUES ($1, $2) ON CONFLICT DO NOTHING",
    )
    .bind(context.as_str())
    .bind(count)
    .execute(&mut *tx)
    .await?;
    sqlx::query(
        "INSERT INTO log_end (position, partition_positions, recorded_at)
         SELECT 0, array_fill(0::bigint, ARRAY[$1::integer]), now()
         WHERE NOT EXISTS (SELECT FROM log_end)",
    )
    .bind(count)
    .execute(&mut *tx)
    .await?;
    let stored: i16 = sqlx::query_scalar("SELECT partition_count FROM log_lane")
        .fetch_one(&mut *tx)
        .await?;
    let stored = usize::try_from(stored).unwrap_or_default();
    if let Err(error) = check_partitions(context, stored, partitions) {
        return Ok(Err(error));
    }
    tx.commit().await?;
    Ok(Ok(()))
}

async fn apply_one(
    conn: &mut PgConnection,
    migration: &Migration,
) -> Result<Result<(), LogError>, sqlx::Error> {
    let applied: Option<String> =
        sqlx::query_scalar("SELECT sql FROM schema_migrations WHERE name = $1")
            .bind(migration.name)
            .fetch_optional(&mut *conn)
            .await?;
    match applied {
        Some(sql) if sql == migration.sql => return Ok(Ok(())),
        Some(_) => {
            return Ok(Err(LogError::Misconfigured(format!(
                "migration {} was applied in another form; an applied migration is never edited, add a new one",
                migration.name
            ))));
        }
        None => {}
    }
    sqlx::raw_sql(migration.sql).execute(&mut *conn).await?;
    sqlx::query("INSERT INTO schema_migrations (name, sql) VALUES ($1, $2)")
        .bind(migration.name)
        .bind(migration.sql)
        .execute(conn)
        .await?;
    Ok(Ok(()))
}
