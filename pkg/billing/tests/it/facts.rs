//! What happens in the contexts that billing listens to, as their contracts say it.

use millrace_contracts::{
    customers::{Address, CustomersEvent},
    ordering::{OrderCreated, OrderStatus, OrderingEvent},
};
use millrace_kernel::Timestamp;
use millrace_teststage::facts;

/// When orders were entered, and when more happened to them: months after they were bought.
const ENTERED: &str = "2025-07-01T00:00:00Z";
const LATER: &str = "2025-07-02T00:00:00Z";

fn at(text: &str) -> Timestamp {
    text.parse().unwrap()
}

pub fn user(user: &str, email: &str) -> CustomersEvent {
    facts::user_created(user, "Alice", email, at("2025-01-01T00:00:00Z"))
}

pub fn renamed(user: &str, email: &str) -> CustomersEvent {
    facts::user_updated(user, "Alice", email, at("2025-01-02T00:00:00Z"))
}

/// The address of the document.
pub fn account(user: &str, since: &str) -> CustomersEvent {
    let address = Address::Parts {
        street: "123 Main St".to_owned(),
        city: "Cityville".to_owned(),
        state: "ST".to_owned(),
        zip: "12345".to_owned(),
    };
    facts::account_created(user, address, at(since))
}

pub fn moved(user: &str, address: &str, since: &str) -> CustomersEvent {
    facts::account_updated(user, facts::address(address), at(since))
}

pub fn order(order: &str, user: &str, amount: &str, bought: &str) -> OrderCreated {
    OrderCreated {
        description: Some("Widget".to_owned()),
        purchase_dt: Some(at(bought)),
        ..facts::order_created(order, user, amount, at(ENTERED))
    }
}

pub fn created(order: &OrderCreated) -> OrderingEvent {
    OrderingEvent::OrderCreated(order.clone())
}

pub fn becomes(order: &OrderCreated, to: OrderStatus) -> OrderingEvent {
    facts::order_becomes(order, to, at(LATER))
}

pub fn deleted(order: &OrderCreated) -> OrderingEvent {
    facts::order_deleted(order, at(LATER))
}
