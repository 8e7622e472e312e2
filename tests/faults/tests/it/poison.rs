//! An event that cannot be folded stops its own key, nobody else's.

use std::collections::BTreeMap;

use millrace_faults::{Client, Cluster, Load, LoadOptions, Seed, check, poison};
use millrace_testkit::eventually;
use reqwest::Method;
use serde_json::{Value, json};

use crate::{RECOVERY_BOUND, SOME_COMMANDS, options};

/// How many views fold orders.
const VIEWS: usize = 3;

/// An order with a status change that means nothing, and two that do behind it.
struct Poisoned {
    id: String,
    stream: String,
    /// Where the nonsense is.
    position: i64,
    followers: Vec<i64>,
}

async fn poisoned_order(cluster: &Cluster) -> Poisoned {
    let body = json!({"user_id": "poisoned", "total_amount": "7.50"});
    let url = format!("{}/orders", cluster.command_urls()[0]);
    let reply = Client::new()
        .send(Method::POST, &url, &[], Some(&body))
        .await
        .unwrap();
    assert_eq!(reply.status, 201, "{}", reply.body);
    let id = reply.json()["id"].as_str().unwrap().to_owned();
    let created_at = reply.json()["created_at"].clone();
    let stream = format!("order-{id}");
    let nonsense = json!({"order_id": id, "from": 7, "to": ["nonsense"]});
    let pool = &cluster.log_pool;
    let position = poison::append(pool, &stream, "order.status_updated", &nonsense).await;
    let mut followers = Vec::new();
    for (from, to) in [("PENDING", "CONFIRMED"), ("CONFIRMED", "SHIPPED")] {
        let change = json!({
            "order_id": id, "user_id": "poisoned", "from": from, "to": to,
            "total_amount": "7.50", "created_at": created_at, "updated_at": created_at,
        });
        followers.push(poison::append(pool, &stream, "order.status_updated", &change).await);
    }
    Poisoned {
        id,
        stream,
        position,
        followers,
    }
}

/// The letters of the order in each view, in order, with their reasons: as the projector's admin
/// port gives them.
async fn letters(cluster: &Cluster, stream: &str) -> Option<BTreeMap<String, Vec<(i64, String)>>> {
    let url = format!("{}/dead-letters?stream={stream}", admin(cluster));
    let reply = Client::new().get(&url, &[]).await.ok()?;
    if reply.status != 200 {
        return None;
    }
    let mut letters = BTreeMap::<_, Vec<_>>::new();
    for letter in reply.json().as_array().unwrap() {
        let projection = letter["projection"].as_str().unwrap().to_owned();
        let reason = letter["reason"].as_str().unwrap().to_owned();
        let position = letter["position"].as_i64().unwrap();
        letters
            .entry(projection)
            .or_default()
            .push((position, reason));
    }
    for own in letters.values_mut() {
        own.sort();
    }
    Some(letters)
}

fn admin(cluster: &Cluster) -> String {
    format!("http://127.0.0.1:{}", cluster.projectors[1].admin_port())
}

/// Asks the projector to do something about letters, and waits until it is done in every view.
async fn operate(cluster: &Cluster, action: &str, filter: &Value) {
    let client = Client::new();
    let admin = admin(cluster);
    let url = format!("{admin}/dead-letters/{action}");
    let reply = client
        .send(Method::POST, &url, &[], Some(filter))
        .await
        .unwrap();
    assert_eq!(reply.status, 200, "{}", reply.body);
    let requests = reply.json();
    let requests = requests.as_array().unwrap();
    assert_eq!(requests.len(), VIEWS, "{requests:?}");
    for request in requests {
        let url = format!("{admin}/dead-letters/outcome");
        let what = format!("{action} to be done: {request}");
        eventually(&what, RECOVERY_BOUND, || async {
            let reply = client
                .send(Method::POST, &url, &[], Some(request))
                .await
                .ok()?;
            (!reply.json()["outcome"].is_null()).then_some(())
        })
        .await;
    }
}

#[tokio::test]
async fn a_poison_event_stops_its_own_key() {
    let seed = Seed::new("poison");
    let mut cluster = Cluster::start(options()).await;
    let load = Load::start(&cluster, &seed, &LoadOptions::default());
    load.wait_for(SOME_COMMANDS, RECOVERY_BOUND).await;
    let poisoned = poisoned_order(&cluster).await;
    load.wait_for(SOME_COMMANDS, RECOVERY_BOUND).await;
    let mut wanted = vec![(poisoned.position, "malformed".to_owned())];
    wanted.extend(
        poisoned
            .followers
            .iter()
            .map(|at| (*at, "follows".to_owned())),
    );
    eventually(
        "the key's events to be parked, in order",
        RECOVERY_BOUND,
        || async {
            let letters = letters(&cluster, &poisoned.stream).await?;
            let all = letters.len() == VIEWS && letters.values().all(|own| *own == wanted);
            all.then_some(())
        },
    )
    .await;
    // A projector that dies has them parked where it comes back.
    cluster.projectors[0].kill().await;
    cluster.projectors[0].restart();
    cluster.wait_ready().await;
    load.wait_for(SOME_COMMANDS, RECOVERY_BOUND).await;
    let mut history = load.stop().await;

    let parked = BTreeMap::from([(poisoned.stream.clone(), poisoned.position)]);
    let (head, events) = check::log::read(&cluster.log_pool, "ordering").await;
    check::log::prove(&head, &events, 1);
    check::stream_and_views(&cluster, &events, &parked).await;

    // The nonsense is given up, what follows it is folded after all.
    operate(&cluster, "discard", &json!({"position": poisoned.position})).await;
    operate(&cluster, "redrive", &json!({"stream": poisoned.stream})).await;
    let folded: Vec<_> = events
        .iter()
        .filter(|event| event.position != poisoned.position)
        .cloned()
        .collect();
    check::views_become(&cluster, &check::fold::fold(&folded, &BTreeMap::new())).await;
    eventually("no letters to be left", RECOVERY_BOUND, || async {
        letters(&cluster, &poisoned.stream)
            .await?
            .is_empty()
            .then_some(())
    })
    .await;

    let others: Vec<_> = events
        .into_iter()
        .filter(|event| event.stream != poisoned.stream)
        .collect();
    history.orders.remove(&poisoned.id);
    check::history_holds(&history, &others);
}
