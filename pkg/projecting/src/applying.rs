//! What running and rebuilding do alike around a batch: an attempt that ends, and what becomes of
//! the events that could not be folded.

use std::time::Duration;

use metrics::counter;
use millrace_kernel::Timestamp;
use millrace_streaming::{DeadLetter, DeadLetterPublisher};
use tokio_util::sync::CancellationToken;

use crate::{
    batch::{Batch, NewLetter, Parked, describe},
    error::StoreError,
    store::GenerationStore,
};

/// The longest that one attempt at a batch may take before it counts as failed, in milliseconds: a
/// connection whose peer is gone without a word gives no answer at all.
const MAX_APPLY_MS: u64 = 60_000;

/// How long the batch in hand may still take when the process is told to stop, in milliseconds.
const LAST_BATCH_MS: u64 = 8_000;

/// One attempt, bounded; none when there was no time left to finish it before stopping.
pub(crate) async fn attempt(
    store: &dyn GenerationStore,
    batch: &Batch,
    parked: &Parked,
    stop: &CancellationToken,
) -> Option<Result<Vec<NewLetter>, StoreError>> {
    let last_call = async {
        stop.cancelled().await;
        tokio::time::sleep(Duration::from_millis(LAST_BATCH_MS)).await;
    };
    let limit = Duration::from_millis(MAX_APPLY_MS);
    tokio::select! {
        done = tokio::time::timeout(limit, store.apply(batch, parked)) => {
            Some(done.unwrap_or_else(|late| Err(StoreError::Unavailable(Box::new(late)))))
        }
        () = last_call => None,
    }
}

/// Tells of letters that were kept, and parks their streams.
pub(crate) fn park(projection: &'static str, letters: &[NewLetter], parked: &mut Parked) {
    for letter in letters {
        tracing::error!(
            projection,
            lane = %letter.lane,
            position = %letter.event.position,
            stream = %letter.event.stream,
            reason = %letter.reason,
            error = letter.error,
            "dead letter"
        );
        parked.insert(&letter.lane, &letter.event.stream);
        counter!("millrace_dead_letters_total", "projection" => projection, "reason" => letter.reason.as_str())
            .increment(1);
    }
}

/// Publishes copies of letters for tools and alerts; the letters themselves are kept already.
pub(crate) async fn publish(
    publisher: &DeadLetterPublisher,
    projection: &str,
    letters: &[NewLetter],
) {
    for letter in letters {
        let now = Timestamp::now();
        let copy = DeadLetter {
            event: &letter.event,
            projection,
            reason_class: letter.reason.as_str(),
            error: &letter.error,
            attempts: 1,
            first_failed_at: now,
            last_failed_at: now,
        };
        if let Err(error) = publisher.publish(&copy).await {
            tracing::warn!(position = %letter.event.position, error = %describe(&error), "no copy of a dead letter was published");
        }
    }
}
