//! The suite of every backend, on PostgreSQL.

use std::{any::Any, sync::Arc};

use async_trait::async_trait;
use millrace_es::Position;
use millrace_eventlog::{
    EventLog, Faults,
    conformance::{self, Backend},
};
use millrace_testkit::Database;

use crate::support::{open_with, store};

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

macro_rules! checks {
    ($($check:ident),* $(,)?) => {
        $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        async fn $check() {
            conformance::$check(&Postgres(store().await)).await;
        })*

        #[test]
        fn every_check_is_run() {
            let mut run = [$(stringify!($check)),*];
            let mut all = conformance::CHECKS;
            run.sort_unstable();
            all.sort_unstable();
            assert_eq!(run, all);
        }
    };
}

checks!(
    a_halted_log_takes_nothing_until_it_is_resumed,
    a_lost_tail_is_taken_back,
    a_new_epoch_begins_at_the_head,
    a_tail_that_does_not_continue_is_refused,
    a_storm_of_writers_and_cuts_loses_and_doubles_nothing,
    a_writer_cut_at_any_step_loses_and_doubles_nothing,
    a_decision_on_an_append_that_failed_is_refused,
    a_key_is_taken_once,
    a_name_is_held_once,
    a_newer_snapshot_stays,
    a_version_is_won_once,
    an_append_without_events_asserts,
    each_append_of_a_batch_has_its_own_verdict,
    impossible_appends_are_refused,
    processes_append_side_by_side,
    several_streams_move_together_or_not_at_all,
);
