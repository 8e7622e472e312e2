//! What comes next: a pure function of what was asked, what is known and what was found.
//!
//! The plan gives one step at a time and keeps nothing. Whoever performs a step writes down what
//! it did and asks again, so a driver that dies between two steps, or in the midst of one, leaves
//! nothing but a question that is asked again: every step may be done twice.

mod ended;
mod rebuild;
mod redrive;
mod rollback;

pub(crate) use rebuild::pace as rebuild_pace;

use std::time::Duration;

use k8s_openapi::jiff::{SignedDuration, Timestamp};

use crate::conditions::{SUSPENDED, VALIDATED};
use crate::resource::{Body, OnConflict, ReplaySpec};
use crate::status::{Phase, ReplayStatus};
use crate::world::{Pace, Rival, Stage, Task, TaskEnd, TaskView, World};

/// How often something that moves is looked at.
pub const WATCH_INTERVAL: Duration = Duration::from_secs(1);
/// How often something that waits for others or for people is looked at; a change of the resource
/// is seen at once.
pub const PATIENT_INTERVAL: Duration = Duration::from_secs(5);
/// How often a replay that ended is looked at, when nothing is due earlier.
pub const IDLE_INTERVAL: Duration = Duration::from_secs(600);
/// How long a rollback's switch may be tried.
pub const ROLLBACK_TIMEOUT: SignedDuration = SignedDuration::from_secs(300);

/// What is to be done next.
#[derive(Clone, Debug, PartialEq)]
pub enum Step {
    /// Keep the resource from vanishing before what it made is dropped.
    Hold,
    /// Let the resource vanish.
    Release,
    /// Delete the resource, its time has come.
    Remove,
    /// Ask the engine what the replay would do, which also says whether it can be done.
    Outline,
    /// Wait for other replays of the projection.
    Queue {
        /// How many come before; 0 keeps the flag up.
        position: u32,
        /// The one that is waited for.
        behind: String,
    },
    /// Show that this replay is about to take its turn.
    RaiseFlag,
    /// Take the turn.
    Start,
    /// Make the new generation.
    Begin,
    /// Tell the workers how fast they may go.
    SetPace(Pace),
    /// Have the bulk work done, or held.
    Work {
        /// Whether it is to be held.
        hold: bool,
    },
    /// End the bulk work.
    StopWork,
    /// Write down that the work failed for good, or failed once more.
    CountFailure {
        /// Why, in a sentence.
        message: String,
        /// Whether those who work gave up.
        for_good: bool,
    },
    /// Run something long beside the steps.
    Run(Task),
    /// Give up what runs beside the steps.
    StopTask,
    /// Write down how what ran beside the steps ended.
    Take(Task, TaskEnd),
    /// Write down that the new generation has caught up.
    CaughtUp,
    /// Write down that the switch begins: from here it cannot be cancelled.
    AnnounceCutover,
    /// Switch to the new generation.
    Switch,
    /// Switch back to an earlier generation.
    RollBack,
    /// Drop the previous generation, its time has come.
    DropPrevious,
    /// Drop the generation that this replay made.
    Discard,
    /// Begin a run over dead letters.
    BeginRedrive,
    /// Take the next of the dead letters.
    AdvanceRedrive,
    /// End the run over dead letters.
    CancelRedrive,
    /// Write down that it is over.
    End(Ending),
    /// Look again later.
    Wait {
        /// Where it stands meanwhile.
        phase: Phase,
        /// When to look again at the latest.
        at_most: Duration,
    },
}

/// How a replay ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ending {
    /// What was asked for is done.
    Succeeded {
        /// As a condition has it.
        reason: &'static str,
        /// In a sentence.
        message: String,
    },
    /// It cannot be done.
    Failed {
        /// As a condition has it.
        reason: String,
        /// In a sentence.
        message: String,
    },
    /// It was asked to end.
    Cancelled,
    /// The resource goes, so nothing is written any more.
    Deleted,
}

impl Ending {
    pub(crate) fn failed(reason: &str, message: impl Into<String>) -> Self {
        Self::Failed {
            reason: reason.to_owned(),
            message: message.into(),
        }
    }
}

