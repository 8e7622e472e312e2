use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// How long the first retry of a Replay waits; each further one twice as long.
const FIRST_DELAY: Duration = Duration::from_millis(500);
const MAX_DELAY: Duration = Duration::from_secs(30);
const MAX_DOUBLINGS: u32 = 10;

/// When each Replay may be tried again. A change of its spec is looked at in any case.
#[derive(Debug, Default)]
pub(crate) struct Backoff(Mutex<HashMap<String, Failing>>);

#[derive(Debug)]
struct Failing {
    generation: i64,
    failures: u32,
    until: Instant,
}

impl Backoff {
    fn replays(&self) -> MutexGuard<'_, HashMap<String, Failing>> {
        // Nothing panics between two changes: the map is whole.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How long a Replay is to be left alone.
    pub(crate) fn left(&self, uid: &str, generation: i64, now: Instant) -> Option<Duration> {
        let replays = self.replays();
        let failing = replays.get(uid)?;
        (failing.generation == generation)
            .then(|| failing.until.saturating_duration_since(now))
            .filter(|left| !left.is_zero())
    }

    /// Counts a failure, and gives how long to wait.
    pub(crate) fn failed(&self, uid: &str, generation: i64, now: Instant) -> Duration {
        let mut replays = self.replays();
        let failing = replays.entry(uid.to_owned()).or_insert(Failing {
            generation,
            failures: 0,
            until: now,
        });
        let doublings = failing.failures.min(MAX_DOUBLINGS);
        let delay = FIRST_DELAY.saturating_mul(1 << doublings).min(MAX_DELAY);
        failing.failures = failing.failures.saturating_add(1);
        failing.generation = generation;
        failing.until = now + delay;
        delay
    }

    /// Forgets the failures of a Replay that went on for as long as it would wait at most: one
    /// that fails every other time does not begin anew each time.
    pub(crate) fn worked(&self, uid: &str, now: Instant) {
        let mut replays = self.replays();
        if let Some(failing) = replays.get(uid)
            && now.saturating_duration_since(failing.until) >= MAX_DELAY
        {
            replays.remove(uid);
        }
    }

    /// Forgets a Replay that is gone.
    pub(crate) fn forget(&self, uid: &str) {
        self.replays().remove(uid);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_replay_waits_for_itself_and_twice_as_long_each_time() {
        let backoff = Backoff::default();
        let now = Instant::now();
        assert_eq!(backoff.failed("a", 1, now), FIRST_DELAY);
        assert_eq!(backoff.failed("a", 1, now), FIRST_DELAY * 2);
        assert_eq!(backoff.left("a", 1, now), Some(FIRST_DELAY * 2));
        assert_eq!(backoff.left("b", 1, now), None);
        for _ in 0..40 {
            assert!(backoff.failed("a", 1, now) <= MAX_DELAY);
        }
        assert_eq!(backoff.left("a", 1, now), Some(MAX_DELAY));
    }

    #[test]
    fn a_changed_spec_is_looked_at_at_once() {
        let backoff = Backoff::default();
        let now = Instant::now();
        backoff.failed("a", 1, now);
        assert_eq!(backoff.left("a", 2, now), None);
    }

    #[test]
    fn a_replay_that_fails_every_other_time_keeps_its_count() {
        let backoff = Backoff::default();
        let now = Instant::now();
        backoff.failed("a", 1, now);
        backoff.worked("a", now + FIRST_DELAY);
        assert_eq!(backoff.failed("a", 1, now), FIRST_DELAY * 2);
        backoff.worked("a", now + MAX_DELAY * 2);
        assert_eq!(backoff.failed("a", 1, now), FIRST_DELAY);
    }
}
