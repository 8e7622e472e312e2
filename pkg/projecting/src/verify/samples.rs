//! Streams sampled from the log, for a second fold.

use std::{collections::HashSet, sync::Arc};

use millrace_es::{Epoch, Position, RecordedEvent, StreamId, StreamVersion};
use millrace_eventlog::{EventLog, is_last};

use super::log_error;
use crate::{
    error::StoreError,
    generation::{Checkpoint, Lane},
};

/// The most streams of one context that are folded a second time.
pub(super) const MAX_SAMPLED_STREAMS: u64 = 100;

/// The most events that a sampled stream may have; a longer one is left out.
const MAX_SAMPLED_EVENTS: usize = 5_000;

/// Events that are read of a stream at once.
const STREAM_PAGE_EVENTS: usize = 500;

/// A stream to fold again.
#[derive(Clone)]
pub(super) struct Sample {
    pub(super) log: Arc<dyn EventLog>,
    pub(super) lane: Lane,
    pub(super) epoch: Epoch,
    pub(super) stream: StreamId,
    /// How far the generation is in the stream's lane.
    pub(super) through: Position,
}

/// Streams whose events lie spread evenly over the logs, up to where a generation is. The same
/// ones every time, so that a repeated verification says the same.
pub(super) async fn pick(
    logs: &[Arc<dyn EventLog>],
    at: &[Checkpoint],
) -> Result<Vec<Sample>, StoreError> {
    let mut picked = Vec::new();
    for log in logs {
        let own = || at.iter().filter(|one| one.lane.context == *log.context());
        let newest = own().map(|one| one.position.get()).max().unwrap_or(0);
        let mut met = HashSet::new();
        for nth in 0..MAX_SAMPLED_STREAMS.min(newest) {
            let place = u128::from(newest) * u128::from(2 * nth + 1)
                / u128::from(2 * MAX_SAMPLED_STREAMS.min(newest));
            let after = Position::new(u64::try_from(place).unwrap_or(0).min(newest - 1));
            let page = log.read_log(after, 1).await.map_err(log_error)?;
            let Some(event) = page.first() else {
                continue;
            };
            let lane = Lane::new(event.context.clone(), event.partition);
            let Some(checkpoint) = own().find(|one| one.lane == lane) else {
                continue;
            };
            if event.position > checkpoint.position || !met.insert(event.stream.clone()) {
                continue;
            }
            picked.push(Sample {
                log: Arc::clone(log),
                lane,
                epoch: checkpoint.epoch,
                stream: event.stream.clone(),
                through: checkpoint.position,
            });
        }
    }
    Ok(picked)
}

impl Sample {
    /// The stream's events up to a position, from the first; none if it has too many.
    pub(super) async fn events(
        &self,
        through: Position,
    ) -> Result<Option<Vec<RecordedEvent>>, StoreError> {
        let mut found: Vec<RecordedEvent> = Vec::new();
        let mut after = StreamVersion::ZERO;
        while found.len() <= MAX_SAMPLED_EVENTS {
            let page = self
                .log
                .read_stream(&self.stream, after, STREAM_PAGE_EVENTS)
                .await
                .map_err(log_error)?;
            let last = is_last(&page, STREAM_PAGE_EVENTS);
            let Some(newest) = page.last() else {
                return Ok(Some(found));
            };
            after = newest.version;
            let reached = newest.position >= through;
            found.extend(page.into_iter().filter(|event| event.position <= through));
            if last || reached {
                return Ok(Some(found));
            }
        }
        Ok(None)
    }
}
