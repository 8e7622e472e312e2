//! Orders of many partitions meet in one invoice.

use std::collections::BTreeMap;

use http::StatusCode;
use millrace_contracts::ordering::OrderStatus;
use millrace_es::{RecordedEvent, StreamId};
use millrace_projecting::{Folder, LetterFilter, Reason};
use serde_json::json;

use crate::{
    facts::{account, becomes, created, deleted, moved, order, renamed, user},
    system::System,
};

const APRIL: &str = "/invoice-service/invoices?user_id=1&month=4&year=2025";
/// Orders of one user in one month: some in every partition.
const ORDERS: u32 = 60;

/// Many orders of one user in April and May, every third called off, and what happens to the user.
async fn much(system: &System) {
    system.user(&user("1", "alice@demo.com")).await;
    for number in 0..ORDERS {
        let bought = format!("2025-0{}-{:02}T00:00:00Z", 4 + number % 2, 1 + number % 28);
        let order = order(&format!("o-{number}"), "1", "1.01", &bought);
        system.order(&created(&order)).await;
        match number % 6 {
            0 => system.order(&becomes(&order, OrderStatus::Cancelled)).await,
            1 => system.order(&becomes(&order, OrderStatus::Confirmed)).await,
            3 => system.order(&deleted(&order)).await,
            _ => {}
        }
    }
    system.user(&account("1", "2025-04-02T00:00:00Z")).await;
    system
        .user(&moved("1", "Oak St", "2025-05-02T00:00:00Z"))
        .await;
    system.user(&renamed("1", "ann@demo.com")).await;
}

#[tokio::test]
async fn concurrent_orders_of_one_invoice_lose_nothing() {
    let system = System::running().await;
    much(&system).await;
    for (month, orders) in [(4, 20), (5, 20)] {
        let path = format!("/invoice-service/invoices?user_id=1&month={month}&year=2025");
        let reply = system.get_now(&path).await.expect(StatusCode::OK);
        assert_eq!(reply.body["orders"].as_array().unwrap().len(), orders);
        assert!(
            reply.bytes.ends_with(b"\"total\":20.20}"),
            "{:?}",
            reply.bytes
        );
    }
}

/// A small generator of numbers: what it gives is the same in every run.
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, bound: usize) -> usize {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(self.0 >> 33).unwrap() % bound
    }
}

/// Batches of the lanes that one of two projectors has: each lane in order, the lanes in any, and
/// every event once more later on.
fn batches(events: &[RecordedEvent], half: u16, seed: u64) -> Vec<Vec<RecordedEvent>> {
    let mut numbers = Numbers(seed);
    let mut lanes: BTreeMap<(String, u16), Vec<RecordedEvent>> = BTreeMap::new();
    for event in events
        .iter()
        .filter(|event| event.partition.get() % 2 == half)
    {
        let lane = (event.context.to_string(), event.partition.get());
        lanes.entry(lane).or_default().push(event.clone());
    }
    let mut lanes: Vec<Vec<RecordedEvent>> = lanes.into_values().collect();
    let mut made = Vec::new();
    while !lanes.is_empty() {
        let mut batch = Vec::new();
        for _ in 0..=numbers.below(4) {
            if lanes.is_empty() {
                break;
            }
            let index = numbers.below(lanes.len());
            let lane = &mut lanes[index];
            let count = 1 + numbers.below(lane.len());
            batch.extend(lane.drain(..count));
            if lane.is_empty() {
                lanes.swap_remove(index);
            }
        }
        made.push(batch);
    }
    made
}

async fn fold(mut folder: Folder, batches: Vec<Vec<RecordedEvent>>) {
    for batch in batches {
        let folded = folder.fold(batch.clone()).await.unwrap();
        assert_eq!(folded.letters, []);
        // What is delivered again changes nothing.
        assert_eq!(folder.fold(batch).await.unwrap().events, 0);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_folders_side_by_side_come_to_the_same_rows_in_any_order() {
    let at_once = System::still().await;
    much(&at_once).await;
    at_once.fold_all().await;
    let expected = at_once.rows().await;
    assert_eq!(expected.len(), 3, "two months and a user: {expected:?}");
    let mut events = at_once.users.events().await;
    events.extend(at_once.orders.events().await);
    for seed in 0..8 {
        let system = System::still().await;
        let [even, odd] = [0, 1].map(|half| batches(&events, half, seed));
        let folders = (system.folder().await, system.folder().await);
        tokio::join!(fold(folders.0, even), fold(folders.1, odd));
        assert_eq!(system.rows().await, expected, "seed {seed}");
    }
}

/// What cannot be read, and what no row can hold, each stop their own order and nobody else's.
#[tokio::test]
async fn a_poison_event_parks_its_order_only() {
    let system = System::running().await;
    let (bad, payload) = (StreamId::new("order-bad").unwrap(), json!({"order_id": 7}));
    let orders = &system.orders;
    orders.append(bad, ("order.created", 1), &payload).await;
    let mut nul = order("o-nul", "1", "1.00", "2025-04-01T00:00:00Z");
    nul.description = Some("a\0b".to_owned());
    system.order(&created(&nul)).await;
    let good: Vec<_> = (0..20)
        .map(|n| order(&format!("o-{n}"), "1", "1.00", "2025-04-01T00:00:00Z"))
        .collect();
    for order in &good {
        system.order(&created(order)).await;
    }
    system.get_now(APRIL).await.expect(StatusCode::OK);
    system.order(&deleted(&nul)).await;
    let reply = system.get_now(APRIL).await.expect(StatusCode::OK);
    assert_eq!(reply.body["orders"].as_array().unwrap().len(), good.len());
    let letters = system
        .letters()
        .list(&LetterFilter::default(), 10)
        .await
        .unwrap();
    let mut found: Vec<(String, Reason)> = letters
        .into_iter()
        .map(|letter| (letter.event.stream.to_string(), letter.reason))
        .collect();
    found.sort_by_key(|(stream, reason)| (stream.clone(), reason.as_str()));
    assert_eq!(
        found,
        [
            ("order-bad".to_owned(), Reason::Malformed),
            ("order-o-nul".to_owned(), Reason::Follows),
            ("order-o-nul".to_owned(), Reason::Store),
        ]
    );
}
