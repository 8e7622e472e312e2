//! Accounts as they must be, folded from the log. Independent on purpose: plain JSON in, plain maps
//! out, nothing of the code that it judges.

use std::collections::{BTreeMap, BTreeSet};

use rust_decimal::Decimal;
use serde_json::Value;

use crate::check::log::LoggedEvent;

/// One movement on an account.
#[derive(Debug, Clone, PartialEq)]
pub struct Movement {
    /// Its id.
    pub transaction_id: String,
    /// The event's type.
    pub event_type: String,
    /// How much.
    pub amount: Decimal,
    /// The balance after it.
    pub balance: Decimal,
    /// The other account of a transfer.
    pub counterparty: Option<String>,
    /// The transfer that it is a side of.
    pub transfer_id: Option<String>,
}

impl Movement {
    /// Whether money came in.
    #[must_use]
    pub fn comes_in(&self) -> bool {
        matches!(
            self.event_type.as_str(),
            "money.deposited" | "transfer.received"
        )
    }
}

/// An account as its stream makes it.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Account {
    /// Who holds it.
    pub holder: String,
    /// What is on it.
    pub balance: Decimal,
    /// Whether it was closed.
    pub is_closed: bool,
    /// How many events its stream has.
    pub version: u64,
    /// What moved on it, oldest first.
    pub movements: Vec<Movement>,
}

impl Account {
    /// The status as it is answered.
    #[must_use]
    pub const fn status(&self) -> &'static str {
        if self.is_closed { "CLOSED" } else { "OPEN" }
    }
}

/// All accounts.
#[derive(Debug, Clone, Default)]
pub struct Ledger {
    /// By id.
    pub accounts: BTreeMap<String, Account>,
}

impl Ledger {
    /// Folds a log, and proves that it never did what no bank may do: less than nothing on an
    /// account, a movement on one that is not open, half of a transfer, a movement twice.
    ///
    /// # Panics
    /// Naming the event that does.
    #[must_use]
    pub fn fold(events: &[LoggedEvent]) -> Self {
        let mut ledger = Self::default();
        let mut ids = BTreeSet::new();
        for (index, event) in events.iter().enumerate() {
            ledger.apply(event);
            if let Some(id) = event.payload["transaction_id"].as_str() {
                assert!(ids.insert(id), "a movement twice: {event:?}");
            }
            if event.event_type == "transfer.sent" {
                assert_is_other_side(event, events.get(index + 1));
            }
            if event.event_type == "transfer.received" {
                let before = index.checked_sub(1).and_then(|before| events.get(before));
                let sent = before.is_some_and(|event| event.event_type == "transfer.sent");
                assert!(sent, "money from nowhere: {event:?}");
            }
        }
        ledger
    }

    fn apply(&mut self, event: &LoggedEvent) {
        let payload = &event.payload;
        let id = event.stream.strip_prefix("account-").unwrap();
        assert_eq!(payload["account_id"], id, "{event:?}");
        if event.event_type == "account.opened" {
            let account = Account {
                holder: payload["holder_name"].as_str().unwrap().to_owned(),
                version: event.version.unsigned_abs(),
                ..Account::default()
            };
            let before = self.accounts.insert(id.to_owned(), account);
            assert!(before.is_none(), "{id} was opened twice");
            return;
        }
        let account = self.accounts.get_mut(id);
        let account = account.unwrap_or_else(|| panic!("before the opening: {event:?}"));
        assert!(!account.is_closed, "after the closing: {event:?}");
        account.version = event.version.unsigned_abs();
        if event.event_type == "account.closed" {
            assert_eq!(account.balance, Decimal::ZERO, "{event:?}");
            account.is_closed = true;
            return;
        }
        account.take(movement(event));
    }

    /// What is on all accounts together.
    #[must_use]
    pub fn total(&self) -> Decimal {
        self.accounts.values().map(|account| account.balance).sum()
    }

    /// Every movement, with its account.
    pub fn movements(&self) -> impl Iterator<Item = (&str, &Movement)> {
        self.accounts.iter().flat_map(|(id, account)| {
            let movements = account.movements.iter();
            movements.map(move |movement| (id.as_str(), movement))
        })
    }
}

impl Account {
    fn take(&mut self, movement: Movement) {
        assert!(movement.amount > Decimal::ZERO, "{movement:?}");
        if movement.comes_in() {
            self.balance += movement.amount;
        } else {
            self.balance -= movement.amount;
        }
        assert!(
            self.balance >= Decimal::ZERO,
            "less than nothing: {movement:?}"
        );
        assert_eq!(self.balance, movement.balance, "{movement:?}");
        self.movements.push(movement);
    }
}

