use std::{
    hash::{BuildHasher, Hasher, RandomState},
    time::Duration,
};

/// A pause between a half and the whole of `ceiling`, so that many that failed together do not come
/// back together.
#[must_use]
pub fn jittered(ceiling: Duration) -> Duration {
    // RandomState is seeded per call from the process's own entropy: enough to spread a crowd.
    let random = RandomState::new().build_hasher().finish();
    let half = ceiling / 2;
    let span = u64::try_from(half.as_micros()).unwrap_or(u64::MAX).max(1);
    half + Duration::from_micros(random % span)
}

/// Pauses that double from a first to a longest one, jittered.
#[derive(Debug)]
pub struct Backoff {
    first: Duration,
    longest: Duration,
    failures: u32,
}

impl Backoff {
    /// The most doublings; far beyond any ceiling in use.
    const MAX_DOUBLINGS: u32 = 16;

    /// Pauses from `first` on, never longer than `longest`.
    #[must_use]
    pub const fn new(first: Duration, longest: Duration) -> Self {
        Self {
            first,
            longest,
            failures: 0,
        }
    }

    /// The pause after one more failure.
    pub fn pause(&mut self) -> Duration {
        let ceiling = self
            .first
            .saturating_mul(1 << self.failures.min(Self::MAX_DOUBLINGS))
            .min(self.longest);
        self.failures = self.failures.saturating_add(1);
        jittered(ceiling)
    }

    /// Failures since the last success.
    #[must_use]
    pub const fn failures(&self) -> u32 {
        self.failures
    }

    /// Notes a success: the next pause is the first one again.
    pub const fn reset(&mut self) {
        self.failures = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_a_ceiling() {
        let mut backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(1));
        let pauses: Vec<_> = (0..20).map(|_| backoff.pause()).collect();
        assert!(pauses[0] >= Duration::from_millis(50) && pauses[0] < Duration::from_millis(100));
        assert!(pauses[1] >= Duration::from_millis(100));
        for pause in &pauses[4..] {
            assert!((Duration::from_millis(500)..Duration::from_secs(1)).contains(pause));
        }
        backoff.reset();
        assert!(backoff.pause() < Duration::from_millis(100));
    }
}
