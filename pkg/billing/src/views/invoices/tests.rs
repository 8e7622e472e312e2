//! The fold, on facts that come in any order.

use std::collections::BTreeMap;

use millrace_contracts::ordering::OrderCreated;
use proptest::prelude::*;

use super::*;
use crate::testing::{
    account_created, account_updated, at, becomes, created, deleted, id, of_order, of_user,
    user_created, user_updated,
};

type Rows = BTreeMap<Key, InvoicesRow>;

fn fold(events: &[RecordedEvent]) -> Rows {
    let mut rows = Rows::new();
    for envelope in events {
        let Some(event) = Invoices::decode(envelope).unwrap() else {
            continue;
        };
        let recorded = Recorded {
            event: &event,
            envelope,
        };
        let key = Invoices::key(recorded);
        let row = Invoices::fold(rows.remove(&key), recorded).unwrap();
        rows.insert(key, row.unwrap());
    }
    rows
}

fn order(name: &str, cents: i64, bought: &str) -> OrderCreated {
    OrderCreated {
        purchase_dt: Some(bought.parse().unwrap()),
        total_amount: millrace_kernel::Money::from_cents(cents),
        ..created(name, "1", "1.00", at(1))
    }
}

/// The streams of a user and his orders: two in April, one cancelled and one deleted there, one in
/// May.
fn streams() -> Vec<Vec<RecordedEvent>> {
    let user = [
        user_created("1", "alice@demo.com"),
        account_created("1", "Elm St", at(2)),
        user_updated("1", "ann@demo.com"),
        account_updated("1", "Oak St", at(1)),
        account_updated("1", "Ash St", "2025-05-01T00:00:00Z".parse().unwrap()),
    ];
    let orders = [
        ("o-1", 5_000, "2025-04-01T00:00:00Z"),
        ("o-2", 10_000, "2025-04-30T23:59:59Z"),
        ("o-3", 1, "2025-04-10T00:00:00Z"),
        ("o-4", 2, "2025-04-11T00:00:00Z"),
        ("o-5", 3, "2025-05-01T00:00:00Z"),
    ]
    .map(|(name, cents, bought)| order(name, cents, bought));
    let happened = |order: &OrderCreated| {
        let mut events = vec![OrderingEvent::OrderCreated(order.clone())];
        match order.order_id.as_str() {
            "o-2" => events.push(becomes(order, OrderStatus::Confirmed)),
            "o-3" => {
                events.push(becomes(order, OrderStatus::Cancelled));
                events.push(deleted(order));
            }
            "o-4" => events.push(deleted(order)),
            _ => {}
        }
        events
    };
    let mut streams = vec![
        user.iter()
            .zip(1..)
            .map(|(event, n)| of_user(event, n))
            .collect(),
    ];
    for order in &orders {
        let events = happened(order);
        streams.push(
            events
                .iter()
                .zip(1..)
                .map(|(event, n)| of_order(event, n))
                .collect(),
        );
    }
    streams
}

fn invoice(rows: &Rows, year: i32, number: u8) -> &Orders {
    let key = Key::Invoice(InvoiceKey {
        user_id: id("1"),
        month: Month::new(year, number).unwrap(),
    });
    match rows.get(&key) {
        Some(InvoicesRow::Invoice(orders)) => orders,
        other => panic!("{other:?}"),
    }
}

#[test]
fn orders_are_on_the_invoice_of_the_month_they_were_bought_in() {
    let rows = fold(&streams().concat());
    let april = invoice(&rows, 2025, 4);
    let there: Vec<&str> = april
        .lines()
        .iter()
        .map(|line| line.order_id.as_str())
        .collect();
    assert_eq!(there, ["o-1", "o-2"]);
    assert_eq!(april.total().to_string(), "150.00");
    assert_eq!(invoice(&rows, 2025, 5).total().to_string(), "0.03");
    let Some(InvoicesRow::Account(account)) = rows.get(&Key::Account(id("1"))) else {
        panic!("{rows:?}");
    };
    assert_eq!(account.email.as_deref(), Some("ann@demo.com"));
    let april = Month::new(2025, 4).unwrap();
    // Elm St is the later one by the time that its event says.
    assert_eq!(account.addresses.at_the_end_of(april), Some("Elm St"));
}

#[test]
fn an_order_without_a_time_of_its_own_is_of_the_month_it_was_created_in() {
    let order = created("o-1", "1", "5.00", at(1));
    let rows = fold(&[of_order(&OrderingEvent::OrderCreated(order.clone()), 1)]);
    assert_eq!(invoice(&rows, 2025, 4).lines().len(), 1);
    let rows = fold(&[
        of_order(&OrderingEvent::OrderCreated(order.clone()), 1),
        of_order(&becomes(&order, OrderStatus::Cancelled), 2),
    ]);
    assert!(invoice(&rows, 2025, 4).lines().is_empty());
}

#[test]
fn what_is_in_no_contract_says_nothing() {
    let mut event = of_order(
        &OrderingEvent::OrderCreated(created("o", "1", "1.00", at(1))),
        1,
    );
    event.event_type = "payment.started".into();
    assert_eq!(Invoices::decode(&event).unwrap(), None);
    event.event_type = "order.created".into();
    event.schema_version = 99;
    assert!(Invoices::decode(&event).unwrap_err().needs_newer_release());
    event.schema_version = 1;
    event.context = millrace_es::Context::new("banking").unwrap();
    assert_eq!(Invoices::decode(&event).unwrap(), None);
}

proptest! {
    /// In any order whatever, even within a stream, and with any of them repeated: one result.
    #[test]
    fn the_rows_are_a_function_of_the_set_of_facts(
        keys in prop::collection::vec(any::<u32>(), 40),
        repeats in prop::collection::vec(any::<prop::sample::Index>(), 0..20),
    ) {
        let facts = streams().concat();
        let expected = fold(&facts);
        let repeated = repeats.iter().map(|index| index.get(&facts).clone());
        let all: Vec<RecordedEvent> = facts.iter().cloned().chain(repeated).collect();
        let mut delivered: Vec<(u32, RecordedEvent)> = keys.iter().copied().cycle().zip(all).collect();
        delivered.sort_by_key(|(key, _)| *key);
        let delivered: Vec<RecordedEvent> = delivered.into_iter().map(|(_, event)| event).collect();
        prop_assert_eq!(fold(&delivered), expected);
    }
}
