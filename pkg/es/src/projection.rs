use std::{fmt::Debug, hash::Hash};

use crate::{DecodeError, Recorded, RecordedEvent};

/// An event that decodes and yet cannot be folded: a permanent error, so a dead letter.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{reason}")]
pub struct FoldError {
    reason: String,
}

impl FoldError {
    /// Says why.
    pub fn new(reason: impl Into<String>) -> Self {
        Self {
            reason: reason.into(),
        }
    }
}

/// A read model, described by what it is made of. A projection is pure, events in and rows out,
/// so that it can be replayed at any time.
pub trait Projection: Send + Sync + 'static {
    /// The name in leases, metrics, dead letters and replays: `order-read-models`.
    const NAME: &'static str;
    /// Rises when the fold or the tables change; each version fills generations of its own.
    const VERSION: u32;
    /// The contexts whose events it reads.
    const CONTEXTS: &'static [&'static str];

    /// What it understands.
    type Event: Send + Sync;

    /// Reads an event; `None` for one that says nothing to this projection.
    ///
    /// # Errors
    /// See [`DecodeError`].
    fn decode(event: &RecordedEvent) -> Result<Option<Self::Event>, DecodeError>;
}

/// A projection whose every row is made from the events of one key, in order.
///
/// A row is owned by one partition (the key follows the stream, or is derived from it), unless the
/// projection says that its rows are [`SHARED`](Self::SHARED). Sums that several partitions feed
/// are better a [`TallyProjection`], which locks nothing while it folds.
pub trait RowProjection: Projection {
    /// Whether facts of several partitions meet in a row. Partitions fold side by side and pass each
    /// other, so the fold has to come to the same row in whatever order the facts of different
    /// streams come; and its store has to lock the rows that it loads until they are written.
    const SHARED: bool = false;

    /// What names a row.
    type Key: Clone + Eq + Hash + Ord + Debug + Send + Sync;
    /// The row.
    type Row: Clone + Send + Sync;

    /// The row that an event touches.
    fn key(event: Recorded<'_, Self::Event>) -> Self::Key;

    /// Whether an event is the first of its row, so that nothing has to be loaded for it.
    fn starts(event: &Self::Event) -> bool {
        let _ = event;
        false
    }

    /// The row after an event; `None` removes it (stores keep a tombstone where a late duplicate
    /// could bring it back).
    ///
    /// # Errors
    /// [`FoldError`] when the event contradicts the row for good.
    fn fold(
        row: Option<Self::Row>,
        event: Recorded<'_, Self::Event>,
    ) -> Result<Option<Self::Row>, FoldError>;
}

/// A projection of sums that events of several partitions feed. Changes are added, never loaded
/// and written back, so that partitions cannot undo each other.
pub trait TallyProjection: Projection {
    /// What names a sum.
    type Key: Clone + Eq + Hash + Ord + Debug + Send + Sync;
    /// What is added to it.
    type Delta: Clone + Default + std::ops::AddAssign + Send + Sync;

    /// What an event adds, and where.
    ///
    /// # Errors
    /// [`FoldError`] when the event makes no sense for good.
    fn tally(
        event: Recorded<'_, Self::Event>,
    ) -> Result<Additions<Self::Key, Self::Delta>, FoldError>;
}

/// What is added, and to which sums.
pub type Additions<K, D> = Vec<(K, D)>;
