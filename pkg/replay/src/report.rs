//! What is written down after a step: pure, like the plan.

use k8s_openapi::jiff::{SignedDuration, Timestamp};

use crate::conditions::{
    CAUGHT_UP, CUT_OVER, Pen, VALIDATED, VERIFIED, explain, progress, seconds, shortened,
};
use crate::engine::{Outline, Record};
use crate::plan::{Ending, Step};
use crate::resource::{ReplaySpec, VerifyMode};
use crate::status::{
    Generations, JobRef, MAX_SAMPLE_KEY_CHARS, MAX_SAMPLE_KEYS, Phase, RedriveStatus, ReplayStatus,
    VerificationStatus,
};
use crate::world::{RebuildView, Task, TaskEnd, World};

/// What came of a step.
#[derive(Clone, Debug, PartialEq)]
pub enum Outcome {
    /// It is done.
    Done,
    /// What the replay would do.
    Outlined(Box<Outline>),
    /// It can never be done.
    Refused {
        /// As a condition has it.
        reason: String,
        /// In a sentence.
        message: String,
    },
    /// The new generation.
    Begun(Box<RebuildView>),
    /// The switch happened; the generation that was live before, if another was.
    Switched(Option<String>),
    /// Where the run over dead letters stands.
    Redriven(RedriveStatus),
    /// It is too early, and nothing was changed.
    NotYet(String),
    /// A store does not answer.
    Unavailable(String),
    /// It failed in a way that counts.
    Failed(String),
}

/// Gives the status to be written after a step; the same as before when nothing is to be written.
#[must_use]
pub fn after(
    record: &Record,
    world: &World,
    step: &Step,
    outcome: &Outcome,
    job: Option<String>,
) -> ReplayStatus {
    let mut status = record.status.clone();
    found(&mut status, world, job);
    let now = world.now;
    let mut pen = Pen {
        status: &mut status,
        now,
        generation: record.generation,
    };
    match outcome {
        Outcome::Unavailable(error) => pen.status.last_error = Some(shortened(error)),
        Outcome::Failed(error) => {
            pen.status.attempts = pen.status.attempts.saturating_add(1);
            pen.status.last_error = Some(shortened(error));
        }
        Outcome::NotYet(error) => {
            pen.status.last_error = Some(shortened(error));
        }
        Outcome::Refused { reason, message } => pen.set(VALIDATED, "False", reason, message),
        _ => done(&mut pen, &record.spec, world, step, outcome),
    }
    if record.status.ended() {
        pen.seen();
    } else {
        stands(&mut pen, world, step);
    }
    if let Some(view) = &world.rebuild
        && !record.status.ended()
    {
        let due = status != record.status;
        progress(&mut status, view, now, due);
    }
    status
}

/// What was found rather than done.
fn found(status: &mut ReplayStatus, world: &World, job: Option<String>) {
    if status.ended() {
        return;
    }
    if let Some(view) = &world.rebuild {
        let generations = status.generations.get_or_insert_default();
        generations.candidate = Some(view.generation.clone());
        generations.active.clone_from(&view.live);
        if status.targets.is_empty() {
            status.targets.clone_from(&view.targets);
        }
    }
    if world.work.engaged() && status.job_ref.is_none() {
        status.job_ref = job.map(|name| JobRef { name });
    }
    if let Some(view) = &world.redrive {
        status.redrive = Some(view.counts);
    }
}

/// What a step that worked changed.
fn done(pen: &mut Pen<'_>, spec: &ReplaySpec, world: &World, step: &Step, outcome: &Outcome) {
    match (step, outcome) {
        (Step::Outline, Outcome::Outlined(outline)) => outlined(pen, spec, outline),
        (Step::Start, _) => pen.status.start_time = Some(seconds(pen.now)),
        (Step::Begin, Outcome::Begun(view)) => begun(pen, view),
        (Step::CountFailure { message, for_good }, _) => {
            let least = if *for_good { spec.backoff_limit } else { 0 };
            pen.status.attempts = pen.status.attempts.max(least).saturating_add(1);
            pen.status.last_error = Some(shortened(message));
        }
        (Step::CaughtUp, _) => {
            pen.status.caught_up_time = Some(seconds(pen.now));
            pen.set(
                CAUGHT_UP,
                "True",
                "WithinMaxLag",
                "the new generation is current",
            );
            let mode = spec.rebuild.as_ref().map(|body| body.verify.mode);
            if mode == Some(VerifyMode::None) {
                pen.set(
                    VERIFIED,
                    "True",
                    "NotAsked",
                    "spec.rebuild.verify.mode is None",
                );
            }
        }
        (Step::Take(Task::Finish, TaskEnd::Finished), _) => {
            pen.set(
                CAUGHT_UP,
                "False",
                "CatchingUp",
                "the new generation is loaded",
            );
        }
        (Step::Take(Task::Verify, TaskEnd::Verified(verification)), _) => {
            verified(pen, spec, verification);
        }
        (Step::AnnounceCutover, _) => announced(pen, spec, world),
        (Step::Switch | Step::RollBack, Outcome::Switched(previous)) => {
            switched(pen, spec, previous.as_ref());
        }
        (Step::DropPrevious, _) => {
            if let Some(generations) = &mut pen.status.generations {
                generations.previous = None;
                generations.previous_retained_until = None;
            }
        }
        (Step::BeginRedrive | Step::AdvanceRedrive, Outcome::Redriven(counts)) => {
            pen.status.redrive = Some(*counts);
        }
        _ => {}
    }
}

