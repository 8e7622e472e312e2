use serde_json::Value;

use crate::run::{millrace, run};

/// Every part gives its figures; what they are worth is for a quiet machine and a release build.
async fn figures_of(part: &str, expected: &[&str]) {
    let file = tempfile::NamedTempFile::new().unwrap();
    let mut command = millrace(["bench", part, "--quick", "--json"]);
    command.arg(file.path());
    let ended = run(command).await;
    assert_eq!(ended.code, 0, "{}", ended.err);
    let report: Value = serde_json::from_slice(&std::fs::read(file.path()).unwrap()).unwrap();
    assert_eq!(report["quick"], true);
    let figures = report["figures"].as_array().unwrap();
    for name in expected {
        let figure = figures.iter().find(|figure| figure["name"] == *name);
        let figure = figure.unwrap_or_else(|| panic!("no {name}: {}", ended.out));
        assert!(figure["value"].as_f64().unwrap() > 0.0, "{figure}");
        assert!(ended.out.contains(name), "{}", ended.out);
    }
}

#[tokio::test]
async fn commands_are_measured() {
    let expected = ["commands.max", "commands.half.p99", "commands_alone.max"];
    figures_of("commands", &expected).await;
}

#[tokio::test]
async fn reads_are_measured() {
    figures_of("reads", &["reads.order.max", "reads.orders_by_user.max"]).await;
}

#[tokio::test]
async fn the_time_until_a_write_is_readable_is_measured() {
    figures_of(
        "readable",
        &["readable.postgres.p50", "readable.dynamodb.p99"],
    )
    .await;
}

#[tokio::test]
async fn the_log_and_its_relay_are_measured() {
    figures_of("append", &["append.events_only", "append.alone_p50"]).await;
    figures_of("relay", &["relay.publish", "relay.consume"]).await;
}

#[tokio::test]
async fn what_replays_cost_the_others_is_measured() {
    let expected = ["replays.load.unthrottled", "replays.switch.slowest_read"];
    figures_of("replays", &expected).await;
}

#[tokio::test]
async fn growth_is_measured() {
    let expected = ["growth.appends", "growth.commands", "growth.reads"];
    figures_of("growth", &expected).await;
}

#[tokio::test]
async fn an_unoptimised_build_refuses_to_be_measured() {
    if cfg!(debug_assertions) {
        let ended = run(millrace(["bench", "append"])).await;
        assert_eq!(ended.code, 5, "{}", ended.err);
    }
}
