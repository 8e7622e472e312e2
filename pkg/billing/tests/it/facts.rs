//! What happens in the contexts that billing listens to, as their contracts say it.

use millrace_contracts::{
    customers::{
        AccountCreated, AccountUpdated, Address, CustomersEvent, UserCreated, UserUpdated,
    },
    ordering::{OrderCreated, OrderDeleted, OrderStatus, OrderStatusUpdated, OrderingEvent},
};
use millrace_kernel::{EntityId, Timestamp};

pub fn id(text: &str) -> EntityId {
    EntityId::new(text).unwrap()
}

pub fn at(text: &str) -> Timestamp {
    text.parse().unwrap()
}

pub fn user(user: &str, email: &str) -> CustomersEvent {
    CustomersEvent::UserCreated(UserCreated {
        id: id(user),
        name: "Alice".to_owned(),
        email: email.to_owned(),
        created_at: at("2025-01-01T00:00:00Z"),
    })
}

pub fn renamed(user: &str, email: &str) -> CustomersEvent {
    CustomersEvent::UserUpdated(UserUpdated {
        id: id(user),
        name: "Alice".to_owned(),
        email: email.to_owned(),
        updated_at: at("2025-01-02T00:00:00Z"),
    })
}

/// The address of the document.
pub fn account(user: &str, since: &str) -> CustomersEvent {
    CustomersEvent::AccountCreated(AccountCreated {
        user_id: id(user),
        address: Address::Parts {
            street: "123 Main St".to_owned(),
            city: "Cityville".to_owned(),
            state: "ST".to_owned(),
            zip: "12345".to_owned(),
        },
        created_at: at(since),
    })
}

pub fn moved(user: &str, address: &str, since: &str) -> CustomersEvent {
    CustomersEvent::AccountUpdated(AccountUpdated {
        user_id: id(user),
        address: Address::Text {
            address: address.to_owned(),
        },
        updated_at: at(since),
    })
}

pub fn order(order: &str, user: &str, amount: &str, bought: &str) -> OrderCreated {
    OrderCreated {
        order_id: id(order),
        user_id: id(user),
        items: Vec::new(),
        total_amount: amount.parse().unwrap(),
        shipping_address: None,
        notes: None,
        payment_account_id: None,
        description: Some("Widget".to_owned()),
        purchase_dt: Some(at(bought)),
        created_at: at("2025-07-01T00:00:00Z"),
    }
}

pub fn created(order: &OrderCreated) -> OrderingEvent {
    OrderingEvent::OrderCreated(order.clone())
}

pub fn becomes(order: &OrderCreated, to: OrderStatus) -> OrderingEvent {
    OrderingEvent::OrderStatusUpdated(OrderStatusUpdated {
        order_id: order.order_id.clone(),
        user_id: order.user_id.clone(),
        from: OrderStatus::Pending,
        to,
        reason: None,
        total_amount: order.total_amount,
        purchase_dt: order.purchase_dt,
        created_at: order.created_at,
        updated_at: at("2025-07-02T00:00:00Z"),
    })
}

pub fn deleted(order: &OrderCreated) -> OrderingEvent {
    OrderingEvent::OrderDeleted(OrderDeleted {
        order_id: order.order_id.clone(),
        user_id: order.user_id.clone(),
        status: OrderStatus::Pending,
        total_amount: order.total_amount,
        purchase_dt: order.purchase_dt,
        created_at: order.created_at,
        deleted_at: at("2025-07-02T00:00:00Z"),
    })
}
