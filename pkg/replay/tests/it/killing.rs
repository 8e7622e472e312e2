use std::sync::Arc;

use millrace_replay::testing::Hold;
use millrace_replay::{Driver, EngineError, ProjectorWorks, Record, ReplaySpec};

use crate::world::{World, reason, record};

/// No replay of these tests makes more calls.
const MAX_CALLS: usize = 120;

/// Runs a replay and kills its driver at a call; another driver takes over. False when the replay
/// ended before that call.
async fn killed_at(
    world: &mut World,
    call: usize,
    at: Hold,
    prepare: impl Fn(&World, &Record),
) -> bool {
    world.engine.hold(call, at);
    for _ in 0..400 {
        let record = world.get("one");
        if record.status.ended() {
            world.engine.go_on();
            return false;
        }
        prepare(world, &record);
        let engine = Arc::clone(&world.engine);
        let held = tokio::select! {
            () = engine.until_held() => true,
            _ = world.pass("one") => false,
        };
        if held {
            world.engine.go_on();
            world.restart();
            return true;
        }
    }
    panic!("the replay stands still: {:#?}", world.get("one").status);
}

#[tokio::test]
async fn a_driver_that_is_killed_at_any_call_is_no_loss() {
    for at in [Hold::Before, Hold::After] {
        let mut killed = 0;
        for call in 0..MAX_CALLS {
            let mut world = World::with(ReplaySpec::rebuild("orders"));
            if !killed_at(&mut world, call, at, |_, _| {}).await {
                break;
            }
            killed += 1;
            let done = world.until_ended("one").await;
            let context = format!("killed {at:?} call {call}: {:#?}", done.status);
            assert!(done.status.is_true("Succeeded"), "{context}");
            assert_eq!(world.engine.switches(), ["g2"], "{context}");
            assert_eq!(done.status.previous(), Some("g1"), "{context}");
            assert!(done.status.cutover_started.is_some(), "{context}");
            assert!(world.engine.violations().is_empty(), "{context}");
            world
                .until("one", |record| record.status.previous().is_none())
                .await;
            assert_eq!(world.engine.generations("orders"), ["g2"], "{context}");
        }
        assert!(killed >= 10, "only {killed} calls were met");
    }
}

#[tokio::test]
async fn a_driver_that_is_killed_while_it_cleans_up_leaves_nothing() {
    let cancel = |world: &World, record: &Record| {
        if reason(record) == "Loading" && !record.spec.cancel {
            world
                .records
                .change("one", |record| record.spec.cancel = true);
        }
    };
    for at in [Hold::Before, Hold::After] {
        for call in 0..MAX_CALLS {
            let mut world = World::with(ReplaySpec::rebuild("orders"));
            if !killed_at(&mut world, call, at, cancel).await {
                break;
            }
            world
                .records
                .change("one", |record| record.spec.cancel = true);
            let done = world.until_ended("one").await;
            let context = format!("killed {at:?} call {call}");
            assert_eq!(reason(&done), "Cancelled", "{context}");
            assert_eq!(world.engine.generations("orders"), ["g1"], "{context}");
        }
    }
}

#[tokio::test]
async fn two_drivers_at_once_switch_once() {
    for seed in 0..40_u32 {
        let mut world = World::with(ReplaySpec::rebuild("orders"));
        let mut other = World::with(ReplaySpec::rebuild("orders"));
        // The same engine and the same records, another driver.
        std::mem::swap(&mut other.engine, &mut world.engine);
        world.engine = Arc::clone(&other.engine);
        world.restart();
        other.restart();
        let mut bits = seed.wrapping_mul(2_654_435_761) | 1;
        for _ in 0..400 {
            bits = bits.rotate_left(7) ^ bits.wrapping_mul(31);
            let driver = if bits & 1 == 0 {
                &world.driver
            } else {
                &other.driver
            };
            // A driver that looks away reads an old record.
            let record = world.get("one");
            if record.status.ended() {
                break;
            }
            let _ = driver.pass(&world.records, &record, world.now).await;
            if bits & 6 == 6 {
                let _ = other.driver.pass(&world.records, &record, world.now).await;
            }
            tokio::task::yield_now().await;
        }
        let done = world.until_ended("one").await;
        assert!(done.status.is_true("Succeeded"), "{:#?}", done.status);
        assert_eq!(world.engine.switches(), ["g2"], "seed {seed}");
        assert!(world.engine.violations().is_empty());
    }
}

