//! Replays from the wish to the end.

use std::time::Duration;

use kube::api::{DeleteParams, Preconditions};
use millrace_controller::FINALIZER;
use millrace_replay::testing::EVENTS;
use millrace_replay::{CutoverStrategy, EngineError, OnConflict, ReplaySpec};
use millrace_testkit::eventually;
use serde_json::json;

use crate::world::{BOUND, World, shown, succeeded};

fn rebuild() -> ReplaySpec {
    ReplaySpec::rebuild("orders")
}

fn manual() -> ReplaySpec {
    let mut spec = rebuild();
    spec.rebuild.as_mut().unwrap().cutover.strategy = CutoverStrategy::Manual;
    spec
}

#[tokio::test]
async fn a_rebuild_is_driven_to_its_end_and_its_states_are_recorded() {
    let mut world = World::new().await;
    world.control();
    world.create("one", rebuild()).await;
    let done = world.until_ended("one").await;
    assert!(succeeded(&done), "{:#?}", done.status);
    assert_eq!(world.engine.switches(), ["g2"]);
    assert_eq!(done.status.as_ref().unwrap().observed_generation, 1);
    eventually("the last event", BOUND, || async {
        let events = world.events("one").await;
        (events.last()? == "Succeeded").then_some(())
    })
    .await;
    assert_eq!(
        world.events("one").await,
        [
            "Pending",
            "Loading",
            "Finishing",
            "CatchingUp",
            "Verifying",
            "CuttingOver",
            "Succeeded"
        ]
    );
}

#[tokio::test]
async fn kubectl_waits_for_conditions_and_lists_by_short_name_and_category() {
    let mut world = World::new().await;
    if world.kubernetes.kubectl.is_none() {
        eprintln!("there is no kubectl: what it would show is tested by the table");
        return;
    }
    world.create("one", rebuild()).await;
    let waits = world.kubernetes.clone();
    let waiting = tokio::task::JoinSet::from_iter([async move {
        waits
            .kubectl(&[
                "wait",
                "rpl/one",
                "--for=condition=Succeeded",
                "--timeout=60s",
            ])
            .await
    }]);
    world.control();
    let said = waiting.join_all().await.pop().unwrap().unwrap();
    assert!(said.contains("condition met"), "{said}");
    for list in [&["get", "rpl"][..], &["get", "millrace"]] {
        let listed = world.kubernetes.kubectl(list).await.unwrap();
        assert!(listed.contains("Succeeded"), "{listed}");
    }
    let wide = world
        .kubernetes
        .kubectl(&["get", "rpl", "-o", "wide"])
        .await
        .unwrap();
    assert!(wide.contains("GENERATION") && wide.contains("g2"), "{wide}");
    let failed = ["wait", "rpl/one", "--for=condition=Stalled", "--timeout=1s"];
    assert!(
        world
            .kubernetes
            .try_kubectl(&failed)
            .await
            .unwrap()
            .is_err()
    );
}

#[tokio::test]
async fn people_approve_suspend_and_cancel() {
    let mut world = World::new().await;
    world.control();
    world.create("one", manual()).await;
    world.until_status("one", "AwaitingApproval").await;
    world.patch("one", json!({"approve": true})).await.unwrap();
    assert!(succeeded(&world.until_ended("one").await));

    world.engine.load_by_hand();
    world.create("two", rebuild()).await;
    world.until_status("two", "Loading").await;
    world
        .patch(
            "two",
            json!({"suspend": true, "throttle": {"maxEventsPerSecond": 5}}),
        )
        .await
        .unwrap();
    world.until_status("two", "Suspended").await;
    let pace = world.engine.pace("orders", "g3").unwrap();
    assert!(
        pace.suspended && pace.max_events_per_second == Some(5),
        "{pace:?}"
    );
    world.patch("two", json!({"suspend": false})).await.unwrap();
    world.until_status("two", "Loading").await;
    world.patch("two", json!({"cancel": true})).await.unwrap();
    let done = world.until_ended("two").await;
    assert_eq!(shown(&done), "Cancelled");
    assert_eq!(world.engine.generations("orders"), ["g1", "g2"]);
}

#[tokio::test]
async fn the_finalizer_drops_what_was_made_before_the_replay_vanishes() {
    let mut world = World::new().await;
    world.engine.load_by_hand();
    world.control();
    world.create("one", rebuild()).await;
    let loading = world.until_status("one", "Loading").await;
    assert_eq!(loading.metadata.finalizers.unwrap(), [FINALIZER]);
    world
        .engine
        .fail("discard", EngineError::Unavailable("away".to_owned()));
    world.delete("one").await;
    world.until_gone("one").await;
    assert_eq!(world.engine.generations("orders"), ["g1"]);
    assert!(world.engine.switches().is_empty());
    // One of the same name has nothing of the first.
    world.create("one", rebuild()).await;
    world.until_status("one", "Loading").await;
    assert_eq!(world.engine.generations("orders"), ["g1", "g3"]);
}

