//! Processes that write to one log in DynamoDB and are killed or stopped.

use std::time::{Duration, Instant};

use millrace_eventlog::{EventLog, ExpectedVersion, LaneStep};
use millrace_testkit::Dynamo;

use super::support::{open, open_with, table};
use crate::{
    crashing::{URL, Writer, check, stop_at, write_for_ever},
    support::append,
};

/// Names the endpoint that a process uses instead of one of its own.
const ENDPOINT: &str = "DYNAMODB_ENDPOINT";

/// How long the others may stand still when the process that leads does: two seconds, and what a
/// loaded machine makes of them.
const MAX_HELD_UP: Duration = Duration::from_secs(8);

/// What a child does, which was told the endpoint and the table's prefix.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn child() {
    let Ok(prefix) = std::env::var(URL) else {
        return;
    };
    let mut dynamo = millrace_testkit::dynamodb().await;
    dynamo.prefix = prefix;
    let client = dynamo.client.clone();
    let log = open_with(&dynamo, client, |options| options.faults = stop_at()).await;
    write_for_ever(&log).await;
}

fn writer(dynamo: &Dynamo, stop_at: Option<LaneStep>) -> Writer {
    let told = [
        (ENDPOINT, dynamo.endpoint.as_str()),
        (URL, dynamo.prefix.as_str()),
    ];
    Writer::start_as("dynamodb::crashing::child", &told, stop_at)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_acknowledged_survives_killed_writers() {
    let dynamo = table().await;
    let log = open(&dynamo).await;
    let mut acked = Vec::new();
    for round in 0..3 {
        let mut writers: Vec<Writer> = (0..2).map(|_| writer(&dynamo, None)).collect();
        for writer in &mut writers {
            for _ in 0..5 + round * 3 {
                acked.extend(writer.until(|line| line.starts_with("acked ")));
            }
        }
        for writer in writers {
            acked.extend(writer.kill());
        }
        // One of the dead led.
        let since = Instant::now();
        let mine = append("mine", ExpectedVersion::Any, 1);
        log.append(mine).await.unwrap();
        assert!(since.elapsed() < MAX_HELD_UP, "{:?}", since.elapsed());
    }
    assert!(acked.len() > 100, "{}", acked.len());
    check(&log, &acked).await;
}

async fn goes_on_beside_a_writer_stopped_at(step: LaneStep) {
    let dynamo = table().await;
    let log = open(&dynamo).await;
    let mut stopped = tokio::task::spawn_blocking({
        let dynamo = dynamo.clone();
        move || writer(&dynamo, Some(step))
    })
    .await
    .unwrap();
    let mut acked = stopped.until(|line| line.starts_with("stopped "));
    stopped.signal("-STOP");

    let since = Instant::now();
    let appended = log.append(append("mine", ExpectedVersion::Any, 1)).await;

    let appended = appended.unwrap();
    let waited = since.elapsed();
    assert!(
        waited < MAX_HELD_UP,
        "{step:?} held the lane for {waited:?}"
    );
    stopped.signal("-CONT");
    // It thinks to lead, finds that the head moved, and waits for its turn.
    for _ in 0..20 {
        acked.extend(stopped.until(|line| line.starts_with("acked ")));
    }
    acked.extend(stopped.kill());
    assert!(log.head().await.unwrap().position > appended.position);
    check(&log, &acked).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_that_stands_still_holds_nobody_up_for_long() {
    let steps = [LaneStep::Probed, LaneStep::Committing];
    let checks = steps.map(goes_on_beside_a_writer_stopped_at);
    futures::future::join_all(checks).await;
}
