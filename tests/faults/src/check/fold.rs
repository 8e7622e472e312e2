//! The read models as they must be, folded from the log. Independent on purpose: plain JSON in,
//! plain maps out, nothing of the code that it judges.

use std::collections::{BTreeMap, BTreeSet};

use rust_decimal::Decimal;
use serde_json::Value;

use super::log::LoggedEvent;

/// An order as the events of its stream make it.
#[derive(Debug, Clone, PartialEq)]
pub struct OrderRow {
    /// The order.
    pub id: String,
    /// Who ordered.
    pub user: String,
    /// What it costs.
    pub amount: Decimal,
    /// Where it stands.
    pub status: String,
    /// How many lines it has.
    pub items_count: u64,
    /// Where it goes.
    pub shipping_address: Option<String>,
    /// What else was said.
    pub notes: Option<String>,
    /// Whether it is gone from active queries.
    pub is_deleted: bool,
    /// When it was created, as the event has it.
    pub created_at: String,
    /// When something last happened to it, as the event has it.
    pub updated_at: String,
    /// How many events its stream has.
    pub version: u64,
}

/// Counts and sums of orders that are not deleted.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Sums {
    /// How many.
    pub count: u64,
    /// What they cost together.
    pub amount: Decimal,
    /// The same by status.
    pub by_status: BTreeMap<String, (u64, Decimal)>,
    /// The same by the day of creation.
    pub by_day: BTreeMap<String, (u64, Decimal)>,
}

/// All read models.
#[derive(Debug, Clone, Default)]
pub struct Expected {
    /// Every order, deleted ones included.
    pub orders: BTreeMap<String, OrderRow>,
}

fn text(value: &Value) -> Option<String> {
    value.as_str().map(str::to_owned)
}

fn decimal(value: &Value) -> Decimal {
    value
        .as_str()
        .map_or_else(|| value.to_string(), str::to_owned)
        .parse()
        .unwrap_or_else(|_| panic!("{value} is no amount"))
}

/// Folds a log. Events of a stream in `skipped` from its position on are left out: they are parked
/// behind a poison event.
///
/// # Panics
/// When a history is impossible: a status that does not follow, an event before the creation.
#[must_use]
pub fn fold(events: &[LoggedEvent], skipped: &BTreeMap<String, i64>) -> Expected {
    let mut expected = Expected::default();
    for event in events {
        if skipped
            .get(&event.stream)
            .is_some_and(|from| event.position >= *from)
        {
            continue;
        }
        apply(&mut expected.orders, event);
    }
    expected
}

fn apply(orders: &mut BTreeMap<String, OrderRow>, event: &LoggedEvent) {
    let payload = &event.payload;
    let id = event
        .stream
        .strip_prefix("order-")
        .unwrap_or_else(|| panic!("{} is no order's stream", event.stream));
    assert_eq!(
        payload["order_id"].as_str(),
        Some(id),
        "position {} names another order than its stream",
        event.position
    );
    if event.event_type == "order.created" {
        let row = created(id, event);
        let before = orders.insert(id.to_owned(), row);
        assert!(before.is_none(), "{id} was created twice");
        return;
    }
    let row = orders
        .get_mut(id)
        .unwrap_or_else(|| panic!("position {} is before its order's creation", event.position));
    assert!(
        !row.is_deleted,
        "position {}: {id} is deleted",
        event.position
    );
    row.version = event.version.unsigned_abs();
    match event.event_type.as_str() {
        "order.status_updated" => {
            let (from, to) = (text(&payload["from"]), text(&payload["to"]).unwrap());
            assert_eq!(from.as_deref(), Some(row.status.as_str()), "{event:?}");
            assert!(
                follows(&row.status, &to),
                "{id} went from {} to {to}",
                row.status
            );
            row.status = to;
            row.updated_at = text(&payload["updated_at"]).unwrap();
        }
        "order.deleted" => {
            assert!(
                !matches!(row.status.as_str(), "SHIPPED" | "DELIVERED"),
                "{id} was deleted when it was {}",
                row.status
            );
            row.is_deleted = true;
            row.updated_at = text(&payload["deleted_at"]).unwrap();
        }
        other => panic!("event type {other:?} at position {}", event.position),
    }
}

