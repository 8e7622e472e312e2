//! What the metrics tell of Replays: how many are in which phase, how far they are, and for how long one
//! that should get on has not.
//!
//! No series has a Replay's name: Replays come and go, and a series would outlive its own.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use millrace_replay::{Replay, status::Phase};

const REPLAYS: &str = "millrace_replays";
const STILL: &str = "millrace_replay_still_seconds";
const FOLDED: &str = "millrace_replay_events_folded";
const BEHIND: &str = "millrace_replay_positions_behind";

/// What is seen to change when a Replay gets on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Mark {
    phase: Phase,
    folded: u64,
    behind: Option<u64>,
}

impl Mark {
    fn of(replay: &Replay) -> Self {
        let status = replay.status.as_ref();
        let progress = status.and_then(|status| status.progress.as_ref());
        Self {
            phase: status
                .and_then(|status| status.phase)
                .unwrap_or(Phase::Pending),
            folded: progress.map_or(0, |progress| progress.events_processed),
            behind: progress.and_then(|progress| progress.lag),
        }
    }
}

/// The Replays as they were last seen.
#[derive(Debug, Default)]
pub(crate) struct Telling {
    /// By uid; only of those that are there.
    marks: HashMap<String, (Mark, Instant)>,
}

/// What is told.
#[derive(Debug, Default, PartialEq, Eq)]
struct Told {
    phases: HashMap<&'static str, u32>,
    still: Duration,
    folded: u64,
    behind: u64,
}

impl Telling {
    /// Sets the metrics by what is there now.
    pub(crate) fn tell<'a>(&mut self, replays: impl Iterator<Item = &'a Replay>) {
        let told = self.look(replays, Instant::now());
        for phase in Phase::ALL {
            let count = told.phases.get(phase.as_str()).copied().unwrap_or(0);
            metrics::gauge!(REPLAYS, "phase" => phase.as_str()).set(f64::from(count));
        }
        metrics::gauge!(STILL).set(told.still.as_secs_f64());
        #[expect(clippy::cast_precision_loss, reason = "metrics are floats")]
        {
            metrics::gauge!(FOLDED).set(told.folded as f64);
            metrics::gauge!(BEHIND).set(told.behind as f64);
        }
    }

    fn look<'a>(&mut self, replays: impl Iterator<Item = &'a Replay>, now: Instant) -> Told {
        let mut marks = HashMap::new();
        let mut told = Told::default();
        for replay in replays {
            let Some(uid) = replay.metadata.uid.clone() else {
                continue;
            };
            let mark = Mark::of(replay);
            *told.phases.entry(mark.phase.as_str()).or_default() += 1;
            let before = self.marks.get(&uid).filter(|(before, _)| *before == mark);
            let since = before.map_or(now, |(_, since)| *since);
            if mark.phase.gets_on() {
                told.still = told.still.max(now.saturating_duration_since(since));
                told.folded += mark.folded;
                told.behind = told.behind.max(mark.behind.unwrap_or(0));
            }
            marks.insert(uid, (mark, since));
        }
        self.marks = marks;
        told
    }
}

#[cfg(test)]
mod tests {
    use millrace_replay::ReplaySpec;
    use millrace_replay::status::{Progress, ReplayStatus};

    use super::*;

    fn replay(uid: &str, phase: Option<Phase>, folded: u64) -> Replay {
        let mut replay = Replay::new(uid, ReplaySpec::rebuild("orders"));
        replay.metadata.uid = Some(uid.to_owned());
        replay.status = phase.map(|phase| ReplayStatus {
            phase: Some(phase),
            progress: Some(Progress {
                events_processed: folded,
                lag: Some(3),
                ..Progress::default()
            }),
            ..ReplayStatus::default()
        });
        replay
    }

    #[test]
    fn one_that_folds_or_changes_phase_gets_on() {
        let (mut telling, began) = (Telling::default(), Instant::now());
        let at = |seconds| began + Duration::from_secs(seconds);
        let mut still = |phase, folded, seconds| {
            let one = replay("a", phase, folded);
            telling
                .look([&one].into_iter(), at(seconds))
                .still
                .as_secs()
        };
        assert_eq!(still(None, 0, 0), 0);
        assert_eq!(still(None, 0, 30), 30);
        assert_eq!(still(Some(Phase::Loading), 0, 40), 0);
        assert_eq!(still(Some(Phase::Loading), 5, 50), 0);
        assert_eq!(still(Some(Phase::Loading), 5, 70), 20);
        assert_eq!(still(Some(Phase::Verifying), 5, 80), 0);
    }

    #[test]
    fn those_that_wait_for_somebody_or_have_ended_do_not_count_as_still() {
        let (mut telling, began) = (Telling::default(), Instant::now());
        let all = [
            Phase::Queued,
            Phase::AwaitingApproval,
            Phase::Suspended,
            Phase::Succeeded,
            Phase::Failed,
            Phase::Cancelled,
        ]
        .map(|phase| replay(phase.as_str(), Some(phase), 7));
        telling.look(all.iter(), began);
        let told = telling.look(all.iter(), began + Duration::from_secs(500));
        assert_eq!(
            (told.still, told.folded, told.behind),
            (Duration::ZERO, 0, 0)
        );
        assert_eq!(told.phases.len(), all.len());
    }

    #[test]
    fn the_one_that_stands_longest_is_told_and_one_that_is_gone_is_forgotten() {
        let (mut telling, began) = (Telling::default(), Instant::now());
        let later = began + Duration::from_secs(100);
        let (old, new) = (
            replay("a", Some(Phase::CatchingUp), 10),
            replay("b", Some(Phase::Loading), 4),
        );
        telling.look([&old].into_iter(), began);
        let told = telling.look([&old, &new].into_iter(), later);
        assert_eq!(
            (told.still.as_secs(), told.folded, told.behind),
            (100, 14, 3)
        );
        assert_eq!(
            telling.look([&new].into_iter(), later).still,
            Duration::ZERO
        );
        // Another one of the same name is not the same one; the same uid would be.
        assert_eq!(
            telling.look([&old].into_iter(), later).still,
            Duration::ZERO
        );
    }
}
