use std::process::Stdio;

use serde_json::Value;
use tokio::io::{AsyncBufReadExt as _, BufReader};

use crate::world::{SOON, World};

fn positions(lines: &[Value]) -> Vec<u64> {
    lines
        .iter()
        .map(|line| line["position"].as_u64().unwrap())
        .collect()
}

#[tokio::test]
async fn the_log_and_the_stream_are_printed_from_a_position() {
    let world = World::new().await;
    world.append(&["a", "b", "c", "d"]).await;
    world.publish().await;
    for source in ["log", "stream"] {
        let args = ["events", "tail", "--source", source, "--output", "json"];
        let all = world
            .run(args.into_iter().chain(["--no-follow"]))
            .await
            .json_lines();
        assert_eq!(positions(&all), [1, 2, 3, 4], "{source}");
        assert_eq!(all[1]["stream"], "order-b");
        assert_eq!(all[1]["payload"]["order_id"], "b");
        let some = ["--from", "2", "--limit", "2"];
        let some = world.run(args.into_iter().chain(some)).await.json_lines();
        assert_eq!(positions(&some), [2, 3], "{source}");
    }
    let table = world.run(["events", "tail", "--no-follow"]).await;
    assert_eq!(table.out.lines().count(), 5, "{}", table.out);
    assert!(table.out.contains("order.created"));
}

#[tokio::test]
async fn what_happens_later_is_followed() {
    let world = World::new().await;
    world.append(&["before"]).await;
    world.publish().await;
    for (source, order) in [("log", "later"), ("stream", "latest")] {
        let args = [
            "events", "tail", "--source", source, "--from", "1", "--output", "json",
        ];
        let mut child = world.command(args).stdout(Stdio::piped()).spawn().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut next = async || {
            let line = tokio::time::timeout(SOON, lines.next_line()).await;
            serde_json::from_str::<Value>(&line.unwrap().unwrap().unwrap()).unwrap()
        };
        assert_eq!(next().await["stream"], "order-before");
        if source == "stream" {
            assert_eq!(next().await["stream"], "order-later");
        }
        world.append(&[order]).await;
        world.publish().await;
        assert_eq!(next().await["stream"], format!("order-{order}"));
        // Ctrl-C ends it, and that is no failure.
        let pid = child.id().unwrap().to_string();
        let interrupt = tokio::process::Command::new("kill")
            .args(["-INT", &pid])
            .status();
        assert!(interrupt.await.unwrap().success());
        assert!(child.wait().await.unwrap().success());
    }
}

#[tokio::test]
async fn a_foreign_message_is_shown_as_one() {
    let world = World::new().await;
    world.append(&["a"]).await;
    world.publish().await;
    let subject = format!("{}.ordering.3.order-created", world.nats.namespace);
    let published = world.nats.jetstream.publish(subject, "what?".into()).await;
    published.unwrap().await.unwrap();
    let args = ["events", "tail", "--source", "stream", "--no-follow"];
    let lines = world
        .run(args.into_iter().chain(["--output", "json"]))
        .await
        .json_lines();
    assert_eq!(positions(&lines), [1, 2]);
    assert!(lines[1]["foreign"].is_string(), "{}", lines[1]);
    assert!(world.run(args).await.out.contains("foreign: "));
}

#[tokio::test]
async fn one_order_has_its_audit_trail() {
    let world = World::new().await;
    world.append(&["a", "b", "a", "a"]).await;
    for name in ["a", "order-a"] {
        let args = ["events", "stream", name, "--output", "json"];
        let lines = world.run(args).await.json_lines();
        assert_eq!(positions(&lines), [1, 3, 4]);
        let args = args.into_iter().chain(["--from", "2", "--limit", "1"]);
        assert_eq!(positions(&world.run(args).await.json_lines()), [3]);
    }
    let missing = world.run(["events", "stream", "nobody"]).await;
    assert_eq!(missing.code, 3, "{}", missing.err);
    let no_log = world.run(["events", "tail", "--context", "banking"]).await;
    assert_eq!(no_log.code, 3, "{}", no_log.err);
}

#[tokio::test]
async fn a_server_that_is_not_there_is_named_without_its_password() {
    let world = World::new().await;
    let mut command = world.command(["events", "tail", "--no-follow"]);
    command.env("DATABASE_URL", "postgres://me:secret@127.0.0.1:9/x");
    let ended = crate::run::run(command).await;
    assert_eq!(ended.code, 4);
    assert!(ended.err.contains("127.0.0.1:9"), "{}", ended.err);
    assert!(!ended.err.contains("secret"), "{}", ended.err);
    let mut command = world.command(["log", "status"]);
    command.env("NATS_URL", "nats://me:secret@127.0.0.1:9");
    let ended = crate::run::run(command).await;
    assert_eq!(ended.code, 4);
    assert!(!ended.err.contains("secret"), "{}", ended.err);
}
