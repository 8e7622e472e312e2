//! Fixtures for tests beside the user's own.

use std::sync::Arc;

use millrace_es::{
    Context, DomainEvent, Epoch, EventId, Metadata, Partition, Position, RecordedEvent, StreamId,
    StreamVersion,
};

use crate::user::{UserEvent, fixtures};

/// An event as the log would hold it at this version of its stream.
pub(crate) fn recorded(event: &UserEvent, version: u64) -> RecordedEvent {
    RecordedEvent {
        id: EventId::new(uuid::Uuid::from_u128(u128::from(version))),
        context: Context::new(crate::CONTEXT).unwrap(),
        epoch: Epoch::new(1),
        position: Position::new(version),
        partition: Partition::new(1),
        previous: Position::new(version - 1),
        stream: StreamId::of("user", event.user_id().get()),
        version: StreamVersion::new(version),
        event_type: event.event_type().into(),
        schema_version: event.schema_version(),
        payload: event.encode().unwrap(),
        metadata: Arc::new(Metadata::default()),
        recorded_at: fixtures::at(30),
    }
}