fn outlined(pen: &mut Pen<'_>, spec: &ReplaySpec, outline: &Outline) {
    pen.status.targets.clone_from(&outline.targets);
    let mut plan = outline.summary.clone();
    plan.summary = shortened(&plan.summary);
    pen.status.plan = Some(plan);
    pen.status.generations = Some(Generations {
        active: outline.live.clone(),
        candidate: spec
            .rollback
            .as_ref()
            .map(|body| body.to_generation.clone()),
        ..Generations::default()
    });
    pen.set(
        VALIDATED,
        "True",
        "Accepted",
        "what is asked for can be done",
    );
}

fn begun(pen: &mut Pen<'_>, view: &RebuildView) {
    let generations = pen.status.generations.get_or_insert_default();
    let lost = generations
        .candidate
        .as_ref()
        .filter(|old| **old != view.generation);
    if let Some(lost) = lost {
        let message = format!(
            "generation {lost} is gone; {} begins again",
            view.generation
        );
        pen.status.last_error = Some(shortened(&message));
        pen.status.attempts = pen.status.attempts.saturating_add(1);
    }
    generations.candidate = Some(view.generation.clone());
    generations.active.clone_from(&view.live);
    pen.status.targets.clone_from(&view.targets);
}

fn verified(pen: &mut Pen<'_>, spec: &ReplaySpec, verification: &VerificationStatus) {
    let sample_keys = verification
        .sample_keys
        .iter()
        .take(MAX_SAMPLE_KEYS)
        .map(|key| key.chars().take(MAX_SAMPLE_KEY_CHARS).collect())
        .collect();
    let allowed = spec
        .rebuild
        .as_ref()
        .map_or(0, |body| body.verify.max_mismatches);
    let VerificationStatus {
        compared,
        mismatches,
        ..
    } = *verification;
    let message = format!("{mismatches} of {compared} compared keys differ, {allowed} may");
    if mismatches <= u64::from(allowed) {
        pen.set(VERIFIED, "True", "Compared", &message);
    } else {
        pen.set(VERIFIED, "False", "Differs", &message);
    }
    pen.status.verification = Some(VerificationStatus {
        compared,
        mismatches,
        sample_keys,
    });
}

fn announced(pen: &mut Pen<'_>, spec: &ReplaySpec, world: &World) {
    let live = world
        .rebuild
        .as_ref()
        .map_or(&world.live, |view| &view.live);
    let generations = pen.status.generations.get_or_insert_default();
    if let Some(body) = &spec.rollback {
        generations.candidate = Some(body.to_generation.clone());
    }
    generations.previous = live
        .clone()
        .filter(|live| Some(live) != generations.candidate.as_ref());
    pen.status.cutover_started = Some(seconds(pen.now));
    pen.set(CUT_OVER, "False", "CuttingOver", "the switch has begun");
}

fn switched(pen: &mut Pen<'_>, spec: &ReplaySpec, previous: Option<&String>) {
    let now = pen.now;
    let generations = pen.status.generations.get_or_insert_default();
    generations.active.clone_from(&generations.candidate);
    if let Some(previous) =
        previous.filter(|previous| Some(*previous) != generations.candidate.as_ref())
    {
        generations.previous = Some(previous.clone());
    }
    if let (Some(body), Some(_)) = (&spec.rebuild, &generations.previous) {
        generations.previous_retained_until = retained(now, body.cutover.retain_previous_seconds);
    }
    pen.status
        .cutover_started
        .get_or_insert_with(|| seconds(now));
    pen.status.switch_time = Some(seconds(now));
    pen.set(
        CUT_OVER,
        "True",
        "Switched",
        "queries are answered from the new generation",
    );
}

fn retained(
    now: Timestamp,
    seconds_long: u32,
) -> Option<k8s_openapi::apimachinery::pkg::apis::meta::v1::Time> {
    now.checked_add(SignedDuration::from_secs(seconds_long.into()))
        .ok()
        .map(seconds)
}

/// Where the replay stands after the step.
fn stands(pen: &mut Pen<'_>, world: &World, step: &Step) {
    match step {
        Step::End(ending) => {
            if !matches!(ending, Ending::Succeeded { .. })
                && let Some(generations) = &mut pen.status.generations
            {
                // Nothing was switched, so nothing was left behind by a switch.
                generations.previous = None;
                generations.candidate = None;
            }
            pen.ended(ending);
        }
        Step::Queue { position, behind } => {
            pen.status.queue_position = Some(*position);
            pen.under_way(Phase::Queued, &format!("waits for {behind}"));
        }
        Step::RaiseFlag => {
            pen.status.queue_position = Some(0);
            pen.under_way(Phase::Pending, "about to start");
        }
        step => {
            let Some(phase) = phase(step, world) else {
                return;
            };
            pen.status.queue_position = None;
            let message = explain(phase, pen.status);
            pen.under_way(phase, &message);
        }
    }
}

/// Where a replay stands that goes on; `None` when the step says nothing about it.
fn phase(step: &Step, world: &World) -> Option<Phase> {
    Some(match step {
        Step::Outline | Step::Start => Phase::Pending,
        Step::Begin | Step::Work { hold: false } | Step::CountFailure { .. } => Phase::Loading,
        Step::Run(Task::Finish) => Phase::Finishing,
        Step::Run(Task::Verify) => Phase::Verifying,
        Step::CaughtUp => Phase::CatchingUp,
        Step::AnnounceCutover | Step::Switch | Step::RollBack => Phase::CuttingOver,
        Step::BeginRedrive | Step::AdvanceRedrive => Phase::Redriving,
        Step::Discard | Step::CancelRedrive if !world.deleting => Phase::CleaningUp,
        Step::Wait { phase, .. } => *phase,
        _ => return None,
    })
}
