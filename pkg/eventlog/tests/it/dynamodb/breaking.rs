//! The lane against a store that refuses, fails, and does not answer.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use futures::future::join_all;
use millrace_es::Position;
use millrace_eventlog::{
    AppendError, EventLog, ExpectedVersion, conformance::audit, dynamodb::DynamoEventLog,
};
use millrace_testkit::Dynamo;

use super::{
    script::{Act, Script, cancel, refuse},
    support::{open, open_with, table, through},
};
use crate::{
    proxy::{BreakAtCommit, Network, Proxy},
    support::append,
};

const ANY: ExpectedVersion = ExpectedVersion::Any;
const CONNECTION_REFUSED_BOUND: Duration = Duration::from_secs(12);
const UNKNOWN_BOUND: Duration = Duration::from_secs(25);

async fn scripted() -> (Dynamo, Script, DynamoEventLog) {
    let dynamo = table().await;
    let script = Script::before(&dynamo.endpoint).await;
    let log = open_with(&dynamo, through(&dynamo, &script.endpoint()), |_| {}).await;
    log.append(append("first", ANY, 1)).await.unwrap();
    script.calls();
    (dynamo, script, log)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_passes_is_tried_again() {
    let (_dynamo, script, log) = scripted().await;
    let passing: [fn() -> Act; 6] = [
        || refuse(400, "ThrottlingException"),
        || refuse(400, "ProvisionedThroughputExceededException"),
        || cancel("TransactionConflict"),
        || cancel("ThrottlingError"),
        || refuse(400, "TransactionInProgressException"),
        || refuse(500, "InternalServerError"),
    ];
    let mut events = 1;
    for act in passing {
        script.next("TransactWriteItems", vec![act(), act(), act()]);
        let appends = (0..5).map(|n| log.append(append(&format!("s-{n}"), ANY, 1)));
        for verdict in join_all(appends).await {
            verdict.unwrap();
        }
        events += 5;
        assert!(script.calls_of("TransactWriteItems").len() >= 4);
    }
    assert_eq!(audit(&log).await.len(), events);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_that_throttles_on_and_on_is_unavailable_within_the_bound() {
    let (_dynamo, script, log) = scripted().await;
    script.rule(|operation, _| {
        (operation == "TransactWriteItems").then(|| refuse(400, "ThrottlingException"))
    });
    let since = Instant::now();
    let refused = log.append(append("a", ANY, 1)).await;
    assert!(
        matches!(refused, Err(AppendError::Unavailable(_))),
        "{refused:?}"
    );
    assert!(
        since.elapsed() < CONNECTION_REFUSED_BOUND,
        "{:?}",
        since.elapsed()
    );
    script.rule(|_, _| None);
    log.append(append("a", ExpectedVersion::NoStream, 1))
        .await
        .unwrap();
    assert_eq!(audit(&log).await.len(), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failure_after_the_fact_is_found_out() {
    let (_dynamo, script, log) = scripted().await;
    for (round, expected) in [(1, ANY), (2, ExpectedVersion::NoStream)] {
        script.next("TransactWriteItems", vec![Act::LoseAnswer]);
        let name = format!("s-{round}");
        let appended = log.append(append(&name, expected, 2)).await.unwrap();
        assert_eq!(appended.position, Position::new(1 + 2 * round));
        // Once, and not once more because nobody knew.
        assert_eq!(script.calls_of("TransactWriteItems").len(), 1);
    }
    assert_eq!(audit(&log).await.len(), 5);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_network_that_breaks_at_the_commit_costs_and_doubles_nothing() {
    for network in [
        Network::LosesAnswers,
        Network::LosesRequests,
        Network::Delays,
    ] {
        let dynamo = table().await;
        let address = dynamo.endpoint.strip_prefix("http://").unwrap();
        let proxy = Proxy::before(address.parse().unwrap()).await;
        let client = through(&dynamo, &format!("http://127.0.0.1:{}", proxy.port));
        let breaking = Arc::new(BreakAtCommit::of(proxy, network));
        let faults = Arc::clone(&breaking);
        let log = open_with(&dynamo, client, |options| options.faults = Some(faults)).await;
        log.append(append("a", ANY, 1)).await.unwrap();
        breaking.armed.store(true, Ordering::Release);
        let appended = log.append(append("a", ANY, 3)).await.unwrap();
        assert_eq!(appended.position, Position::new(4), "{network:?}");
        assert!(!breaking.armed.load(Ordering::Acquire));
        // What was still on its way has arrived, and changed nothing.
        tokio::time::sleep(Duration::from_millis(900)).await;
        log.append(append("a", ANY, 1)).await.unwrap();
        assert_eq!(audit(&open(&dynamo).await).await.len(), 5, "{network:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_where_the_store_stays_away_the_outcome_is_unknown() {
    let (dynamo, script, log) = scripted().await;
    let down = Arc::new(AtomicBool::new(false));
    script.rule(move |operation, _| {
        if operation == "TransactWriteItems" && !down.swap(true, Ordering::AcqRel) {
            return Some(Act::LoseAnswer);
        }
        down.load(Ordering::Acquire)
            .then(|| refuse(503, "ServiceUnavailable"))
    });
    let since = Instant::now();
    let unknown = log.append(append("a", ANY, 1)).await;
    assert!(
        matches!(unknown, Err(AppendError::OutcomeUnknown(_))),
        "{unknown:?}"
    );
    assert!(since.elapsed() < UNKNOWN_BOUND, "{:?}", since.elapsed());
    script.rule(|_, _| None);
    log.append(append("b", ANY, 1)).await.unwrap();
    assert_eq!(audit(&open(&dynamo).await).await.len(), 3);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_that_is_not_there_is_unavailable() {
    let dynamo = table().await;
    let address = dynamo.endpoint.strip_prefix("http://").unwrap();
    let proxy = Proxy::before(address.parse().unwrap()).await;
    let client = through(&dynamo, &format!("http://127.0.0.1:{}", proxy.port));
    let log = open_with(&dynamo, client, |_| {}).await;
    log.append(append("a", ANY, 1)).await.unwrap();
    drop(proxy);
    // The first may still go out on a connection that ends under it.
    let first = log.append(append("a", ANY, 1)).await;
    assert!(first.is_err(), "{first:?}");
    let since = Instant::now();
    let refused = log.append(append("a", ANY, 1)).await;
    assert!(
        matches!(refused, Err(AppendError::Unavailable(_))),
        "{refused:?}"
    );
    assert!(
        since.elapsed() < CONNECTION_REFUSED_BOUND,
        "{:?}",
        since.elapsed()
    );
    assert_eq!(audit(&open(&dynamo).await).await.len(), 1);
}
