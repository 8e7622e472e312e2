//! Orders that are paid from accounts, and the proof that no money was made or lost on the way, from
//! the events of both logs alone.

use std::{collections::BTreeMap, time::Duration};

use reqwest::Method;
use rust_decimal::Decimal;
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::{Cluster, Insistent, Seed, check::log::LoggedEvent};

/// What every account begins with.
const START: &str = "300.00";
/// Accounts that pay.
const ACCOUNTS: usize = 4;

/// Somebody who places orders and calls them off.
#[derive(Debug)]
pub struct Customer {
    client: Insistent,
    seed: Seed,
    prefix: String,
}

impl Customer {
    /// Of this cluster's command processes; `number` tells its orders from others'.
    #[must_use]
    pub fn new(cluster: &Cluster, seed: &Seed, number: u64) -> Self {
        Self {
            client: Insistent::new(cluster, seed.part(number)),
            seed: seed.part(number),
            prefix: format!("c{number}"),
        }
    }

    async fn until_answered(&self, method: Method, path: &str, body: Option<&Value>) -> u16 {
        self.client.until_answered(method, path, body).await.status
    }

    /// Opens the accounts that pay.
    pub async fn open_accounts(&self) {
        for n in 0..ACCOUNTS {
            let body = json!({"id": format!("acc-{n}"), "holder_name": "Ann",
                "initial_deposit": START});
            let status = self.until_answered(Method::POST, "/accounts", Some(&body));
            assert_eq!(status.await, 201);
        }
    }

    /// Places orders, and calls some of them off at any moment.
    pub async fn shop(&self, orders: usize) {
        for n in 0..orders {
            let id = format!("{}-{n}", self.prefix);
            let cents = self.seed.below(4_000) + 100;
            let body = json!({"id": id, "user_id": "u-1",
                "payment_account_id": format!("acc-{}", self.seed.index(ACCOUNTS)),
                "total_amount": Decimal::new(i64::try_from(cents).unwrap(), 2).to_string()});
            let placed = self.until_answered(Method::POST, "/orders", Some(&body));
            assert_eq!(placed.await, 201);
            tokio::time::sleep(self.seed.millis(0, 200)).await;
            let other = format!("/orders/{}-{}", self.prefix, self.seed.index(n + 1));
            if self.seed.chance(0.2) {
                let body = json!({"status": "CANCELLED"});
                let path = format!("{other}/status");
                self.until_answered(Method::PUT, &path, Some(&body)).await;
            } else if self.seed.chance(0.1) {
                self.until_answered(Method::DELETE, &other, None).await;
            }
        }
    }
}

/// Waits until no payment has anything to do.
///
/// # Panics
/// After `bound`, with the payments that hang.
pub async fn settled(cluster: &Cluster, bound: Duration) {
    let deadline = Instant::now() + bound;
    loop {
        let hanging: Vec<(String, String, Option<String>)> = sqlx::query_as(
            "SELECT order_id, status, due_at::text FROM ordering.payments \
             WHERE due_at IS NOT NULL OR status IN ('PENDING', 'VOIDING', 'REFUNDING')",
        )
        .fetch_all(&cluster.log_pool)
        .await
        .unwrap();
        if hanging.is_empty() {
            return;
        }
        assert!(Instant::now() < deadline, "payments hang: {hanging:?}");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

/// An order as its events make it.
#[derive(Debug, Default)]
struct Placed {
    account: String,
    amount: Decimal,
    status: String,
    deleted: bool,
    withdrawal: String,
    refund: String,
    end: String,
}

fn text(payload: &Value, field: &str) -> String {
    payload[field].as_str().unwrap_or_default().to_owned()
}

fn money(payload: &Value, field: &str) -> Decimal {
    text(payload, field).parse().unwrap()
}

fn placed(events: &[LoggedEvent]) -> BTreeMap<String, Placed> {
    let mut orders: BTreeMap<String, Placed> = BTreeMap::new();
    for event in events {
        let payload = &event.payload;
        let order = orders.entry(text(payload, "order_id")).or_default();
        match event.event_type.as_str() {
            "order.created" => {
                order.account = text(payload, "payment_account_id");
                order.amount = money(payload, "total_amount");
                order.status = "PENDING".to_owned();
            }
            "order.status_updated" => order.status = text(payload, "to"),
            "order.deleted" => order.deleted = true,
            "payment.requested" => {
                order.withdrawal = text(payload, "transaction_id");
                order.refund = text(payload, "refund_transaction_id");
            }
            ended => ended.clone_into(&mut order.end),
        }
    }
    orders
}

/// Proves from the events of ordering and of banking: every id moved money at most once; what an
/// order's payment came to is what moved for it; an order is confirmed if and only if it is paid and
/// wanted; and every account holds what it began with, less what it paid for.
///
/// # Panics
/// With the first promise that is broken.
pub fn conserve(ordering: &[LoggedEvent], banking: &[LoggedEvent]) {
    let mut moved: BTreeMap<String, (String, Decimal)> = BTreeMap::new();
    let mut balances: BTreeMap<String, Decimal> = BTreeMap::new();
    for event in banking {
        let payload = &event.payload;
        let sign = match event.event_type.as_str() {
            "money.withdrawn" => -Decimal::ONE,
            "money.deposited" => Decimal::ONE,
            _ => continue,
        };
        let (account, id) = (text(payload, "account_id"), text(payload, "transaction_id"));
        let amount = sign * money(payload, "amount");
        *balances.entry(account.clone()).or_default() += amount;
        assert_eq!(
            balances[&account],
            money(payload, "balance"),
            "{account} after {id}"
        );
        assert!(balances[&account] >= Decimal::ZERO, "{account} after {id}");
        let before = moved.insert(id.clone(), (account, amount));
        assert!(before.is_none(), "{id} moved money twice");
    }
    let orders = placed(ordering);
    let mut paid: BTreeMap<&str, Decimal> = BTreeMap::new();
    let mut ends: BTreeMap<&str, usize> = BTreeMap::new();
    for (id, order) in &orders {
        *ends.entry(&order.end).or_default() += 1;
        let out = moved.get(&order.withdrawal);
        let back = moved.get(&order.refund);
        let account = order.account.clone();
        let wanted = !order.deleted && order.status == "CONFIRMED";
        match order.end.as_str() {
            "payment.paid" => {
                assert_eq!(out, Some(&(account, -order.amount)), "{id}");
                assert_eq!((back, wanted), (None, true), "{id}: {order:?}");
                *paid.entry(&order.account).or_default() += order.amount;
            }
            "payment.refunded" => {
                assert_eq!(out, Some(&(account.clone(), -order.amount)), "{id}");
                assert_eq!(back, Some(&(account, order.amount)), "{id}");
                assert!(!wanted, "{id}: {order:?}");
            }
            "payment.refused" | "payment.voided" => {
                assert_eq!((out, back, wanted), (None, None, false), "{id}: {order:?}");
            }
            _ => panic!("{id} is not at an end: {order:?}"),
        }
    }
    let start: Decimal = START.parse().unwrap();
    for (account, balance) in &balances {
        let spent = paid.get(account.as_str()).copied().unwrap_or_default();
        assert_eq!(balance + spent, start, "{account}: {ends:?}");
    }
    println!(
        "{} orders on {} accounts: {ends:?}",
        orders.len(),
        balances.len()
    );
    assert!(!paid.is_empty(), "nothing was ever paid");
}
