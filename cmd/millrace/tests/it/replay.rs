//! `millrace replay` against a running projector: everything that can be asked for, and what is
//! refused.

use std::{path::Path, time::Duration};

use millrace_testkit::{Process, eventually, free_port};
use serde_json::{Value, json};

use crate::{
    run::{Ended, run},
    world::World,
};

const BOUND: Duration = Duration::from_secs(60);
const VIEW: &str = "order-read-models";

/// An installation with a log of some orders, and the settings of a projector of it.
struct System {
    world: World,
    projector: Process,
}

impl System {
    async fn start() -> Self {
        let world = World::new().await;
        let migrated = world.run(["migrate"]).await;
        assert_eq!(migrated.code, 0, "{}", migrated.err);
        world.append(&["a", "b", "c", "a", "d", "a"]).await;
        world.publish().await;
        let projector = projector(&world).await;
        let system = Self { world, projector };
        system.wait_until_live().await;
        system
    }

    /// Until the first generation has every event.
    async fn wait_until_live(&self) {
        let head = self.world.head().await;
        eventually("the view is current", BOUND, || async {
            let at = sqlx::query_scalar::<_, Option<i64>>(
                "SELECT max(c.position) FROM projections.checkpoints c
                 JOIN projections.generations g ON g.id = c.generation
                 WHERE g.projection = $1 AND g.status = 'active' AND c.context = 'ordering'",
            )
            .bind(VIEW)
            .fetch_one(&self.world.database.pool)
            .await;
            (at.ok().flatten() == i64::try_from(head).ok()).then_some(())
        })
        .await;
    }

    async fn run(&self, args: &[&str]) -> Ended {
        let args = ["replay"].iter().chain(args);
        run(self.world.command(args)).await
    }

    async fn json(&self, args: &[&str]) -> Value {
        let ended = self.run(&[args, &["--output", "json"]].concat()).await;
        ended.json()
    }

    /// Asks for a replay and gives how it stands at its end.
    async fn to_its_end(&self, args: &[&str]) -> Value {
        let ended = self.run(&[args, &["--output", "json"]].concat()).await;
        ended.json_lines().pop().unwrap()
    }

    async fn until_phase(&self, name: &str, phase: &str) -> Value {
        eventually(&format!("{name} is {phase}"), BOUND, || async {
            let shown = self.json(&["show", name]).await;
            (shown["status"]["phase"] == phase).then_some(shown)
        })
        .await
    }

    /// The schemas of the view's generations, by their numbers.
    async fn schemas(&self) -> Vec<String> {
        sqlx::query_scalar(
            "SELECT nspname::text FROM pg_namespace WHERE nspname LIKE 'order_read_models_g%'
             ORDER BY 1",
        )
        .fetch_all(&self.world.database.pool)
        .await
        .unwrap()
    }
}

async fn projector(world: &World) -> Process {
    let admin_port = free_port();
    let settings = [
        ("DATABASE_URL", world.database.url.clone()),
        ("NATS_URL", world.nats.url.clone()),
        ("DYNAMODB_ENDPOINT", world.dynamodb.endpoint.clone()),
        ("MILLRACE_NAMESPACE", world.nats.namespace.clone()),
        ("MILLRACE_ADMIN_LISTEN", format!("127.0.0.1:{admin_port}")),
    ];
    let program = Path::new(env!("CARGO_BIN_EXE_millrace"));
    let mut process = Process::start(program, &["role", "projector"], &settings);
    process.wait_ready(admin_port, "/readyz", BOUND).await;
    process
}

#[tokio::test]
async fn a_view_is_rebuilt_and_rolled_back() {
    let system = System::start().await;
    let [first] = &system.schemas().await[..] else {
        panic!("one generation at first");
    };
    let rebuilt = system
        .to_its_end(&["rebuild", VIEW, "--name", "one", "--verify", "checksum"])
        .await;
    let status = &rebuilt["status"];
    assert_eq!(status["phase"], "Succeeded", "{status:#}");
    assert_eq!(status["progress"]["eventsProcessed"], 6);
    assert_eq!(
        status["targets"],
        json!([
            // Nobody is known by name yet: the range is empty.
            {"context": "customers", "fromPosition": 1, "toPosition": 0},
            {"context": "ordering", "fromPosition": 1, "toPosition": 6},
        ])
    );
    assert_eq!(status["verification"]["mismatches"], 0);
    let compared = status["verification"]["compared"].as_u64().unwrap();
    assert!(compared >= 4, "{compared} rows of four orders");
    let generations = &status["generations"];
    let (previous, active) = (&generations["previous"], &generations["active"]);
    assert_eq!(generations["candidate"], *active);
    assert_eq!(
        *first,
        format!("order_read_models_{}", previous.as_str().unwrap())
    );

    let back = [
        "rollback",
        VIEW,
        "--to-generation",
        previous.as_str().unwrap(),
    ];
    let rolled_back = system.to_its_end(&back).await;
    assert_eq!(rolled_back["status"]["generations"]["active"], *previous);
    assert_eq!(rolled_back["status"]["generations"]["previous"], *active);

    let listed = system.json(&["list", "--projection", VIEW]).await;
    assert_eq!(listed.as_array().unwrap().len(), 2);
    assert_eq!(listed[1]["name"], "one", "newest first");
    let active = system.json(&["list", "--active"]).await;
    assert_eq!(active, json!([]));
}

