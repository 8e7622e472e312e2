//! Fixtures for the tests.

use std::sync::Arc;

use millrace_contracts::{
    customers::CustomersEvent,
    ordering::{Item, OrderCreated, OrderStatus, OrderingEvent},
};
use millrace_es::{
    Context, Epoch, EventId, Metadata, Partition, Position, RecordedEvent, StreamId, StreamVersion,
};
use millrace_kernel::Timestamp;
use millrace_teststage::facts;

pub(crate) use millrace_teststage::facts::{id, order_created as created};

/// A minute of the first day of April.
pub(crate) fn at(minute: u32) -> Timestamp {
    format!("2025-04-01T00:{minute:02}:00Z").parse().unwrap()
}

pub(crate) fn item(description: &str) -> Item {
    Item {
        description: description.to_owned(),
        quantity: 1,
        unit_price: "1.00".parse().unwrap(),
    }
}

/// An order's status becomes another.
pub(crate) fn becomes(order: &OrderCreated, to: OrderStatus) -> OrderingEvent {
    facts::order_becomes(order, to, at(59))
}

pub(crate) fn deleted(order: &OrderCreated) -> OrderingEvent {
    facts::order_deleted(order, at(59))
}

pub(crate) fn user_created(user: &str, email: &str) -> CustomersEvent {
    facts::user_created(user, "Alice", email, at(0))
}

pub(crate) fn user_updated(user: &str, email: &str) -> CustomersEvent {
    facts::user_updated(user, "Alice B", email, at(1))
}

pub(crate) fn account_created(user: &str, address: &str, at: Timestamp) -> CustomersEvent {
    facts::account_created(user, facts::address(address), at)
}

pub(crate) fn account_updated(user: &str, address: &str, at: Timestamp) -> CustomersEvent {
    facts::account_updated(user, facts::address(address), at)
}

/// An event as a log would hold it at this version of its stream. Its position does not matter.
fn recorded(
    context: &str,
    stream: &str,
    version: u64,
    (event_type, payload): (&'static str, String),
) -> RecordedEvent {
    RecordedEvent {
        id: EventId::new(uuid::Uuid::from_u128(u128::from(version))),
        context: Context::new(context).unwrap(),
        epoch: Epoch::new(1),
        position: Position::new(version),
        partition: Partition::new(0),
        previous: Position::new(version - 1),
        stream: StreamId::new(stream).unwrap(),
        version: StreamVersion::new(version),
        event_type: event_type.into(),
        schema_version: 1,
        payload: serde_json::value::RawValue::from_string(payload).unwrap(),
        metadata: Arc::new(Metadata::default()),
        recorded_at: at(30),
    }
}

pub(crate) fn of_order(event: &OrderingEvent, version: u64) -> RecordedEvent {
    let payload = serde_json::to_string(event).unwrap();
    let stream = format!("order-{}", event.order_id());
    recorded("ordering", &stream, version, (event.event_type(), payload))
}

pub(crate) fn of_user(event: &CustomersEvent, version: u64) -> RecordedEvent {
    let payload = serde_json::to_string(event).unwrap();
    let stream = format!("user-{}", event.user_id());
    recorded("customers", &stream, version, (event.event_type(), payload))
}
