//! What happened to one thing, straight from the event log: its stream, newest event first.
//!
//! Payloads are shown as they were stored and never decoded, so that a history can be read whatever
//! release wrote it.

use millrace_es::{EventId, Position, RecordedEvent, StreamId, StreamVersion};
use millrace_eventlog::{EventLog, LogError, is_last};
use millrace_http::{Page, PageRequest, Problem};
use millrace_kernel::Timestamp;
use serde::Serialize;
use serde_json::value::RawValue;
use utoipa::ToSchema;

/// An event of a history.
#[derive(Debug, Serialize, ToSchema)]
pub struct HistoryEvent {
    /// The place in the history, from 1.
    #[schema(value_type = u64)]
    version: StreamVersion,
    /// What happened.
    #[schema(example = "order.created")]
    r#type: String,
    /// The version of the schema that `data` was written under.
    schema_version: u16,
    /// When the log took it.
    time: Timestamp,
    /// The event's name for ever.
    #[schema(value_type = uuid::Uuid)]
    event_id: EventId,
    /// The place in the log.
    #[schema(value_type = u64)]
    position: Position,
    /// Joins everything that one request set off.
    correlation_id: String,
    /// What this event was caused by, where it is known.
    #[schema(required)]
    causation_id: Option<String>,
    /// Who asked for it, where it is known.
    #[schema(required)]
    actor: Option<String>,
    /// What is known about it, as it was stored.
    #[schema(value_type = Object)]
    data: Box<RawValue>,
}

impl From<RecordedEvent> for HistoryEvent {
    fn from(event: RecordedEvent) -> Self {
        Self {
            version: event.version,
            r#type: event.event_type.into_owned(),
            schema_version: event.schema_version,
            time: event.recorded_at,
            event_id: event.id,
            position: event.position,
            correlation_id: event.metadata.correlation_id.clone(),
            causation_id: event.metadata.causation_id.clone(),
            actor: event.metadata.actor.clone(),
            data: event.payload,
        }
    }
}

/// A page of a stream's events, newest first; `None` when the stream has none. It reads about as
/// many events as the page has, however long the stream is.
///
/// # Errors
/// 400 for a cursor of another list, 503 when the log cannot be reached.
pub async fn history_page(
    log: &dyn EventLog,
    stream: &StreamId,
    page: &PageRequest,
) -> Result<Option<Page<HistoryEvent>>, Problem> {
    let limit = page.limit + 1;
    let events = match page.after::<StreamVersion>()? {
        Some(before) => {
            let through = StreamVersion::new(before.get().saturating_sub(1));
            newest_through(log, stream, through, limit).await?
        }
        None => {
            let first = log.read_stream(stream, StreamVersion::ZERO, limit).await?;
            if first.is_empty() {
                return Ok(None);
            }
            if is_last(&first, limit) {
                first
            } else {
                let newest = newest_version(log, stream, first.len()).await?;
                newest_through(log, stream, newest, limit).await?
            }
        }
    };
    let items = events.into_iter().rev().map(HistoryEvent::from).collect();
    page.page(items, |event: &HistoryEvent| event.version)
        .map(Some)
}

/// The newest events up to a version, oldest first, at most `limit`.
async fn newest_through(
    log: &dyn EventLog,
    stream: &StreamId,
    through: StreamVersion,
    limit: usize,
) -> Result<Vec<RecordedEvent>, LogError> {
    let wanted = u64::try_from(limit).unwrap_or(u64::MAX);
    let mut after = StreamVersion::new(through.get().saturating_sub(wanted));
    let mut events = Vec::with_capacity(limit);
    while after < through && events.len() < limit {
        // The log ends a page early when its payloads are large.
        let read = log.read_stream(stream, after, limit - events.len()).await?;
        let Some(last) = read.last() else { break };
        after = last.version;
        events.extend(read.into_iter().filter(|event| event.version <= through));
    }
    Ok(events)
}

/// The version of a stream that has at least `known` events, found by looking ever farther ahead
/// and then halving: a log reads its streams forward only.
async fn newest_version(
    log: &dyn EventLog,
    stream: &StreamId,
    known: usize,
) -> Result<StreamVersion, LogError> {
    let mut there = u64::try_from(known).unwrap_or(u64::MAX);
    let mut step = there.max(1);
    let mut missing = loop {
        let ahead = there.saturating_add(step);
        if !has(log, stream, ahead).await? {
            break ahead;
        }
        there = ahead;
        step = step.saturating_mul(2);
    };
    while missing - there > 1 {
        let middle = there + (missing - there) / 2;
        if has(log, stream, middle).await? {
            there = middle;
        } else {
            missing = middle;
        }
    }
    Ok(StreamVersion::new(there))
}

/// Whether a stream has an event of this version, from 1.
async fn has(log: &dyn EventLog, stream: &StreamId, version: u64) -> Result<bool, LogError> {
    let before = StreamVersion::new(version - 1);
    Ok(!log.read_stream(stream, before, 1).await?.is_empty())
}
