use std::time::Duration;

use millrace_replay::status::RedriveStatus;
use millrace_replay::testing::EVENTS;
use millrace_replay::{CutoverStrategy, EngineError, OnFailure, ReplaySpec};

use crate::world::{World, at, reason, record};

fn rebuild() -> ReplaySpec {
    ReplaySpec::rebuild("orders")
}

#[tokio::test]
async fn a_rebuild_switches_keeps_the_previous_generation_for_its_time_and_drops_it() {
    let mut world = World::with(rebuild());
    let done = world.until_ended("one").await;
    let status = &done.status;
    assert!(
        status.is_true("Succeeded") && status.is_true("Ready"),
        "{status:#?}"
    );
    for kind in ["Validated", "CaughtUp", "Verified", "CutOver"] {
        assert!(status.is_true(kind), "{kind} of {status:#?}");
    }
    assert!(status.condition("Reconciling").is_none() && status.condition("Stalled").is_none());
    assert_eq!(world.engine.live_now("orders").as_deref(), Some("g2"));
    let generations = status.generations.as_ref().unwrap();
    assert_eq!(generations.previous.as_deref(), Some("g1"));
    assert_eq!(generations.active.as_deref(), Some("g2"));
    let progress = status.progress.as_ref().unwrap();
    assert_eq!((progress.events_processed, progress.percent), (EVENTS, 100));
    assert_eq!(status.targets[0].to_position, EVENTS);

    world
        .until("one", |record| record.status.previous().is_none())
        .await;
    assert_eq!(world.engine.generations("orders"), ["g2"]);
    let kept = world.now.duration_since(at(60)).as_secs();
    assert!(kept >= 3_600, "dropped after {kept} s");
}

