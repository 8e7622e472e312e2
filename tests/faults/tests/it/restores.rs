//! Databases put back to an earlier copy.

use std::{sync::Arc, time::Duration};

use millrace_es::Context;
use millrace_eventlog::{EventLog, PgEventLog, PgLogOptions};
use millrace_faults::{
    Client, Cluster, ClusterOptions, History, Load, LoadOptions, Seed, backup, check,
};
use millrace_streaming::{Names, Topology, TopologyOptions, import_tail_from_stream, new_epoch};
use millrace_testkit::eventually;
use reqwest::Method;
use serde_json::json;
use sqlx::PgPool;

use crate::{RECOVERY_BOUND, SOME_COMMANDS, options, survive};

/// Commands between the copy and the restore.
const LOST_COMMANDS: u64 = 120;
/// How long a log may go unnoticed that was put back.
const NOTICE_BOUND: Duration = Duration::from_secs(15);

#[tokio::test]
async fn the_read_database_is_restored_under_load() {
    let options = ClusterOptions {
        separate_read_database: true,
        ..options()
    };
    survive("read copy", options, async |cluster, _, load| {
        let copy = backup::take(&cluster.read_pool).await;
        load.wait_for(LOST_COMMANDS, RECOVERY_BOUND).await;
        copy.restore().await;
    })
    .await;
}

/// Nothing is written any more that would make a projector look.
#[tokio::test]
async fn the_read_database_is_restored_when_all_is_quiet() {
    let (cluster, _, history) = put_back("quiet read copy", |cluster| &cluster.read_pool).await;
    check::everything(&cluster, &history).await;
}

/// A system whose log was put back to an earlier copy while it ran, and what was acknowledged.
async fn restored(test: &str) -> (Cluster, Seed, History) {
    let restored = put_back(test, |cluster| &cluster.log_pool).await;
    stands_still(&restored.0).await;
    restored
}

/// A system that stood well and was quiet when one of its databases was put back to a copy from
/// under the load, and what was acknowledged.
async fn put_back(test: &str, database: fn(&Cluster) -> &PgPool) -> (Cluster, Seed, History) {
    let seed = Seed::new(test);
    let options = ClusterOptions {
        separate_read_database: true,
        ..options()
    };
    let cluster = Cluster::start(options).await;
    let load = Load::start(&cluster, &seed, &LoadOptions::default());
    load.wait_for(SOME_COMMANDS, RECOVERY_BOUND).await;
    let copy = backup::take(database(&cluster)).await;
    load.wait_for(LOST_COMMANDS, RECOVERY_BOUND).await;
    let history = load.stop().await;
    check::everything(&cluster, &history).await;
    copy.restore().await;
    (cluster, seed, history)
}

/// No command is taken, by any process, from the restore until somebody decides; and the log says
/// that it is halted.
async fn stands_still(cluster: &Cluster) {
    let client = Client::new();
    let body = json!({"user_id": "too-early", "total_amount": 1});
    eventually("the log to be halted", NOTICE_BOUND, || async {
        for url in cluster.command_urls() {
            let url = format!("{url}/orders");
            let Ok(reply) = client.send(Method::POST, &url, &[], Some(&body)).await else {
                continue;
            };
            assert_eq!(reply.status, 503, "{}", reply.body);
        }
        let (head, _) = check::log::read(&cluster.log_pool, "ordering").await;
        head.halted.map(drop)
    })
    .await;
}

/// What `millrace log recover` works with.
async fn operator(cluster: &Cluster) -> (Arc<dyn EventLog>, Topology) {
    let context = Context::new("ordering").unwrap();
    let options = PgLogOptions {
        inline: millrace_ordering::inline_tables(),
        ..PgLogOptions::new(context)
    };
    let log = PgEventLog::open(cluster.log_pool.clone(), options)
        .await
        .unwrap();
    let names = Names::new(&cluster.namespace).unwrap();
    (
        Arc::new(log),
        Topology::new(cluster.jetstream.clone(), names, TopologyOptions::default()),
    )
}

/// The system works again, old history and new.
async fn goes_on(cluster: &Cluster, seed: &Seed, mut history: History) {
    let load = Load::start(cluster, &seed.part(7), &LoadOptions::default());
    load.wait_for(2 * SOME_COMMANDS, RECOVERY_BOUND).await;
    history.merge(load.stop().await);
    check::everything(cluster, &history).await;
}

#[tokio::test]
async fn a_restored_log_takes_its_end_back_from_the_stream() {
    let (cluster, seed, history) = Box::pin(restored("import")).await;
    let (log, topology) = operator(&cluster).await;
    import_tail_from_stream(&*log, &topology).await.unwrap();
    // Not one acknowledged command is lost.
    check::everything(&cluster, &history).await;
    goes_on(&cluster, &seed, history).await;
}

#[tokio::test]
async fn a_restored_log_begins_a_new_epoch() {
    let (cluster, seed, mut history) = Box::pin(restored("epoch")).await;
    let (log, topology) = operator(&cluster).await;
    let head = new_epoch(&*log, &topology).await.unwrap();
    assert_eq!(head.epoch.get(), 2);
    // What came after the copy is given up, everywhere.
    let (_, events) = check::log::read(&cluster.log_pool, "ordering").await;
    history.give_up_beyond(&events);
    check::everything(&cluster, &history).await;
    goes_on(&cluster, &seed, history).await;
}
