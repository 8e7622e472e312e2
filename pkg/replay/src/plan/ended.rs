//! What is left to do when a replay has ended.

use std::time::Duration;

use k8s_openapi::jiff::{SignedDuration, Timestamp};

use super::{IDLE_INTERVAL, Step};
use crate::resource::ReplaySpec;
use crate::status::{Phase, ReplayStatus};
use crate::world::{Stage, TaskView, World};

pub(super) fn next(spec: &ReplaySpec, status: &ReplayStatus, world: &World) -> Step {
    if world.task != TaskView::Idle {
        return Step::StopTask;
    }
    // What another driver of the same replay began while this one ended it.
    let unfinished = |stage| matches!(stage, Stage::Loading | Stage::Candidate);
    if status.switch_time.is_none() && world.rebuild.as_ref().is_some_and(|v| unfinished(v.stage)) {
        return if world.work.engaged() {
            Step::StopWork
        } else {
            Step::Discard
        };
    }
    if world.deleting {
        return match status.previous() {
            Some(_) => Step::DropPrevious,
            None => Step::Release,
        };
    }
    let retained_until = status
        .generations
        .as_ref()
        .and_then(|generations| generations.previous_retained_until.as_ref());
    if status.previous().is_some()
        && let Some(until) = retained_until
    {
        return if world.now >= until.0 {
            Step::DropPrevious
        } else {
            rest(status, world.now, Some(until.0))
        };
    }
    let end = status
        .completion_time
        .as_ref()
        .filter(|_| status.is_true("Succeeded"));
    let removed_at = end
        .zip(spec.ttl_seconds_after_finished)
        .and_then(|(end, ttl)| {
            end.0
                .checked_add(SignedDuration::from_secs(ttl.into()))
                .ok()
        });
    match removed_at {
        Some(at) if world.now >= at => Step::Remove,
        at => rest(status, world.now, at),
    }
}

fn rest(status: &ReplayStatus, now: Timestamp, due: Option<Timestamp>) -> Step {
    let at_most = due
        .and_then(|due| Duration::try_from(due.duration_since(now)).ok())
        .map_or(IDLE_INTERVAL, |left| left.min(IDLE_INTERVAL));
    let phase = if status.is_true("Succeeded") {
        Phase::Succeeded
    } else if status
        .condition("Succeeded")
        .is_some_and(|c| c.reason == "Cancelled")
    {
        Phase::Cancelled
    } else {
        Phase::Failed
    };
    Step::Wait { phase, at_most }
}