fn created(id: &str, event: &LoggedEvent) -> OrderRow {
    let payload = &event.payload;
    assert_eq!(event.version, 1, "{id} was created late in its stream");
    OrderRow {
        id: id.to_owned(),
        user: text(&payload["user_id"]).unwrap(),
        amount: decimal(&payload["total_amount"]),
        status: "PENDING".to_owned(),
        items_count: payload["items_count"].as_u64().unwrap_or(0),
        shipping_address: text(&payload["shipping_address"]),
        notes: text(&payload["notes"]),
        is_deleted: false,
        created_at: text(&payload["created_at"]).unwrap(),
        updated_at: text(&payload["created_at"]).unwrap(),
        version: 1,
    }
}

fn follows(from: &str, to: &str) -> bool {
    matches!(
        (from, to),
        ("PENDING", "CONFIRMED" | "CANCELLED")
            | ("CONFIRMED", "SHIPPED" | "CANCELLED")
            | ("SHIPPED", "DELIVERED")
    )
}

impl Expected {
    /// Everybody who ever ordered.
    #[must_use]
    pub fn users(&self) -> BTreeSet<String> {
        self.orders.values().map(|row| row.user.clone()).collect()
    }

    /// The orders of a user that are not deleted.
    #[must_use]
    pub fn active_of(&self, user: &str) -> BTreeMap<String, &OrderRow> {
        self.orders
            .iter()
            .filter(|(_, row)| row.user == user && !row.is_deleted)
            .map(|(id, row)| (id.clone(), row))
            .collect()
    }

    /// The sums, of one user or of all.
    #[must_use]
    pub fn sums(&self, user: Option<&str>) -> Sums {
        let mut sums = Sums::default();
        let rows = self
            .orders
            .values()
            .filter(|row| !row.is_deleted && user.is_none_or(|user| row.user == user));
        for row in rows {
            sums.count += 1;
            sums.amount += row.amount;
            for slot in [
                sums.by_status.entry(row.status.clone()).or_default(),
                sums.by_day
                    .entry(row.created_at[..10].to_owned())
                    .or_default(),
            ] {
                slot.0 += 1;
                slot.1 += row.amount;
            }
        }
        sums
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn event(position: i64, version: i64, event_type: &str, payload: Value) -> LoggedEvent {
        LoggedEvent {
            position,
            version,
            previous: 0,
            recorded_at: 0,
            event_id: uuid::Uuid::nil(),
            partition: 0,
            stream: "order-1".to_owned(),
            event_type: event_type.to_owned(),
            payload_text: payload.to_string(),
            payload,
            key_hash: None,
        }
    }

    fn creation() -> LoggedEvent {
        event(
            1,
            1,
            "order.created",
            json!({"order_id": "1", "user_id": "u", "total_amount": "2.50",
                   "items_count": 0, "created_at": "2026-01-02T03:04:05Z"}),
        )
    }

    fn change(position: i64, from: &str, to: &str) -> LoggedEvent {
        event(
            position,
            position,
            "order.status_updated",
            json!({"order_id": "1", "from": from, "to": to,
                   "updated_at": "2026-01-02T03:04:06Z"}),
        )
    }

    #[test]
    fn a_life_is_folded() {
        let log = [creation(), change(2, "PENDING", "CONFIRMED")];
        let expected = fold(&log, &BTreeMap::new());
        let row = &expected.orders["1"];
        assert_eq!((row.status.as_str(), row.version), ("CONFIRMED", 2));
        let sums = expected.sums(None);
        assert_eq!(sums.by_status["CONFIRMED"], (1, Decimal::new(250, 2)));
        assert_eq!(sums.by_day["2026-01-02"].0, 1);
    }

    #[test]
    #[should_panic(expected = "went from PENDING to DELIVERED")]
    fn an_impossible_life_is_noticed() {
        let _ = fold(
            &[creation(), change(2, "PENDING", "DELIVERED")],
            &BTreeMap::new(),
        );
    }

    #[test]
    fn what_is_parked_is_left_out() {
        let log = [creation(), change(2, "PENDING", "CONFIRMED")];
        let expected = fold(&log, &BTreeMap::from([("order-1".to_owned(), 2)]));
        assert_eq!(expected.orders["1"].version, 1);
    }
}
