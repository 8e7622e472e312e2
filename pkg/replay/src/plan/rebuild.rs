//! The steps of a rebuild.

use super::{Ending, Step, turn, waiting, watching};
use crate::resource::{
    CutoverStrategy, DEFAULT_EVENTS_PER_SECOND, RebuildSpec, ReplaySpec, VerifyMode,
};
use crate::status::{Phase, ReplayStatus};
use crate::world::{Pace, RebuildView, Stage, Task, TaskView, WorkView, World};

pub(super) fn next(
    spec: &ReplaySpec,
    body: &RebuildSpec,
    status: &ReplayStatus,
    world: &World,
) -> Step {
    if status.switch_time.is_some() {
        return switched(status, world);
    }
    let Some(view) = &world.rebuild else {
        if let Some(step) = turn(spec, status, world) {
            return step;
        }
        return if spec.suspend {
            waiting(Phase::Suspended)
        } else {
            Step::Begin
        };
    };
    match view.stage {
        Stage::Loading => loading(spec, view, world),
        Stage::Candidate => candidate(spec, body, view, status, world),
        // It happened, and nobody wrote it down.
        Stage::Active => Step::Switch,
        Stage::Retained => Step::End(Ending::Succeeded {
            reason: "Succeeded",
            message: format!("{} was switched to, and away from since", view.generation),
        }),
    }
}

/// The pace that is asked for.
pub(crate) fn pace(spec: &ReplaySpec) -> Pace {
    let throttle = spec.throttle.as_ref();
    let asked = throttle.and_then(|throttle| throttle.max_events_per_second);
    let most = asked.unwrap_or(DEFAULT_EVENTS_PER_SECOND);
    Pace {
        max_events_per_second: Some(most).filter(|most| *most > 0),
        suspended: spec.suspend,
    }
}

fn loading(spec: &ReplaySpec, view: &RebuildView, world: &World) -> Step {
    let wanted = pace(spec);
    if view.pace != wanted {
        return Step::SetPace(wanted);
    }
    if view.lanes_done >= view.lanes_total {
        return match (&world.task, spec.suspend) {
            (TaskView::Ended(task, end), _) => Step::Take(*task, end.clone()),
            (TaskView::Running(_), _) => watching(Phase::Finishing),
            (TaskView::Idle, true) => waiting(Phase::Suspended),
            (TaskView::Idle, false) => Step::Run(Task::Finish),
        };
    }
    match (&world.work, spec.suspend) {
        (WorkView::Failed { message }, _) => Step::CountFailure {
            message: message.clone(),
            for_good: true,
        },
        // A worker that is done before its lanes are has misunderstood something; another one may
        // not, a bounded number of times.
        (WorkView::Complete, _) => Step::CountFailure {
            message: "the workers ended before all partitions were loaded".to_owned(),
            for_good: false,
        },
        (WorkView::Running, true) => Step::Work { hold: true },
        (WorkView::Absent | WorkView::Held | WorkView::ByItself, true) => waiting(Phase::Suspended),
        (WorkView::Absent | WorkView::Held, false) => Step::Work { hold: false },
        (WorkView::Running | WorkView::ByItself, false) => watching(Phase::Loading),
    }
}

fn candidate(
    spec: &ReplaySpec,
    body: &RebuildSpec,
    view: &RebuildView,
    status: &ReplayStatus,
    world: &World,
) -> Step {
    if status.cutover_started.is_some() {
        return Step::Switch;
    }
    match &world.task {
        TaskView::Ended(task, end) => return Step::Take(*task, end.clone()),
        TaskView::Running(_) if spec.suspend => return Step::StopTask,
        TaskView::Running(Task::Finish) => return watching(Phase::Finishing),
        TaskView::Running(Task::Verify) => return watching(Phase::Verifying),
        TaskView::Idle => {}
    }
    if matches!(world.work, WorkView::Running | WorkView::Held) {
        // Nothing is left for them to load.
        return Step::StopWork;
    }
    if spec.suspend {
        return waiting(Phase::Suspended);
    }
    let within = view
        .lag
        .is_some_and(|lag| lag <= u64::from(body.cutover.max_lag));
    if status.caught_up_time.is_none() {
        return if within {
            Step::CaughtUp
        } else {
            watching(Phase::CatchingUp)
        };
    }
    if body.verify.mode != VerifyMode::None && status.verification.is_none() {
        return Step::Run(Task::Verify);
    }
    if body.cutover.strategy == CutoverStrategy::Manual && !spec.approve {
        return waiting(Phase::AwaitingApproval);
    }
    if !within {
        return watching(Phase::CatchingUp);
    }
    Step::AnnounceCutover
}

fn switched(status: &ReplayStatus, world: &World) -> Step {
    if world.task != TaskView::Idle {
        return Step::StopTask;
    }
    if matches!(world.work, WorkView::Running | WorkView::Held) {
        return Step::StopWork;
    }
    let generation = status
        .generations
        .as_ref()
        .and_then(|generations| generations.candidate.as_deref())
        .unwrap_or("the new generation");
    Step::End(Ending::Succeeded {
        reason: "Succeeded",
        message: format!("queries are answered from {generation}"),
    })
}
