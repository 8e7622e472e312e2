use std::{process::Stdio, time::Duration};

use millrace_es::Position;
use millrace_eventlog::EventLog as _;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt as _, BufReader};

use crate::world::{SOON, World};

fn projection<'a>(standing: &'a Value, name: &str) -> &'a Value {
    let all = standing["projections"].as_array().unwrap();
    all.iter().find(|one| one["projection"] == name).unwrap()
}

#[tokio::test]
async fn relay_and_every_view_are_shown_with_what_they_lack() {
    let world = World::with_views().await;
    world.append(&["a", "b", "c"]).await;
    let lag = ["lag", "--once", "--output", "json"];
    let behind = world.run(lag).await.json();
    assert_eq!(behind["head"], 3);
    assert_eq!(behind["stream"], 0);
    assert_eq!(behind["relay_lag_events"], 3);
    for name in ["orders-by-user", "order-read-models", "order-statistics"] {
        let view = projection(&behind, name);
        assert_eq!(view["lag_events"], 3, "{view}");
        assert!(view["lag_seconds"].as_f64().unwrap() >= 0.0);
        assert_eq!(view["partitions"].as_array().unwrap().len(), 16);
    }

    world.publish().await;
    world.fold("order-read-models").await;
    world.fold("orders-by-user").await;
    let after = world.run(lag).await.json();
    assert_eq!(after["relay_lag_events"], 0);
    for (name, events) in [
        ("orders-by-user", 0),
        ("order-read-models", 0),
        ("order-statistics", 3),
    ] {
        assert_eq!(projection(&after, name)["lag_events"], events, "{name}");
    }
    assert_eq!(projection(&after, "orders-by-user")["lag_seconds"], 0.0);

    let table = world.run(["lag"]).await;
    assert_eq!(table.code, 0, "{}", table.err);
    assert!(table.out.contains("order-statistics"), "{}", table.out);
    assert!(!table.out.contains('\x1b'), "no terminal, no drawing over");
    let all = world.run(["lag", "--partitions"]).await;
    assert_eq!(all.out.lines().count(), 3 + 1 + 3 * 16, "{}", all.out);
}

#[tokio::test]
async fn a_watched_lag_is_printed_again_and_again() {
    let world = World::with_views().await;
    let args = ["lag", "--watch", "--output", "json"];
    let mut child = world.command(args).stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut next = async || {
        let line = tokio::time::timeout(SOON, lines.next_line()).await;
        serde_json::from_str::<Value>(&line.unwrap().unwrap().unwrap()).unwrap()
    };
    assert_eq!(next().await["head"], 0);
    world.append(&["a"]).await;
    while next().await["head"] != json!(1) {}
    world.log.halt("for a look").await.unwrap();
    while next().await["halted"] != json!("for a look") {}
    assert_eq!(world.log.head().await.unwrap().position, Position::new(1));
    child.kill().await.unwrap();
    // Killed in between, it leaves nothing to wait for.
    let ended = tokio::time::timeout(Duration::from_secs(5), child.wait()).await;
    assert!(ended.is_ok());
}
