//! The suite of every backend, on PostgreSQL.

use std::{any::Any, sync::Arc};

use async_trait::async_trait;
use millrace_es::Position;
use millrace_eventlog::{EventLog, Faults, conformance::Backend};
use millrace_testkit::Database;

use crate::{
    checks::conformance,
    support::{open_with, store},
};

struct Postgres(Database);

#[async_trait]
impl Backend for Postgres {
    async fn open(&self, faults: Option<Arc<dyn Faults>>) -> Arc<dyn EventLog> {
        Arc::new(open_with(&self.0, |options| options.faults = faults).await)
    }

    async fn cut(&self) {
        sqlx::query(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity
             WHERE datname = current_database() AND application_name LIKE 'millrace-lane-%'",
        )
        .execute(&self.0.pool)
        .await
        .unwrap();
    }

    async fn hold(&self) -> Box<dyn Any + Send> {
        let mut tx = self.0.pool.begin().await.unwrap();
        sqlx::query("CREATE TABLE IF NOT EXISTS elsewhere AS SELECT txid_current()")
            .execute(&mut *tx)
            .await
            .unwrap();
        Box::new(tx)
    }

    async fn lose_after(&self, position: Position) {
        let sql = "
            WITH lost AS (DELETE FROM testing.events WHERE position > $1 RETURNING 1)
            UPDATE testing.log_end SET position = $1, partition_positions = (
                SELECT array_agg(coalesce(newest, 0) ORDER BY n)
                FROM generate_series(0, cardinality(partition_positions) - 1) n
                LEFT JOIN (SELECT partition, max(position) AS newest FROM testing.events
                           WHERE position <= $1 GROUP BY partition) e ON e.partition = n)";
        sqlx::query(sql)
            .bind(position.as_i64())
            .execute(&self.0.pool)
            .await
            .unwrap();
    }
}

async fn postgres() -> Postgres {
    Postgres(store().await)
}

conformance!(postgres());
