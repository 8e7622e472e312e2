//! A check of a live generation against its log: what is asked for, and what is found.

use millrace_es::Position;
use serde::{Deserialize, Serialize};

use crate::generation::{Checkpoint, GenerationId};

/// The most differences that a check names; all are counted.
pub const MAX_DIFFERENCES: usize = 100;

/// The most keys that one check looks at.
pub const MAX_CHECKED_KEYS: usize = 10_000;

/// The most parked keys that a check names.
pub(super) const MAX_PARKED_NAMES: usize = 20;

/// The longest row that is named, in characters; it ends in `…` where it was longer.
const MAX_ROW_CHARS: usize = 160;

/// Which keys a check looks at, and how much it may read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CheckOptions {
    /// How many keys are sampled, at most [`MAX_CHECKED_KEYS`], or none beside `also`: half anywhere in the log, a quarter
    /// that changed last, a quarter by rows that are there.
    pub keys: usize,
    /// What the sample is drawn with: the same keys again for the same log and rows.
    pub seed: u64,
    /// Keys, as the names of streams, that are looked at in any case.
    pub also: Vec<String>,
    /// The longest log, in events, of which a view of sums is folded whole.
    pub max_events: u64,
}

/// What a check came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Check {
    /// Rows were compared.
    Done(Checked),
    /// There is nothing to compare now, and why.
    Skipped(String),
}

/// What a check of a live generation found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Checked {
    /// The generation that answers.
    pub generation: GenerationId,
    /// How many keys were folded from the log; of a view of sums, how many rows were compared.
    pub keys: u64,
    /// How many rows were compared.
    pub rows: u64,
    /// How many of them differ.
    pub differences: u64,
    /// Some of those, at most [`MAX_DIFFERENCES`].
    pub named: Vec<Difference>,
    /// How many of the keys wait for dead letters; they are not compared.
    pub parked: u64,
    /// Some of those.
    pub parked_keys: Vec<String>,
    /// How many of the keys were left out, because they have too many events or need a newer
    /// release.
    pub left_out: u64,
    /// The checkpoints that the rows were read at.
    pub at: Vec<Checkpoint>,
}

/// How a row differs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DifferenceKind {
    /// It holds something else than the fold of the log.
    Changed,
    /// The fold has it, the view has not.
    Missing,
    /// The view has it, the fold has not.
    Extra,
    /// The view has seen events that the log does not have.
    Ahead,
}

impl DifferenceKind {
    /// The word for it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Changed => "changed",
            Self::Missing => "missing",
            Self::Extra => "extra",
            Self::Ahead => "ahead",
        }
    }
}

/// A row that is not what the log makes of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Difference {
    /// The stream whose events make it, where one does.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    /// The row, as `<table>/<primary key>`.
    pub row: String,
    /// How it differs.
    pub kind: DifferenceKind,
    /// The columns that differ, of a row that is on both sides.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub columns: Vec<String>,
    /// The position that both sides were compared at; of a view of sums, the newest.
    pub position: Position,
}

/// Differences on the way: all are counted, some are named.
#[derive(Debug, Default)]
pub(super) struct Differences {
    pub(super) rows: u64,
    pub(super) count: u64,
    pub(super) named: Vec<Difference>,
}

impl Differences {
    /// Names one that is counted already.
    pub(super) fn name(&mut self, mut difference: Difference) {
        if self.named.len() < MAX_DIFFERENCES {
            difference.row = shortened(&difference.row);
            self.named.push(difference);
        }
    }

    pub(super) fn add(&mut self, difference: Difference) {
        self.count += 1;
        self.name(difference);
    }

    /// Takes over what a look at some of the rows found.
    pub(super) fn take(&mut self, other: Self) {
        self.rows += other.rows;
        self.count += other.count;
        for difference in other.named {
            self.name(difference);
        }
    }
}

/// The keys that a check did not compare, on the way.
#[derive(Debug, Default)]
pub(super) struct Passed {
    pub(super) parked: u64,
    pub(super) parked_keys: Vec<String>,
    pub(super) left_out: u64,
}

impl Passed {
    pub(super) fn park(&mut self, key: &str) {
        self.parked += 1;
        if self.parked_keys.len() < MAX_PARKED_NAMES {
            self.parked_keys.push(key.to_owned());
        }
    }
}

/// A place as it is named.
pub(super) fn shortened(place: &str) -> String {
    let mut text: String = place.chars().take(MAX_ROW_CHARS).collect();
    if text.len() < place.len() {
        text.push('…');
    }
    text
}
