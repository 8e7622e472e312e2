//! Orders paid by a real bank over its internal endpoint, on both stores of the bank's log.

use std::{
    collections::{BTreeMap, HashSet},
    time::Duration,
};

use http::StatusCode;
use millrace_eventlog::{Repository, RepositoryOptions};
use millrace_kernel::EntityId;
use millrace_ordering::{
    order::{Order, OrderId, OrderStatus},
    sagas::payment::{PaymentRow, PaymentStatus, TransactionId},
};
use millrace_testkit::eventually;
use rand::{Rng, RngExt, SeedableRng, rngs::StdRng};

use crate::town::{Store, Town, Way, cents};

/// How long a test waits for what has to come.
const PATIENCE: Duration = Duration::from_secs(90);
/// What every account of the property begins with.
const START: &str = "200.00";
const ACCOUNTS: u32 = 5;
const ORDERS: u32 = 40;

fn id(text: &str) -> EntityId {
    EntityId::new(text).unwrap()
}

async fn payment(town: &Town, order: &str) -> PaymentRow {
    let row = town.payments.of(&OrderId::new(id(order))).await;
    row.unwrap().unwrap()
}

async fn becomes(town: &Town, order: &str, status: PaymentStatus) -> PaymentRow {
    eventually(&format!("{order} {status}"), PATIENCE, || async {
        let row = payment(town, order).await;
        (row.status == status).then_some(row)
    })
    .await
}

async fn order(town: &Town, order: &str) -> Order {
    let orders = Repository::<Order>::new(town.shop_log.clone(), RepositoryOptions::default());
    orders.load(&id(order)).await.unwrap().0
}

/// How often money moved for an order: withdrawn, given back.
async fn moved(town: &Town, order: &str) -> [usize; 2] {
    let order = OrderId::new(id(order));
    let ids = [
        TransactionId::of_payment(&order),
        TransactionId::of_refund(&order),
    ];
    let movements = town.movements().await;
    ids.map(|id| {
        let of_it = |moved: &&(String, String, i64)| moved.1 == id.as_str();
        movements.iter().filter(of_it).count()
    })
}

