//! Orders by the state they are in, for tests.

use millrace_kernel::EntityId;

use super::*;

pub fn at(second: u32) -> Timestamp {
    format!("2026-01-31T12:00:{second:02}.000001Z")
        .parse()
        .unwrap()
}

pub fn id(text: &str) -> EntityId {
    EntityId::new(text).unwrap()
}

pub fn request() -> CreateOrder {
    let items = Items::new(vec![OrderItem {
        description: "Widget".into(),
        quantity: 2,
        unit_price: "249.75".parse().unwrap(),
    }]);
    CreateOrder {
        order_id: OrderId::new(id("o-1")),
        user_id: UserId::new(id("shivam_99")),
        total: Total::of_items(items.unwrap()),
        shipping_address: Some("123 Main St".into()),
        notes: None,
        payment_account_id: None,
        description: None,
        purchase_dt: None,
        at: at(0),
    }
}

pub fn create() -> OrderCommand {
    OrderCommand::Create(Box::new(request()))
}

pub fn become_(to: OrderStatus) -> OrderCommand {
    OrderCommand::UpdateStatus {
        to,
        reason: Some("asked for".into()),
        at: at(1),
    }
}

pub fn delete() -> OrderCommand {
    OrderCommand::Delete { at: at(2) }
}

/// What happens when a new order gets these commands, each of which it takes.
pub fn events(commands: &[OrderCommand]) -> Vec<OrderEvent> {
    let mut order = Order::default();
    let mut events = Vec::new();
    for command in commands {
        let happened = order.decide(command).unwrap();
        order = happened.iter().fold(order, Order::evolve);
        events.extend(happened);
    }
    events
}

/// The order after these commands.
pub fn after(commands: &[OrderCommand]) -> Order {
    events(commands)
        .iter()
        .fold(Order::default(), Order::evolve)
}

pub fn pending() -> Order {
    after(&[create()])
}

pub fn deleted() -> Order {
    after(&[create(), delete()])
}

/// An order that stands at a status, by the shortest way.
pub fn standing(status: OrderStatus) -> Order {
    use OrderStatus::{Cancelled, Confirmed, Delivered, Pending, Shipped};
    let way: &[OrderStatus] = match status {
        Pending => &[],
        Confirmed => &[Confirmed],
        Shipped => &[Confirmed, Shipped],
        Delivered => &[Confirmed, Shipped, Delivered],
        Cancelled => &[Cancelled],
    };
    let mut commands = vec![create()];
    commands.extend(way.iter().map(|to| become_(*to)));
    after(&commands)
}
