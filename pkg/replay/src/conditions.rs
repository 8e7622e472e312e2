//! What people and tools read: conditions, phase and progress, made from the facts.
//!
//! `Succeeded` is Unknown until the end, so that `kubectl wait` works; `Reconciling` and `Stalled`
//! are there only while they are True, so that tools that follow kstatus judge rightly.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use k8s_openapi::jiff::{SignedDuration, Timestamp};

use crate::plan::Ending;
use crate::status::{MAX_MESSAGE_CHARS, Phase, Progress, ReplayStatus};
use crate::world::RebuildView;

/// Whether it ended as asked: Unknown, then True or False.
pub const SUCCEEDED: &str = "Succeeded";
/// Whether it is done; its reason is where the replay stands.
pub const READY: &str = "Ready";
/// There while the replay is at work or waits.
pub const RECONCILING: &str = "Reconciling";
/// There when it failed for good or was cancelled.
pub const STALLED: &str = "Stalled";
/// Whether what is asked for can be done.
pub const VALIDATED: &str = "Validated";
/// Whether the new generation was within `maxLag` of the heads.
pub const CAUGHT_UP: &str = "CaughtUp";
/// Whether the comparison allows the switch.
pub const VERIFIED: &str = "Verified";
/// Whether the switch happened.
pub const CUT_OVER: &str = "CutOver";
/// Whether it is held.
pub const SUSPENDED: &str = "Suspended";

/// Progress alone is written at most this often.
pub const PROGRESS_INTERVAL: SignedDuration = SignedDuration::from_secs(5);

/// Puts conditions into a status, each with the present and the generation it answers.
#[derive(Debug)]
pub(crate) struct Pen<'a> {
    pub(crate) status: &'a mut ReplayStatus,
    pub(crate) now: Timestamp,
    pub(crate) generation: i64,
}

impl Pen<'_> {
    /// Writes a condition. Its time of transition changes with its status only.
    pub(crate) fn set(&mut self, kind: &str, status: &str, reason: &str, message: &str) {
        let written = Condition {
            type_: kind.to_owned(),
            status: status.to_owned(),
            reason: reason.to_owned(),
            message: shortened(message),
            observed_generation: Some(self.generation),
            last_transition_time: seconds(self.now),
        };
        match self.status.conditions.iter_mut().find(|c| c.type_ == kind) {
            Some(old) if old.status == status => {
                let since = old.last_transition_time.clone();
                *old = Condition {
                    last_transition_time: since,
                    ..written
                };
            }
            Some(old) => *old = written,
            None => self.status.conditions.push(written),
        }
    }

    fn clear(&mut self, kind: &str) {
        self.status.conditions.retain(|c| c.type_ != kind);
    }

    /// Writes where a replay stands that goes on.
    pub(crate) fn under_way(&mut self, phase: Phase, message: &str) {
        self.status.observed_generation = self.generation;
        self.status.phase = Some(phase);
        let reason = phase.as_str();
        self.set(SUCCEEDED, "Unknown", reason, message);
        self.set(READY, "False", reason, message);
        self.set(RECONCILING, "True", reason, message);
        self.clear(STALLED);
        if phase == Phase::Suspended {
            let message = "held by spec.suspend; set it to false to go on";
            self.set(SUSPENDED, "True", "Suspended", message);
        } else if self.status.condition(SUSPENDED).is_some() {
            self.set(SUSPENDED, "False", "Resumed", "it goes on");
        }
    }

    /// Writes how a replay ended.
    pub(crate) fn ended(&mut self, ending: &Ending) {
        self.status.observed_generation = self.generation;
        self.status.completion_time = Some(seconds(self.now));
        self.status.queue_position = None;
        self.clear(RECONCILING);
        self.clear(SUSPENDED);
        let (phase, reason, message) = match ending {
            Ending::Succeeded { reason, message } => {
                self.status.phase = Some(Phase::Succeeded);
                self.set(SUCCEEDED, "True", reason, message);
                self.set(READY, "True", reason, message);
                return;
            }
            Ending::Failed { reason, message } => {
                (Phase::Failed, reason.as_str(), message.as_str())
            }
            Ending::Cancelled | Ending::Deleted => {
                let message = "cancelled; what it made is dropped, the live generation stayed";
                (Phase::Cancelled, "Cancelled", message)
            }
        };
        self.status.phase = Some(phase);
        self.set(SUCCEEDED, "False", reason, message);
        self.set(READY, "False", reason, message);
        self.set(STALLED, "True", reason, message);
    }

    /// Answers a spec that was changed after the end.
    pub(crate) fn seen(&mut self) {
        if self.status.observed_generation != self.generation {
            self.status.observed_generation = self.generation;
            for condition in &mut self.status.conditions {
                condition.observed_generation = Some(self.generation);
            }
        }
    }
}

