//! What must hold after whatever happened.

pub mod fold;
pub mod log;
pub mod stream;
pub mod views;

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use sqlx::PgPool;

use self::{fold::Expected, log::LoggedEvent};
use crate::{Cluster, History, Step};

/// The context that most tests hurt.
const ORDERING: &str = "ordering";
/// How long stream and read models may take to be where the log is, once all is well again.
pub const CATCH_UP_BOUND: Duration = Duration::from_secs(180);

/// Proves the log, the record of the clients against it, the stream and every read model.
///
/// # Panics
/// With the first promise that is broken.
pub async fn everything(cluster: &Cluster, history: &History) {
    let events = log_and_history(cluster, history).await;
    stream_and_views(cluster, &events, &BTreeMap::new()).await;
    read_your_writes(cluster, history).await;
}

/// Proves the log, and that it holds what was acknowledged: exactly that, exactly once.
///
/// # Panics
/// With the first promise that is broken.
pub async fn log_and_history(cluster: &Cluster, history: &History) -> Vec<LoggedEvent> {
    let (head, events) = log::read(&cluster.log_pool, ORDERING).await;
    // Every command of this context makes one event at most.
    log::prove(&head, &events, 1);
    history_holds(history, &events);
    inline_rows(&cluster.log_pool, &fold::fold(&events, &BTreeMap::new())).await;
    println!(
        "{} events, {} orders; {} requests, {} outcomes unknown at first, {} answers replayed, {} \
         consistent reads",
        events.len(),
        history.orders.len(),
        history.requests,
        history.unknown,
        history.replayed,
        history.reads
    );
    events
}

/// Waits until stream and read models say what the log says.
///
/// # Panics
/// With the last difference, when they do not in time.
pub async fn stream_and_views(
    cluster: &Cluster,
    events: &[LoggedEvent],
    parked: &BTreeMap<String, i64>,
) {
    agrees(async || {
        stream::compare(&cluster.jetstream, &cluster.namespace, ORDERING, events).await
    })
    .await;
    views_become(cluster, &fold::fold(events, parked)).await;
    if parked.is_empty() {
        let letters: i64 = sqlx::query_scalar(
            "SELECT count(*) FROM projections.dead_letters WHERE status = 'pending'",
        )
        .fetch_one(&cluster.read_pool)
        .await
        .unwrap();
        assert_eq!(letters, 0, "dead letters");
    }
}

/// Takes the orders of a user that did not belong to the load into the record, as the log has
/// them; a test that made them knows what it was answered.
pub async fn note_others(cluster: &Cluster, history: &mut History, user: &str) {
    let (_, events) = log::read(&cluster.log_pool, ORDERING).await;
    for (id, order) in fold::fold(&events, &BTreeMap::new()).orders {
        if order.user == user {
            let steps = steps(&events).remove(id.as_str()).unwrap_or_default();
            let token = format!("ordering/{}", events.len());
            let order = crate::OrderHistory {
                user: order.user,
                amount: order.amount,
                steps,
                token,
            };
            history.orders.insert(id, order);
        }
    }
}

/// Waits until the views in PostgreSQL have reached the log's present head.
///
/// # Panics
/// When they do not in time.
pub async fn postgres_views_move(cluster: &Cluster, bound: Duration) {
    let head: i64 = sqlx::query_scalar("SELECT position FROM ordering.log_head")
        .fetch_one(&cluster.log_pool)
        .await
        .unwrap();
    let client = crate::Client::patient();
    for list in ["orders?limit=1&", "orders/statistics?"] {
        let url = format!("{}/{list}at_least=ordering/{head}", cluster.query_url(0));
        millrace_testkit::eventually(&format!("{url} to be readable"), bound, || async {
            let reply = client.get(&url, &[]).await.ok()?;
            (reply.status == 200).then_some(())
        })
        .await;
    }
}

/// Waits until every read model is as it must be.
///
/// # Panics
/// With the last difference, when it is not in time.
pub async fn views_become(cluster: &Cluster, expected: &Expected) {
    let client = crate::Client::patient();
    agrees(async || views::compare(&client, &cluster.query_url(0), expected).await).await;
}

