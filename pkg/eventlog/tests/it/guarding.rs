//! The lane against what may go wrong from outside.

use std::time::{Duration, Instant};

use millrace_eventlog::{AppendError, EventLog, ExpectedVersion};
use sqlx::{Connection, Executor, PgConnection, postgres::PgConnectOptions};

use crate::support::{append, open, store};

/// How long a process that sleeps may hold up the others.
const MAX_HELD_UP: Duration = Duration::from_secs(12);

#[tokio::test]
async fn a_log_that_went_back_under_a_running_process_is_halted() {
    let database = store().await;
    let log = open(&database).await;
    for _ in 0..5 {
        log.append(append("a", ExpectedVersion::Any, 1))
            .await
            .unwrap();
    }
    // As a restore to the copy of a moment ago would leave it.
    database
        .pool
        .execute(
            "DELETE FROM testing.events WHERE position > 3;
             UPDATE testing.log_end SET position = 3, partition_positions = (
                 SELECT array_agg(coalesce((SELECT max(position) FROM testing.events e
                                            WHERE e.partition = p.number), 0) ORDER BY p.number)
                 FROM generate_series(0, cardinality(partition_positions) - 1) AS p (number))",
        )
        .await
        .unwrap();
    let refused = log.append(append("a", ExpectedVersion::Any, 1)).await;
    assert!(
        matches!(refused, Err(AppendError::Halted { .. })),
        "{refused:?}"
    );
    assert!(
        log.head()
            .await
            .unwrap()
            .halted
            .unwrap()
            .contains("restored")
    );
    // The other processes are stopped by the same word, and a decision frees all.
    let other = open(&database).await;
    let refused = other.append(append("b", ExpectedVersion::Any, 1)).await;
    assert!(
        matches!(refused, Err(AppendError::Halted { .. })),
        "{refused:?}"
    );
    other.start_epoch().await.unwrap();
    for log in [&log, &other] {
        log.append(append("a", ExpectedVersion::Any, 1))
            .await
            .unwrap();
    }
    assert_eq!(log.head().await.unwrap().position.get(), 5);
}

#[tokio::test]
async fn a_process_that_sleeps_in_its_copy_does_not_hold_the_lane() {
    let database = store().await;
    let log = open(&database).await;
    // No statement time-out of the server ends a COPY whose data does not come.
    let options: PgConnectOptions = database.url.parse().unwrap();
    let options = options.application_name("millrace-lane-testing").options([
        ("statement_timeout", "2s"),
        ("idle_in_transaction_session_timeout", "2s"),
    ]);
    let mut sleeper = PgConnection::connect_with(&options).await.unwrap();
    sleeper
        .execute("BEGIN; SELECT FROM testing.log_lane FOR UPDATE")
        .await
        .unwrap();
    let copy = sleeper
        .copy_in_raw("COPY testing.events FROM STDIN")
        .await
        .unwrap();
    let since = Instant::now();
    while let Err(error) = log.append(append("a", ExpectedVersion::Any, 1)).await {
        assert!(since.elapsed() < MAX_HELD_UP, "{error:?}");
    }
    drop(copy);
}
