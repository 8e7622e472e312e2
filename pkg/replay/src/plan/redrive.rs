//! The steps of a run over dead letters.

use super::{Ending, Step, turn, waiting};
use crate::resource::ReplaySpec;
use crate::status::{Phase, ReplayStatus};
use crate::world::{RedriveState, World};

pub(super) fn next(spec: &ReplaySpec, status: &ReplayStatus, world: &World) -> Step {
    let Some(view) = &world.redrive else {
        if let Some(step) = turn(spec, status, world) {
            return step;
        }
        return if spec.suspend {
            waiting(Phase::Suspended)
        } else {
            Step::BeginRedrive
        };
    };
    let counts = view.counts;
    match view.state {
        RedriveState::Running if spec.suspend => waiting(Phase::Suspended),
        RedriveState::Running => Step::AdvanceRedrive,
        RedriveState::Done => Step::End(Ending::Succeeded {
            reason: "Succeeded",
            message: format!(
                "of {} dead letters {} were redriven and {} discarded, {} failed again and are parked",
                counts.matched, counts.redriven, counts.discarded, counts.failed
            ),
        }),
        RedriveState::Stopped => Step::End(Ending::failed(
            "LetterFailed",
            format!(
                "a dead letter failed again after {} were redriven, and onFailure is Stop",
                counts.redriven
            ),
        )),
        RedriveState::Cancelled => Step::End(Ending::Cancelled),
    }
}

/// Whether a run goes on that would have to be ended.
pub(super) fn runs(world: &World) -> bool {
    let running = |state| state == RedriveState::Running;
    world
        .redrive
        .as_ref()
        .is_some_and(|view| running(view.state))
}
