use std::{
    sync::{Mutex, PoisonError},
    time::Duration,
};

use tokio::time::Instant;

use super::state::{Pace, Share};

/// What may be folded at once under a pace, in milliseconds of it: a command that comes meanwhile
/// waits for a short piece of work, not for a long one.
const STEP_MS: f64 = 50.0;

/// A worker's part of a pace, in events a second.
pub(super) fn rate_of(pace: Pace, share: Share) -> Option<f64> {
    let whole = f64::from(pace.max_events_per_second?.get());
    Some(whole / f64::from(share.of.max(1)))
}

/// How many events are read or folded at once: all that may be, or a step of the rate.
pub(super) fn step_events(rate: Option<f64>, most: usize) -> usize {
    let Some(rate) = rate else {
        return most;
    };
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a positive number of events, and clamped"
    )]
    let step = (rate * STEP_MS / 1_000.0) as usize;
    step.clamp(1, most)
}

/// A token bucket of events. A batch is let through while the bucket is not in debt, and its
/// events are taken out whole: the next one waits until the debt is paid.
#[derive(Debug)]
pub(super) struct Throttle {
    bucket: Mutex<Bucket>,
}

#[derive(Debug)]
struct Bucket {
    tokens: f64,
    at: Instant,
}

impl Throttle {
    pub(super) fn new() -> Self {
        Self {
            bucket: Mutex::new(Bucket {
                tokens: 0.0,
                at: Instant::now(),
            }),
        }
    }

    /// Waits until a batch of so many events may be folded at a rate.
    pub(super) async fn take(&self, events: usize, rate: Option<f64>) {
        let Some(rate) = rate else {
            self.with(|bucket| bucket.tokens = 0.0);
            return;
        };
        #[expect(
            clippy::cast_precision_loss,
            reason = "batches are far below 2^52 events"
        )]
        let events = events as f64;
        while let Some(debt) = self.with(|bucket| bucket.take(Instant::now(), events, rate)) {
            tokio::time::sleep(Duration::from_secs_f64(debt / rate)).await;
        }
    }

    fn with<T>(&self, change: impl FnOnce(&mut Bucket) -> T) -> T {
        change(&mut self.bucket.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Bucket {
    /// Takes the events out, or says what is owed.
    fn take(&mut self, now: Instant, events: f64, rate: f64) -> Option<f64> {
        let gained = (now - self.at).as_secs_f64() * rate;
        self.at = now;
        self.tokens = (self.tokens + gained).min(rate * STEP_MS / 1_000.0);
        if self.tokens < 0.0 {
            return Some(-self.tokens);
        }
        self.tokens -= events;
        None
    }
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU32;

    use super::*;

    #[test]
    fn a_rate_is_kept_over_any_time() {
        let begun = Instant::now();
        let mut bucket = Bucket {
            tokens: 0.0,
            at: begun,
        };
        let mut taken = 0;
        // A minute in which nothing comes saves nothing up.
        for from_ms in [0, 60_000] {
            let before = taken;
            for ms in from_ms..from_ms + 10_000 {
                let now = begun + Duration::from_millis(ms);
                if bucket.take(now, 37.0, 500.0).is_none() {
                    taken += 37;
                }
            }
            assert!((4_950..=5_150).contains(&(taken - before)), "{taken}");
        }
    }

    #[tokio::test]
    async fn who_is_in_debt_waits() {
        let throttle = Throttle::new();
        let begun = Instant::now();
        for _ in 0..4 {
            throttle.take(20, Some(200.0)).await;
        }
        assert!(begun.elapsed() >= Duration::from_millis(250));
        throttle.take(1_000_000, None).await;
        throttle.take(1, Some(200.0)).await;
        assert!(begun.elapsed() < Duration::from_secs(20));
    }

    #[test]
    fn a_pace_is_shared_out() {
        let pace = Pace {
            max_events_per_second: NonZeroU32::new(1_000),
            suspended: false,
        };
        let share = Share { index: 1, of: 4 };
        assert_eq!(rate_of(pace, share), Some(250.0));
        assert_eq!(step_events(Some(250.0), 5_000), 12);
        assert_eq!(step_events(Some(0.5), 5_000), 1);
        assert_eq!(step_events(None, 5_000), 5_000);
    }
}
