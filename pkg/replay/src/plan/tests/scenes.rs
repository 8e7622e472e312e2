//! Scenes of the plan: how far a replay is, what was asked of it, and what is found.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use k8s_openapi::jiff::Timestamp;

use crate::conditions::{SUCCEEDED, VALIDATED};
use crate::plan::rebuild_pace;
use crate::resource::{CutoverStrategy, ReplaySpec};
use crate::status::{Generations, ReplayStatus, VerificationStatus};
use crate::world::{RebuildView, Rival, Stage, WorkView, World};

const NOW: i64 = 1_800_000_000;

pub(super) fn at(seconds_ago: i64) -> Time {
    Time(Timestamp::from_second(NOW - seconds_ago).unwrap())
}

pub(super) fn world() -> World {
    World::empty(at(0).0)
}

pub(super) fn condition(kind: &str, status: &str, reason: &str, seconds_ago: i64) -> Condition {
    Condition {
        type_: kind.to_owned(),
        status: status.to_owned(),
        reason: reason.to_owned(),
        message: format!("because of {reason}"),
        observed_generation: None,
        last_transition_time: at(seconds_ago),
    }
}

pub(super) fn validated() -> ReplayStatus {
    ReplayStatus {
        conditions: vec![condition(VALIDATED, "True", "Accepted", 100)],
        ..ReplayStatus::default()
    }
}

pub(super) fn raised() -> ReplayStatus {
    ReplayStatus {
        queue_position: Some(0),
        ..validated()
    }
}

pub(super) fn started() -> ReplayStatus {
    ReplayStatus {
        start_time: Some(at(100)),
        ..validated()
    }
}

pub(super) fn caught_up() -> ReplayStatus {
    ReplayStatus {
        caught_up_time: Some(at(50)),
        ..started()
    }
}

pub(super) fn verified(mismatches: u64) -> ReplayStatus {
    ReplayStatus {
        verification: Some(VerificationStatus {
            compared: 10,
            mismatches,
            sample_keys: Vec::new(),
        }),
        ..caught_up()
    }
}

pub(super) fn cutting_over(seconds_ago: i64) -> ReplayStatus {
    ReplayStatus {
        cutover_started: Some(at(seconds_ago)),
        generations: Some(Generations {
            previous: Some("g1".to_owned()),
            candidate: Some("g2".to_owned()),
            ..Generations::default()
        }),
        ..verified(0)
    }
}

pub(super) fn switched_status() -> ReplayStatus {
    ReplayStatus {
        switch_time: Some(at(10)),
        ..cutting_over(12)
    }
}

pub(super) fn ended(reason: &str) -> ReplayStatus {
    let status = if reason == "Succeeded" {
        "True"
    } else {
        "False"
    };
    let mut replay = if reason == "Succeeded" {
        switched_status()
    } else {
        started()
    };
    replay.completion_time = Some(at(10));
    replay
        .conditions
        .push(condition(SUCCEEDED, status, reason, 10));
    replay
}

pub(super) fn view(stage: Stage, lag: u64) -> RebuildView {
    RebuildView {
        generation: "g2".to_owned(),
        stage,
        live: Some("g1".to_owned()),
        targets: Vec::new(),
        pace: rebuild_pace(&rebuild()),
        events_total: 100,
        events_done: 50,
        lanes_done: if stage == Stage::Loading { 8 } else { 16 },
        lanes_total: 16,
        lag: (stage != Stage::Loading).then_some(lag),
    }
}

pub(super) fn filling(stage: Stage) -> World {
    World {
        rebuild: Some(view(stage, 0)),
        ..world()
    }
}

pub(super) fn loading(work: WorkView) -> World {
    World {
        work,
        ..filling(Stage::Loading)
    }
}

pub(super) fn loaded() -> World {
    let mut world = filling(Stage::Loading);
    world.rebuild.as_mut().unwrap().lanes_done = 16;
    world
}

pub(super) fn candidate(lag: u64) -> World {
    World {
        rebuild: Some(view(Stage::Candidate, lag)),
        ..world()
    }
}

pub(super) fn rebuild() -> ReplaySpec {
    ReplaySpec::rebuild("orders")
}

pub(super) fn with(change: impl FnOnce(&mut ReplaySpec)) -> ReplaySpec {
    let mut spec = rebuild();
    change(&mut spec);
    spec
}

pub(super) fn cancelled() -> ReplaySpec {
    with(|spec| spec.cancel = true)
}

pub(super) fn suspended() -> ReplaySpec {
    with(|spec| spec.suspend = true)
}

pub(super) fn manual(approve: bool) -> ReplaySpec {
    with(|spec| {
        spec.rebuild.as_mut().unwrap().cutover.strategy = CutoverStrategy::Manual;
        spec.approve = approve;
    })
}

pub(super) fn rival(before: bool, raised: bool) -> World {
    World {
        rivals: vec![Rival {
            name: "other".to_owned(),
            before,
            raised,
        }],
        ..world()
    }
}

pub(super) fn suspended_view(world: World) -> World {
    let mut world = world;
    world.rebuild.as_mut().unwrap().pace.suspended = true;
    world
}

pub(super) fn deleting(world: World) -> World {
    World {
        deleting: true,
        ..world
    }
}
