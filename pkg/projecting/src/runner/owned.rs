use std::{collections::VecDeque, time::Duration};

use millrace_es::{Epoch, Position};
use millrace_streaming::Ownership;
use tokio::{
    sync::{mpsc, watch},
    time::Instant,
};

use super::lane::{Feed, LaneEnd};
use crate::{backoff::Backoff, batch::Chunk};

/// A lane in this process's hands.
pub(super) struct Owned {
    pub(super) ownership: Ownership,
    pub(super) state: LaneState,
}

pub(super) enum LaneState {
    /// Nothing reads it until then. Where an event needs a newer release, the lane is then given
    /// back for another process to try.
    Resting {
        until: Instant,
        give_back: bool,
    },
    Reading(Reading),
}

pub(super) struct Reading {
    pub(super) feed: mpsc::Receiver<Feed>,
    pub(super) committed: watch::Sender<Position>,
    /// Where the lane is in the store, once the reader has said where it begins.
    pub(super) at: Option<(Position, Epoch)>,
    pub(super) reader: tokio::task::AbortHandle,
    /// The reader ended by itself; what it handed over is still to be applied.
    pub(super) end: Option<LaneEnd>,
    /// What comes before the feed: chunks that a hold kept back.
    pub(super) kept: VecDeque<Chunk>,
    /// A verification holds the lane; nothing of it is applied.
    pub(super) held: bool,
    /// How long nothing of it is applied because an effect could not be performed.
    pub(super) wait: Wait,
}

/// A lane's pauses between attempts at an effect.
#[derive(Default)]
pub(super) struct Wait {
    pub(super) until: Option<Instant>,
    pub(super) backoff: Backoff,
}

impl Reading {
    /// Whether nothing of the lane is to be applied now. A pause that is over is forgotten.
    pub(super) fn is_kept_back(&mut self, now: Instant) -> bool {
        self.wait.until = self.wait.until.filter(|until| now < *until);
        self.held || self.wait.until.is_some()
    }
}

impl Drop for Reading {
    fn drop(&mut self) {
        self.reader.abort();
    }
}

pub(super) fn resting(rest_ms: u64) -> LaneState {
    LaneState::Resting {
        until: Instant::now() + Duration::from_millis(rest_ms),
        give_back: false,
    }
}
