//! Fixtures for the tests of the views and the reactions.

use std::sync::Arc;

use millrace_es::{
    Context, DomainEvent, Epoch, EventId, Metadata, Partition, Position, RecordedEvent, StreamId,
    StreamVersion,
};

use crate::order::{OrderEvent, fixtures};

/// The events of an order that was created, confirmed and deleted.
pub(crate) fn life() -> Vec<OrderEvent> {
    fixtures::events(&[
        fixtures::create(),
        fixtures::become_(crate::order::OrderStatus::Confirmed),
        fixtures::delete(),
    ])
}

/// The same as the log would hold them.
pub(crate) fn recorded_life() -> Vec<RecordedEvent> {
    let numbered = (1..).zip(life());
    numbered
        .map(|(version, event)| recorded(&event, version, 0))
        .collect()
}

/// The first of them.
pub(crate) fn created() -> RecordedEvent {
    recorded_life().swap_remove(0)
}

/// An event as the log would hold it at this version of its stream, in this partition.
pub(crate) fn recorded(event: &OrderEvent, version: u64, partition: u16) -> RecordedEvent {
    RecordedEvent {
        id: EventId::new(uuid::Uuid::from_u128(u128::from(version))),
        context: Context::new(crate::CONTEXT).unwrap(),
        epoch: Epoch::new(1),
        position: Position::new(version),
        partition: Partition::new(partition),
        previous: Position::new(version - 1),
        stream: StreamId::of("order", event.order_id().get()),
        version: StreamVersion::new(version),
        event_type: event.event_type().into(),
        schema_version: event.schema_version(),
        payload: event.encode().unwrap(),
        metadata: Arc::new(Metadata::default()),
        recorded_at: fixtures::at(30),
    }
}
