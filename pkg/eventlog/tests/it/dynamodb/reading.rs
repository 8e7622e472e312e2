//! Reading through an index that follows the table after a moment.

use std::sync::atomic::{AtomicU32, Ordering};

use millrace_es::{Position, StreamVersion};
use millrace_eventlog::{EventLog, ExpectedVersion, LogError, is_last};
use serde_json::Value;

use super::{
    script::{Act, Script},
    support::{open_with, table, through},
};
use crate::support::{append, stream};

const ANY: ExpectedVersion = ExpectedVersion::Any;

/// Leaves a position out of what the index shows.
fn hide(position: u64) -> Act {
    let digits = position.to_string();
    Act::Change(Box::new(move |answer: &mut Value| {
        let items = answer["Items"].as_array_mut().unwrap();
        items.retain(|item| item["position"]["N"] != digits);
    }))
}

fn reads_index(operation: &str, body: &Value) -> bool {
    operation == "Query" && body["IndexName"] == "by-position"
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_position_that_the_index_does_not_show_yet_is_waited_for() {
    let dynamo = table().await;
    let script = Script::before(&dynamo.endpoint).await;
    let log = open_with(&dynamo, through(&dynamo, &script.endpoint()), |_| {}).await;
    log.append(append("a", ANY, 40)).await.unwrap();
    for hidden in [1, 17, 40] {
        // The bucket of the position is read, and does not have it, four times.
        let left = AtomicU32::new(4);
        let bucket = (hidden % 16).to_string();
        script.rule(move |operation, body| {
            let of_bucket = body["ExpressionAttributeValues"]
                .as_object()
                .is_some_and(|values| values.values().any(|value| value["N"] == bucket.as_str()));
            let hide_it = reads_index(operation, body)
                && of_bucket
                && left
                    .fetch_update(Ordering::AcqRel, Ordering::Acquire, |n| n.checked_sub(1))
                    .is_ok();
            hide_it.then(|| hide(hidden))
        });
        let page = log.read_log(Position::ZERO, 100).await.unwrap();
        let positions: Vec<u64> = page.iter().map(|event| event.position.get()).collect();
        assert_eq!(positions, (1..=40).collect::<Vec<_>>(), "hidden: {hidden}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_position_that_stays_away_is_not_stepped_over() {
    let dynamo = table().await;
    let script = Script::before(&dynamo.endpoint).await;
    let log = open_with(&dynamo, through(&dynamo, &script.endpoint()), |_| {}).await;
    log.append(append("a", ANY, 20)).await.unwrap();
    script.rule(|operation, body| reads_index(operation, body).then(|| hide(9)));
    let failed = log.read_log(Position::ZERO, 100).await;
    assert!(
        matches!(&failed, Err(LogError::Unreachable(error)) if error.to_string().contains("position 9")),
        "{failed:?}"
    );
    // What lies before it and behind it can be read.
    assert_eq!(log.read_log(Position::ZERO, 8).await.unwrap().len(), 8);
    assert_eq!(log.read_log(Position::new(9), 100).await.unwrap().len(), 11);
    let stream = stream("a");
    let from_stream = log.read_stream(&stream, StreamVersion::ZERO, 100);
    assert_eq!(from_stream.await.unwrap().len(), 20);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn large_events_make_pages_of_bounded_size() {
    let dynamo = table().await;
    let log = open_with(&dynamo, dynamo.client.clone(), |_| {}).await;
    let large = || {
        let mut request = append("large", ANY, 10);
        for event in &mut request.streams[0].events {
            event.payload = serde_json::value::to_raw_value(&"x".repeat(380 * 1024)).unwrap();
        }
        request
    };
    for _ in 0..3 {
        log.append(large()).await.unwrap();
    }
    let mut after = Position::ZERO;
    let mut pages = 0;
    loop {
        let page = log.read_log(after, 100).await.unwrap();
        for event in &page {
            after = after.next();
            assert_eq!(event.position, after);
        }
        pages += 1;
        if is_last(&page, 100) {
            break;
        }
        assert!(page.len() < 30, "a page has a bound in bytes");
    }
    assert_eq!((after, pages), (Position::new(30), 2));
}
