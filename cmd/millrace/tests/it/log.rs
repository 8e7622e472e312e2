use serde_json::json;

use crate::world::World;

const RECOVER: [&str; 4] = ["log", "recover", "--context", "ordering"];

/// A log that lost positions 3 and 4, which its stream kept.
async fn behind() -> World {
    let mut world = World::new().await;
    world.append(&["a", "b", "a", "c"]).await;
    world.publish().await;
    world.lose_after(2).await;
    world.log_halt().await;
    world
}

impl World {
    async fn log_halt(&self) {
        use millrace_eventlog::EventLog as _;
        self.log.halt("the stream is ahead").await.unwrap();
    }
}

#[tokio::test]
async fn status_holds_log_and_stream_against_each_other() {
    let mut world = World::new().await;
    let status = ["log", "status", "--output", "json"];
    let empty = world.run(status).await.json();
    assert_eq!(empty["head"], 0);
    assert_eq!(empty["verdict"], json!({"state": "even"}));
    world.append(&["a", "b"]).await;
    let ahead = world.run(status).await.json();
    assert_eq!(
        ahead["verdict"],
        json!({"state": "stream_behind", "events": 2})
    );
    world.publish().await;
    let even = world.run(status).await.json();
    assert_eq!(even["verdict"], json!({"state": "even"}));
    assert_eq!(even["stream"], json!({"first": 1, "last": 2, "events": 2}));

    world.lose_after(1).await;
    let behind = world.run(status).await.json();
    assert_eq!(
        behind["verdict"],
        json!({"state": "log_behind", "events": 1})
    );
    world.append(&["x"]).await;
    let differs = world.run(status).await.json();
    assert_eq!(differs["verdict"]["state"], "differs");
    assert_eq!(differs["verdict"]["position"], 2);
    let table = world.run(["log", "status"]).await;
    assert!(table.out.contains("differ at position 2"), "{}", table.out);
}

#[tokio::test]
async fn nothing_is_done_without_a_yes() {
    let world = behind().await;
    for way in ["--import-from-stream", "--new-epoch"] {
        let refused = world.run(RECOVER.into_iter().chain([way])).await;
        assert_eq!(refused.code, 5, "{}", refused.err);
        assert!(refused.err.contains(way), "{}", refused.err);
        let dry = world
            .run(RECOVER.into_iter().chain([way, "--dry-run"]))
            .await;
        assert_eq!(dry.code, 0, "{}", dry.err);
    }
    assert_eq!(world.head().await, 2);
    assert_eq!(world.run(RECOVER).await.code, 2);
}

#[tokio::test]
async fn the_stream_gives_back_what_the_log_lost() {
    let world = behind().await;
    let args = ["--import-from-stream", "--yes", "--output", "json"];
    let after = world.run(RECOVER.into_iter().chain(args)).await.json();
    assert_eq!(after["head"], 4);
    assert_eq!(after["halted"], json!(null));
    assert_eq!(after["verdict"], json!({"state": "even"}));
    // Appends go on after what came back.
    world.append(&["a"]).await;
    assert_eq!(world.head().await, 5);
}

#[tokio::test]
async fn a_new_epoch_gives_up_what_only_the_stream_has() {
    let world = behind().await;
    let args = ["--new-epoch", "--yes", "--output", "json"];
    let ended = world.run(RECOVER.into_iter().chain(args)).await;
    assert!(
        ended.err.contains("2 events that only the stream has"),
        "{}",
        ended.err
    );
    let after = ended.json();
    assert_eq!((&after["head"], &after["epoch"]), (&json!(2), &json!(2)));
    assert_eq!(after["halted"], json!(null));
    world.append(&["a"]).await;
    assert_eq!(world.head().await, 3);
}

#[tokio::test]
async fn only_what_continues_the_log_is_taken_back() {
    let mut world = behind().await;
    let subject = format!("{}.ordering.3.order-created", world.nats.namespace);
    let published = world.nats.jetstream.publish(subject, "what?".into()).await;
    published.unwrap().await.unwrap();
    let args = ["--import-from-stream", "--yes"];
    let ended = world.run(RECOVER.into_iter().chain(args)).await;
    assert_eq!(ended.code, 0, "{}", ended.err);
    assert!(
        ended.err.contains("up to 5, are no events of this log"),
        "{}",
        ended.err
    );
    assert_eq!(world.head().await, 4);
    // What differs is refused whole.
    world.lose_after(1).await;
    world.append(&["x"]).await;
    let refused = world.run(RECOVER.into_iter().chain(args)).await;
    assert_eq!(refused.code, 5, "{}", refused.err);
    assert_eq!(world.head().await, 2);
}
