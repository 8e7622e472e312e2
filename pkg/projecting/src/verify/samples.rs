//! Streams sampled from the log, for a second fold.

use std::{collections::BTreeSet, sync::Arc};

use millrace_es::{Epoch, Position, RecordedEvent, StreamId, StreamVersion};
use millrace_eventlog::{EventLog, is_last};
use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};

use super::{against::CheckOptions, log_error};
use crate::{
    error::StoreError,
    generation::{Checkpoint, Lane},
};

/// The most streams of one context that are folded a second time for a changed fold.
const MAX_SAMPLED_STREAMS: u64 = 100;

/// The most events that a sampled stream may have; a longer one is left out.
const MAX_SAMPLED_EVENTS: usize = 5_000;

/// Events that are read of a stream at once.
const STREAM_PAGE_EVENTS: usize = 500;

/// The newest events of a log that are searched for streams that changed last.
const MAX_RECENT_EVENTS: u64 = 2_000;

/// How often a place in the log is drawn for one stream that is wanted from it: a stream that was
/// met already is drawn again.
const DRAWS_PER_STREAM: usize = 2;

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

/// A stream that was chosen to be looked at.
pub(super) struct Chosen {
    pub(super) name: String,
    /// None where no log has an event of it.
    pub(super) sample: Option<Sample>,
}

impl From<Sample> for Chosen {
    fn from(sample: Sample) -> Self {
        Self {
            name: sample.stream.to_string(),
            sample: Some(sample),
        }
    }
}

/// Streams whose events lie spread evenly over the logs, up to where a generation is. The same
/// ones every time, so that a repeated verification says the same.
pub(super) async fn pick(
    logs: &[Arc<dyn EventLog>],
    at: &[Checkpoint],
) -> Result<Vec<Sample>, StoreError> {
    let mut picked = Picked::default();
    for log in logs {
        let newest = newest(&**log, at).get();
        for nth in 0..MAX_SAMPLED_STREAMS.min(newest) {
            let place = u128::from(newest) * u128::from(2 * nth + 1)
                / u128::from(2 * MAX_SAMPLED_STREAMS.min(newest));
            let after = Position::new(u64::try_from(place).unwrap_or(0).min(newest - 1));
            let page = log.read_log(after, 1).await.map_err(log_error)?;
            if let Some(event) = page.first() {
                picked.add(log, event, at);
            }
        }
    }
    Ok(picked.samples)
}

/// Streams that a seed draws anywhere in the logs, and those that changed last; up to where a
/// generation is.
pub(super) async fn draw(
    logs: &[Arc<dyn EventLog>],
    at: &[Checkpoint],
    options: &CheckOptions,
) -> Result<Vec<Sample>, StoreError> {
    let mut random = StdRng::seed_from_u64(options.seed);
    let mut picked = Picked::default();
    let share = options.keys.div_ceil(logs.len().max(1));
    if share == 0 {
        return Ok(Vec::new());
    }
    for log in logs {
        let newest = newest(&**log, at).get();
        let before = picked.samples.len();
        let recent = share.div_ceil(4);
        let after = Position::new(newest.saturating_sub(MAX_RECENT_EVENTS));
        for event in last_events(&**log, after).await?.iter().rev() {
            if picked.samples.len() >= before + recent {
                break;
            }
            picked.add(log, event, at);
        }
        let wanted = picked.samples.len() + share / 2;
        for _ in 0..share / 2 * DRAWS_PER_STREAM {
            if newest == 0 || picked.samples.len() >= wanted {
                break;
            }
            let began = tokio::time::Instant::now();
            let after = Position::new(random.random_range(0..newest));
            let page = log.read_log(after, 1).await.map_err(log_error)?;
            if let Some(event) = page.first() {
                picked.add(log, event, at);
            }
            super::rest(began).await;
        }
    }
    Ok(picked.samples)
}

/// Finds streams by their names; where no log has an event of one, that is said.
pub(super) async fn find(
    logs: &[Arc<dyn EventLog>],
    at: &[Checkpoint],
    names: impl IntoIterator<Item = String>,
) -> Result<Vec<Chosen>, StoreError> {
    let mut found = Vec::new();
    for name in names {
        let mut picked = Picked::default();
        // What is no name of a stream has no events.
        if let Ok(stream) = StreamId::new(&name) {
            for log in logs {
                let first = log.read_stream(&stream, StreamVersion::ZERO, 1).await;
                if let Some(event) = first.map_err(log_error)?.first() {
                    picked.add_first(log, event, at);
                }
            }
        }
        found.push(Chosen {
            name,
            sample: picked.samples.pop(),
        });
    }
    Ok(found)
}

/// Samples, a stream once.
#[derive(Default)]
struct Picked {
    met: BTreeSet<StreamId>,
    samples: Vec<Sample>,
}

impl Picked {
    /// Adds the stream of an event that the generation has seen.
    fn add(&mut self, log: &Arc<dyn EventLog>, event: &RecordedEvent, at: &[Checkpoint]) {
        let seen = lane_of(event, at).is_some_and(|one| event.position <= one.position);
        if seen && !self.met.contains(&event.stream) {
            self.add_first(log, event, at);
        }
    }

    fn add_first(&mut self, log: &Arc<dyn EventLog>, event: &RecordedEvent, at: &[Checkpoint]) {
        let Some(checkpoint) = lane_of(event, at) else {
            return;
        };
        self.met.insert(event.stream.clone());
        self.samples.push(Sample {
            log: Arc::clone(log),
            lane: checkpoint.lane.clone(),
            epoch: checkpoint.epoch,
            stream: event.stream.clone(),
            through: checkpoint.position,
        });
    }
}

/// How far a generation is in the lane of an event.
fn lane_of<'a>(event: &RecordedEvent, at: &'a [Checkpoint]) -> Option<&'a Checkpoint> {
    let lane = Lane::new(event.context.clone(), event.partition);
    at.iter().find(|one| one.lane == lane)
}

/// The newest event of a log that a generation has seen.
pub(super) fn newest(log: &dyn EventLog, at: &[Checkpoint]) -> Position {
    let own = at.iter().filter(|one| one.lane.context == *log.context());
    own.map(|one| one.position).max().unwrap_or_default()
}

/// The events after a position, as far as they are wanted of the end of a log.
async fn last_events(
    log: &dyn EventLog,
    mut after: Position,
) -> Result<Vec<RecordedEvent>, StoreError> {
    let mut found: Vec<RecordedEvent> = Vec::new();
    let wanted = usize::try_from(MAX_RECENT_EVENTS).unwrap_or(usize::MAX);
    while found.len() < wanted {
        let page = log.read_log(after, STREAM_PAGE_EVENTS).await;
        let page = page.map_err(log_error)?;
        let last = is_last(&page, STREAM_PAGE_EVENTS);
        found.extend(page);
        match found.last() {
            Some(event) if !last => after = event.position,
            _ => break,
        }
    }
    Ok(found)
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
