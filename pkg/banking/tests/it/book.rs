//! What every view has to say, worked out from the log in another way: the payloads are read as
//! plain JSON, and balances are added up instead of taken from the events.

use std::collections::BTreeMap;

use millrace_es::RecordedEvent;
use millrace_kernel::{Money, Timestamp};
use serde_json::{Value, json};

/// All accounts of a log.
#[derive(Debug, Default)]
pub struct Book(pub BTreeMap<String, Page>);

/// One account.
#[derive(Debug)]
pub struct Page {
    account_id: String,
    holder_name: String,
    currency: String,
    opened_at: Timestamp,
    updated_at: Timestamp,
    closed_at: Option<Timestamp>,
    version: u64,
    /// Oldest first.
    lines: Vec<Line>,
}

#[derive(Debug, Clone)]
struct Line {
    kind: &'static str,
    /// Below 0 for what went.
    signed: Money,
    amount: Money,
    balance: Money,
    at: Timestamp,
    shown: Value,
}

impl Book {
    pub fn of(events: &[RecordedEvent]) -> Self {
        let mut book = Self::default();
        for event in events {
            let payload: Value = serde_json::from_str(event.payload.get()).unwrap();
            book.write(event, &payload);
        }
        book
    }

    fn write(&mut self, event: &RecordedEvent, payload: &Value) {
        let account = payload["account_id"].as_str().unwrap().to_owned();
        if event.event_type == "account.opened" {
            let text = |name: &str| payload[name].as_str().unwrap().to_owned();
            let page = Page {
                account_id: account.clone(),
                holder_name: text("holder_name"),
                currency: text("currency"),
                opened_at: event.recorded_at,
                updated_at: event.recorded_at,
                closed_at: None,
                version: 1,
                lines: Vec::new(),
            };
            assert!(self.0.insert(account, page).is_none());
            return;
        }
        let page = self.0.get_mut(&account).unwrap();
        page.updated_at = event.recorded_at;
        page.version += 1;
        if event.event_type == "account.closed" {
            page.closed_at = Some(event.recorded_at);
        } else {
            let line = page.line(event, payload);
            page.lines.push(line);
        }
    }
}

impl Page {
    fn line(&self, event: &RecordedEvent, payload: &Value) -> Line {
        let amount: Money = payload["amount"].as_str().unwrap().parse().unwrap();
        let (kind, signed) = match event.event_type.as_ref() {
            "money.deposited" => ("DEPOSIT", amount),
            "money.withdrawn" => ("WITHDRAWAL", -amount),
            "transfer.sent" => ("TRANSFER_SENT", -amount),
            "transfer.received" => ("TRANSFER_RECEIVED", amount),
            other => panic!("an event of type {other}"),
        };
        let balance = self.balance().checked_add(signed).unwrap();
        let mut shown = json!({
            "transaction_id": payload["transaction_id"],
            "type": kind,
            "amount": amount,
            "balance_after": balance,
            "occurred_at": event.recorded_at,
        });
        for (name, stored) in [
            ("counterparty", "to_account_id"),
            ("counterparty", "from_account_id"),
            ("transfer_id", "transfer_id"),
            ("description", "description"),
        ] {
            if let Some(value) = payload.get(stored) {
                shown[name] = value.clone();
            }
        }
        let at = event.recorded_at;
        Line {
            kind,
            signed,
            amount,
            balance,
            at,
            shown,
        }
    }

    fn balance(&self) -> Money {
        self.lines.last().map_or(Money::ZERO, |line| line.balance)
    }

