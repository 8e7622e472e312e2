//! Who leads, and that nobody waits for long.

use std::time::{Duration, Instant};

use aws_sdk_dynamodb::types::AttributeValue;
use futures::future::join_all;
use millrace_eventlog::{EventLog, ExpectedVersion, conformance::audit};
use millrace_testkit::Dynamo;

use super::support::{name, open, table};
use crate::support::append;

const ANY: ExpectedVersion = ExpectedVersion::Any;

async fn lease(dynamo: &Dynamo) -> std::collections::HashMap<String, AttributeValue> {
    let found = dynamo
        .client
        .get_item()
        .table_name(name(dynamo))
        .key("pk", AttributeValue::S("lease".to_owned()))
        .key("sk", AttributeValue::N("0".to_owned()))
        .consistent_read(true)
        .send()
        .await
        .unwrap();
    found.item.unwrap_or_default()
}

#[tokio::test]
async fn a_leader_that_is_gone_is_followed_after_its_time() {
    let dynamo = table().await;
    // As a killed process leaves it.
    dynamo
        .client
        .put_item()
        .table_name(name(&dynamo))
        .item("pk", AttributeValue::S("lease".to_owned()))
        .item("sk", AttributeValue::N("0".to_owned()))
        .item("holder", AttributeValue::S("gone".to_owned()))
        .item("record", AttributeValue::N("7".to_owned()))
        .send()
        .await
        .unwrap();
    let log = open(&dynamo).await;
    let since = Instant::now();
    log.append(append("a", ANY, 1)).await.unwrap();
    let waited = since.elapsed();
    assert!(waited >= Duration::from_millis(1_900), "{waited:?}");
    assert!(waited < Duration::from_millis(4_500), "{waited:?}");
    let since = Instant::now();
    log.append(append("a", ANY, 1)).await.unwrap();
    assert!(since.elapsed() < Duration::from_secs(1));
}

#[tokio::test]
async fn a_leader_without_work_lets_go() {
    let dynamo = table().await;
    let log = open(&dynamo).await;
    log.append(append("a", ANY, 1)).await.unwrap();
    assert!(lease(&dynamo).await.contains_key("holder"));
    millrace_testkit::eventually("the lease to be free", Duration::from_secs(10), || async {
        (!lease(&dynamo).await.contains_key("holder")).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn processes_that_write_without_end_take_turns() {
    const WRITING: Duration = Duration::from_secs(4);
    let dynamo = table().await;
    let logs = join_all((0..3).map(|_| open(&dynamo))).await;
    let since = Instant::now();
    let writers = logs.iter().enumerate().map(|(n, log)| async move {
        let mut longest = Duration::ZERO;
        let mut taken = 0_usize;
        while since.elapsed() < WRITING {
            let asked = Instant::now();
            log.append(append(&format!("s-{n}"), ANY, 1)).await.unwrap();
            longest = longest.max(asked.elapsed());
            taken += 1;
        }
        (taken, longest)
    });
    let done = join_all(writers).await;
    for (taken, longest) in &done {
        assert!(*taken >= 5, "{done:?}");
        assert!(*longest < Duration::from_secs(4), "{done:?}");
    }
    let all: usize = done.iter().map(|(taken, _)| taken).sum();
    assert_eq!(audit(&logs[0]).await.len(), all);
}
