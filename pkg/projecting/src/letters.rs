use std::fmt;

use millrace_es::{Position, RecordedEvent, StreamId};
use millrace_kernel::Timestamp;
use serde::{Deserialize, Serialize};

use crate::generation::{GenerationId, Lane};

/// Why an event is a dead letter, as a class: a token of its subject and a metric label.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reason {
    /// The payload is not what its type and version promise.
    Malformed,
    /// The projection refused it.
    Fold,
    /// The store refused the row for good.
    Store,
    /// An earlier event of its stream is a dead letter.
    Follows,
    /// Its effect can never be performed: a reaction's.
    Refused,
}

impl Reason {
    /// Every class.
    pub const ALL: [Self; 5] = [
        Self::Malformed,
        Self::Fold,
        Self::Store,
        Self::Follows,
        Self::Refused,
    ];

    /// The class's token.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Malformed => "malformed",
            Self::Fold => "fold",
            Self::Store => "store",
            Self::Follows => "follows",
            Self::Refused => "refused",
        }
    }

    /// Reads a token.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|one| one.as_str() == text)
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What can be done about letters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Action {
    /// Fold them again, in order; for a reaction, perform them.
    Redrive,
    /// Give them up: the rows stay as if the events said nothing.
    Discard,
}

impl Action {
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Redrive => "redrive",
            Self::Discard => "discard",
        }
    }

    pub(crate) fn parse(text: &str) -> Option<Self> {
        [Self::Redrive, Self::Discard]
            .into_iter()
            .find(|one| one.as_str() == text)
    }
}

/// Names a request in its store.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct RequestId(pub(crate) String);

impl fmt::Display for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Where a letter stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LetterStatus {
    /// It waits; its stream is parked.
    Pending,
    /// It was folded after all.
    Redriven,
    /// It was given up.
    Discarded,
}

impl LetterStatus {
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Redriven => "redriven",
            Self::Discarded => "discarded",
        }
    }

    pub(crate) fn parse(text: &str) -> Option<Self> {
        [Self::Pending, Self::Redriven, Self::Discarded]
            .into_iter()
            .find(|one| one.as_str() == text)
    }
}

/// An event that could not be folded, or follows one.
#[derive(Debug, Clone, Serialize)]
pub struct DeadLetter {
    /// The projection that could not fold it, or the reaction that could not perform it.
    pub projection: String,
    /// The generation it is missing from.
    pub generation: GenerationId,
    /// Its lane.
    pub lane: Lane,
    /// Its place in the log.
    pub position: Position,
    /// Its stream, which is parked while the letter waits.
    pub stream: StreamId,
    /// The event, whole.
    pub event: RecordedEvent,
    /// Why, as a class.
    pub reason: Reason,
    /// Why, in words.
    pub error: String,
    /// How often it was tried.
    pub attempts: u32,
    /// When it first failed.
    pub first_failure: Timestamp,
    /// When it last failed.
    pub last_failure: Timestamp,
    /// Where it stands.
    pub status: LetterStatus,
}