    const fn status(&self) -> &'static str {
        if self.closed_at.is_some() {
            "CLOSED"
        } else {
            "OPEN"
        }
    }

    /// `GET /accounts/{id}`.
    pub fn account(&self) -> Value {
        json!({
            "account_id": self.account_id,
            "holder_name": self.holder_name,
            "user_id": null,
            "currency": self.currency,
            "balance": self.balance(),
            "status": self.status(),
            "opened_at": self.opened_at,
            "updated_at": self.updated_at,
            "closed_at": self.closed_at,
            "version": self.version,
        })
    }

    /// `GET /accounts/{id}/balance`.
    pub fn balance_shown(&self) -> Value {
        json!({
            "account_id": self.account_id,
            "balance": self.balance(),
            "currency": self.currency,
            "status": self.status(),
            "version": self.version,
        })
    }

    /// The items of `GET /accounts/{id}/transactions` and of the statement.
    pub fn transactions(&self) -> Vec<Value> {
        self.lines
            .iter()
            .rev()
            .map(|line| line.shown.clone())
            .collect()
    }

    /// The transactions of a kind and of at least an amount.
    pub fn statement(&self, kind: Option<&str>, min_amount: Money) -> Vec<Value> {
        let wanted =
            |line: &&Line| kind.is_none_or(|kind| kind == line.kind) && line.amount >= min_amount;
        let lines = self.lines.iter().rev().filter(wanted);
        lines.map(|line| line.shown.clone()).collect()
    }

    /// `GET /accounts/{id}/summary`.
    pub fn summary(&self) -> Value {
        let sums = |wanted: &dyn Fn(&Line) -> bool| {
            let amounts: Vec<Money> = self
                .lines
                .iter()
                .filter(|line| wanted(line))
                .map(|line| line.amount)
                .collect();
            let add = |sum: Money, amount: &Money| sum.checked_add(*amount).unwrap();
            let total = amounts.iter().fold(Money::ZERO, add);
            json!({
                "count": amounts.len(),
                "total": total,
                "largest": amounts.iter().max().copied().unwrap_or_default(),
                "average": total.average(amounts.len() as u64),
            })
        };
        json!({
            "account_id": self.account_id,
            "currency": self.currency,
            "balance": self.balance(),
            "status": self.status(),
            "version": self.version,
            "movements": sums(&|_| true),
            "credits": sums(&|line| line.signed > Money::ZERO),
            "debits": sums(&|line| line.signed < Money::ZERO),
            "deposits": sums(&|line| line.kind == "DEPOSIT"),
            "withdrawals": sums(&|line| line.kind == "WITHDRAWAL"),
            "transfers_sent": sums(&|line| line.kind == "TRANSFER_SENT"),
            "transfers_received": sums(&|line| line.kind == "TRANSFER_RECEIVED"),
            "first_movement_at": self.lines.first().map(|line| line.at),
            "last_movement_at": self.lines.last().map(|line| line.at),
        })
    }

    /// `GET /accounts/{id}/daily-balances` for the three days around a time.
    pub fn days_around(&self, at: Timestamp) -> (String, Vec<Value>) {
        let day = at.date();
        let first = day.previous_day().unwrap();
        let days = [first, day, day.next_day().unwrap()];
        let query = format!("from={first}&to={}", days[2].next_day().unwrap());
        let mut opening = Money::ZERO;
        for line in self.lines.iter().filter(|line| line.at.date() < first) {
            opening = line.balance;
        }
        let shown = days.map(|day| {
            let lines: Vec<&Line> = self
                .lines
                .iter()
                .filter(|line| line.at.date() == day)
                .collect();
            let sum = |credit: bool| {
                let lines = lines
                    .iter()
                    .filter(|line| (line.signed > Money::ZERO) == credit);
                lines.fold(Money::ZERO, |sum, line| {
                    sum.checked_add(line.amount).unwrap()
                })
            };
            let closing = lines.last().map_or(opening, |line| line.balance);
            let shown = json!({
                "date": day.to_string(),
                "opening_balance": opening,
                "closing_balance": closing,
                "credits": sum(true),
                "debits": sum(false),
                "movements": lines.len(),
            });
            opening = closing;
            shown
        });
        (query, shown.to_vec())
    }
}
