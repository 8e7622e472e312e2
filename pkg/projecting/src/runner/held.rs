//! What a worker does while lanes are held: it finishes what lies before the holds and keeps what it
//! has read beyond them. A verification holds lanes until it moves its holds, which is looked at
//! every few milliseconds; an effect that cannot be performed holds its lane for a pause that grows.

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
            tracing::debug!(projection = self.shared.view.name(), %lane, %at, "lane held for a verification");
            if let Some(reading) = self.keep_back(batch, lane, *at) {
                reading.held = true;
            }
        }
        self.hold_look = Some(Instant::now() + Duration::from_millis(HOLD_POLL_MS));
    }

    /// Takes out of a batch what follows effects that cannot be performed now. It waits in its
    /// lanes, longer each time.
    pub(super) fn wait_for_effects(&mut self, batch: &mut Batch, holds: &[(Lane, Position)]) {
        for (lane, at) in holds {
            if let Some(reading) = self.keep_back(batch, lane, *at) {
                let pause = reading.wait.backoff.next();
                reading.wait.until = Some(Instant::now() + pause);
            }
        }
    }

    /// Takes what a lane has beyond a position out of a batch and keeps it in the lane.
    fn keep_back(&mut self, batch: &mut Batch, lane: &Lane, at: Position) -> Option<&mut Reading> {
        let store = &self.store;
        let beyond = batch.cut(lane, at, |lane, epoch, previous, events| {
            store.decode(lane, epoch, previous, events).0
        });
        let reading = self.reading(lane)?;
        for chunk in beyond.into_iter().rev() {
            reading.kept.push_front(chunk);
        }
        Some(reading)
    }

    /// When to look again at the latest, if nothing else happens.
    pub(super) fn next_look(&self, tick: Instant) -> Instant {
        let waits = self.owned.values().filter_map(|owned| match &owned.state {
            LaneState::Reading(reading) => reading.wait.until,
            LaneState::Resting { .. } => None,
        });
        waits.chain(self.hold_look).fold(tick, Instant::min)
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
