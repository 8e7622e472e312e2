use std::{borrow::Cow, fmt, sync::Arc};

use millrace_kernel::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::{Value, value::RawValue};

use crate::{Context, Epoch, Partition, Position, StreamId, StreamVersion};

/// Names an event for ever: a UUIDv7, given when the event is decided.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct EventId(uuid::Uuid);

impl EventId {
    /// A fresh UUIDv7. For edges only.
    #[must_use]
    #[expect(
        clippy::disallowed_methods,
        reason = "one of the two places that make ids"
    )]
    pub fn generate() -> Self {
        Self(uuid::Uuid::now_v7())
    }

    /// Takes a UUID.
    #[must_use]
    pub const fn new(id: uuid::Uuid) -> Self {
        Self(id)
    }

    /// The UUID.
    #[must_use]
    pub const fn get(self) -> uuid::Uuid {
        self.0
    }
}

impl fmt::Display for EventId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

impl fmt::Debug for EventId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

/// What is known about an event beside what happened.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Metadata {
    /// Joins everything that one request set off.
    pub correlation_id: String,
    /// What this event was caused by: the request, or an event's id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub causation_id: Option<String>,
    /// W3C trace context of the append.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub traceparent: Option<String>,
    /// Who asked for it, where that is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub actor: Option<String>,
    /// SHA-256 (hex) of the request's idempotency key; the key itself is not kept in events.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub idempotency_key_hash: Option<String>,
}

/// An event that was decided and not yet appended.
#[derive(Debug, Clone)]
pub struct NewEvent {
    /// The event's name for ever.
    pub id: EventId,
    /// The public type, such as `order.created`.
    pub event_type: Cow<'static, str>,
    /// The version of the payload's schema, from 1.
    pub schema_version: u16,
    /// What happened, as JSON.
    pub payload: Box<RawValue>,
    /// What is known beside.
    pub metadata: Arc<Metadata>,
}

/// An event as the log holds it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct RecordedEvent {
    /// The event's name for ever.
    pub id: EventId,
    /// The context that owns the log.
    pub context: Context,
    /// The life of the log this position belongs to.
    pub epoch: Epoch,
    /// The place in the context's log.
    pub position: Position,
    /// The partition of the event's stream.
    pub partition: Partition,
    /// The position before this one in the same partition, 0 for the first: the link that a
    /// projector checks so that it cannot step over a hole.
    pub previous: Position,
    /// The stream.
    pub stream: StreamId,
    /// The place in the stream.
    pub version: StreamVersion,
    /// The public type, such as `order.created`.
    pub event_type: Cow<'static, str>,
    /// The version of the payload's schema, from 1.
    pub schema_version: u16,
    /// What happened, as JSON.
    pub payload: Box<RawValue>,
    /// What is known beside.
    pub metadata: Arc<Metadata>,
    /// When the log took it.
    pub recorded_at: Timestamp,
}

/// Why a stored event cannot be read. The first two mean that the running code is older than the
/// event: that is never a dead letter, the reader stops and waits for its newer release.
#[derive(Debug, thiserror::Error)]
pub enum DecodeError {
    /// An event type this code does not know.
    #[error("event type {event_type:?} is not known to this release")]
    UnknownType {
        /// The type as stored.
        event_type: String,
    },
    /// A schema version above the newest this code knows.
    #[error("{event_type} has schema version {found}, this release knows up to {newest}")]
    NewerVersion {
        /// The type as stored.
        event_type: String,
        /// The version as stored.
        found: u16,
        /// The newest version this code can read.
        newest: u16,
    },
    /// The payload is not what its type and version promise.
    #[error("payload of {event_type} version {schema_version} does not decode")]
    Malformed {
        /// The type as stored.
        event_type: String,
        /// The version as stored.
        schema_version: u16,
        /// What the decoder said.
        #[source]
        source: serde_json::Error,
    },
}

impl DecodeError {
    /// Whether a newer release could read the event.
    #[must_use]
    pub const fn needs_newer_release(&self) -> bool {
        matches!(self, Self::UnknownType { .. } | Self::NewerVersion { .. })
    }
}

/// One step that lifts a payload from a schema version to the next.
pub type Upcast = fn(Value) -> Value;

/// The newest schema version that these steps lead to, which is the one that is written.
#[must_use]
#[expect(
    clippy::cast_possible_truncation,
    reason = "a list of steps in the code"
)]
pub const fn newest_version(steps: &[Upcast]) -> u16 {
    steps.len() as u16 + 1
}

/// Decodes a payload after lifting it step by step to the newest version. `steps[0]` lifts version
/// 1 to 2, and so on: the newest version is `steps.len() + 1`.
///
/// # Errors
/// [`DecodeError::NewerVersion`] above the newest, [`DecodeError::Malformed`] when it does not
/// decode.
pub fn upcast<T: serde::de::DeserializeOwned>(
    event_type: &str,
    schema_version: u16,
    payload: &RawValue,
    steps: &[Upcast],
) -> Result<T, DecodeError> {
    let malformed = |source| DecodeError::Malformed {
        event_type: event_type.to_owned(),
        schema_version,
        source,
    };
    let newest = newest_version(steps);
    if schema_version > newest {
        return Err(DecodeError::NewerVersion {
            event_type: event_type.to_owned(),
            found: schema_version,
            newest,
        });
    }
    if schema_version == newest {
        return serde_json::from_str(payload.get()).map_err(malformed);
    }
    let value: Value = serde_json::from_str(payload.get()).map_err(malformed)?;
    let first = usize::from(schema_version.max(1)) - 1;
    let lifted = steps[first..].iter().fold(value, |value, step| step(value));
    serde_json::from_value(lifted).map_err(malformed)
}

/// A decoded event with the envelope it came in.
#[derive(Debug)]
pub struct Recorded<'a, E> {
    /// What happened.
    pub event: &'a E,
    /// The envelope.
    pub envelope: &'a RecordedEvent,
}

// Two references, whatever the event: a derive would ask the event to be `Copy` too.
impl<E> Clone for Recorded<'_, E> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<E> Copy for Recorded<'_, E> {}
