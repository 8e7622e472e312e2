use std::fmt;

use millrace_es::{Context, Epoch, Partition, Position};
use millrace_kernel::Timestamp;
use serde::Serialize;

use crate::error::StoreError;

/// Names a generation for ever, in its store.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(transparent)]
pub struct GenerationId(i64);

impl GenerationId {
    /// Takes a number.
    #[must_use]
    pub const fn new(number: i64) -> Self {
        Self(number)
    }

    /// The number.
    #[must_use]
    pub const fn get(self) -> i64 {
        self.0
    }
}

impl fmt::Display for GenerationId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "g{}", self.0)
    }
}

impl fmt::Debug for GenerationId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// What a generation is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum GenerationStatus {
    /// Being filled; no query sees it.
    Candidate,
    /// Answers queries of its projection's version.
    Active,
    /// Answered before; kept current, so that a rollback is another switch.
    Retained,
    /// Nobody works on it.
    Retired,
}

impl GenerationStatus {
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Candidate => "candidate",
            Self::Active => "active",
            Self::Retained => "retained",
            Self::Retired => "retired",
        }
    }

    pub(crate) fn parse(text: &str) -> Option<Self> {
        [Self::Candidate, Self::Active, Self::Retained, Self::Retired]
            .into_iter()
            .find(|status| status.as_str() == text)
    }

    /// Whether a runner keeps it current.
    #[must_use]
    pub const fn is_worked_on(self) -> bool {
        !matches!(self, Self::Retired)
    }
}

/// A whole copy of a projection's rows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Generation {
    /// Its name in its store.
    pub id: GenerationId,
    /// The projection.
    pub projection: String,
    /// The version of the projection that folds it.
    pub version: u32,
    /// What it is for.
    pub status: GenerationStatus,
    /// The PostgreSQL schema or the DynamoDB table that holds it.
    pub place: String,
    /// When it was made.
    pub created_at: Timestamp,
}

/// One partition of one context: what a projector owns and a checkpoint counts.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
pub struct Lane {
    /// The context.
    pub context: Context,
    /// The partition.
    pub partition: Partition,
}

impl Lane {
    /// Names a lane.
    #[must_use]
    pub const fn new(context: Context, partition: Partition) -> Self {
        Self { context, partition }
    }
}

impl fmt::Display for Lane {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.context, self.partition)
    }
}

/// How far a generation is in one lane.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Checkpoint {
    /// The lane.
    pub lane: Lane,
    /// The newest position of the lane whose event is in the rows (or in the dead letters).
    pub position: Position,
    /// The life of the log that the position belongs to.
    pub epoch: Epoch,
}

/// What a generation has to follow in one context.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ContextHead {
    /// The context.
    pub context: Context,
    /// The life of its log.
    pub epoch: Epoch,
    /// The newest position in each partition, by number.
    pub partition_positions: Vec<Position>,
}

impl ContextHead {
    /// Each lane of the context with the newest position in it.
    pub fn lanes(&self) -> impl Iterator<Item = (Lane, Position)> + '_ {
        self.partition_positions
            .iter()
            .zip(0_u16..)
            .map(|(position, number)| {
                let lane = Lane::new(self.context.clone(), Partition::new(number));
                (lane, *position)
            })
    }
}

/// Whether checkpoints belong to the present life of every log they follow.
pub(crate) fn of_this_life(checkpoints: &[Checkpoint], heads: &[ContextHead]) -> bool {
    heads.iter().all(|head| {
        checkpoints
            .iter()
            .filter(|one| one.lane.context == head.context)
            .all(|one| one.epoch == head.epoch)
    })
}

/// Whether two generations follow the same lives of their logs, so that positions compare.
pub(crate) fn of_one_life(own: &[Checkpoint], theirs: &[Checkpoint]) -> bool {
    own.iter().all(|one| {
        theirs
            .iter()
            .filter(|other| other.lane == one.lane)
            .all(|other| other.epoch == one.epoch)
    })
}

/// Refuses checkpoints that are behind in a lane.
pub(crate) fn require_reached(
    candidate: GenerationId,
    own: &[Checkpoint],
    needed: impl Iterator<Item = (Lane, Position)>,
) -> Result<(), StoreError> {
    for (lane, needed) in needed {
        let at = own
            .iter()
            .find(|one| one.lane == lane)
            .map_or(Position::ZERO, |one| one.position);
        if at < needed {
            return Err(StoreError::Behind {
                candidate,
                lane,
                at,
                needed,
            });
        }
    }
    Ok(())
}