/// Asks until nothing differs.
pub(crate) async fn agrees(compare: impl AsyncFn() -> Result<(), String>) {
    let deadline = Instant::now() + CATCH_UP_BOUND;
    while let Err(difference) = compare().await {
        assert!(
            Instant::now() < deadline,
            "after {CATCH_UP_BOUND:?}: {difference}"
        );
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// The steps that a stream's events stand for.
fn steps(events: &[LoggedEvent]) -> BTreeMap<&str, Vec<Step>> {
    let mut steps = BTreeMap::<&str, Vec<Step>>::new();
    for event in events {
        let step = match event.event_type.as_str() {
            "order.created" => Step::Created,
            "order.deleted" => Step::Deleted,
            _ => Step::Status(match event.payload["to"].as_str() {
                Some("CONFIRMED") => "CONFIRMED",
                Some("SHIPPED") => "SHIPPED",
                Some("DELIVERED") => "DELIVERED",
                Some("CANCELLED") => "CANCELLED",
                _ => "?",
            }),
        };
        let id = event.stream.strip_prefix("order-").unwrap_or_default();
        steps.entry(id).or_default().push(step);
    }
    steps
}

/// Proves that these events are what was acknowledged, no more and no less, and that no answer
/// broke a promise.
///
/// # Panics
/// With the first difference.
pub fn history_holds(history: &History, events: &[LoggedEvent]) {
    assert_eq!(history.violations, Vec::<String>::new());
    let mut found = steps(events);
    for (id, order) in &history.orders {
        let logged = found.remove(id.as_str()).unwrap_or_default();
        assert_eq!(
            logged, order.steps,
            "order {id}: the log (left) is not what was acknowledged (right)"
        );
        let creation = events
            .iter()
            .find(|event| event.stream.strip_prefix("order-") == Some(id))
            .unwrap();
        assert_eq!(
            creation.payload["user_id"].as_str(),
            Some(order.user.as_str()),
            "order {id} is somebody else's"
        );
        assert_eq!(
            creation.payload["total_amount"]
                .as_str()
                .and_then(|text| text.parse().ok()),
            Some(order.amount),
            "order {id} costs something else"
        );
    }
    // Every outcome was driven to an answer, so an order nobody was told of is one too many.
    let unknown: Vec<_> = found.keys().collect();
    assert!(
        unknown.is_empty(),
        "in the log, never acknowledged: {unknown:?}"
    );
}

/// The table `orders`, kept in the append's own transaction.
async fn inline_rows(pool: &PgPool, expected: &Expected) {
    let rows: Vec<(String, String, rust_decimal::Decimal, String)> =
        sqlx::query_as("SELECT id, user_id, total_amount, status FROM ordering.orders ORDER BY id")
            .fetch_all(pool)
            .await
            .unwrap();
    let found: BTreeMap<_, _> = rows
        .into_iter()
        .map(|(id, user, amount, status)| (id, (user, amount, status)))
        .collect();
    for (id, order) in &expected.orders {
        // A deleted order may stay with a mark or go; an active one has to be there as it is.
        if order.is_deleted {
            continue;
        }
        assert_eq!(
            found.get(id),
            Some(&(order.user.clone(), order.amount, order.status.clone())),
            "the write model's row of {id}"
        );
    }
    for id in found.keys() {
        assert!(
            expected.orders.contains_key(id),
            "{id} is in orders and not in the log"
        );
    }
}

/// Reads some orders at their last write's token: all must answer, with that write in it.
async fn read_your_writes(cluster: &Cluster, history: &History) {
    let client = crate::Client::patient();
    let some = history.orders.iter().step_by(history.orders.len() / 20 + 1);
    for (index, (id, order)) in some.enumerate() {
        let query = cluster.query_url(index);
        let token = &order.token;
        let url = format!("{query}/orders/{id}?at_least={token}");
        let reply = client.get(&url, &[]).await.unwrap();
        assert_eq!(reply.status, 200, "{url}: {}", reply.body);
        let json = reply.json();
        assert_eq!(
            json["version"].as_u64(),
            Some(order.steps.len() as u64),
            "{url}: {json}"
        );
        let url = format!(
            "{query}/api/orders/{}?limit=500&at_least={token}",
            order.user
        );
        let reply = client.get(&url, &[]).await.unwrap();
        assert_eq!(reply.status, 200, "{url}: {}", reply.body);
    }
}
