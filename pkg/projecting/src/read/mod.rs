//! The query side: which generation answers, how far it is, and waiting until it is far enough.

mod judge;
mod state;

pub(crate) use judge::Judgement;
pub(crate) use state::{Backend, ReadState, Reading};

use std::time::Duration;

use millrace_es::{Context, Epoch, LogToken, Position};

use crate::error::StoreError;

/// How long a waiting reader goes without looking at the store when no signal comes, in
/// milliseconds.
pub(crate) const WAIT_POLL_MS: u64 = 250;

/// The first pause when the projector has signalled a position that the store does not show yet
/// (a replica is behind), in milliseconds; it doubles up to [`WAIT_POLL_MS`].
pub(crate) const REPLICA_POLL_MS: u64 = 5;

/// Readers of one model that may wait together; beyond it a read is refused at once.
pub(crate) const MAX_WAITING_READS: usize = 1_000;

/// Why a query cannot be answered.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The read model did not reach the position in time: 504.
    #[error("the read model has not reached {wanted} yet, it is at {reached}")]
    Behind {
        /// What was waited for.
        wanted: LogToken,
        /// How far it is: everything up to here is in it, and of the partitions waited for this
        /// is the least.
        reached: Position,
    },
    /// The position belongs to a life of the log that is over; what it named may be lost.
    #[error("{wanted} is of an earlier life of the log; the present one is epoch {current}")]
    EpochOver {
        /// What was waited for.
        wanted: LogToken,
        /// The present life.
        current: Epoch,
    },
    /// The read model takes nothing from that context.
    #[error("{projection} does not read the context {context}")]
    ForeignContext {
        /// The read model.
        projection: &'static str,
        /// The token's context.
        context: Context,
    },
    /// No generation answers yet: the projector has not started since the read store was made.
    #[error("{projection} has no generation to answer from; has the projector started?")]
    NotReady {
        /// The read model.
        projection: &'static str,
    },
    /// Too many readers wait already.
    #[error("too many readers wait for {projection}")]
    Busy {
        /// The read model.
        projection: &'static str,
    },
    /// The store did not answer: 503.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl From<sqlx::Error> for ReadError {
    fn from(error: sqlx::Error) -> Self {
        Self::Store(error.into())
    }
}

/// A position that a read must have seen, and how long it may wait for it.
#[derive(Debug, Clone)]
pub struct AtLeast {
    /// The position, as a write's answer gave it.
    pub token: LogToken,
    /// How long to wait at most.
    pub wait: Duration,
}
