//! Effects of reactions, while projectors and endpoints are killed.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use millrace_faults::{Cluster, ClusterOptions, Load, LoadOptions, Seed, check};
use millrace_parts::{serve_sns, topic_arn};
use millrace_testkit::{
    S3_ACCESS_KEY_ID, S3_BUCKET, S3_SECRET_ACCESS_KEY, S3Fault, eventually, s3,
};
use serde_json::Value;
use sqlx::Row as _;
use tokio::{net::TcpListener, task::JoinSet};

use crate::{RECOVERY_BOUND, SOME_COMMANDS, options};

/// How often a projector is killed.
const KILLS: usize = 6;

/// How long the last effects may take.
const EFFECTS_BOUND: Duration = Duration::from_secs(90);

/// How many events the log has, and how many of them are orders created.
async fn counted(cluster: &Cluster) -> (i64, i64) {
    let row = sqlx::query(
        "SELECT count(*), count(*) FILTER (WHERE event_type = 'order.created') FROM ordering.events",
    )
    .fetch_one(&cluster.log_pool)
    .await
    .unwrap();
    (row.get(0), row.get(1))
}

async fn shown(sns: &str) -> Value {
    let text = reqwest::get(sns).await.unwrap().text().await.unwrap();
    serde_json::from_str(&text).unwrap()
}

/// Whether every order's messages came in its order, of those that are still shown.
fn in_order(shown: &Value) {
    let mut versions: BTreeMap<&str, Vec<u64>> = BTreeMap::new();
    let messages = shown["messages"].as_array().unwrap();
    for one in messages.iter().rev() {
        let order = one["message_group_id"].as_str().unwrap();
        let version = one["message"]["streamversion"].as_u64().unwrap();
        versions.entry(order).or_default().push(version);
    }
    for (order, versions) in versions {
        let follow = versions.windows(2).all(|pair| pair[0] + 1 == pair[1]);
        assert!(follow, "{order}: {versions:?}");
    }
}

#[tokio::test]
async fn receipts_and_messages_are_there_once() {
    millrace_runtime::install_crypto();
    let store = s3().await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let sns = format!("http://{}", listener.local_addr().unwrap());
    let mut tasks = JoinSet::new();
    tasks.spawn(async move {
        let topics = ["orders.fifo".to_owned()];
        serve_sns(listener, &topics, std::future::pending())
            .await
            .unwrap();
    });
    let options = ClusterOptions {
        settings: vec![
            ("MILLRACE_RECEIPTS_URL", format!("s3://{S3_BUCKET}")),
            ("S3_ENDPOINT", store.endpoint()),
            ("S3_ACCESS_KEY_ID", S3_ACCESS_KEY_ID.to_owned()),
            ("S3_SECRET_ACCESS_KEY", S3_SECRET_ACCESS_KEY.to_owned()),
            ("MILLRACE_NOTIFICATIONS_TOPIC_ARN", topic_arn("orders.fifo")),
            ("SNS_ENDPOINT", sns.clone()),
        ],
        ..options()
    };
    let seed = Seed::new("reactions");
    let mut cluster = Cluster::start(options).await;
    let load = Load::start(&cluster, &seed, &LoadOptions::default());
    load.wait_for(SOME_COMMANDS, RECOVERY_BOUND).await;
    for nth in 0..KILLS {
        tokio::time::sleep(seed.millis(50, 700)).await;
        let victim = seed.index(cluster.projectors.len());
        cluster.projectors[victim].kill().await;
        // Effects that were performed and never answered, and none at all.
        store.hurt(match nth % 3 {
            0 => Some(S3Fault::NoAnswer),
            1 => Some(S3Fault::Status(503)),
            _ => None,
        });
        tokio::time::sleep(seed.millis(0, 600)).await;
        cluster.projectors[victim].restart();
    }
    store.hurt(None);
    cluster.wait_ready().await;
    load.wait_for(SOME_COMMANDS, RECOVERY_BOUND).await;
    let history = load.stop().await;
    check::everything(&cluster, &history).await;

    let (events, created) = counted(&cluster).await;
    let receipts = usize::try_from(created).unwrap() * 2;
    eventually("every order has its receipts", EFFECTS_BOUND, || async {
        (store.objects().len() >= receipts).then_some(())
    })
    .await;
    let shown = eventually("every event was told of", EFFECTS_BOUND, || async {
        let shown = shown(&sns).await;
        let sent = shown["topics"][0]["messages_sent"].as_i64()?;
        (sent >= events).then_some(shown)
    })
    .await;
    assert_eq!(store.objects().len(), receipts);
    assert_eq!(shown["topics"][0]["messages_sent"], events);
    in_order(&shown);
    let orders: BTreeSet<String> = store
        .objects()
        .into_keys()
        .filter_map(|key| {
            let name = key.rsplit('/').next()?;
            Some(name.rsplit_once('.')?.0.to_owned())
        })
        .collect();
    assert_eq!(orders.len() * 2, receipts);
}
