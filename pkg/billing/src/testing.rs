//! Fixtures for the tests.

use std::sync::Arc;

use millrace_contracts::{
    customers::{
        AccountCreated, AccountUpdated, Address, CustomersEvent, UserCreated, UserUpdated,
    },
    ordering::{Item, OrderCreated, OrderDeleted, OrderStatus, OrderStatusUpdated, OrderingEvent},
};
use millrace_es::{
    Context, Epoch, EventId, Metadata, Partition, Position, RecordedEvent, StreamId, StreamVersion,
};
use millrace_kernel::{EntityId, Timestamp};

pub(crate) fn id(text: &str) -> EntityId {
    EntityId::new(text).unwrap()
}

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

pub(crate) fn created(order: &str, user: &str, amount: &str, at: Timestamp) -> OrderCreated {
    OrderCreated {
        order_id: id(order),
        user_id: id(user),
        items: Vec::new(),
        total_amount: amount.parse().unwrap(),
        shipping_address: None,
        notes: None,
        payment_account_id: None,
        description: None,
        purchase_dt: None,
        created_at: at,
    }
}

/// An order's status becomes another.
pub(crate) fn becomes(order: &OrderCreated, to: OrderStatus) -> OrderingEvent {
    OrderingEvent::OrderStatusUpdated(OrderStatusUpdated {
        order_id: order.order_id.clone(),
        user_id: order.user_id.clone(),
        from: OrderStatus::Pending,
        to,
        reason: None,
        total_amount: order.total_amount,
        purchase_dt: order.purchase_dt,
        created_at: order.created_at,
        updated_at: at(59),
    })
}

pub(crate) fn deleted(order: &OrderCreated) -> OrderingEvent {
    OrderingEvent::OrderDeleted(OrderDeleted {
        order_id: order.order_id.clone(),
        user_id: order.user_id.clone(),
        status: OrderStatus::Pending,
        total_amount: order.total_amount,
        purchase_dt: order.purchase_dt,
        created_at: order.created_at,
        deleted_at: at(59),
    })
}

pub(crate) fn user_created(user: &str, email: &str) -> CustomersEvent {
    CustomersEvent::UserCreated(UserCreated {
        id: id(user),
        name: "Alice".to_owned(),
        email: email.to_owned(),
        created_at: at(0),
    })
}

pub(crate) fn user_updated(user: &str, email: &str) -> CustomersEvent {
    CustomersEvent::UserUpdated(UserUpdated {
        id: id(user),
        name: "Alice B".to_owned(),
        email: email.to_owned(),
        updated_at: at(1),
    })
}

pub(crate) fn account_created(user: &str, address: &str, at: Timestamp) -> CustomersEvent {
    CustomersEvent::AccountCreated(AccountCreated {
        user_id: id(user),
        address: Address::Text {
            address: address.to_owned(),
        },
        created_at: at,
    })
}

pub(crate) fn account_updated(user: &str, address: &str, at: Timestamp) -> CustomersEvent {
    CustomersEvent::AccountUpdated(AccountUpdated {
        user_id: id(user),
        address: Address::Text {
            address: address.to_owned(),
        },
        updated_at: at,
    })
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
