use std::time::Duration;

/// The first pause after a failure, in milliseconds.
const FIRST_PAUSE_MS: u64 = 50;

/// The longest pause, in milliseconds.
const LONGEST_PAUSE_MS: u64 = 5_000;

/// Pauses that double from [`FIRST_PAUSE_MS`] to [`LONGEST_PAUSE_MS`], a random half of each left
/// out, so that many that failed together do not come back together.
#[derive(Debug, Default)]
pub(crate) struct Backoff {
    failures: u32,
}

impl Backoff {
    /// Whether nothing has failed yet: what is worth telling is told once.
    pub(crate) const fn is_first(&self) -> bool {
        self.failures == 0
    }

    pub(crate) fn next(&mut self) -> Duration {
        let whole = FIRST_PAUSE_MS
            .saturating_mul(1 << self.failures.min(16))
            .min(LONGEST_PAUSE_MS);
        self.failures = self.failures.saturating_add(1);
        Duration::from_millis(rand::random_range(whole / 2..=whole))
    }

    pub(crate) async fn pause(&mut self) {
        tokio::time::sleep(self.next()).await;
    }
}
