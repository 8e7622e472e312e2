//! SIGSTOP: processes that are there, hold what they hold, and do nothing; and come back with a
//! past they believe to be the present.

use std::time::{Duration, Instant};

use futures::StreamExt as _;
use millrace_faults::{Client, Cluster, ClusterOptions, Load, LoadOptions, Seed, check};
use millrace_testkit::eventually;
use reqwest::Method;
use serde_json::json;
use sqlx::{Connection as _, Executor as _};

use crate::{FEW_COMMANDS, RECOVERY_BOUND, SOME_COMMANDS, options, survive};

/// How long others may be held up by a process that was stopped: the lane's and the leases' time-outs
/// of a few seconds, and what a busy machine adds.
const TAKEOVER_BOUND: Duration = Duration::from_secs(30);
/// Enough orders that every partition of 16 gets some.
const ORDERS_FOR_ALL_PARTITIONS: usize = 80;
/// How many of them are made and read back at once.
const AT_ONCE: usize = 16;

/// Creates orders and reads each back at its position: with enough of them every partition of
/// every view has to move.
async fn every_partition_moves(cluster: &Cluster, command: &str) {
    let client = Client::new();
    let query = cluster.query_url(0);
    futures::stream::iter(0..ORDERS_FOR_ALL_PARTITIONS)
        .for_each_concurrent(AT_ONCE, |_| order_goes_through(&client, command, &query))
        .await;
}

async fn order_goes_through(client: &Client, command: &str, query: &str) {
    let body = json!({"user_id": "bystander", "total_amount": 1});
    let key = millrace_testkit::namespace();
    let headers = [("idempotency-key", key.as_str())];
    let url = format!("{command}/orders");
    let taken = eventually("a command to be taken", TAKEOVER_BOUND, || async {
        let reply = client
            .send(Method::POST, &url, &headers, Some(&body))
            .await
            .ok()?;
        (reply.status == 201).then_some(reply)
    })
    .await;
    let token = taken.header("log-position");
    let json = taken.json();
    let id = json["id"].as_str().unwrap();
    for read in [
        format!("{query}/orders/{id}?at_least={token}"),
        format!("{query}/api/orders/bystander?limit=500&at_least={token}"),
    ] {
        let what = format!("{read} to be readable");
        eventually(&what, TAKEOVER_BOUND, || async {
            let reply = client.get(&read, &[("prefer", "wait=1")]).await.ok()?;
            (reply.status == 200).then_some(())
        })
        .await;
    }
}

#[tokio::test]
async fn a_projector_sleeps_until_its_leases_are_gone() {
    let seed = Seed::new("zombie");
    let mut cluster = Cluster::start(options()).await;
    let load = Load::start(&cluster, &seed, &LoadOptions::default());
    for sleeper in [0, 1] {
        load.wait_for(FEW_COMMANDS, RECOVERY_BOUND).await;
        tokio::time::sleep(seed.millis(0, 200)).await;
        cluster.projectors[sleeper].pause();
        let command = cluster.commands[0].url();
        // The other one has to take over every partition.
        every_partition_moves(&cluster, &command).await;
        load.wait_for(FEW_COMMANDS, RECOVERY_BOUND).await;
        cluster.projectors[sleeper].resume();
    }
    load.wait_for(SOME_COMMANDS, RECOVERY_BOUND).await;
    let mut history = load.stop().await;
    check::note_others(&cluster, &mut history, "bystander").await;
    check::everything(&cluster, &history).await;
}

/// The server process that holds the log's head and waits for its client, if there is one.
async fn lane_holder(cluster: &Cluster) -> Option<i32> {
    sqlx::query_scalar(
        "SELECT pid FROM pg_stat_activity JOIN pg_locks USING (pid)
         WHERE datname = current_database() AND pid <> pg_backend_pid()
           AND wait_event = 'ClientRead' AND relation = 'ordering.log_lane'::regclass
           AND mode IN ('RowExclusiveLock', 'RowShareLock') AND granted
         LIMIT 1",
    )
    .fetch_optional(&cluster.log_pool)
    .await
    .unwrap()
}

