//! `millrace verify`: exit codes, what it names, what it remembers, and what a projector shows of it.

use std::{path::Path, time::Duration};

use millrace_testkit::{Process, eventually, free_port, http_get};
use serde_json::Value;
use sqlx::{AssertSqlSafe, Row as _};

use crate::{
    run::{Ended, run},
    world::{World, ordering},
};

const BOUND: Duration = Duration::from_secs(60);

/// Three orders that every view has seen, and the stream too.
async fn seen() -> World {
    let world = World::with_views().await;
    world.append(&["a", "b", "c", "a"]).await;
    world.publish().await;
    for view in millrace_ordering::projections() {
        world.fold(view.name()).await;
    }
    world
}

async fn verify(world: &World, more: &[&str]) -> Ended {
    let mut command = world.command([&["verify", "--output", "json"], more].concat());
    command.env("MILLRACE_CONTEXTS", "ordering,customers");
    run(command).await
}

#[track_caller]
fn outcome(ended: &Ended, code: i32, list: &str, name: &str) -> Value {
    assert_eq!(ended.code, code, "{}\n{}", ended.err, ended.out);
    let report: Value = serde_json::from_str(&ended.out).unwrap();
    let all = report[list].as_array().unwrap().clone();
    let named = |one: &Value| one["projection"] == name || one["context"] == name;
    all.into_iter().find(named).unwrap()
}

/// Does something to the orders as they are read.
async fn damage(world: &World, sql: &str) {
    let place: String = sqlx::query(
        "SELECT schema_name FROM projections.generations WHERE projection = 'order-read-models'",
    )
    .fetch_one(&world.database.pool)
    .await
    .unwrap()
    .get(0);
    let sql = sql.replace("ORDERS", &format!("{place}.order_read_models"));
    sqlx::raw_sql(AssertSqlSafe(sql))
        .execute(&world.database.pool)
        .await
        .unwrap();
}

#[tokio::test]
async fn a_changed_row_is_found_named_remembered_and_shown() {
    let world = seen().await;
    let equal = verify(&world, &[]).await;
    for (name, checked) in [("orders-by-user", 3), ("order-read-models", 3)] {
        let view = outcome(&equal, 0, "projections", name);
        assert_eq!(view["result"], "equal", "{view}");
        assert_eq!(view["checked"], checked, "{view}");
    }
    let sums = outcome(&equal, 0, "projections", "order-statistics");
    assert_eq!(sums["result"], "equal", "{sums}");
    assert!(sums["rows"].as_u64().unwrap() > 2, "{sums}");
    let other = outcome(&equal, 0, "projections", "user-profiles");
    assert_eq!(other["result"], "skipped", "{other}");
    let stream = outcome(&equal, 0, "streams", "ordering");
    assert_eq!(
        (&stream["result"], &stream["checked"]),
        (&"equal".into(), &4.into())
    );

    damage(&world, "UPDATE ORDERS SET total_amount = 1 WHERE id = 'b'").await;
    let different = verify(&world, &[]).await;
    let view = outcome(&different, 6, "projections", "order-read-models");
    assert_eq!(view["differences"], 1, "{view}");
    let named = &view["named"][0];
    assert_eq!(named["key"], "order-b", "{view}");
    assert_eq!(named["row"], "order_read_models/b", "{view}");
    assert_eq!(
        named["columns"],
        serde_json::json!(["total_amount"]),
        "{view}"
    );
    assert!(named["position"].as_u64().is_some(), "{view}");
    assert!(
        different.err.contains("order-read-models"),
        "{}",
        different.err
    );

    // A run of one key keeps nothing; the next one looks again at what differed.
    let one = verify(&world, &["--key", "order-a"]).await;
    assert_eq!(
        outcome(&one, 0, "projections", "order-read-models")["checked"],
        1
    );
    for seed in ["1", "2", "3", "4"] {
        let few = [
            "--sample",
            "1",
            "--seed",
            seed,
            "--projection",
            "order-read-models",
        ];
        let again = verify(&world, &few).await;
        outcome(&again, 6, "projections", "order-read-models");
    }
    shown(&world, "1").await;

    damage(
        &world,
        "UPDATE ORDERS SET total_amount = 12.50 WHERE id = 'b'",
    )
    .await;
    let repaired = verify(&world, &[]).await;
    assert_eq!(
        outcome(&repaired, 0, "projections", "order-read-models")["differences"],
        0
    );
}

/// A projector shows what the last check came to, and which key it was.
async fn shown(world: &World, differences: &str) {
    let admin = free_port();
    let settings = [
        ("DATABASE_URL", world.database.url.clone()),
        ("NATS_URL", world.nats.url.clone()),
        ("DYNAMODB_ENDPOINT", world.dynamodb.endpoint.clone()),
        ("MILLRACE_NAMESPACE", world.nats.namespace.clone()),
        ("MILLRACE_CONTEXTS", "ordering,customers".to_owned()),
        ("MILLRACE_ADMIN_LISTEN", format!("127.0.0.1:{admin}")),
    ];
    let program = Path::new(env!("CARGO_BIN_EXE_millrace"));
    let mut projector = Process::start(program, &["role", "projector"], &settings);
    projector.wait_ready(admin, "/readyz", BOUND).await;
    let labels = r#"{context="ordering",projection="order-read-models"}"#;
    eventually("the projector to show the check", BOUND, || async {
        let (_, text) = http_get(admin, "/metrics", BOUND).await.ok()?;
        let line = format!("millrace_verify_differences{labels} {differences}");
        let all = [
            line.as_str(),
            "millrace_verify_keys_checked",
            "millrace_verify_last_timestamp_seconds",
            r#"millrace_verify_differs{context="ordering",projection="order-read-models",key="order-b"} 1"#,
            r#"millrace_verify_stream_differences{context="ordering"} 0"#,
        ];
        all.iter().all(|part| text.contains(part)).then_some(())
    })
    .await;
    projector.terminate().await;
}

#[tokio::test]
async fn a_foreign_event_in_a_stream_is_found_and_what_cannot_be_asked_is_said() {
    let world = seen().await;
    let subject = {
        let stream = world.topology.names().stream(&ordering());
        let stream = world.nats.jetstream.get_stream(stream).await.unwrap();
        let message = stream.get_raw_message(4).await.unwrap();
        message.subject.to_string()
    };
    let published = world.nats.jetstream.publish(subject, "somebody's".into());
    published.await.unwrap().await.unwrap();
    let ahead = verify(&world, &[]).await;
    let stream = outcome(&ahead, 6, "streams", "ordering");
    assert_eq!(stream["differences"], 1, "{stream}");
    world.append(&["d"]).await;
    let foreign = verify(&world, &["--context", "ordering"]).await;
    let stream = outcome(&foreign, 6, "streams", "ordering");
    assert_eq!(stream["positions"][0]["position"], 5, "{stream}");
    // A view that is behind is not different.
    let view = outcome(&foreign, 6, "projections", "order-read-models");
    assert_eq!(view["result"], "equal", "{view}");

    let mut away = world.command(["verify", "--output", "json"]);
    away.env("MILLRACE_CONTEXTS", "ordering,customers")
        .env("NATS_URL", "nats://127.0.0.1:1");
    let away = run(away).await;
    let stream = outcome(&away, 4, "streams", "ordering");
    assert_eq!(stream["result"], "unchecked", "{stream}");
    let unknown = verify(&world, &["--projection", "nothing"]).await;
    assert_eq!(unknown.code, 3, "{}", unknown.err);
}
