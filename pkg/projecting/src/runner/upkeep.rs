//! What a worker does once a second, whether there are events or not.

use millrace_kernel::Timestamp;

use super::{
    owned::{LaneState, Reading},
    worker::{FENCED_REST_MS, Worker},
};
use crate::{
    batch::describe,
    error::StoreError,
    generation::{Checkpoint, GenerationStatus, Lane},
};

impl Worker {
    /// What is done once a second: requests about dead letters, a look at the checkpoints, and
    /// measuring, if it is this generation that answers, or that performs.
    pub(super) async fn tick(&mut self) {
        self.settle_requests().await;
        self.compare_checkpoints().await;
        let answers = *self.status.borrow() == GenerationStatus::Active;
        // A reaction has one generation for ever, whose effects wait from its first event on: it
        // becomes active only when it has caught up, which it does not while they cannot be performed.
        if !answers && !self.shared.view.is_reaction() {
            self.meter.hide();
            return;
        }
        self.measure_lanes();
        if let Ok(count) = self.store.pending_letters().await {
            self.meter.letters(count);
        }
    }

    fn measure_lanes(&mut self) {
        self.meter.held(self.owned.len());
        for (lane, owned) in &self.owned {
            let LaneState::Reading(Reading {
                at: Some((position, epoch)),
                ..
            }) = &owned.state
            else {
                continue;
            };
            let head = self.shared.heads(&lane.context);
            let head = head.and_then(|head| head.borrow().clone());
            if let Some(head) = head.filter(|head| head.epoch == *epoch) {
                self.meter.lag(lane, *position, &head, Timestamp::now());
            }
        }
    }

    /// Lanes whose checkpoint is not where this worker left it begin again there. A lane with new
    /// events finds out by its next batch; one without would never notice that its store was put
    /// back to an earlier copy, or lost its newest commits in a crash.
    async fn compare_checkpoints(&mut self) {
        let stored = match self.store.checkpoints().await {
            Ok(stored) => stored,
            Err(error) => {
                tracing::debug!(%error, "checkpoints not compared");
                return;
            }
        };
        for checkpoint in stored {
            let lane = &checkpoint.lane;
            if let Some(known) = self.checkpoint_of(lane)
                && known != checkpoint
            {
                tracing::info!(projection = self.shared.view.name(), %lane, known = %known.position, stored = %checkpoint.position, "another process moved the checkpoint, or the store was restored; beginning again there");
                self.rest(lane, FENCED_REST_MS);
            }
        }
    }

    async fn settle_requests(&mut self) {
        let lanes: Vec<Lane> = self.owned.keys().cloned().collect();
        if lanes.is_empty() {
            return;
        }
        let requests = match self.store.requests(&lanes).await {
            Ok(requests) => requests,
            Err(error) => {
                tracing::debug!(%error, "requests about dead letters not read");
                return;
            }
        };
        for request in requests {
            let Some(checkpoint) = self.checkpoint_of(&request.lane) else {
                continue;
            };
            match self.store.settle(&request, &checkpoint).await {
                Ok(settled) => {
                    tracing::info!(
                        projection = self.shared.view.name(),
                        lane = %request.lane,
                        stream = %request.stream,
                        outcome = settled.describe(),
                        "request about dead letters done"
                    );
                    if settled.released {
                        self.parked.remove(&request.lane, &request.stream);
                    }
                }
                Err(StoreError::Fenced { lane, .. }) => self.rest(&lane, FENCED_REST_MS),
                // It was told of already, and the next request would wait for the same endpoint.
                Err(StoreError::Waiting { .. }) => return,
                Err(error) => {
                    tracing::warn!(
                        projection = self.shared.view.name(),
                        request = %request.id,
                        error = %describe(&error),
                        "request about dead letters not done; trying again"
                    );
                }
            }
        }
    }

    fn checkpoint_of(&self, lane: &Lane) -> Option<Checkpoint> {
        let owned = self.owned.get(lane)?;
        let LaneState::Reading(Reading {
            at: Some((position, epoch)),
            ..
        }) = &owned.state
        else {
            return None;
        };
        owned.ownership.is_held().then(|| Checkpoint {
            lane: lane.clone(),
            position: *position,
            epoch: *epoch,
        })
    }
}