/// Stops a command process at a moment when it holds the log's lane and has not committed.
async fn stop_in_the_middle_of_a_commit(cluster: &mut Cluster, seed: &Seed, victim: usize) {
    let deadline = Instant::now() + RECOVERY_BOUND;
    loop {
        tokio::time::sleep(seed.millis(1, 40)).await;
        cluster.commands[victim].pause();
        let holder = lane_holder(cluster).await;
        // Whoever still holds it a moment later is the one that was stopped.
        tokio::time::sleep(Duration::from_millis(60)).await;
        if holder.is_some() && holder == lane_holder(cluster).await {
            return;
        }
        cluster.commands[victim].resume();
        assert!(Instant::now() < deadline, "it was never caught in a commit");
    }
}

#[tokio::test]
async fn a_command_process_sleeps_in_the_middle_of_a_commit() {
    survive("commit", options(), async |cluster, seed, load| {
        for victim in [0, 1] {
            stop_in_the_middle_of_a_commit(cluster, seed, victim).await;
            // Nothing but the other process works, and it has to get past the lock.
            load.wait_for(FEW_COMMANDS, TAKEOVER_BOUND).await;
            cluster.commands[victim].resume();
            load.wait_for(FEW_COMMANDS, RECOVERY_BOUND).await;
        }
    })
    .await;
}

/// The command process that relays at the moment.
async fn relay_holder(cluster: &Cluster) -> usize {
    eventually("a relay to lead", RECOVERY_BOUND, || async {
        for (number, process) in cluster.commands.iter().enumerate() {
            let leads = process.metric("millrace_relay_leader", &["ordering"]).await;
            if leads == Some(1.0) {
                return Some(number);
            }
        }
        None
    })
    .await
}

#[tokio::test]
async fn the_relay_sleeps() {
    let seed = Seed::new("relay");
    let mut cluster = Cluster::start(options()).await;
    let load = Load::start(&cluster, &seed, &LoadOptions::default());
    for _ in 0..2 {
        load.wait_for(FEW_COMMANDS, RECOVERY_BOUND).await;
        let holder = relay_holder(&cluster).await;
        cluster.commands[holder].pause();
        let other = cluster.commands[1 - holder].url();
        every_partition_moves(&cluster, &other).await;
        cluster.commands[holder].resume();
    }
    load.wait_for(SOME_COMMANDS, RECOVERY_BOUND).await;
    let mut history = load.stop().await;
    check::note_others(&cluster, &mut history, "bystander").await;
    check::everything(&cluster, &history).await;
}

#[tokio::test]
async fn postgresql_sleeps_longer_than_clients_wait() {
    let options = ClusterOptions {
        own_postgres: true,
        ..options()
    };
    survive("slow postgresql", options, async |cluster, seed, load| {
        for _ in 0..2 {
            tokio::time::sleep(seed.millis(50, 500)).await;
            cluster.servers.postgres.as_mut().unwrap().pause();
            tokio::time::sleep(seed.millis(4_000, 6_000)).await;
            cluster.servers.postgres.as_mut().unwrap().resume();
            load.wait_for(FEW_COMMANDS, RECOVERY_BOUND).await;
        }
    })
    .await;
}

/// What a process that was stopped in the middle of its COPY is to the server: a transaction that
/// holds the head and waits for data, which no statement time-out ends.
#[tokio::test]
async fn somebody_sleeps_in_the_middle_of_a_copy() {
    survive("copy", options(), async |cluster, _, load| {
        let options = (*cluster.log_pool.connect_options())
            .clone()
            .application_name("millrace-lane-ordering")
            .options([
                ("idle_in_transaction_session_timeout", "3s"),
                ("statement_timeout", "6s"),
            ]);
        let mut sleeper = sqlx::PgConnection::connect_with(&options).await.unwrap();
        sleeper
            .execute("BEGIN; SELECT FROM ordering.log_lane FOR UPDATE")
            .await
            .unwrap();
        let copy = sleeper
            .copy_in_raw("COPY ordering.events FROM STDIN")
            .await
            .unwrap();
        load.wait_for(FEW_COMMANDS, TAKEOVER_BOUND).await;
        drop(copy);
    })
    .await;
}
