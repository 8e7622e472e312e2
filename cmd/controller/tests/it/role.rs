//! The role as a whole: its settings, its admin port, its end.

use std::sync::Arc;
use std::time::Duration;

use millrace_controller::{Settings, run_on};
use millrace_replay::ReplaySpec;
use millrace_runtime::config::parse_arguments;
use millrace_testkit::{eventually, free_port, http_get, own_kubernetes};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::world::{BOUND, World, succeeded};

/// What the admin port says, once it says it with this status.
async fn asked(port: u16, path: &str, status: u16) -> String {
    eventually(&format!("{path} to say {status}"), BOUND, || async {
        let (said, body) = http_get(port, path, Duration::from_secs(3)).await.ok()?;
        (said == status).then_some(body)
    })
    .await
}

#[tokio::test]
async fn the_role_says_what_it_waits_for_drives_and_ends() {
    let server = own_kubernetes().await;
    let world = World::bare(server.namespace().await).await;
    let port = free_port();
    let admin = format!("127.0.0.1:{port}");
    let namespace = &world.kubernetes.namespace;
    let arguments = [
        "millrace-controller",
        // Not asked here: the engine is the test's.
        "--database-url",
        "postgres://127.0.0.1/x",
        "--admin-listen",
        &admin,
        "--watch-namespace",
        namespace,
        "--rebuild-by",
        "projector",
        "--pod-name",
        "controller-0",
    ];
    let settings: Settings = parse_arguments(arguments.map(Into::into)).unwrap();
    let stop = CancellationToken::new();
    let config = world.kubernetes.config().await;
    let engine = Arc::clone(&world.engine);
    let mut role = JoinSet::new();
    role.spawn(run_on(config, settings, engine, Vec::new(), stop.clone()));
    let waits = asked(port, "/readyz", 503).await;
    assert!(waits.contains("replays"), "{waits}");
    let metric = |body: &str, value: &str| {
        body.contains(&format!("millrace_replay_resource_missing {value}\n"))
    };
    eventually(
        "the metric to say that the resource is missing",
        BOUND,
        || async { metric(&asked(port, "/metrics", 200).await, "1").then_some(()) },
    )
    .await;
    asked(port, "/livez", 200).await;

    world.define().await;
    asked(port, "/readyz", 200).await;
    assert!(metric(&asked(port, "/metrics", 200).await, "0"));
    world.create("one", ReplaySpec::rebuild("orders")).await;
    assert!(succeeded(&world.until_ended("one").await));
    eventually("the metrics to tell of the replay", BOUND, || async {
        let body = asked(port, "/metrics", 200).await;
        let told = |line: &str| body.contains(&format!("{line}\n"));
        let done = told("millrace_replays{phase=\"Succeeded\"} 1");
        (done && told("millrace_replays{phase=\"Failed\"} 0")).then_some(())
    })
    .await;
    stop.cancel();
    let ended = tokio::time::timeout(BOUND, role.join_next()).await;
    ended.expect("the role ends").unwrap().unwrap().unwrap();
}
