//! The steps of a rollback.

use super::{Ending, Step, turn, waiting};
use crate::resource::{ReplaySpec, RollbackSpec};
use crate::status::{Phase, ReplayStatus};
use crate::world::World;

pub(super) fn next(
    spec: &ReplaySpec,
    body: &RollbackSpec,
    status: &ReplayStatus,
    world: &World,
) -> Step {
    let generation = &body.to_generation;
    if status.switch_time.is_some() {
        return Step::End(Ending::Succeeded {
            reason: "Succeeded",
            message: format!("queries are answered from {generation} again"),
        });
    }
    if status.cutover_started.is_some() {
        return Step::RollBack;
    }
    if world.live.as_ref() == Some(generation) {
        return Step::End(Ending::Succeeded {
            reason: "AlreadyActive",
            message: format!("queries were answered from {generation} already"),
        });
    }
    if let Some(step) = turn(spec, status, world) {
        return step;
    }
    if spec.suspend {
        return waiting(Phase::Suspended);
    }
    Step::AnnounceCutover
}
