//! What may happen to an order after its creation.

use http::{Method, StatusCode};
use serde_json::{Value, json};

use crate::system::System;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_order_goes_its_way_and_says_so_everywhere() {
    let system = System::start().await;
    let id = system.order("u", "10").await;
    let mut last = Value::Null;
    for (version, status) in (2..).zip(["CONFIRMED", "SHIPPED", "DELIVERED"]) {
        let reply = system.become_(&id, status).await.expect(StatusCode::OK);
        assert_eq!(reply.body["status"], status);
        assert_eq!(reply.body["version"], version);
        assert_eq!(reply.header("etag"), format!("\"{version}\""));
        let read = system.get_after(&format!("/orders/{id}"), &reply).await;
        assert_eq!(read.body, reply.body);
        let list = system.get_after("/api/orders/u", &reply).await;
        assert_eq!(list.body[0]["status"], status);
        last = reply.body;
    }
    // The same again is answered and changes nothing.
    let same = system
        .become_(&id, "DELIVERED")
        .await
        .expect(StatusCode::OK);
    assert_eq!(same.body, last);
    assert_eq!(same.header("etag"), "\"4\"");
    assert_eq!(system.store.head().await, 4);

    let back = system.become_(&id, "PENDING").await;
    assert_eq!(back.problem(409).0, "invalid-transition");
    let detail = back.body["detail"].as_str().unwrap();
    assert!(
        detail.contains("DELIVERED") && detail.contains("PENDING"),
        "{detail}"
    );
    let deleted = system.delete(&format!("/orders/{id}")).await;
    assert_eq!(deleted.problem(409).0, "order-not-deletable");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_deleted_order_leaves_the_lists_and_keeps_its_history() {
    let system = System::start().await;
    let (kept, id) = (system.order("u", "1").await, system.order("u", "2").await);
    let path = format!("/orders/{id}");
    let deleted = system.delete(&path).await.expect(StatusCode::NO_CONTENT);
    assert_eq!(deleted.header("etag"), "\"2\"");
    assert!(deleted.bytes.is_empty());
    let again = system.delete(&path).await.expect(StatusCode::NO_CONTENT);
    assert_eq!(again.header("etag"), "\"2\"");
    assert_eq!(again.position(), deleted.position(), "where to wait for it");
    assert_eq!(
        system.store.head().await,
        3,
        "the second time says nothing new"
    );

    for list in [
        "/orders",
        "/orders/user/u",
        "/orders/status/PENDING",
        "/orders/user/u/status/PENDING",
        "/orders/date-range?from=2020-01-01&to=2100-01-01",
        "/orders/amount-greater-than?amount=0",
    ] {
        // The deletion's own token would not wait for the order that was kept.
        let reply = system.get_now(list).await;
        assert_eq!(reply.ids(), [&kept], "{list}");
    }
    let all = system.get_now("/orders?include_deleted=true").await;
    assert_eq!(all.ids(), [&id, &kept]);
    let by_user = system.get_now("/api/orders/u").await;
    assert_eq!(by_user.body.as_array().unwrap().len(), 1);

    let read = system.get_after(&path, &deleted).await;
    assert_eq!(read.body["is_deleted"], true);
    let strong = system.get(&format!("{path}?consistency=strong")).await;
    assert_eq!(strong.expect(StatusCode::OK).body, read.body);
    let history = system.get(&format!("{path}/events")).await;
    let types: Vec<&str> = history.body["items"]
        .as_array()
        .unwrap()
        .iter()
        .map(|event| event["type"].as_str().unwrap())
        .collect();
    assert_eq!(types, ["order.deleted", "order.created"]);

    let change = system.become_(&id, "CONFIRMED").await;
    assert_eq!(change.problem(409).0, "order-deleted");
    let reuse = json!({"id": id, "user_id": "u", "total_amount": 1});
    assert_eq!(
        system.post("/orders", reuse).await.problem(409).0,
        "order-exists"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_wrong_with_a_change_is_said() {
    let system = System::start().await;
    let id = system.order("u", "1").await;
    let path = format!("/orders/{id}/status");
    for (body, pointer) in [
        (json!({}), "/status"),
        (json!({"status": "confirmed"}), "/status"),
        (json!({"status": "LOST"}), "/status"),
        (json!({"status": 1}), "/status"),
        (json!({"status": null}), "/status"),
        (
            json!({"status": "CONFIRMED", "reason": "x".repeat(501)}),
            "/reason",
        ),
        (json!({"status": "CONFIRMED", "reason": 1}), "/reason"),
        (json!({"status": "CONFIRMED", "why": "x"}), "/why"),
    ] {
        let reply = system.put(&path, body.clone()).await;
        assert_eq!(reply.problem(422).1, vec![pointer], "{body}");
    }
    let unknown = system.become_("nobody", "CONFIRMED").await;
    assert_eq!(unknown.problem(404).0, "not-found");
    assert_eq!(
        system.delete("/orders/nobody").await.problem(404).0,
        "not-found"
    );
    assert_eq!(system.delete("/orders/statistics").await.status, 405);
    assert_eq!(
        system
            .become_("statistics", "CONFIRMED")
            .await
            .problem(422)
            .1,
        ["/id"]
    );
    assert_eq!(
        system.become_("a%20b", "CONFIRMED").await.problem(422).1,
        ["/id"]
    );
    assert_eq!(system.store.head().await, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_change_may_be_tied_to_a_version() {
    let system = System::start().await;
    let id = system.order("u", "1").await;
    let path = format!("/orders/{id}/status");
    let change = |tag: &str, status: &str| {
        let request = system.request(Method::PUT, &path).header("if-match", tag);
        request.json(&json!({ "status": status })).send()
    };
    let stale = change("\"2\"", "CONFIRMED").await;
    assert_eq!(stale.problem(412).0, "precondition-failed");
    assert_eq!(stale.header("etag"), "\"1\"");
    change("\"1\"", "CONFIRMED").await.expect(StatusCode::OK);
    change("\"1\"", "SHIPPED")
        .await
        .expect(StatusCode::PRECONDITION_FAILED);
    change("*", "SHIPPED").await.expect(StatusCode::OK);
    let request = system.request(Method::DELETE, &format!("/orders/{id}"));
    let reply = request.header("if-match", "\"1\"").send().await;
    reply.expect(StatusCode::PRECONDITION_FAILED);
}

/// Everybody wants something else of one order at once: each step happens once, in an order that
/// the rules allow, and nobody hears of a conflict.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn many_changes_of_one_order_at_once_keep_the_rules() {
    let system = System::start().await;
    for _ in 0..5 {
        let id = system.order("u", "1").await;
        let wanted = ["CONFIRMED", "SHIPPED", "DELIVERED", "CANCELLED"];
        let replies = futures::future::join_all(
            (0..24).map(|n| system.become_(&id, wanted[n % wanted.len()])),
        )
        .await;
        for reply in &replies {
            match reply.status.as_u16() {
                200 => {}
                409 => assert_eq!(reply.problem(409).0, "invalid-transition"),
                other => panic!("{other}: {:#}", reply.body),
            }
        }
        let history = system.get(&format!("/orders/{id}/events")).await;
        let mut status = "PENDING".to_owned();
        for event in history.body["items"]
            .as_array()
            .unwrap()
            .iter()
            .rev()
            .skip(1)
        {
            assert_eq!(event["data"]["from"], status.as_str());
            event["data"]["to"]
                .as_str()
                .unwrap()
                .clone_into(&mut status);
        }
        let strong = system
            .get(&format!("/orders/{id}?consistency=strong"))
            .await;
        assert_eq!(strong.body["status"], status.as_str());
    }
}
