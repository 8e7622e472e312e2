//! Controllers that are killed, and two at once.

use millrace_replay::ReplaySpec;
use millrace_replay::testing::Hold;

use crate::world::{World, succeeded};

/// Every call of the engine is a state of the replay; the calls in between repeat.
const MAX_CALLS: usize = 60;

#[tokio::test]
async fn a_controller_that_is_killed_before_any_call_is_no_loss() {
    killed(Hold::Before).await;
}

#[tokio::test]
async fn a_controller_that_is_killed_after_any_call_is_no_loss() {
    killed(Hold::After).await;
}

/// Kills a controller at the first call, at the second, and so on, until a replay ends before.
async fn killed(at: Hold) {
    let mut world = World::new().await;
    let mut met = 0;
    for call in 0..MAX_CALLS {
        let projection = format!("orders-{call}");
        world.engine.add(&projection);
        world.engine.hold(call, at);
        world.control();
        world
            .create(&projection, ReplaySpec::rebuild(&projection))
            .await;
        let held = tokio::select! {
            () = world.engine.until_held() => true,
            _ = world.until_ended(&projection) => false,
        };
        world.kill().await;
        world.engine.go_on();
        world.control();
        let done = world.until_ended(&projection).await;
        let context = format!("killed {at:?} call {call}: {:#?}", done.status);
        assert!(succeeded(&done), "{context}");
        assert_eq!(done.status.unwrap().previous(), Some("g1"), "{context}");
        let live = world.engine.live_now(&projection);
        assert_eq!(live.as_deref(), Some("g2"), "{context}");
        assert_eq!(
            world.engine.generations(&projection),
            ["g1", "g2"],
            "{context}"
        );
        // Gone, so that the next controller looks at one replay only; the previous generation
        // goes with it.
        world.delete(&projection).await;
        world.until_gone(&projection).await;
        assert_eq!(world.engine.generations(&projection), ["g2"], "{context}");
        world.kill().await;
        if !held {
            break;
        }
        met += 1;
    }
    assert!(met >= 8, "only {met} calls were met");
    assert!(world.engine.violations().is_empty());
}

#[tokio::test]
async fn two_controllers_at_once_switch_once_and_keep_the_queue() {
    let mut world = World::new().await;
    world.control();
    world.control();
    for name in ["one", "two", "three"] {
        world.create(name, ReplaySpec::rebuild("orders")).await;
    }
    for name in ["one", "two", "three"] {
        assert!(succeeded(&world.until_ended(name).await), "{name}");
    }
    assert_eq!(world.engine.switches(), ["g2", "g3", "g4"]);
    assert!(
        world.engine.violations().is_empty(),
        "{:?}",
        world.engine.violations()
    );
}
