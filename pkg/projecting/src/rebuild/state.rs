//! What a rebuild is made of, and how it stands.

use std::{collections::BTreeMap, num::NonZeroU32};

use millrace_es::{Context, Epoch, Position};
use serde::Serialize;

use crate::{
    error::StoreError,
    generation::{Checkpoint, ContextHead, Generation, Lane},
    owner::Owner,
    view::StoreKind,
};

/// What of one context's log a rebuild loads, fixed when it begins. What comes later reaches the
/// generation as it reaches every other, from the projector.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Target {
    /// The context.
    pub context: Context,
    /// The position after which it begins: 0 for the whole log.
    pub from: Position,
    /// The last position it loads.
    pub to: Position,
    /// The life of the log that the positions belong to.
    pub epoch: Epoch,
}

impl Target {
    /// How many events that is: positions have no gaps.
    #[must_use]
    pub const fn events(&self) -> u64 {
        self.to.get().saturating_sub(self.from.get())
    }
}

/// What a rebuild would do, if it began now.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct RebuildPlan {
    /// The projection.
    pub projection: String,
    /// The version that this release folds.
    pub version: u32,
    /// Where the rows go.
    #[serde(serialize_with = "store_name")]
    pub store: StoreKind,
    /// The generation that answers now.
    pub live: Option<Generation>,
    /// What it would load, one for each context.
    pub targets: Vec<Target>,
    /// How many events that is.
    pub events_total: u64,
    /// In how many lanes.
    pub lanes_total: u32,
}

fn store_name<S: serde::Serializer>(store: &StoreKind, to: S) -> Result<S::Ok, S::Error> {
    to.serialize_str(store.as_str())
}

/// How fast a load may be: of the whole rebuild, shared out among its workers.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Pace {
    /// The most events a second; as many as it can without.
    pub max_events_per_second: Option<NonZeroU32>,
    /// Whether it stands still.
    pub suspended: bool,
}

/// A worker's part of a load: the lanes whose partition's number leaves `index` when divided by
/// `of`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Share {
    /// Which part, from 0.
    pub index: u16,
    /// How many parts there are, at least 1.
    pub of: u16,
}

impl Share {
    /// All lanes.
    pub const WHOLE: Self = Self { index: 0, of: 1 };

    pub(super) fn check(self) -> Result<(), StoreError> {
        if self.index < self.of {
            return Ok(());
        }
        Err(StoreError::Invalid(format!(
            "share {} of {} is none: shares count from 0",
            self.index, self.of
        )))
    }

    pub(super) const fn has(self, lane: &Lane) -> bool {
        lane.partition.get() % self.of == self.index
    }
}

/// How a rebuild stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct RebuildState {
    /// The generation it fills.
    pub generation: Generation,
    /// Whose it is.
    pub owner: Owner,
    /// What is loaded.
    pub targets: Vec<Target>,
    /// How fast it may be.
    pub pace: Pace,
    /// How many events are folded, of the targets'.
    pub events_done: u64,
    /// How many lanes are at their ends.
    pub lanes_done: u32,
    /// How many lanes there are.
    pub lanes_total: u32,
}

/// How a load ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LoadEnd {
    /// Every lane of the share is at its target.
    Done,
    /// It was told to stop; what is written stays, and the next load goes on from there.
    Stopped,
    /// The generation is retired or gone.
    Gone,
}

/// How the load of one lane stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct LaneProgress {
    pub(crate) lane: Lane,
    pub(crate) epoch: Epoch,
    pub(crate) position: Position,
    /// The newest event of the lane when the rebuild began.
    pub(crate) target: Position,
    pub(crate) events: u64,
}

impl LaneProgress {
    pub(crate) fn is_done(&self) -> bool {
        self.position >= self.target
    }

    pub(super) fn checkpoint(&self) -> Checkpoint {
        Checkpoint {
            lane: self.lane.clone(),
            position: self.position,
            epoch: self.epoch,
        }
    }
}

/// What a load began with, as its lanes keep it.
pub(super) fn targets_of(lanes: &[LaneProgress]) -> Vec<Target> {
    let mut targets: BTreeMap<&Context, Target> = BTreeMap::new();
    for one in lanes {
        let target = targets.entry(&one.lane.context).or_insert_with(|| Target {
            context: one.lane.context.clone(),
            from: Position::ZERO,
            to: Position::ZERO,
            epoch: one.epoch,
        });
        target.to = target.to.max(one.target);
    }
    targets.into_values().collect()
}

/// What a load would begin with.
pub(super) fn targets_at(heads: &[ContextHead]) -> Vec<Target> {
    heads
        .iter()
        .map(|head| Target {
            context: head.context.clone(),
            from: Position::ZERO,
            to: head.lanes().map(|(_, at)| at).max().unwrap_or_default(),
            epoch: head.epoch,
        })
        .collect()
}

/// Refuses a rebuild whose lanes are not all at their targets.
pub(crate) fn require_loaded(
    generation: &Generation,
    lanes: &[LaneProgress],
) -> Result<(), StoreError> {
    match lanes.iter().find(|one| !one.is_done()) {
        None => Ok(()),
        Some(one) => Err(StoreError::Behind {
            candidate: generation.id,
            lane: one.lane.clone(),
            at: one.position,
            needed: one.target,
        }),
    }
}
