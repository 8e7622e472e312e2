use std::time::Duration;

use serde_json::{Value, json};

use crate::{run::Ended, world::World};

const VIEW: &str = "order-read-models";

/// Order `a` has a poison event (2) and another behind it (4), order `b` is well.
async fn poisoned() -> World {
    let world = World::with_views().await;
    world.append(&["a"]).await;
    world
        .append_as("order.status_updated", &["a"], json!({"to": "nowhere"}))
        .await;
    world.append(&["b", "a"]).await;
    world.fold(VIEW).await;
    world
}

fn positions(letters: &Value) -> Vec<u64> {
    let letters = letters.as_array().unwrap();
    letters
        .iter()
        .map(|letter| letter["position"].as_u64().unwrap())
        .collect()
}

/// A command, while the owner of the partitions does what is asked for.
async fn beside_owner(world: &World, args: &[&str]) -> Ended {
    let command = world.run(args.iter().copied());
    let owner = async {
        loop {
            world.settle(VIEW).await;
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::select! {
        ended = command => ended,
        () = owner => unreachable!("it goes on for ever"),
    }
}

#[tokio::test]
async fn letters_are_listed_by_every_filter_and_shown_whole() {
    let world = poisoned().await;
    let list = ["dead-letters", "list", "--output", "json"];
    let filtered = async |filter: &[&str]| {
        let args = list.into_iter().chain(filter.iter().copied());
        positions(&world.run(args).await.json())
    };
    assert_eq!(filtered(&[]).await, [2, 4]);
    assert_eq!(filtered(&["--projection", VIEW]).await, [2, 4]);
    assert_eq!(
        filtered(&["--projection", "order-statistics"]).await,
        [0_u64; 0]
    );
    assert_eq!(filtered(&["--key", "order-a"]).await, [2, 4]);
    assert_eq!(filtered(&["--key", "order-b"]).await, [0_u64; 0]);
    assert_eq!(filtered(&["--reason", "malformed"]).await, [2]);
    assert_eq!(filtered(&["--reason", "follows"]).await, [4]);
    assert_eq!(filtered(&["--position", "4"]).await, [4]);
    assert_eq!(filtered(&["--from", "2020-01-01T00:00:00Z"]).await, [2, 4]);
    assert_eq!(
        filtered(&["--to", "2020-01-01T00:00:00Z"]).await,
        [0_u64; 0]
    );
    assert_eq!(filtered(&["--limit", "1"]).await, [2]);
    assert_eq!(filtered(&["--status", "discarded"]).await, [0_u64; 0]);
    let table = world.run(["dead-letters", "list"]).await;
    assert!(table.out.contains("malformed"), "{}", table.out);

    let shown = world.run(["dead-letters", "show", VIEW, "2"]).await;
    assert!(shown.out.contains(r#"{"to":"nowhere"}"#), "{}", shown.out);
    let missing = world.run(["dead-letters", "show", VIEW, "3"]).await;
    assert_eq!(missing.code, 3, "{}", missing.err);
    let unknown = world
        .run(["dead-letters", "list", "--projection", "nothing"])
        .await;
    assert_eq!(unknown.code, 2, "{}", unknown.err);
}

#[tokio::test]
async fn a_redrive_says_what_came_of_it() {
    let world = poisoned().await;
    let redrive = ["dead-letters", "redrive", "--output", "json"];
    let undecided = world.run(redrive).await;
    assert_eq!(
        undecided.code, 2,
        "which ones has to be said: {}",
        undecided.err
    );
    let nobody = world
        .run(redrive.into_iter().chain(["--key", "order-z"]))
        .await;
    assert_eq!(nobody.code, 3, "{}", nobody.err);

    // Nobody owns the partitions: it is asked for and not done.
    let args = ["--all", "--wait", "1"];
    let waiting = world.run(redrive.into_iter().chain(args)).await;
    assert_eq!(waiting.code, 4, "{}", waiting.err);

    let args: Vec<_> = redrive.into_iter().chain(["--key", "order-a"]).collect();
    let outcomes = beside_owner(&world, &args).await.json();
    assert_eq!(outcomes[0]["stream"], "order-a");
    let outcome = outcomes[0]["outcome"].as_str().unwrap();
    assert!(outcome.contains("failed again"), "{outcome}");
}

#[tokio::test]
async fn what_is_discarded_is_given_up_and_the_rest_redriven() {
    let world = poisoned().await;
    let discard = [
        "dead-letters",
        "discard",
        "--position",
        "2",
        "--output",
        "json",
    ];
    let unconfirmed = world.run(discard).await;
    assert_eq!(unconfirmed.code, 5, "{}", unconfirmed.err);
    let args: Vec<_> = discard.into_iter().chain(["--yes"]).collect();
    let outcomes = beside_owner(&world, &args).await.json();
    assert!(
        outcomes[0]["outcome"]
            .as_str()
            .unwrap()
            .contains("1 discarded")
    );
    let args = ["dead-letters", "redrive", "--all", "--output", "json"];
    let outcomes = beside_owner(&world, &args).await.json();
    assert!(
        outcomes[0]["outcome"]
            .as_str()
            .unwrap()
            .contains("1 redriven")
    );
    let left = world
        .run(["dead-letters", "list", "--output", "json"])
        .await
        .json();
    assert_eq!(left, json!([]));
}
