//! A DynamoDB that is slow, throttles, contradicts itself or is away.

use std::time::Duration;

use millrace_faults::{
    Cluster, ClusterOptions, Load, LoadOptions, Seed, check, dynamo_proxy::DynamoProxy,
};

use crate::{RECOVERY_BOUND, SOME_COMMANDS, options};

async fn proxied(seed: &Seed) -> (DynamoProxy, Cluster) {
    let endpoint = millrace_testkit::dynamodb().await.endpoint;
    let proxy = DynamoProxy::start(endpoint, seed.part(50)).await;
    let options = ClusterOptions {
        dynamodb: Some(proxy.endpoint()),
        ..options()
    };
    (proxy, Cluster::start(options).await)
}

#[tokio::test]
async fn dynamodb_refuses_and_contradicts() {
    let seed = Seed::new("refusals");
    let (proxy, cluster) = proxied(&seed).await;
    let load = Load::start(&cluster, &seed, &LoadOptions::default());
    for percent in [5, 30] {
        proxy.throttle(percent);
        load.wait_for(SOME_COMMANDS, RECOVERY_BOUND).await;
        proxy.conflict(percent);
        load.wait_for(SOME_COMMANDS, RECOVERY_BOUND).await;
        proxy.fail(percent);
        proxy.lose_answers(percent);
        load.wait_for(SOME_COMMANDS, RECOVERY_BOUND).await;
    }
    assert!(proxy.injected() > 20, "nothing was shown");
    proxy.heal();
    load.wait_for(SOME_COMMANDS, RECOVERY_BOUND).await;
    let history = load.stop().await;
    check::everything(&cluster, &history).await;
}

#[tokio::test]
async fn a_dead_dynamodb_stops_its_own_view_only() {
    let seed = Seed::new("dead dynamodb");
    let (proxy, cluster) = proxied(&seed).await;
    let load = Load::start(&cluster, &seed, &LoadOptions::default());
    load.wait_for(SOME_COMMANDS, RECOVERY_BOUND).await;
    proxy.fail(100);
    load.wait_for(SOME_COMMANDS, RECOVERY_BOUND).await;
    check::postgres_views_move(&cluster, RECOVERY_BOUND).await;
    proxy.heal();
    proxy.delay(Duration::from_secs(2));
    load.wait_for(SOME_COMMANDS, RECOVERY_BOUND).await;
    check::postgres_views_move(&cluster, RECOVERY_BOUND).await;
    proxy.heal();
    let history = load.stop().await;
    check::everything(&cluster, &history).await;
}
