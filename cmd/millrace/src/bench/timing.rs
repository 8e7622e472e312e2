//! What every part does with a clock.

use std::{future::Future, time::Duration};

use anyhow::Context as _;

/// How long any one measurement may take.
const BOUND: Duration = Duration::from_mins(5);

/// Waits for a measurement, not for ever.
///
/// # Errors
/// When it does not end in time.
pub async fn bounded<F: Future>(what: &str, work: F) -> anyhow::Result<F::Output> {
    let ended = tokio::time::timeout(BOUND, work).await;
    ended.with_context(|| format!("{what} did not end within {} s", BOUND.as_secs()))
}

/// A rate.
#[expect(
    clippy::cast_precision_loss,
    reason = "a rate; 2^53 events are far away"
)]
pub fn per_second(count: u64, took: Duration) -> f64 {
    count as f64 / took.as_secs_f64()
}