#[tokio::test]
async fn a_rebuild_is_held_killed_let_on_and_approved() {
    let mut system = System::start().await;
    let ask = [
        "rebuild",
        VIEW,
        "--name",
        "slow",
        "--max-events-per-second",
        "1",
        "--cutover",
        "manual",
        "--detach",
    ];
    let asked = system.run(&ask).await;
    assert_eq!(asked.code, 0, "{}", asked.err);
    system.until_phase("slow", "Loading").await;
    system.run(&["suspend", "slow"]).await;
    let held = system.until_phase("slow", "Suspended").await;
    assert!(held["status"]["progress"]["eventsProcessed"].as_u64() < Some(6));

    system.projector.kill().await;
    assert_eq!(system.run(&["resume", "slow"]).await.code, 0);
    let unbound = ["throttle", "slow", "--max-events-per-second", "0"];
    assert_eq!(system.run(&unbound).await.code, 0);
    system.projector = projector(&system.world).await;
    system.world.append(&["e"]).await;
    system.world.publish().await;
    system.until_phase("slow", "AwaitingApproval").await;
    assert_eq!(system.schemas().await.len(), 2);

    assert_eq!(system.run(&["approve", "slow"]).await.code, 0);
    let watched = system.to_its_end(&["watch", "slow"]).await;
    assert_eq!(watched["status"]["phase"], "Succeeded");
    for command in ["cancel", "suspend", "approve"] {
        let late = system.run(&[command, "slow"]).await;
        assert_eq!(late.code, 5, "{command}: {}", late.err);
        assert!(late.err.contains("has ended"), "{}", late.err);
    }
    // It takes with it what was kept for it, and not what answers.
    assert_eq!(system.run(&["delete", "slow"]).await.code, 0);
    eventually("it is gone", BOUND, || async {
        (system.run(&["show", "slow"]).await.code == 3).then_some(())
    })
    .await;
    assert_eq!(system.schemas().await.len(), 1, "only what answers is left");
}

#[tokio::test]
async fn what_is_cancelled_leaves_nothing() {
    let system = System::start().await;
    let before = system.schemas().await;
    let ask = [
        "rebuild",
        VIEW,
        "--name",
        "gone",
        "--max-events-per-second",
        "1",
        "--detach",
    ];
    assert_eq!(system.run(&ask).await.code, 0);
    system.until_phase("gone", "Loading").await;
    assert_eq!(system.run(&["cancel", "gone"]).await.code, 0);
    let ended = system.until_phase("gone", "Cancelled").await;
    assert!(ended["status"]["completionTime"].is_string());
    assert_eq!(system.schemas().await, before);
    let watched = system.run(&["watch", "gone"]).await;
    assert_eq!(
        watched.code, 1,
        "a cancelled replay did not do what was asked"
    );
}

#[tokio::test]
async fn what_cannot_be_is_said() {
    let system = System::start().await;
    let plan = system.to_its_end(&["rebuild", VIEW, "--dry-run"]).await;
    assert_eq!(plan["status"]["plan"]["events"], 6);
    assert_eq!(system.schemas().await.len(), 1, "a dry run makes nothing");

    for (ask, said) in [
        (
            &["rebuild", "nobody"][..],
            "there is no projection \"nobody\"",
        ),
        (
            &["rollback", VIEW, "--to-generation", "g999"],
            "has no generation g999",
        ),
        (
            &[
                "redrive",
                VIEW,
                "--context",
                "banking",
                "--from-position",
                "1",
            ],
            "it reads ordering",
        ),
    ] {
        let refused = system.run(ask).await;
        assert_eq!(refused.code, 1, "{ask:?}");
        assert!(refused.err.contains(said), "{}", refused.err);
    }
    for (ask, code) in [
        (&["rebuild", VIEW, "--parallelism", "0"][..], 2),
        (&["rebuild", VIEW, "--verify", "maybe"], 2),
        (&["rollback", VIEW, "--to-generation", "six"], 2),
        (&["redrive", VIEW, "--since", "yesterday"], 2),
        (&["rebuild", VIEW, "--name", "No Name", "--detach"], 5),
        (&["show", "nobody"], 3),
        (&["cancel", "nobody"], 3),
        (&["delete", "nobody"], 3),
    ] {
        let refused = system.run(ask).await;
        assert_eq!(refused.code, code, "{ask:?}: {}", refused.err);
    }
    let twice = ["rebuild", VIEW, "--dry-run", "--name", "once"];
    assert_eq!(system.run(&twice).await.code, 0);
    assert_eq!(system.run(&twice).await.code, 5);
}