/// Gives the next step.
#[must_use]
pub fn next(spec: &ReplaySpec, status: &ReplayStatus, world: &World) -> Step {
    if status.ended() {
        return ended::next(spec, status, world);
    }
    if world.deleting && untouched(status, world) {
        return Step::Release;
    }
    let Some(body) = spec.body() else {
        let message = "the body that `type` names is missing";
        return wind_down(world, Ending::failed("InvalidSpec", message));
    };
    if spec.dry_run {
        return dry_run(spec, status);
    }
    if !world.held && !world.deleting {
        return Step::Hold;
    }
    if let Some(ending) = doom(spec, status, world) {
        return wind_down(world, ending);
    }
    if status.condition(VALIDATED).is_none() {
        return Step::Outline;
    }
    match body {
        Body::Rebuild(body) => rebuild::next(spec, body, status, world),
        Body::Redrive(_) => redrive::next(spec, status, world),
        Body::Rollback(body) => rollback::next(spec, body, status, world),
    }
}

/// Whether nothing was made that would have to be dropped.
fn untouched(status: &ReplayStatus, world: &World) -> bool {
    status.cutover_started.is_none()
        && world.rebuild.is_none()
        && world.redrive.is_none()
        && !world.work.engaged()
        && world.task == TaskView::Idle
}

fn dry_run(spec: &ReplaySpec, status: &ReplayStatus) -> Step {
    if spec.cancel {
        return Step::End(Ending::Cancelled);
    }
    match status.condition(VALIDATED) {
        None => Step::Outline,
        Some(validated) if validated.status == "True" => Step::End(Ending::Succeeded {
            reason: "Planned",
            message: "a dry run: the plan is in status.plan, nothing was changed".to_owned(),
        }),
        Some(refused) => Step::End(Ending::Failed {
            reason: refused.reason.clone(),
            message: refused.message.clone(),
        }),
    }
}

/// Whether the switch of this replay has happened.
fn switched(status: &ReplayStatus, world: &World) -> bool {
    let active = |stage| matches!(stage, Stage::Active | Stage::Retained);
    status.switch_time.is_some()
        || world
            .rebuild
            .as_ref()
            .is_some_and(|view| active(view.stage))
}

/// Why the replay cannot go on, if it cannot. Every reason stays a reason while the replay winds
/// down: it stands in the spec, in the status, or in the clock.
fn doom(spec: &ReplaySpec, status: &ReplayStatus, world: &World) -> Option<Ending> {
    if switched(status, world) {
        return None;
    }
    if let Some(refused) = status.condition(VALIDATED).filter(|c| c.status == "False") {
        return Some(Ending::Failed {
            reason: refused.reason.clone(),
            message: refused.message.clone(),
        });
    }
    if let Some(started) = &status.cutover_started {
        // Nothing but time ends a switch that has begun: it is one transaction in the store, and
        // what looks undone here may be done there.
        let late = match spec.body() {
            Some(Body::Rebuild(body)) => {
                SignedDuration::from_secs(body.cutover.timeout_seconds.into())
            }
            _ => ROLLBACK_TIMEOUT,
        };
        let message = format!(
            "the switch did not happen within {} s of its beginning{}",
            late.as_secs(),
            because(status)
        );
        return past(world.now, started.0, late).then(|| Ending::failed("CutoverTimeout", message));
    }
    if world.deleting {
        return Some(Ending::Deleted);
    }
    if spec.cancel {
        return Some(Ending::Cancelled);
    }
    if status.attempts > spec.backoff_limit {
        let message = format!(
            "the work failed more than {} times{}",
            spec.backoff_limit,
            because(status)
        );
        return Some(Ending::failed("BackoffLimitExceeded", message));
    }
    if let Some(ending) = mismatch(spec, status) {
        return Some(ending);
    }
    if let Some(seconds) = spec.active_deadline_seconds
        && !spec.suspend
        && let Some(since) = active_since(status)
        && past(world.now, since, SignedDuration::from_secs(seconds.into()))
    {
        let message = format!("it took longer than activeDeadlineSeconds, {seconds} s");
        return Some(Ending::failed("DeadlineExceeded", message));
    }
    conflict(spec, status, world)
}