fn movement(event: &LoggedEvent) -> Movement {
    let payload = &event.payload;
    let text = |name: &str| payload[name].as_str().map(str::to_owned);
    let known = [
        "money.deposited",
        "money.withdrawn",
        "transfer.sent",
        "transfer.received",
    ];
    assert!(known.contains(&event.event_type.as_str()), "{event:?}");
    Movement {
        transaction_id: text("transaction_id").unwrap(),
        event_type: event.event_type.clone(),
        amount: decimal(&payload["amount"]),
        balance: decimal(&payload["balance"]),
        counterparty: text("to_account_id").or_else(|| text("from_account_id")),
        transfer_id: text("transfer_id"),
    }
}

fn assert_is_other_side(sent: &LoggedEvent, next: Option<&LoggedEvent>) {
    let other = next.unwrap_or_else(|| panic!("half of a transfer: {sent:?}"));
    assert_eq!(other.event_type, "transfer.received", "{sent:?}");
    let (sent, received) = (&sent.payload, &other.payload);
    assert_eq!(sent["transfer_id"], received["transfer_id"]);
    assert_eq!(decimal(&sent["amount"]), decimal(&received["amount"]));
    assert_eq!(sent["to_account_id"], received["account_id"]);
    assert_eq!(sent["account_id"], received["from_account_id"]);
}

/// An amount as the log or an answer has it.
///
/// # Panics
/// When it is none.
pub(super) fn decimal(value: &Value) -> Decimal {
    let text = value
        .as_str()
        .map_or_else(|| value.to_string(), str::to_owned);
    text.parse()
        .unwrap_or_else(|_| panic!("{value} is no amount"))
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use uuid::Uuid;

    use super::*;

    fn event(position: i64, account: &str, version: i64, kind: &str, rest: &Value) -> LoggedEvent {
        let mut payload = json!({"account_id": account, "holder_name": "Ada"});
        payload
            .as_object_mut()
            .unwrap()
            .extend(rest.as_object().unwrap().clone());
        LoggedEvent {
            position,
            version,
            previous: 0,
            recorded_at: position,
            event_id: Uuid::from_u128(position.unsigned_abs().into()),
            partition: 0,
            stream: format!("account-{account}"),
            event_type: kind.to_owned(),
            payload_text: payload.to_string(),
            payload,
            key_hash: None,
        }
    }

    fn sound() -> Vec<LoggedEvent> {
        let transfer = |side: &str, other: &str, balance: &str| {
            json!({
                "transaction_id": format!("x-{side}"), "transfer_id": "x", "amount": "3.00",
                "balance": balance, side: other,
            })
        };
        let deposit = json!({"transaction_id": "d", "amount": "5.00", "balance": "5.00"});
        vec![
            event(1, "a", 1, "account.opened", &json!({})),
            event(2, "b", 1, "account.opened", &json!({})),
            event(3, "a", 2, "money.deposited", &deposit),
            event(
                4,
                "a",
                3,
                "transfer.sent",
                &transfer("to_account_id", "b", "2.00"),
            ),
            event(
                5,
                "b",
                2,
                "transfer.received",
                &transfer("from_account_id", "a", "3.00"),
            ),
        ]
    }

    #[test]
    fn a_sound_log_conserves_money() {
        let ledger = Ledger::fold(&sound());
        assert_eq!(ledger.total(), Decimal::new(500, 2));
        assert_eq!(ledger.accounts["b"].balance, Decimal::new(300, 2));
    }

    #[test]
    fn what_no_bank_may_do_is_noticed() {
        let breakings: [fn(&mut Vec<LoggedEvent>); 6] = [
            |events| drop(events.pop()),
            |events| drop(events.remove(3)),
            |events| events[3].payload["amount"] = json!("6.00"),
            |events| events[4].payload["transaction_id"] = json!("d"),
            |events| drop(events.remove(1)),
            |events| events[2].payload["balance"] = json!("5.01"),
        ];
        for (index, breaking) in breakings.into_iter().enumerate() {
            let mut events = sound();
            breaking(&mut events);
            let folded = std::panic::catch_unwind(|| Ledger::fold(&events));
            assert!(folded.is_err(), "breaking {index} was not noticed");
        }
    }
}
