use std::{
    sync::{Mutex, PoisonError},
    time::Duration,
};

use metrics::gauge;
use tokio::time::Instant;

use crate::batch::describe;

/// The least time between two reports that effects fail, in milliseconds: what comes and goes is
/// told of once in this time, and its figure in the metrics is exact.
const TELL_EVERY_MS: u64 = 30_000;

/// Whether the effects of a reaction can be performed, as of the last attempt: told once when they
/// begin to fail and once when they are performed again.
pub(crate) struct Availability {
    reaction: &'static str,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// Since when attempts fail.
    away_since: Option<Instant>,
    /// When it was last told that they do.
    told_at: Option<Instant>,
    /// Whether it was told of the failure that lasts.
    told: bool,
}

impl Availability {
    pub(crate) fn new(reaction: &'static str) -> Self {
        let known = Self {
            reaction,
            state: Mutex::default(),
        };
        known.show(false);
        known
    }

    fn show(&self, away: bool) {
        gauge!("millrace_effects_unavailable", "reaction" => self.reaction).set(if away {
            1.0
        } else {
            0.0
        });
    }

    /// An attempt failed for now.
    pub(crate) fn failed(&self, error: &(dyn std::error::Error + 'static)) {
        let now = Instant::now();
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.away_since.get_or_insert(now);
        let quiet = Duration::from_millis(TELL_EVERY_MS);
        if !state.told && state.told_at.is_none_or(|at| now - at >= quiet) {
            state.told = true;
            state.told_at = Some(now);
            tracing::warn!(
                reaction = self.reaction,
                error = %describe(error),
                "effects cannot be performed; trying again until they can, nothing is skipped"
            );
        }
        drop(state);
        self.show(true);
    }

    /// An attempt performed all it had to.
    pub(crate) fn succeeded(&self) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(since) = state.away_since.take() else {
            return;
        };
        if std::mem::take(&mut state.told) {
            let seconds = since.elapsed().as_secs();
            tracing::info!(
                reaction = self.reaction,
                away_seconds = seconds,
                "effects are performed again"
            );
        }
        drop(state);
        self.show(false);
    }
}
