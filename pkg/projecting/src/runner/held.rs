//! What a worker does while a verification holds its generation: it finishes what lies before the
//! holds, keeps what it has read beyond them, and looks every few milliseconds whether they moved.

use std::time::Duration;

use millrace_es::Position;
use tokio::time::Instant;

use super::{
    owned::{LaneState, Owned, Reading},
    worker::Worker,
};
use crate::{
    batch::{Batch, describe},
    generation::Lane,
};

/// How often a worker looks whether a hold has moved, in milliseconds: the live generation stands
/// still for the last of these waits.
const HOLD_POLL_MS: u64 = 10;

impl Worker {
    /// Takes out of a batch what lies beyond the holds. It waits in its lanes.
    pub(super) fn hold_back(&mut self, batch: &mut Batch, holds: &[(Lane, Position)]) {
        for (lane, at) in holds {
            let store = &self.store;
            let beyond = batch.cut(lane, *at, |lane, epoch, previous, events| {
                store.decode(lane, epoch, previous, events).0
            });
            tracing::debug!(projection = self.shared.view.name(), %lane, %at, "lane held for a verification");
            if let Some(reading) = self.reading(lane) {
                reading.held = true;
                for chunk in beyond.into_iter().rev() {
                    reading.kept.push_front(chunk);
                }
            }
        }
        self.hold_look = Some(Instant::now() + Duration::from_millis(HOLD_POLL_MS));
    }

    /// Lets lanes go on whose hold has moved or gone.
    pub(super) async fn look_at_holds(&mut self) {
        let next = Instant::now() + Duration::from_millis(HOLD_POLL_MS);
        let holds = match self.store.holds().await {
            Ok(holds) => holds,
            Err(error) => {
                tracing::debug!(error = %describe(&error), "holds not read");
                self.hold_look = Some(next);
                return;
            }
        };
        let mut still = false;
        for (lane, owned) in &mut self.owned {
            let LaneState::Reading(reading) = &mut owned.state else {
                continue;
            };
            let Some((at, _)) = reading.at.filter(|_| reading.held) else {
                continue;
            };
            let hold = holds.iter().find(|(held, _)| held == lane);
            reading.held = hold.is_some_and(|(_, hold)| *hold <= at);
            still |= reading.held;
        }
        self.hold_look = still.then_some(next);
    }

    fn reading(&mut self, lane: &Lane) -> Option<&mut Reading> {
        match self.owned.get_mut(lane) {
            Some(Owned {
                state: LaneState::Reading(reading),
                ..
            }) => Some(reading),
            _ => None,
        }
    }
}