#[tokio::test]
async fn replays_that_race_for_a_projection_take_turns_whoever_is_killed() {
    for call in 0..60 {
        let mut world = World::with(ReplaySpec::rebuild("orders"));
        world.stride = std::time::Duration::from_secs(1);
        world
            .records
            .put(record("two", 1, ReplaySpec::rebuild("orders")));
        world
            .engine
            .fail("find", EngineError::Unavailable("away".to_owned()));
        world.engine.hold(call, Hold::After);
        let mut held = false;
        for _ in 0..60 {
            for name in ["two", "one"] {
                let engine = Arc::clone(&world.engine);
                let hit = tokio::select! {
                    () = engine.until_held() => true,
                    _ = world.pass(name) => false,
                };
                if hit && !held {
                    held = true;
                    world.engine.go_on();
                    world.restart();
                }
            }
        }
        world.engine.go_on();
        world.until_ended("one").await;
        world.until_ended("two").await;
        assert!(world.engine.violations().is_empty(), "call {call}");
        assert_eq!(
            world.engine.live_now("orders").as_deref(),
            Some("g3"),
            "call {call}"
        );
    }
}

/// A replay that sorts before another one may become visible after it: both were made in the same
/// second. Whatever the two drivers do from then on, and in whatever order, one of them waits.
#[tokio::test]
async fn two_drivers_over_two_replays_never_work_on_both() {
    let mut aside = World::new();
    aside
        .records
        .put(record("b", 0, ReplaySpec::rebuild("orders")));
    let validated = |record: &Record| record.status.condition("Validated").is_some();
    let late = aside.until("b", validated).await;
    for seen_after in 0..6 {
        for order in 0..27_u32 {
            let mut world = World::new();
            world.stride = std::time::Duration::from_secs(1);
            world
                .records
                .put(record("a", 1, ReplaySpec::rebuild("orders")));
            for _ in 0..seen_after {
                world.pass("a").await.unwrap();
            }
            world.records.put(late.clone());
            let other = Driver::new(Arc::clone(&world.engine) as _, Arc::new(ProjectorWorks));
            let mut digits = order;
            for _ in 0..3 {
                let (a, b) = (world.get("a"), world.get("b"));
                let one = world.driver.pass(&world.records, &a, world.now);
                let two = other.pass(&world.records, &b, world.now);
                match digits % 3 {
                    0 => drop(one.await),
                    1 => drop(two.await),
                    _ => drop(tokio::join!(one, two)),
                }
                digits /= 3;
            }
            for _ in 0..30 {
                drop(world.pass("b").await);
                drop(world.pass("a").await);
            }
            let context = format!("seen after {seen_after}, order {order}");
            let ended = |name: &str| world.get(name).status.ended();
            assert!(ended("a") || ended("b"), "{context}");
            let violations = world.engine.violations();
            assert!(violations.is_empty(), "{context}: {violations:?}");
        }
    }
}

#[tokio::test]
async fn a_replay_that_is_deleted_in_the_midst_of_its_switch_ends_it_first() {
    let mut world = World::with(ReplaySpec::rebuild("orders"));
    world
        .until("one", |record| record.status.cutover_started.is_some())
        .await;
    world
        .engine
        .fail("switch", EngineError::Unavailable("away".to_owned()));
    world.records.change("one", |record| record.deleting = true);
    world.pass("one").await.unwrap_err();
    assert!(
        world.records.get("one").is_some(),
        "it must not go before the switch is decided"
    );
    while world.records.get("one").is_some() {
        world.pass("one").await.unwrap();
    }
    assert_eq!(world.engine.live_now("orders").as_deref(), Some("g2"));
    assert_eq!(world.engine.generations("orders"), ["g2"]);
}
