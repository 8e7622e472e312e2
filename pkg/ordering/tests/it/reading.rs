//! One order at a time: how fresh, from where, and what a wrong question is answered.

use http::{Method, StatusCode};
use serde_json::{Value, json};

use crate::system::System;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_client_has_is_not_sent_again() {
    let system = System::start().await;
    let id = system.order("u", "1").await;
    for path in [
        format!("/orders/{id}"),
        "/orders".to_owned(),
        "/orders/statistics".to_owned(),
        "/api/orders/u".to_owned(),
        format!("/orders/{id}/events"),
        format!("/orders/{id}?consistency=strong"),
    ] {
        let first = if path.contains("strong") {
            system.get(&path).await.expect(StatusCode::OK)
        } else {
            system.get_now(&path).await
        };
        let tag = first.header("etag").to_owned();
        assert!(!first.position().is_empty());
        let request = |tag: &str| {
            let request = system.request(Method::GET, &path);
            request.header("if-none-match", tag).send()
        };
        let same = request(&tag).await;
        assert_eq!(same.status, StatusCode::NOT_MODIFIED, "{path}");
        assert!(same.bytes.is_empty());
        assert_eq!(same.header("etag"), tag);
        request("\"other\"").await.expect(StatusCode::OK);
    }
    let changed = system.become_(&id, "CONFIRMED").await;
    let path = format!("/orders/{id}");
    let read = system.get_after(&path, &changed).await;
    assert_eq!(read.header("etag"), "\"2\"");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reader_waits_for_what_it_must_see_and_hears_how_far_it_is() {
    let system = System::start().await;
    // Each write is read at once, again and again.
    for n in 0..20 {
        let body = json!({"user_id": "u", "total_amount": n + 1});
        let written = system
            .post("/orders", body)
            .await
            .expect(StatusCode::CREATED);
        let id = written.body["id"].as_str().unwrap();
        let one = system.get_after(&format!("/orders/{id}"), &written).await;
        assert_eq!(one.body["id"], id);
        let list = system.get_after("/orders/user/u?limit=1", &written).await;
        assert_eq!(list.ids(), [id]);
        let by_user = system.get_after("/api/orders/u?limit=1", &written).await;
        assert_eq!(by_user.body[0]["orderId"], id);
        let sums = system
            .get_after("/orders/statistics?user_id=u", &written)
            .await;
        assert_eq!(sums.body["total_orders"], n + 1);
    }
    let request = system
        .request(Method::GET, "/orders/x?at_least=ordering/999999")
        .header("prefer", "wait=0");
    let late = request.send().await;
    assert_eq!(late.problem(504).0, "not-yet-readable");
    assert_eq!(late.body["wanted"], "ordering/999999");
    let head = format!("ordering/{}", system.store.head().await);
    assert_eq!(late.body["reached"], head);
    let request = system
        .request(Method::GET, "/orders/x/events?at_least=ordering/999999")
        .header("prefer", "wait=0");
    assert_eq!(request.send().await.problem(504).0, "not-yet-readable");

    for path in [
        "/orders?at_least=banking/1",
        "/orders/x/events?at_least=banking/1",
    ] {
        let foreign = system.get(path).await;
        assert_eq!(foreign.problem(422).1, ["/at_least"], "{path}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_strong_read_needs_no_read_model() {
    let system = System::start().await;
    let id = system.order("u", "1").await;
    for status in ["CONFIRMED", "SHIPPED", "DELIVERED"] {
        system.become_(&id, status).await.expect(StatusCode::OK);
        let strong = system
            .get(&format!("/orders/{id}?consistency=strong"))
            .await;
        assert_eq!(strong.expect(StatusCode::OK).body["status"], status);
    }
    let missing = system.get("/orders/nobody?consistency=strong").await;
    assert_eq!(missing.problem(404).0, "not-found");
    let list = system.get("/orders?consistency=strong").await;
    assert_eq!(list.problem(422).1, ["/consistency"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_history_says_who_why_and_under_which_schema() {
    let system = System::start().await;
    let request = system
        .request(Method::POST, "/orders")
        .header("x-request-id", "first-request")
        .header("x-actor", "shivam")
        .json(&json!({"id": "h", "user_id": "u", "total_amount": 1}));
    request.send().await.expect(StatusCode::CREATED);
    let change = json!({"status": "CONFIRMED", "reason": "paid"});
    system
        .put("/orders/h/status", change)
        .await
        .expect(StatusCode::OK);

    let history = system.get("/orders/h/events").await.expect(StatusCode::OK);
    let [newest, oldest] = history.body["items"].as_array().unwrap().as_slice() else {
        panic!("{:#}", history.body);
    };
    assert_eq!(newest["version"], 2);
    assert_eq!(newest["type"], "order.status_updated");
    assert_eq!(newest["schema_version"], 1);
    assert_eq!(newest["data"]["reason"], "paid");
    assert_eq!(oldest["version"], 1);
    assert_eq!(oldest["type"], "order.created");
    assert_eq!(oldest["schema_version"], 2);
    assert_eq!(oldest["position"], 1);
    assert_eq!(oldest["correlation_id"], "first-request");
    assert_eq!(oldest["causation_id"], Value::Null);
    assert_eq!(oldest["actor"], "shivam");
    assert!(oldest["time"].as_str().unwrap().ends_with('Z'));
    assert!(
        oldest["event_id"]
            .as_str()
            .unwrap()
            .parse::<uuid::Uuid>()
            .is_ok()
    );

    let page = system
        .get("/orders/h/events?limit=1")
        .await
        .expect(StatusCode::OK);
    assert_eq!(page.body["items"][0]["version"], 2);
    let cursor = page.body["next_cursor"].as_str().unwrap();
    let rest = system
        .get(&format!("/orders/h/events?limit=1&cursor={cursor}"))
        .await;
    assert_eq!(rest.body["items"][0]["version"], 1);
    assert_eq!(rest.body["next_cursor"], Value::Null);
    let unknown = system.get("/orders/nobody/events").await;
    assert_eq!(unknown.problem(404).0, "not-found");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wrong_question_gets_no_empty_answer() {
    let system = System::start().await;
    for (path, pointer) in [
        ("/orders/a%20b", "/id"),
        ("/orders?limit=0", "/limit"),
        ("/orders?limit=501", "/limit"),
        ("/orders?limit=x", "/limit"),
        ("/orders?include_deleted=maybe", "/include_deleted"),
        ("/orders?status=PENDING", "/status"),
        ("/orders/status/pending", "/status"),
        ("/orders/status/LOST", "/status"),
        ("/orders/user/u/status/LOST", "/status"),
        ("/orders/user/a%20b", "/userId"),
        ("/api/orders/a%20b", "/userId"),
        ("/orders/date-range?to=2026-01-01", "/from"),
        ("/orders/date-range?from=2026-01-01", "/to"),
        ("/orders/date-range?from=yesterday&to=2026-01-01", "/from"),
        ("/orders/date-range?from=2026-02-30&to=2026-03-01", "/from"),
        ("/orders/date-range?from=2026-01-02&to=2026-01-01", "/from"),
        ("/orders/search/username", "/username"),
        ("/orders/search/username?username=", "/username"),
        ("/orders/amount-greater-than", "/amount"),
        ("/orders/amount-greater-than?amount=x", "/amount"),
        ("/orders/amount-greater-than?amount=0.001", "/amount"),
        ("/orders/statistics?from=2026-01-01T12:00:00Z", "/from"),
        ("/orders/statistics?to=2026-01-01T12:00:00Z", "/to"),
        ("/orders/statistics?from=2026-01-02&to=2026-01-01", "/from"),
        ("/orders/statistics?user_id=a%20b", "/user_id"),
        ("/orders/statistics?limit=1", "/limit"),
        ("/orders?at_least=nonsense", "/at_least"),
    ] {
        let reply = system.get(path).await;
        assert_eq!(reply.problem(422).1, vec![pointer], "{path}");
    }
    assert_eq!(
        system.get("/orders/nobody").await.problem(404).0,
        "not-found"
    );
    assert_eq!(
        system.get("/orders?cursor=AAAA").await.problem(400).0,
        "invalid-cursor"
    );
    assert_eq!(
        system.get("/api/orders/u?cursor=AAAA").await.problem(400).0,
        "invalid-cursor"
    );
    // What looks like SQL is a text like any other.
    let sql = system
        .get("/orders/search/username?username=%27;DROP%20TABLE%20orders--")
        .await;
    assert_eq!(sql.expect(StatusCode::OK).body["items"], json!([]));
    assert_eq!(
        system
            .get("/api/orders/nobody")
            .await
            .expect(StatusCode::OK)
            .body,
        json!([])
    );
}
