//! Events as the contracts have them, with nothing in them beyond what a test says.

use millrace_contracts::{
    customers::{
        AccountCreated, AccountUpdated, Address, CustomersEvent, UserCreated, UserUpdated,
    },
    ordering::{OrderCreated, OrderDeleted, OrderStatus, OrderStatusUpdated, OrderingEvent},
};
use millrace_kernel::{EntityId, Timestamp};

/// An id of this text.
#[must_use]
pub fn id(text: &str) -> EntityId {
    EntityId::new(text).expect("an id")
}

/// An order of this amount, such as `12.50`, without items.
#[must_use]
pub fn order_created(order: &str, user: &str, amount: &str, at: Timestamp) -> OrderCreated {
    OrderCreated {
        order_id: id(order),
        user_id: id(user),
        items: Vec::new(),
        total_amount: amount.parse().expect("an amount"),
        shipping_address: None,
        notes: None,
        payment_account_id: None,
        description: None,
        purchase_dt: None,
        created_at: at,
    }
}

/// A pending order gets another status.
#[must_use]
pub fn order_becomes(order: &OrderCreated, to: OrderStatus, at: Timestamp) -> OrderingEvent {
    OrderingEvent::OrderStatusUpdated(OrderStatusUpdated {
        order_id: order.order_id.clone(),
        user_id: order.user_id.clone(),
        from: OrderStatus::Pending,
        to,
        reason: None,
        total_amount: order.total_amount,
        purchase_dt: order.purchase_dt,
        created_at: order.created_at,
        updated_at: at,
    })
}

/// A pending order is deleted.
#[must_use]
pub fn order_deleted(order: &OrderCreated, at: Timestamp) -> OrderingEvent {
    OrderingEvent::OrderDeleted(OrderDeleted {
        order_id: order.order_id.clone(),
        user_id: order.user_id.clone(),
        status: OrderStatus::Pending,
        total_amount: order.total_amount,
        purchase_dt: order.purchase_dt,
        created_at: order.created_at,
        deleted_at: at,
    })
}

/// A new user.
#[must_use]
pub fn user_created(user: &str, name: &str, email: &str, at: Timestamp) -> CustomersEvent {
    CustomersEvent::UserCreated(UserCreated {
        id: id(user),
        name: name.to_owned(),
        email: email.to_owned(),
        created_at: at,
    })
}

/// What a user is called and where he is written to from now on.
#[must_use]
pub fn user_updated(user: &str, name: &str, email: &str, at: Timestamp) -> CustomersEvent {
    CustomersEvent::UserUpdated(UserUpdated {
        id: id(user),
        name: name.to_owned(),
        email: email.to_owned(),
        updated_at: at,
    })
}

/// A user's first address.
#[must_use]
pub fn account_created(user: &str, address: Address, at: Timestamp) -> CustomersEvent {
    CustomersEvent::AccountCreated(AccountCreated {
        user_id: id(user),
        address,
        created_at: at,
    })
}

/// Another address of a user.
#[must_use]
pub fn account_updated(user: &str, address: Address, at: Timestamp) -> CustomersEvent {
    CustomersEvent::AccountUpdated(AccountUpdated {
        user_id: id(user),
        address,
        updated_at: at,
    })
}

/// An address in one piece.
#[must_use]
pub fn address(text: &str) -> Address {
    Address::Text {
        address: text.to_owned(),
    }
}
