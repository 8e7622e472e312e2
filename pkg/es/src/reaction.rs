use crate::{DecodeError, RecordedEvent};

/// Something that is to happen in the world because of events: a receipt is written, a message is
/// sent, a saga takes its next step. What exactly is a handler's matter; here stands only which
/// events are meant.
///
/// A reaction keeps its own progress from the log's first event on, and never runs in a replay.
/// Every event's effect is performed at least once, in order per stream: whoever performs it has to
/// give the effect a key that is derived from the event, so that a repeat changes nothing.
pub trait Reaction: Send + Sync + 'static {
    /// The name in leases, metrics and dead letters: `order-receipts`. It is stored, and it is no
    /// projection's.
    const NAME: &'static str;
    /// The contexts whose events it reads.
    const CONTEXTS: &'static [&'static str];

    /// What it understands.
    type Event: Send + Sync;

    /// Reads an event; `None` for one that says nothing to this reaction.
    ///
    /// # Errors
    /// See [`DecodeError`].
    fn decode(event: &RecordedEvent) -> Result<Option<Self::Event>, DecodeError>;
}
