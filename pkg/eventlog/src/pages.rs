use futures::{Stream, StreamExt, TryStreamExt, stream};
use millrace_es::{Position, RecordedEvent};

use crate::{EventLog, LogError};

/// The most events of one page, whatever was asked for.
pub const MAX_PAGE_EVENTS: usize = 5_000;
/// A page ends early once its payloads exceed this.
pub const MAX_PAGE_BYTES: usize = 8 * 1024 * 1024;

/// Whether a page that was read with a limit reached the end of what there was, so that reading on
/// would find nothing but what came since.
#[must_use]
pub fn is_last(page: &[RecordedEvent], limit: usize) -> bool {
    let bytes: usize = page.iter().map(|event| event.payload.get().len()).sum();
    page.len() < limit.min(MAX_PAGE_EVENTS) && bytes <= MAX_PAGE_BYTES
}

/// The log after a position and through another as a stream of pages, each of at most `page`
/// events and never empty. It ends at `through`, or at the head as it is when it gets there.
pub fn pages_after(
    log: &dyn EventLog,
    after: Position,
    through: Position,
    page: usize,
) -> impl Stream<Item = Result<Vec<RecordedEvent>, LogError>> + Send + '_ {
    stream::try_unfold(after, move |after| async move {
        if after >= through {
            return Ok(None);
        }
        let mut events = log.read_log(after, page).await?;
        events.retain(|event| event.position <= through);
        let Some(last) = events.last().map(|event| event.position) else {
            return Ok(None);
        };
        Ok(Some((events, last)))
    })
}

/// The events of [`pages_after`] one by one.
pub fn events_after(
    log: &dyn EventLog,
    after: Position,
    through: Position,
    page: usize,
) -> impl Stream<Item = Result<RecordedEvent, LogError>> + Send + '_ {
    pages_after(log, after, through, page)
        .map_ok(|events| stream::iter(events).map(Ok))
        .try_flatten()
}
