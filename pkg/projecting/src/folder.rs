use std::{collections::BTreeMap, sync::Arc};

use millrace_es::{Position, RecordedEvent};

use crate::{
    batch::{Batch, Parked, describe},
    chain::{Chain, Taken},
    error::StoreError,
    generation::Lane,
    letters::Reason,
    store::GenerationStore,
};

/// Folds events into a generation by hand, without streams and leases: what a rebuild and a test
/// do. It owns every lane of the generation by the same compare-and-set as a running projector,
/// so of two that try, one is fenced off.
pub struct Folder {
    store: Arc<dyn GenerationStore>,
    lanes: BTreeMap<Lane, Chain>,
    parked: Parked,
}

/// What a fold came to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Folded {
    /// How many events were new.
    pub events: usize,
    /// Those that became dead letters.
    pub letters: Vec<(Position, Reason)>,
    /// Why a lane went no further: an event that needs a newer release.
    pub too_new: Option<String>,
}

impl Folder {
    /// Begins at the stored checkpoints.
    pub(crate) async fn open(store: Arc<dyn GenerationStore>) -> Result<Self, StoreError> {
        let mut lanes = BTreeMap::new();
        let mut parked = Parked::default();
        for checkpoint in store.checkpoints().await? {
            parked.set(&checkpoint.lane, store.parked(&checkpoint.lane).await?);
            let chain = Chain {
                at: checkpoint.position,
                epoch: checkpoint.epoch,
            };
            lanes.insert(checkpoint.lane, chain);
        }
        Ok(Self {
            store,
            lanes,
            parked,
        })
    }

    /// Where a lane stands, as far as this folder knows.
    #[must_use]
    pub fn position(&self, lane: &Lane) -> Position {
        self.lanes
            .get(lane)
            .map_or(Position::ZERO, |chain| chain.at)
    }

    /// Folds events, of any lanes, in one batch. Duplicates are left out.
    ///
    /// # Errors
    /// [`StoreError::Invalid`] when the events of a lane do not follow what it has;
    /// [`StoreError::Fenced`] when another process folds the lane. After an error nothing of the
    /// batch is known to be folded: open a new one.
    pub async fn fold(&mut self, events: Vec<RecordedEvent>) -> Result<Folded, StoreError> {
        let mut by_lane: BTreeMap<Lane, Vec<RecordedEvent>> = BTreeMap::new();
        for event in events {
            let lane = Lane::new(event.context.clone(), event.partition);
            by_lane.entry(lane).or_default().push(event);
        }
        let mut batch = Batch::default();
        let mut folded = Folded::default();
        let mut after = self.lanes.clone();
        for (lane, events) in by_lane {
            let Some(chain) = after.get_mut(&lane) else {
                return Err(StoreError::Invalid(format!("no checkpoint of {lane}")));
            };
            let before = *chain;
            let mut run = Vec::with_capacity(events.len());
            let taken = chain.take(&mut events.into_iter(), &mut run);
            if !matches!(taken, Taken::All) {
                return Err(StoreError::Invalid(format!(
                    "the events of {lane} do not follow {}: {taken:?}",
                    chain.at
                )));
            }
            if run.is_empty() {
                continue;
            }
            let (chunk, too_new) = self
                .store
                .decode(lane.clone(), before.epoch, before.at, run);
            chain.at = chunk.as_ref().map_or(before.at, |chunk| chunk.through());
            if let Some(chunk) = chunk {
                batch.push(chunk);
            }
            if let Some(error) = too_new {
                folded.too_new = Some(describe(&error));
            }
        }
        folded.events = batch.len();
        if !batch.is_empty() {
            for letter in self.store.apply(&batch, &self.parked).await? {
                self.parked.insert(&letter.lane, &letter.event.stream);
                folded.letters.push((letter.event.position, letter.reason));
            }
        }
        self.lanes = after;
        Ok(folded)
    }

    /// Does what is asked about dead letters in the lanes, and says what came of it.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub async fn settle_requests(&mut self) -> Result<Vec<String>, StoreError> {
        let lanes: Vec<Lane> = self.lanes.keys().cloned().collect();
        let mut outcomes = Vec::new();
        for request in self.store.requests(&lanes).await? {
            let Some(chain) = self.lanes.get(&request.lane) else {
                continue;
            };
            let checkpoint = crate::generation::Checkpoint {
                lane: request.lane.clone(),
                position: chain.at,
                epoch: chain.epoch,
            };
            let settled = self.store.settle(&request, &checkpoint).await?;
            if settled.released {
                self.parked.remove(&request.lane, &request.stream);
            }
            outcomes.push(settled.describe());
        }
        Ok(outcomes)
    }
}
