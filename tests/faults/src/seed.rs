use std::{
    sync::{Mutex, PoisonError},
    time::Duration,
};

use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};

/// The source of everything random in a test, printed so that a failure can be repeated:
/// `FAULT_SEED=<n>` sets it.
#[derive(Debug)]
pub struct Seed {
    number: u64,
    rng: Mutex<StdRng>,
}

impl Seed {
    /// Takes `FAULT_SEED`, or any number, and prints it.
    #[must_use]
    pub fn new(test: &str) -> Self {
        let number = std::env::var("FAULT_SEED")
            .ok()
            .and_then(|text| text.parse().ok())
            .unwrap_or_else(|| rand::rng().random_range(0..1_000_000_000));
        println!("{test}: FAULT_SEED={number}");
        Self::from_number(number)
    }

    fn from_number(number: u64) -> Self {
        Self {
            number,
            rng: Mutex::new(StdRng::seed_from_u64(number)),
        }
    }

    /// A source of its own for a part of the test.
    #[must_use]
    pub fn part(&self, part: u64) -> Self {
        Self::from_number(
            self.number
                .wrapping_mul(0x9e37_79b9_7f4a_7c15)
                .wrapping_add(part),
        )
    }

    /// A number from 0 to below `end`.
    pub fn below(&self, end: u64) -> u64 {
        self.locked().random_range(0..end.max(1))
    }

    /// An index into something of a length.
    pub fn index(&self, length: usize) -> usize {
        self.locked().random_range(0..length.max(1))
    }

    /// True this often.
    pub fn chance(&self, probability: f64) -> bool {
        self.locked().random_bool(probability)
    }

    /// A time between two bounds, in milliseconds.
    pub fn millis(&self, from: u64, to: u64) -> Duration {
        Duration::from_millis(self.locked().random_range(from..=to))
    }

    fn locked(&self) -> std::sync::MutexGuard<'_, StdRng> {
        self.rng.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
