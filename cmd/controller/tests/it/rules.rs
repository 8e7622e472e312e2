//! The rules that the API server keeps, one by one.

use serde_json::{Value, json};

use crate::world::World;

fn rebuild() -> Value {
    json!({"type": "Rebuild", "rebuild": {"projection": "orders"}})
}

fn with(mut spec: Value, more: Value) -> Value {
    let (Value::Object(spec_fields), Value::Object(more)) = (&mut spec, more) else {
        panic!("objects")
    };
    spec_fields.extend(more);
    spec
}

#[tokio::test]
async fn a_spec_has_exactly_the_body_of_its_type() {
    let world = World::new().await;
    let redrive = json!({"projection": "orders"});
    let rollback = json!({"projection": "orders", "toGeneration": "g1"});
    let refused = [
        (
            json!({"type": "Rebuild"}),
            "rebuild must be given when type is Rebuild",
        ),
        (
            json!({"type": "Redrive"}),
            "redrive must be given when type is Redrive",
        ),
        (
            json!({"type": "Rollback"}),
            "rollback must be given when type is Rollback",
        ),
        (
            with(rebuild(), json!({"redrive": redrive})),
            "redrive must be given when type is Redrive",
        ),
        (
            with(rebuild(), json!({"rollback": rollback})),
            "rollback must be given when type is Rollback",
        ),
        (
            with(rebuild(), json!({"type": "Redrive"})),
            "rebuild must be given when type is Rebuild",
        ),
        (
            with(rebuild(), json!({"type": "Rewind"})),
            "Unsupported value: \"Rewind\"",
        ),
        (
            json!({"rebuild": {"projection": "orders"}}),
            "spec.type: Required value",
        ),
        (
            json!({"type": "Rebuild", "rebuild": null}),
            "rebuild must be given when type is Rebuild",
        ),
    ];
    for (spec, expected) in refused {
        let said = world.post("wrong", spec.clone()).await.unwrap_err();
        assert!(said.contains(expected), "{spec}: {said}");
    }
    world.post("a", rebuild()).await.unwrap();
    world
        .post("b", json!({"type": "Redrive", "redrive": redrive}))
        .await
        .unwrap();
    world
        .post("c", json!({"type": "Rollback", "rollback": rollback}))
        .await
        .unwrap();
    world
        .post("d", with(rebuild(), json!({"redrive": null})))
        .await
        .unwrap();
}

#[tokio::test]
async fn values_have_bounds() {
    let world = World::new().await;
    let rebuild_of = |body: Value| json!({"type": "Rebuild", "rebuild": with(json!({"projection": "orders"}), body)});
    let redrive_of = |selector: Value| json!({"type": "Redrive", "redrive": {"projection": "orders", "selector": selector}});
    let keys: Vec<_> = (0..101).map(|number| format!("order-{number}")).collect();
    for spec in [
        rebuild_of(json!({"projection": ""})),
        rebuild_of(json!({"projection": "Orders"})),
        rebuild_of(json!({"projection": "o".repeat(64)})),
        rebuild_of(json!({"parallelism": 0})),
        rebuild_of(json!({"parallelism": 65})),
        rebuild_of(json!({"verify": {"mode": "Some"}})),
        rebuild_of(json!({"verify": {"maxMismatches": -1}})),
        rebuild_of(json!({"cutover": {"strategy": "Never"}})),
        rebuild_of(json!({"cutover": {"timeoutSeconds": 0}})),
        with(rebuild(), json!({"throttle": {"maxEventsPerSecond": -1}})),
        with(rebuild(), json!({"backoffLimit": -1})),
        with(rebuild(), json!({"activeDeadlineSeconds": 0})),
        with(rebuild(), json!({"ttlSecondsAfterFinished": -1})),
        with(rebuild(), json!({"onConflict": "Ignore"})),
        redrive_of(json!({"positions": {"from": 0}})),
        redrive_of(json!({"since": "yesterday"})),
        redrive_of(json!({"reasonClass": "Unlucky"})),
        redrive_of(json!({"keys": keys})),
        json!({"type": "Rollback", "rollback": {"projection": "orders", "toGeneration": "1"}}),
    ] {
        assert!(world.post("wrong", spec.clone()).await.is_err(), "{spec}");
    }
}