fn because(status: &ReplayStatus) -> String {
    status
        .last_error
        .as_ref()
        .map_or_else(String::new, |error| format!("; the last error: {error}"))
}

/// Whether the comparison found more than it may.
fn mismatch(spec: &ReplaySpec, status: &ReplayStatus) -> Option<Ending> {
    let verification = status.verification.as_ref()?;
    let allowed = u64::from(spec.rebuild.as_ref()?.verify.max_mismatches);
    (verification.mismatches > allowed).then(|| {
        let message = format!(
            "{} of {} compared keys differ from the live generation, {allowed} may: see status.verification.sampleKeys",
            verification.mismatches, verification.compared
        );
        Ending::failed("VerificationFailed", message)
    })
}

/// Why a replay failed that does not wait for others.
pub(crate) const CONFLICT: &str = "Conflict";

/// Whether another replay is active and this one was not to wait for it.
fn conflict(spec: &ReplaySpec, status: &ReplayStatus, world: &World) -> Option<Ending> {
    if spec.on_conflict != OnConflict::Fail || status.start_time.is_some() {
        return None;
    }
    let other = ahead(status, world).next()?;
    let message = format!(
        "{} is active on the same projection, and onConflict is Fail",
        other.name
    );
    Some(Ending::failed(CONFLICT, message))
}

/// The replays of the projection whose turn is before this one's.
fn ahead<'a>(status: &ReplayStatus, world: &'a World) -> impl Iterator<Item = &'a Rival> {
    let raised = status.queue_position == Some(0);
    let before = move |rival: &&Rival| rival.raised || (!raised && rival.before);
    world.rivals.iter().filter(before)
}

/// Since when the deadline counts: the start, or the last time it was resumed, as for a Job.
fn active_since(status: &ReplayStatus) -> Option<Timestamp> {
    let start = status.start_time.as_ref()?.0;
    let resumed = status
        .condition(SUSPENDED)
        .filter(|c| c.status == "False")
        .map(|c| c.last_transition_time.0);
    Some(resumed.map_or(start, |resumed| resumed.max(start)))
}

/// Whether `bound` has gone by since `since`. A clock that went back has not reached it.
fn past(now: Timestamp, since: Timestamp, bound: SignedDuration) -> bool {
    now.duration_since(since) >= bound
}

/// Drops what was made, piece by piece, then ends.
fn wind_down(world: &World, ending: Ending) -> Step {
    if world.task != TaskView::Idle {
        return Step::StopTask;
    }
    if world.work.engaged() {
        return Step::StopWork;
    }
    if world.rebuild.is_some() {
        return Step::Discard;
    }
    if redrive::runs(world) {
        return Step::CancelRedrive;
    }
    match ending {
        Ending::Deleted => Step::Release,
        ending => Step::End(ending),
    }
}

/// The step before any work: nothing once the turn is taken.
///
/// A replay raises its flag (a queue position of 0), looks once more, and takes its turn
/// (`startTime`) only when no other flag is up. Of two that raised it at once the younger one takes
/// it down, and the older one waits for that. Each of these is written over exactly what was read,
/// so two never work on one projection, whoever drives them.
fn turn(spec: &ReplaySpec, status: &ReplayStatus, world: &World) -> Option<Step> {
    if status.start_time.is_some() {
        return None;
    }
    if spec.suspend {
        return Some(waiting(Phase::Suspended));
    }
    let raised = status.queue_position == Some(0);
    let mut ahead = ahead(status, world);
    let Some(first) = ahead.next() else {
        return Some(if raised { Step::Start } else { Step::RaiseFlag });
    };
    let stays = raised
        && !world
            .rivals
            .iter()
            .any(|rival| rival.raised && rival.before);
    let others = u32::try_from(ahead.count()).unwrap_or(u32::MAX);
    Some(Step::Queue {
        position: if stays { 0 } else { others.saturating_add(1) },
        behind: first.name.clone(),
    })
}

fn watching(phase: Phase) -> Step {
    Step::Wait {
        phase,
        at_most: WATCH_INTERVAL,
    }
}

fn waiting(phase: Phase) -> Step {
    Step::Wait {
        phase,
        at_most: PATIENT_INTERVAL,
    }
}

#[cfg(test)]
mod tests;