async fn every_way_leads_to_one_end(store: Store) {
    let town = Town::start(store).await;
    town.account("acc-1", "USD", "1000").await;
    town.account("euros", "EUR", "1000").await;
    for (n, way) in Way::ALL.into_iter().enumerate() {
        // The way is bad for the first requests of every order, and good after them.
        let mut bad: i32 = 3;
        town.go(move || {
            bad -= 1;
            if bad >= 0 { way } else { Way::Open }
        });
        let name = format!("o-{n}");
        town.order(&name, "acc-1", "10").await;
        becomes(&town, &name, PaymentStatus::Paid).await;
        assert_eq!(moved(&town, &name).await, [1, 0], "{way:?}");
        let order = order(&town, &name).await;
        let status = order.details().unwrap().status;
        assert_eq!(status, OrderStatus::Confirmed, "{way:?}");
    }
    town.go(|| Way::Open);
    for (name, account, amount, reason) in [
        ("r-1", "nobody", "1", "unknown-account"),
        ("r-2", "acc-1", "951", "insufficient-funds"),
        ("r-3", "euros", "1", "currency"),
    ] {
        town.order(name, account, amount).await;
        let refused = becomes(&town, name, PaymentStatus::Refused).await;
        assert!(refused.reason.unwrap().contains(reason), "{name}");
        let order = order(&town, name).await;
        assert_eq!(order.details().unwrap().status, OrderStatus::Cancelled);
    }
    let cancelled = town.become_("o-0", "CANCELLED").await;
    cancelled.expect(StatusCode::OK);
    becomes(&town, "o-0", PaymentStatus::Refunded).await;
    assert_eq!(moved(&town, "o-0").await, [1, 1]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_way_leads_to_one_end_in_postgres() {
    every_way_leads_to_one_end(Store::Postgres).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_way_leads_to_one_end_in_dynamodb() {
    every_way_leads_to_one_end(Store::DynamoDb).await;
}

/// The bank took the money, and nobody hears from it until every key is forgotten: the void finds
/// the withdrawal. Where it had not been taken, the void makes sure that it never is.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_outage_longer_than_any_key_neither_pays_twice_nor_refunds_what_was_not_paid() {
    let town = Town::start(Store::Postgres).await;
    town.account("acc-1", "USD", "1000").await;
    let mut first = true;
    town.go(move || {
        let way = if first { Way::AnswerLost } else { Way::Closed };
        first = false;
        way
    });
    town.order("taken", "acc-1", "10").await;
    becomes(&town, "taken", PaymentStatus::Voiding).await;
    town.go(|| Way::Closed);
    town.order("never", "acc-1", "10").await;
    becomes(&town, "never", PaymentStatus::Voiding).await;
    town.order("cancelled", "acc-1", "10").await;
    town.become_("cancelled", "CANCELLED")
        .await
        .expect(StatusCode::OK);
    becomes(&town, "cancelled", PaymentStatus::Voiding).await;
    town.forget_keys().await;
    town.go(|| Way::Open);
    becomes(&town, "taken", PaymentStatus::Paid).await;
    becomes(&town, "never", PaymentStatus::Voided).await;
    becomes(&town, "cancelled", PaymentStatus::Voided).await;
    assert_eq!(moved(&town, "taken").await, [1, 0]);
    assert_eq!(moved(&town, "never").await, [0, 0]);
    assert_eq!(moved(&town, "cancelled").await, [0, 0]);
}

/// Random orders on few accounts, random faults on the way, orders called off at any moment: in the
/// end every order is paid and confirmed, or neither, and no money is made or lost.
async fn money_is_conserved(store: Store, seed: u64) {
    let town = Town::start(store).await;
    for n in 0..ACCOUNTS {
        town.account(&format!("acc-{n}"), "USD", START).await;
    }
    let mut on_the_way = StdRng::seed_from_u64(seed);
    town.go(move || match on_the_way.random_range(0..10) {
        0 => Way::Closed,
        1 | 2 => Way::AnswerLost,
        3 => Way::Slow,
        4 => Way::Garbled,
        _ => Way::Open,
    });
    let mut random = StdRng::seed_from_u64(seed + 1);
    let mut prices = BTreeMap::new();
    for n in 0..ORDERS {
        let name = format!("o-{n}");
        let account = format!("acc-{}", random.random_range(0..ACCOUNTS));
        let amount = format!("{}.{:02}", random.random_range(1..60), n);
        town.order(&name, &account, &amount).await;
        prices.insert(name, (account, cents(&amount)));
        call_off_one(&town, &mut random, n).await;
    }
    for n in 0..ORDERS {
        call_off_one(&town, &mut random, n).await;
    }
    town.go(|| Way::Open);
    eventually("every payment is at its end", PATIENCE, || async {
        (town.unfinished().await == 0).then_some(())
    })
    .await;
    // What was called off at the very end may have been seen as paid a moment before.
    eventually("what was called off is given back", PATIENCE, || async {
        for name in prices.keys() {
            let wanted = order(&town, name).await.is_wanted();
            if wanted != (payment(&town, name).await.status == PaymentStatus::Paid) {
                return None;
            }
        }
        Some(())
    })
    .await;
    check(&town, &prices).await;
}

async fn call_off_one(town: &Town, random: &mut impl Rng, upto: u32) {
    let name = format!("o-{}", random.random_range(0..=upto));
    match random.random_range(0..6) {
        0 => drop(town.become_(&name, "CANCELLED").await),
        1 => drop(town.shop.delete(&format!("/orders/{name}")).await),
        _ => {}
    }
}

async fn check(town: &Town, prices: &BTreeMap<String, (String, i64)>) {
    let movements = town.movements().await;
    let distinct: HashSet<&str> = movements.iter().map(|moved| moved.1.as_str()).collect();
    assert_eq!(distinct.len(), movements.len(), "an id moved money twice");
    let mut paid: BTreeMap<String, i64> = BTreeMap::new();
    let mut ends: BTreeMap<&str, usize> = BTreeMap::new();
    for (name, (account, price)) in prices {
        let (row, order) = (payment(town, name).await, order(town, name).await);
        *ends.entry(row.status.as_str()).or_default() += 1;
        let expected = match row.status {
            PaymentStatus::Paid => {
                assert_eq!(order.details().unwrap().status, OrderStatus::Confirmed);
                *paid.entry(account.clone()).or_default() += price;
                [1, 0]
            }
            PaymentStatus::Refunded => [1, 1],
            PaymentStatus::Refused | PaymentStatus::Voided => [0, 0],
            _ => panic!("{name} hangs: {row:?}"),
        };
        assert_eq!(moved(town, name).await, expected, "{name}: {row:?}");
        assert_eq!(order.is_wanted(), row.status == PaymentStatus::Paid);
    }
    assert!(ends.len() > 2, "too little happened: {ends:?}");
    for n in 0..ACCOUNTS {
        let account = format!("acc-{n}");
        let sum: i64 = movements
            .iter()
            .filter(|moved| moved.0 == account)
            .map(|moved| moved.2)
            .sum();
        let spent = paid.get(&account).copied().unwrap_or_default();
        assert_eq!(sum + spent, cents(START), "{account}: {ends:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn money_is_conserved_in_postgres() {
    money_is_conserved(Store::Postgres, 1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn money_is_conserved_in_dynamodb() {
    money_is_conserved(Store::DynamoDb, 2).await;
}
