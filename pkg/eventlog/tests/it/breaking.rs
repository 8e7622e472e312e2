//! A store that goes away around the commit.

use std::{
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant},
};

use millrace_es::{PartitionCount, Position};
use millrace_eventlog::{
    Answer, AnswerKey, AppendError, AppendRequest, EventLog, ExpectedVersion, LogError, PgEventLog,
    PgLogOptions, conformance::audit, migrate,
};
use millrace_testkit::{Database, eventually};
use sqlx::postgres::{PgConnectOptions, PgPoolOptions};

use crate::{
    proxy::{BreakAtCommit, Network, Proxy},
    support::{append, context, open, store},
};

const KEY: AnswerKey = AnswerKey {
    key_hash: [3; 32],
    request_hash: [4; 32],
};

fn keyed(events: usize) -> AppendRequest {
    let streams = if events == 0 {
        Vec::new()
    } else {
        append("thing-1", ExpectedVersion::NoStream, events).streams
    };
    AppendRequest {
        streams,
        answer: Some((
            KEY,
            Answer {
                status: 200,
                headers: Vec::new(),
                body: "done".into(),
            },
        )),
        reservations: Vec::new(),
    }
}

/// How many events the log has before the network breaks.
const BEFORE: usize = 51;

/// A log behind a network that breaks at the next commit. Its statements are prepared by then, so
/// that it is the commit itself that breaks.
async fn behind(database: &Database, network: Network) -> (PgEventLog, Arc<BreakAtCommit>) {
    let options: PgConnectOptions = database.url.parse().unwrap();
    let server = format!("{}:{}", options.get_host(), options.get_port());
    let server = tokio::net::lookup_host(server).await.unwrap().next();
    let proxy = Proxy::before(server.unwrap()).await;
    let pool = PgPoolOptions::new().connect_lazy_with(options.host("127.0.0.1").port(proxy.port));
    let faults = Arc::new(BreakAtCommit::of(proxy, network));
    let mut options = PgLogOptions::new(context());
    options.faults = Some(Arc::clone(&faults) as _);
    let log = PgEventLog::open(pool, options).await.unwrap();
    for events in [1, 50] {
        log.append(append("before", ExpectedVersion::Any, events))
            .await
            .unwrap();
    }
    faults.armed.store(true, Ordering::Release);
    (log, faults)
}

/// Each size takes another way: only an answer, one statement, COPY.
const SIZES: [usize; 3] = [0, 2, 50];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_commit_whose_answer_was_lost_is_found_out() {
    for events in SIZES {
        let database = store().await;
        let (log, _faults) = behind(&database, Network::LosesAnswers).await;
        let appended = log.append(keyed(events)).await.unwrap();
        assert_eq!(appended.position, Position::new((BEFORE + events) as u64));
        assert_eq!(audit(&log).await.len(), BEFORE + events);
        let again = log.append(keyed(events)).await;
        assert!(matches!(again, Err(AppendError::DuplicateKey(_))));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_commit_that_was_lost_is_made_again() {
    for events in SIZES {
        let database = store().await;
        let (log, _faults) = behind(&database, Network::LosesRequests).await;
        let appended = log.append(keyed(events)).await.unwrap();
        assert_eq!(appended.position, Position::new((BEFORE + events) as u64));
        assert_eq!(audit(&log).await.len(), BEFORE + events);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_commit_that_arrives_late_does_nothing() {
    let database = store().await;
    let (log, _faults) = behind(&database, Network::Delays).await;
    log.append(append("thing-1", ExpectedVersion::Any, 2))
        .await
        .unwrap();
    // The statement of the first attempt arrives by now, and its connection has ended.
    eventually(
        "the late connection ends",
        Duration::from_secs(10),
        || async {
            let alive: i64 = sqlx::query_scalar(
                "SELECT count(*) FROM pg_stat_activity
             WHERE datname = current_database() AND application_name LIKE 'millrace-lane-%'",
            )
            .fetch_one(&database.pool)
            .await
            .unwrap();
            (alive == 1).then_some(())
        },
    )
    .await;
    assert_eq!(audit(&log).await.len(), BEFORE + 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_outcome_that_cannot_be_found_out_is_said_to_be_unknown() {
    let database = store().await;
    let (log, faults) = behind(&database, Network::GoesDown).await;
    let unknown = log.append(keyed(1)).await;
    assert!(
        matches!(unknown, Err(AppendError::OutcomeUnknown(_))),
        "{unknown:?}"
    );
    faults.proxy.set(Network::Whole);
    // What it asks for: the same key again.
    let again = log.append(keyed(1)).await;
    assert!(
        matches!(&again, Err(AppendError::DuplicateKey(stored)) if stored.answer.body == "done"),
        "{again:?}"
    );
    assert_eq!(audit(&log).await.len(), BEFORE + 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_that_comes_back_in_time_costs_no_error_and_one_that_does_not_is_unavailable() {
    let mut server = millrace_testkit::own_postgres().await;
    let pool = server.pool().await;
    migrate(&pool, &context(), PartitionCount::DEFAULT, &[])
        .await
        .unwrap();
    let log = PgEventLog::open(pool, PgLogOptions::new(context()))
        .await
        .unwrap();
    let any = |events| append("thing-1", ExpectedVersion::Any, events);
    log.append(any(1)).await.unwrap();

    server.kill().await;
    let (appended, ()) = tokio::join!(log.append(any(1)), server.restart());
    appended.unwrap();

    server.kill().await;
    let since = Instant::now();
    let refused = log.append(any(1)).await;
    assert!(
        matches!(
            refused,
            Err(AppendError::Unavailable(LogError::Unreachable(_)))
        ),
        "{refused:?}"
    );
    assert!(since.elapsed() < Duration::from_secs(8));
    server.restart().await;
    log.append(any(1)).await.unwrap();
    assert_eq!(audit(&log).await.len(), 3);
}

#[tokio::test]
async fn events_written_past_the_log_stop_it() {
    let database = store().await;
    let log = open(&database).await;
    log.append(append("thing-1", ExpectedVersion::Any, 2))
        .await
        .unwrap();
    sqlx::query("UPDATE testing.log_end SET position = 1")
        .execute(&database.pool)
        .await
        .unwrap();
    // A process that was there saw the head go back; one that comes now finds the events.
    let log = open(&database).await;
    for events in [1, 100] {
        let refused = log
            .append(append("thing-2", ExpectedVersion::Any, events))
            .await;
        assert!(
            matches!(refused, Err(AppendError::Unavailable(LogError::Corrupt(_)))),
            "{refused:?}"
        );
    }
}