#[tokio::test]
async fn what_is_asked_for_cannot_be_changed() {
    let world = World::new().await;
    world.post("one", rebuild()).await.unwrap();
    let redrive = json!({"projection": "orders"});
    world
        .post("two", json!({"type": "Redrive", "redrive": redrive}))
        .await
        .unwrap();
    let rollback = json!({"projection": "orders", "toGeneration": "g1"});
    world
        .post("three", json!({"type": "Rollback", "rollback": rollback}))
        .await
        .unwrap();
    for (name, change, expected) in [
        ("one", json!({"type": "Redrive"}), "type is immutable"),
        (
            "one",
            json!({"rebuild": {"projection": "others"}}),
            "rebuild is immutable",
        ),
        (
            "one",
            json!({"rebuild": {"parallelism": 2}}),
            "rebuild is immutable",
        ),
        (
            "one",
            json!({"rebuild": {"verify": {"mode": "None"}}}),
            "rebuild is immutable",
        ),
        (
            "one",
            json!({"rebuild": {"cutover": {"maxLag": 1}}}),
            "rebuild is immutable",
        ),
        ("one", json!({"rebuild": null}), "rebuild is immutable"),
        ("one", json!({"redrive": redrive}), "redrive is immutable"),
        (
            "one",
            json!({"rollback": rollback}),
            "rollback is immutable",
        ),
        ("one", json!({"dryRun": true}), "dryRun is immutable"),
        (
            "two",
            json!({"redrive": {"selector": {"keys": ["order-1"]}}}),
            "redrive is immutable",
        ),
        (
            "two",
            json!({"redrive": {"maxMessages": 1}}),
            "redrive is immutable",
        ),
        (
            "two",
            json!({"redrive": {"action": "Discard"}}),
            "redrive is immutable",
        ),
        (
            "three",
            json!({"rollback": {"toGeneration": "g2"}}),
            "rollback is immutable",
        ),
    ] {
        let said = world.patch(name, change.clone()).await.unwrap_err();
        assert!(said.contains(expected), "{change}: {said}");
    }
}

#[tokio::test]
async fn how_it_goes_on_may_be_changed() {
    let world = World::new().await;
    world.post("one", rebuild()).await.unwrap();
    for change in [
        json!({"throttle": {"maxEventsPerSecond": 10}}),
        json!({"throttle": {"maxEventsPerSecond": 20}}),
        json!({"throttle": null}),
        json!({"suspend": true}),
        json!({"suspend": false}),
        json!({"backoffLimit": 1}),
        json!({"activeDeadlineSeconds": 10}),
        json!({"ttlSecondsAfterFinished": 10}),
        json!({"approve": true}),
        json!({"cancel": true}),
    ] {
        world.patch("one", change).await.unwrap();
    }
}

#[tokio::test]
async fn approve_and_cancel_cannot_be_taken_back() {
    let world = World::new().await;
    world
        .post(
            "one",
            with(rebuild(), json!({"approve": true, "cancel": true})),
        )
        .await
        .unwrap();
    for (change, expected) in [
        (json!({"approve": false}), "approve cannot be taken back"),
        (json!({"approve": null}), "approve cannot be taken back"),
        (json!({"cancel": false}), "cancel cannot be taken back"),
        (json!({"cancel": null}), "cancel cannot be taken back"),
    ] {
        let said = world.patch("one", change.clone()).await.unwrap_err();
        assert!(said.contains(expected), "{change}: {said}");
    }
}

#[tokio::test]
async fn a_cancel_is_refused_once_the_switch_has_begun() {
    let world = World::new().await;
    let begun = json!({"cutoverStarted": "2026-11-01T00:00:00Z"});
    world.post("one", rebuild()).await.unwrap();
    world.patch_status("one", begun.clone()).await.unwrap();
    let said = world
        .patch("one", json!({"cancel": true}))
        .await
        .unwrap_err();
    assert!(said.contains("the switch has begun"), "{said}");
    world.patch("one", json!({"suspend": true})).await.unwrap();
    // A cancel that came before stays, and does not stand in the way of the status.
    world
        .post("two", with(rebuild(), json!({"cancel": true})))
        .await
        .unwrap();
    world.patch_status("two", begun).await.unwrap();
    world.patch("two", json!({"suspend": true})).await.unwrap();
}