/// A message for each phase of a replay that goes on.
pub(crate) fn explain(phase: Phase, status: &ReplayStatus) -> String {
    let generation = status
        .generations
        .as_ref()
        .and_then(|generations| generations.candidate.clone())
        .unwrap_or_else(|| "the new generation".to_owned());
    match phase {
        Phase::Loading => format!("events are folded into {generation}"),
        Phase::Finishing => format!("{generation} is loaded and gets its indexes"),
        Phase::CatchingUp => {
            format!("the projector brings {generation} up to the heads of the logs")
        }
        Phase::Verifying => format!("{generation} is compared with the live generation"),
        Phase::AwaitingApproval => {
            format!("{generation} is ready; set spec.approve to true to switch to it")
        }
        Phase::CuttingOver => format!("queries are switched to {generation}"),
        Phase::Redriving => "dead letters are dealt with".to_owned(),
        Phase::Suspended => "held by spec.suspend; set it to false to go on".to_owned(),
        Phase::CleaningUp => "what was made is dropped".to_owned(),
        phase => phase.as_str().to_owned(),
    }
}

/// Puts how far a rebuild is into the status, if it is time to, or if somebody looks anyway
/// because something else changed.
pub(crate) fn progress(status: &mut ReplayStatus, view: &RebuildView, now: Timestamp, due: bool) {
    let old = status.progress.clone().unwrap_or_default();
    let since = old
        .updated_at
        .as_ref()
        .or(status.start_time.as_ref())
        .map_or(now, |at| at.0);
    let elapsed = now.duration_since(since);
    if !due && old.updated_at.is_some() && elapsed < PROGRESS_INTERVAL {
        return;
    }
    let folded = view.events_done.saturating_sub(old.events_processed);
    let millis = u64::try_from(elapsed.as_millis()).unwrap_or(0);
    let rate = if millis >= 1_000 {
        folded.saturating_mul(1_000) / millis
    } else {
        old.events_per_second
    };
    let left = view.events_total.saturating_sub(view.events_done);
    let new = Progress {
        events_total: view.events_total,
        events_processed: view.events_done,
        percent: percent(view.events_done, view.events_total),
        events_per_second: if left == 0 { 0 } else { rate },
        lag: view.lag,
        estimated_completion_time: expected(now, left, rate),
        partitions_done: view.lanes_done,
        partitions_total: view.lanes_total,
        updated_at: old.updated_at.clone(),
    };
    let same = Progress {
        estimated_completion_time: old.estimated_completion_time.clone(),
        ..new.clone()
    } == old;
    if !same {
        status.progress = Some(Progress {
            updated_at: Some(seconds(now)),
            ..new
        });
    }
}

fn percent(done: u64, total: u64) -> u32 {
    let share = done.min(total).saturating_mul(100).checked_div(total);
    share.map_or(100, |share| u32::try_from(share).unwrap_or(100))
}

fn expected(now: Timestamp, left: u64, rate: u64) -> Option<Time> {
    if left == 0 {
        return None;
    }
    let seconds_left = i64::try_from(left.checked_div(rate)?).ok()?;
    now.checked_add(SignedDuration::from_secs(seconds_left))
        .ok()
        .map(seconds)
}

/// A time as the API server keeps it, so that what is read back is what was written.
pub(crate) fn seconds(at: Timestamp) -> Time {
    Time(Timestamp::from_second(at.as_second()).unwrap_or(at))
}

/// A message that a status may carry.
pub(crate) fn shortened(message: &str) -> String {
    if message.chars().count() <= MAX_MESSAGE_CHARS {
        return message.to_owned();
    }
    let kept: String = message.chars().take(MAX_MESSAGE_CHARS - 1).collect();
    format!("{kept}…")
}
