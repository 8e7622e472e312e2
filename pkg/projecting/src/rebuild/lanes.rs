//! The log's events on their way to those who fold them.

use std::{collections::BTreeMap, sync::Arc};

use millrace_es::{Epoch, Partition, Position, RecordedEvent};
use millrace_eventlog::{EventLog, LogError};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};

use super::state::LaneProgress;
use crate::{
    chain::{Broken, Chain},
    error::{StoreError, unavailable},
    generation::Lane,
};

/// How much a load holds in memory of what it has read and not yet written, in events of a kibibyte
/// of payload; a larger one counts as several.
pub(super) const MAX_EVENTS_IN_HAND: usize = 32_000;

/// Events of one lane that follow each other: the first one's previous position is `previous`.
pub(super) struct Piece {
    pub(super) lane: Lane,
    pub(super) epoch: Epoch,
    pub(super) previous: Position,
    pub(super) events: Vec<RecordedEvent>,
    /// Its part of [`MAX_EVENTS_IN_HAND`], given back when it is written.
    pub(super) room: OwnedSemaphorePermit,
}

/// A lane that is read, and who folds it.
struct Reading {
    lane: Lane,
    chain: Chain,
    target: Position,
    to: mpsc::Sender<Piece>,
}

/// Reads one context's log from the lane that is least far to the one that goes farthest, once for
/// all lanes: the log is ordered by position and by nothing else, so that each lane by itself would
/// cost as much as all together.
pub(super) struct ContextReader {
    log: Arc<dyn EventLog>,
    lanes: BTreeMap<Partition, Reading>,
    room: Arc<Semaphore>,
    page_events: usize,
    /// Whether what is read is all there is, so that nothing has to be left out.
    is_whole: bool,
}

impl ContextReader {
    pub(super) fn new(
        log: Arc<dyn EventLog>,
        room: Arc<Semaphore>,
        page_events: usize,
        is_whole: bool,
    ) -> Self {
        Self {
            log,
            lanes: BTreeMap::new(),
            room,
            page_events,
            is_whole,
        }
    }

    /// Takes a lane on.
    pub(super) fn add(&mut self, from: &LaneProgress, to: mpsc::Sender<Piece>) {
        let chain = Chain {
            at: from.position,
            epoch: from.epoch,
        };
        let reading = Reading {
            lane: from.lane.clone(),
            chain,
            target: from.target,
            to,
        };
        self.lanes.insert(from.lane.partition, reading);
    }

    /// Reads until every lane is at its target, or nobody takes what is read.
    pub(super) async fn run(mut self) -> Result<(), StoreError> {
        let starts = self.lanes.values().map(|one| one.chain.at);
        let mut after = starts.min().unwrap_or_default();
        let ends = self.lanes.values().map(|one| one.target);
        let through = ends.max().unwrap_or_default();
        while after < through {
            let page = self.page(after, through).await.map_err(log_failure)?;
            let Some(last) = page.last().map(|event| event.position) else {
                return Err(self.missing(after, through));
            };
            for (partition, events) in self.split(page) {
                if !self.hand(partition, events).await? {
                    return Ok(());
                }
            }
            after = last;
        }
        let short = self.lanes.values().find(|one| one.chain.at < one.target);
        short.map_or(Ok(()), |one| Err(self.missing(one.chain.at, one.target)))
    }

    async fn page(
        &self,
        after: Position,
        through: Position,
    ) -> Result<Vec<RecordedEvent>, LogError> {
        if self.is_whole {
            return self.log.read_log(after, self.page_events).await;
        }
        let wanted: Vec<Partition> = self.lanes.keys().copied().collect();
        self.log
            .read_partitions(&wanted, after, through, self.page_events)
            .await
    }

    /// What of a page is wanted, by lane.
    fn split(&self, page: Vec<RecordedEvent>) -> BTreeMap<Partition, Vec<RecordedEvent>> {
        let mut runs: BTreeMap<Partition, Vec<RecordedEvent>> = BTreeMap::new();
        for event in page {
            let reading = self.lanes.get(&event.partition);
            if reading
                .is_some_and(|one| one.chain.at < event.position && event.position <= one.target)
            {
                runs.entry(event.partition).or_default().push(event);
            }
        }
        runs
    }

    /// Hands events to whoever folds their lane; false when nobody does any more.
    async fn hand(
        &mut self,
        partition: Partition,
        events: Vec<RecordedEvent>,
    ) -> Result<bool, StoreError> {
        let Some(reading) = self.lanes.get_mut(&partition) else {
            return Ok(true);
        };
        let before = reading.chain;
        if let Err(broken) = reading.chain.take_from_log(&events) {
            return Err(broken_chain(&reading.lane, reading.chain.at, broken));
        }
        let Ok(room) = Arc::clone(&self.room)
            .acquire_many_owned(cost(&events))
            .await
        else {
            return Ok(false);
        };
        let piece = Piece {
            lane: reading.lane.clone(),
            epoch: before.epoch,
            previous: before.at,
            events,
            room,
        };
        Ok(reading.to.send(piece).await.is_ok())
    }

    fn missing(&self, after: Position, through: Position) -> StoreError {
        unavailable(format!(
            "the log of {} gave nothing after {after} although {through} is to be in it; see \
             whether it was restored to an earlier point",
            self.log.context()
        ))
    }
}

/// What events take of [`MAX_EVENTS_IN_HAND`], never more than half of it.
fn cost(events: &[RecordedEvent]) -> u32 {
    let bytes: usize = events.iter().map(|event| event.payload.get().len()).sum();
    let cost = events.len().max(bytes / 1_024);
    u32::try_from(cost.clamp(1, MAX_EVENTS_IN_HAND / 2)).unwrap_or(1)
}

fn broken_chain(lane: &Lane, at: Position, broken: Broken) -> StoreError {
    match broken {
        Broken::Newer(epoch) => StoreError::Invalid(format!(
            "the log began a new life (epoch {epoch}) after {at} in {lane}: this rebuild cannot \
             go on. Discard it and begin another one"
        )),
        Broken::Gap(position) => unavailable(format!(
            "the event at {position} in {lane} does not follow the one at {at}"
        )),
    }
}

pub(super) fn log_failure(error: LogError) -> StoreError {
    StoreError::Unavailable(Box::new(error))
}