#[tokio::test]
async fn people_are_told_each_state_once() {
    let mut world = World::with(rebuild());
    world.until_ended("one").await;
    let told = world.records.told();
    assert_eq!(
        told,
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
async fn a_replay_that_waits_is_not_written_again_and_again() {
    let mut world = World::with(rebuild());
    world.engine.load_by_hand();
    world.until_phase("one", "Loading").await;
    for _ in 0..3 {
        world.pass("one").await.unwrap();
    }
    let before = world.records.writes();
    for _ in 0..20 {
        world.pass("one").await.unwrap();
    }
    assert_eq!(world.records.writes(), before);
}

#[tokio::test]
async fn progress_is_written_every_five_seconds_at_most() {
    let mut world = World::with(rebuild());
    world.engine.load_by_hand();
    world.until_phase("one", "Loading").await;
    world.pass("one").await.unwrap();
    let (before, begun) = (world.records.writes(), world.now);
    for done in 1..=60 {
        world.engine.load("orders", done * 10);
        world.pass("one").await.unwrap();
    }
    let seconds = world.now.duration_since(begun).as_secs();
    let writes = world.records.writes() - before;
    assert!(
        (10..=13).contains(&writes),
        "{writes} writes in {seconds} s"
    );
    let progress = world.get("one").status.progress.unwrap();
    assert!(
        (9..=11).contains(&progress.events_per_second),
        "{progress:?}"
    );
    assert!(progress.estimated_completion_time.is_some());
}

#[tokio::test]
async fn a_dry_run_says_what_would_happen_and_changes_nothing() {
    let mut spec = rebuild();
    spec.dry_run = true;
    let mut world = World::with(spec);
    let done = world.until_ended("one").await;
    assert!(done.status.is_true("Succeeded"));
    assert_eq!(reason(&done), "Planned");
    assert_eq!(done.status.plan.unwrap().events, Some(EVENTS));
    assert_eq!(world.engine.generations("orders"), ["g1"]);
    assert!(!done.held);
}

#[tokio::test]
async fn an_unknown_projection_fails_at_once_and_says_so() {
    let mut world = World::with(ReplaySpec::rebuild("nobody"));
    let done = world.until_ended("one").await;
    assert_eq!(reason(&done), "UnknownProjection");
    assert!(done.status.is_true("Stalled"));
    let succeeded = done.status.condition("Succeeded").unwrap();
    assert_eq!(succeeded.status, "False");
    assert!(
        succeeded.message.contains("nobody"),
        "{}",
        succeeded.message
    );
}

#[tokio::test]
async fn too_many_differences_leave_the_live_generation_and_nothing_else() {
    let mut world = World::with(rebuild());
    world.engine.set_mismatches("orders", 12);
    let done = world.until_ended("one").await;
    assert_eq!(reason(&done), "VerificationFailed");
    assert_eq!(done.status.verification.unwrap().sample_keys.len(), 10);
    assert_eq!(world.engine.generations("orders"), ["g1"]);
    assert!(world.engine.switches().is_empty());
}

#[tokio::test]
async fn a_manual_switch_waits_for_approval_however_long() {
    let mut spec = rebuild();
    spec.rebuild.as_mut().unwrap().cutover.strategy = CutoverStrategy::Manual;
    let mut world = World::with(spec);
    world.until_phase("one", "AwaitingApproval").await;
    for _ in 0..50 {
        world.pass("one").await.unwrap();
    }
    assert_eq!(reason(&world.get("one")), "AwaitingApproval");
    assert!(world.engine.switches().is_empty());
    world
        .records
        .change("one", |record| record.spec.approve = true);
    world.until_ended("one").await;
    assert_eq!(world.engine.switches(), ["g2"]);
}

#[tokio::test]
async fn a_suspended_rebuild_holds_its_workers_and_goes_on_where_it_was() {
    let mut world = World::with(rebuild());
    world.engine.load_by_hand();
    world.until_phase("one", "Loading").await;
    world
        .records
        .change("one", |record| record.spec.suspend = true);
    let held = world.until_phase("one", "Suspended").await;
    assert!(held.status.is_true("Suspended"));
    assert!(world.engine.pace("orders", "g2").unwrap().suspended);
    world
        .records
        .change("one", |record| record.spec.suspend = false);
    let resumed = world.until_phase("one", "Loading").await;
    assert!(!resumed.status.is_true("Suspended"));
    assert!(!world.engine.pace("orders", "g2").unwrap().suspended);
    world.engine.load("orders", EVENTS);
    let done = world.until_ended("one").await;
    assert!(done.status.is_true("Succeeded"));
}

#[tokio::test]
async fn a_cancelled_rebuild_leaves_nothing_behind() {
    for phase in ["Loading", "CatchingUp", "AwaitingApproval"] {
        let mut spec = rebuild();
        spec.rebuild.as_mut().unwrap().cutover.strategy = CutoverStrategy::Manual;
        let mut world = World::with(spec);
        world.until_phase("one", phase).await;
        world
            .records
            .change("one", |record| record.spec.cancel = true);
        let done = world.until_ended("one").await;
        assert_eq!(reason(&done), "Cancelled", "from {phase}");
        assert!(done.status.is_true("Stalled"));
        assert_eq!(world.engine.generations("orders"), ["g1"], "from {phase}");
    }
}

#[tokio::test]
async fn a_cancel_that_comes_just_before_the_switch_wins_against_it() {
    let mut world = World::with(rebuild());
    world
        .until("one", |record| record.status.verification.is_some())
        .await;
    // The driver has read the replay and decides on the switch; the person is faster.
    let read = world.get("one");
    world
        .records
        .change("one", |record| record.spec.cancel = true);
    let passed = world.driver.pass(&world.records, &read, world.now).await;
    assert!(passed.unwrap_err().changed());
    let done = world.until_ended("one").await;
    assert_eq!(reason(&done), "Cancelled");
    assert!(world.engine.switches().is_empty());
}

#[tokio::test]
async fn a_switch_that_is_too_early_is_tried_until_its_time_is_over() {
    let mut world = World::with(rebuild());
    world
        .until("one", |record| record.status.cutover_started.is_some())
        .await;
    world.engine.set_lag("orders", 7);
    for _ in 0..5 {
        world.pass("one").await.unwrap();
    }
    assert!(world.engine.switches().is_empty());
    world.engine.set_lag("orders", 0);
    assert!(world.until_ended("one").await.status.is_true("Succeeded"));

    let mut world = World::with(rebuild());
    world
        .until("one", |record| record.status.cutover_started.is_some())
        .await;
    world.engine.set_lag("orders", 7);
    let done = world.until_ended("one").await;
    assert_eq!(reason(&done), "CutoverTimeout");
    assert_eq!(world.engine.generations("orders"), ["g1"]);
}

#[tokio::test]
async fn a_store_that_is_away_costs_no_attempt_and_a_failure_costs_one() {
    let mut world = World::with(rebuild());
    for call in ["outline", "begin", "finish", "verify", "switch"] {
        for _ in 0..3 {
            world
                .engine
                .fail(call, EngineError::Unavailable(format!("{call} is away")));
        }
    }
    let done = world.until_ended("one").await;
    assert!(done.status.is_true("Succeeded"), "{:#?}", done.status);
    assert_eq!(done.status.attempts, 0);
    assert!(done.status.last_error.is_some());

    let mut world = World::with(rebuild());
    for _ in 0..7 {
        world
            .engine
            .fail("finish", EngineError::Failed("no room".to_owned()));
    }
    let done = world.until_ended("one").await;
    assert_eq!(reason(&done), "BackoffLimitExceeded");
    assert_eq!(done.status.attempts, 7);
    assert!(
        done.status
            .condition("Ready")
            .unwrap()
            .message
            .contains("no room")
    );
    assert_eq!(world.engine.generations("orders"), ["g1"]);
}

#[tokio::test]
async fn replays_of_one_projection_run_in_the_order_of_their_creation() {
    let mut world = World::new();
    world.stride = Duration::from_secs(1);
    for (number, name) in ["one", "two", "three"].into_iter().enumerate() {
        let number = i64::try_from(number).unwrap();
        world.records.put(record(name, number, rebuild()));
    }
    world.engine.add("customers");
    world
        .records
        .put(record("other", 9, ReplaySpec::rebuild("customers")));
    for _ in 0..200 {
        for name in ["three", "two", "other", "one"] {
            drop(world.pass(name).await);
        }
    }
    assert!(
        world.engine.violations().is_empty(),
        "{:?}",
        world.engine.violations()
    );
    let ended = |name: &str| world.get(name).status.completion_time.unwrap().0;
    assert!(ended("one") <= ended("two") && ended("two") <= ended("three"));
    assert!(ended("other") < ended("three"));
    assert_eq!(world.engine.live_now("orders").as_deref(), Some("g4"));
}

#[tokio::test]
async fn a_redrive_counts_what_it_did() {
    let mut world = World::with(ReplaySpec::redrive("orders"));
    world.engine.set_letters("orders", 5, 2);
    let done = world.until_ended("one").await;
    assert!(done.status.is_true("Succeeded"));
    let expected = RedriveStatus {
        matched: 5,
        redriven: 3,
        discarded: 0,
        failed: 2,
    };
    assert_eq!(done.status.redrive, Some(expected));

    let mut spec = ReplaySpec::redrive("orders");
    spec.redrive.as_mut().unwrap().on_failure = OnFailure::Stop;
    let mut world = World::with(spec);
    world.engine.set_letters("orders", 5, 2);
    let done = world.until_ended("one").await;
    assert_eq!(reason(&done), "LetterFailed");
    assert_eq!(done.status.redrive.unwrap().failed, 1);
}

#[tokio::test]
async fn a_rollback_leads_back_and_its_deletion_drops_what_it_left() {
    let mut world = World::with(rebuild());
    world.until_ended("one").await;
    world
        .records
        .put(record("back", 1, ReplaySpec::rollback("orders", "g1")));
    let done = world.until_ended("back").await;
    assert!(done.status.is_true("Succeeded"), "{:#?}", done.status);
    assert_eq!(world.engine.live_now("orders").as_deref(), Some("g1"));
    assert_eq!(done.status.previous(), Some("g2"));
    // The rebuild's previous generation answers queries again: its time comes, and it stays.
    world
        .until("one", |record| record.status.previous().is_none())
        .await;
    assert_eq!(world.engine.live_now("orders").as_deref(), Some("g1"));
    assert!(
        world
            .engine
            .generations("orders")
            .contains(&"g1".to_owned())
    );
    world
        .records
        .change("back", |record| record.deleting = true);
    while world.records.get("back").is_some() {
        world.pass("back").await.unwrap();
    }
    assert_eq!(world.engine.generations("orders"), ["g1"]);
}

#[tokio::test]
async fn a_success_is_removed_after_its_time_and_a_failure_stays() {
    let mut spec = rebuild();
    spec.ttl_seconds_after_finished = Some(30);
    spec.rebuild
        .as_mut()
        .unwrap()
        .cutover
        .retain_previous_seconds = 60;
    let mut world = World::with(spec.clone());
    let ended = world
        .until_ended("one")
        .await
        .status
        .completion_time
        .unwrap()
        .0;
    world.until("one", |record| record.deleting).await;
    assert!(world.now.duration_since(ended).as_secs() >= 60);
    assert_eq!(world.engine.generations("orders"), ["g2"]);

    let mut world = World::with(spec);
    world.engine.set_mismatches("orders", 1);
    world.until_ended("one").await;
    for _ in 0..10 {
        world.pass("one").await.unwrap();
    }
    assert!(!world.get("one").deleting);
}