#[tokio::test]
async fn a_replay_that_is_deleted_while_it_switches_stays_until_that_is_decided() {
    let mut world = World::new().await;
    world.control();
    world.create("one", manual()).await;
    world.until_status("one", "AwaitingApproval").await;
    for _ in 0..3 {
        world.engine.fail(
            "switch",
            EngineError::Unavailable("the store is away".to_owned()),
        );
    }
    world.patch("one", json!({"approve": true})).await.unwrap();
    let begun = |replay: &millrace_replay::Replay| {
        replay
            .status
            .as_ref()
            .is_some_and(|status| status.last_error.is_some())
    };
    let begun = world.until("one", "to begin its switch", begun).await;
    assert!(begun.status.unwrap().cutover_started.is_some());
    let said = world
        .patch("one", json!({"cancel": true}))
        .await
        .unwrap_err();
    assert!(said.contains("the switch has begun"), "{said}");
    world.delete("one").await;
    world.until_gone("one").await;
    assert_eq!(world.engine.switches(), ["g2"]);
    assert_eq!(world.engine.generations("orders"), ["g2"]);
}

#[tokio::test]
async fn replays_of_one_projection_queue_and_others_do_not_wait() {
    let mut world = World::new().await;
    world.engine.add("customers");
    world.engine.load_by_hand();
    world.create("one", rebuild()).await;
    world.control();
    world.until_status("one", "Loading").await;
    world.create("two", rebuild()).await;
    let queued = world.until_status("two", "Queued").await;
    assert_eq!(queued.status.unwrap().queue_position, Some(1));
    let mut impatient = rebuild();
    impatient.on_conflict = OnConflict::Fail;
    world.create("three", impatient).await;
    assert_eq!(shown(&world.until_ended("three").await), "Conflict");
    world
        .create("other", ReplaySpec::rebuild("customers"))
        .await;
    world.until_status("other", "Loading").await;
    world.engine.load("orders", EVENTS);
    world.until_ended("one").await;
    world.until_status("two", "Loading").await;
    world.engine.load("orders", EVENTS);
    assert!(succeeded(&world.until_ended("two").await));
    assert_eq!(world.engine.switches(), ["g2", "g3"]);
    assert!(world.engine.violations().is_empty());
}

#[tokio::test]
async fn a_success_goes_in_its_time_and_a_failure_stays() {
    let mut world = World::new().await;
    world.control();
    let mut spec = rebuild();
    spec.ttl_seconds_after_finished = Some(1);
    spec.rebuild
        .as_mut()
        .unwrap()
        .cutover
        .retain_previous_seconds = 2;
    world.create("good", spec.clone()).await;
    world.until_gone("good").await;
    assert_eq!(world.engine.generations("orders"), ["g2"]);
    spec.rebuild.as_mut().unwrap().projection = "nobody".to_owned();
    world.create("bad", spec).await;
    let bad = world.until_ended("bad").await;
    assert_eq!(shown(&bad), "UnknownProjection");
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert!(world.replays.get_opt("bad").await.unwrap().is_some());
}

#[tokio::test]
async fn a_redrive_and_a_rollback_are_driven_too() {
    let mut world = World::new().await;
    world.control();
    world.engine.set_letters("orders", 3, 1);
    world.create("letters", ReplaySpec::redrive("orders")).await;
    let done = world.until_ended("letters").await;
    assert_eq!(done.status.unwrap().redrive.unwrap().redriven, 2);
    world.create("one", rebuild()).await;
    world.until_ended("one").await;
    world
        .create("back", ReplaySpec::rollback("orders", "g1"))
        .await;
    assert!(succeeded(&world.until_ended("back").await));
    assert_eq!(world.engine.live_now("orders").as_deref(), Some("g1"));
    world
        .create("nowhere", ReplaySpec::rollback("orders", "g77"))
        .await;
    assert_eq!(
        shown(&world.until_ended("nowhere").await),
        "UnknownGeneration"
    );
}

#[tokio::test]
async fn a_replay_that_fails_again_and_again_does_not_slow_the_others() {
    let mut world = World::new().await;
    world.engine.add("customers");
    for _ in 0..1_000 {
        world
            .engine
            .fail("begin", EngineError::Unavailable("away".to_owned()));
    }
    world.control();
    world.create("one", rebuild()).await;
    let failing = |replay: &millrace_replay::Replay| {
        replay
            .status
            .as_ref()
            .is_some_and(|status| status.last_error.is_some())
    };
    world.until("one", "to fail", failing).await;
    tokio::time::sleep(Duration::from_secs(3)).await;
    let calls = world
        .engine
        .calls()
        .iter()
        .filter(|call| **call == "begin")
        .count();
    assert!((2..=6).contains(&calls), "{calls} attempts within 3 s");
    // What it only waits for, it does not count.
    assert_eq!(world.get("one").await.status.unwrap().attempts, 0);
    world.patch("one", json!({"cancel": true})).await.unwrap();
    assert_eq!(shown(&world.until_ended("one").await), "Cancelled");
}

#[tokio::test]
async fn a_controller_that_is_asked_to_end_ends() {
    let mut world = World::new().await;
    world.engine.load_by_hand();
    world.control();
    world.create("one", rebuild()).await;
    world.until_status("one", "Loading").await;
    world.end().await;
    world.engine.load("orders", EVENTS);
    world.control();
    assert!(succeeded(&world.until_ended("one").await));
    let params = DeleteParams::default().preconditions(Preconditions::default());
    world.replays.delete("one", &params).await.unwrap();
    world.until_gone("one").await;
}
