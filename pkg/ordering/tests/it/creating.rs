//! What may be said when an order is created, and what is answered.

use std::collections::BTreeSet;

use http::{Method, StatusCode};
use serde_json::{Value, json};

use crate::system::System;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_order_is_answered_as_it_was_taken() {
    let system = System::start().await;
    let reply = system
        .post(
            "/orders",
            json!({
                "id": 7,
                "user_id": 42,
                "items": [
                    {"description": "Süßes 🎁", "quantity": 2, "unit_price": "0.10"},
                    {"description": "Widget", "quantity": 1, "unit_price": 499.50},
                ],
                "total_amount": 499.7,
                "shipping_address": "123 Main St",
                "notes": "ring twice",
                "payment_account_id": "acc-1",
            }),
        )
        .await
        .expect(StatusCode::CREATED);
    let created_at = reply.body["created_at"].clone();
    assert_eq!(
        reply.body,
        json!({
            "id": "7",
            "user_id": "42",
            "user_username": null,
            "user_email": null,
            "items": [
                {"description": "Süßes 🎁", "quantity": 2, "unit_price": "0.10"},
                {"description": "Widget", "quantity": 1, "unit_price": "499.50"},
            ],
            "items_count": 2,
            "total_amount": "499.70",
            "status": "PENDING",
            "shipping_address": "123 Main St",
            "notes": "ring twice",
            "is_deleted": false,
            "created_at": created_at,
            "updated_at": created_at,
            "version": 1,
        })
    );
    assert_eq!(reply.header("etag"), "\"1\"");
    assert_eq!(reply.header("location"), "/orders/7");
    // The order, and the beginning of its payment.
    assert!(reply.position().starts_with("ordering/2"));

    let read = system.get_after("/orders/7", &reply).await;
    assert_eq!(read.bytes, reply.bytes, "byte for byte, whoever answers");
    assert_eq!(read.header("etag"), "\"1\"");
    let strong = system.get("/orders/7?consistency=strong").await;
    assert_eq!(strong.expect(StatusCode::OK).bytes, reply.bytes);

    let again = system
        .post(
            "/orders",
            json!({"id": "7", "user_id": "x", "total_amount": 1}),
        )
        .await;
    assert_eq!(again.problem(409).0, "order-exists");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_two_other_doors_take_the_same_orders() {
    let system = System::start().await;
    let placed = system
        .post(
            "/api/orders",
            json!({"userId": "shivam_99", "amount": 499.50}),
        )
        .await
        .expect(StatusCode::CREATED);
    let id = placed.body["orderId"].as_str().unwrap();
    let keys: BTreeSet<&str> = placed
        .body
        .as_object()
        .unwrap()
        .keys()
        .map(String::as_str)
        .collect();
    assert_eq!(
        keys,
        BTreeSet::from(["orderId", "userId", "amount", "status", "createdAt"])
    );
    assert_eq!(placed.body["amount"], "499.50");
    assert_eq!(placed.header("location"), format!("/orders/{id}"));
    let list = system.get_after("/api/orders/shivam_99", &placed).await;
    assert_eq!(list.body, json!([placed.body]));

    let described = system
        .post(
            "/order-service/orders",
            json!({
                "user_id": 1,
                "description": "Widget",
                "amount": "50",
                "purchase_dt": "2025-04-01",
            }),
        )
        .await
        .expect(StatusCode::CREATED);
    assert_eq!(described.body["total_amount"], "50.00");
    assert_eq!(described.body["items"], json!([]));
    let id = described.body["id"].as_str().unwrap();
    let history = system.get(&format!("/orders/{id}/events")).await;
    let data = &history.body["items"][0]["data"];
    assert_eq!(data["description"], "Widget");
    assert_eq!(data["purchase_dt"], "2025-04-01T00:00:00Z");
}

/// Every field, with what it may not be: the body, and the pointer that is answered.
fn wrong_orders() -> Vec<(Value, &'static str)> {
    let with = |field: &str, value: Value| {
        let mut body = json!({"user_id": "u", "total_amount": "1"});
        body[field] = value;
        body
    };
    let line = |field: &str, value: Value| {
        let mut line = json!({"description": "d", "quantity": 1, "unit_price": 1});
        line[field] = value;
        json!({"user_id": "u", "items": [line]})
    };
    vec![
        (json!({"total_amount": 1}), "/user_id"),
        (json!({"user_id": "u"}), ""),
        (json!({"user_id": "u", "items": []}), ""),
        (with("user_id", json!("")), "/user_id"),
        (with("user_id", json!("a b")), "/user_id"),
        (with("user_id", json!(1.5)), "/user_id"),
        (with("user_id", json!(-1)), "/user_id"),
        (with("user_id", json!(null)), "/user_id"),
        (with("user_id", json!(["u"])), "/user_id"),
        (with("user_id", json!("x".repeat(65))), "/user_id"),
        (with("user_id", json!("é")), "/user_id"),
        (with("user_id", json!("' OR 1=1 --")), "/user_id"),
        (with("id", json!("statistics")), "/id"),
        (with("id", json!("date-range")), "/id"),
        (with("id", json!("user")), "/id"),
        (with("id", json!("a/b")), "/id"),
        (with("id", json!("a\u{0}b")), "/id"),
        (with("total_amount", json!(0)), "/total_amount"),
        (with("total_amount", json!("-0")), "/total_amount"),
        (with("total_amount", json!(-1)), "/total_amount"),
        (with("total_amount", json!("0.001")), "/total_amount"),
        (with("total_amount", json!(0.001)), "/total_amount"),
        (with("total_amount", json!("100000000")), "/total_amount"),
        (with("total_amount", json!(99_999_999.995)), "/total_amount"),
        (with("total_amount", json!("NaN")), "/total_amount"),
        (with("total_amount", json!("1,5")), "/total_amount"),
        (with("total_amount", json!(true)), "/total_amount"),
        (with("total_amount", json!({})), "/total_amount"),
        (with("shipping_address", json!(1)), "/shipping_address"),
        (
            with("shipping_address", json!("x".repeat(1001))),
            "/shipping_address",
        ),
        (
            with("shipping_address", json!("a\u{0}")),
            "/shipping_address",
        ),
        (with("notes", json!("é".repeat(2001))), "/notes"),
        (
            with("payment_account_id", json!("-")),
            "/payment_account_id",
        ),
        (with("unknown", json!(1)), "/unknown"),
        (with("items", json!({})), "/items"),
        (
            with(
                "items",
                json!(vec![
                    json!({"description": "d", "quantity": 1, "unit_price": 1});
                    201
                ]),
            ),
            "/items",
        ),
        (line("description", json!("")), "/items/0/description"),
        (
            line("description", json!("x".repeat(501))),
            "/items/0/description",
        ),
        (line("quantity", json!(0)), "/items/0/quantity"),
        (line("quantity", json!(-1)), "/items/0/quantity"),
        (line("quantity", json!(1.5)), "/items/0/quantity"),
        (line("quantity", json!("1")), "/items/0/quantity"),
        (line("quantity", json!(1_000_001)), "/items/0/quantity"),
        (line("quantity", json!(u64::MAX)), "/items/0/quantity"),
        (line("unit_price", json!(-1)), "/items/0/unit_price"),
        (line("unit_price", json!("1.001")), "/items/0/unit_price"),
        (
            line("unit_price", json!("100000000")),
            "/items/0/unit_price",
        ),
        (line("unit_price", json!(0)), "/items"),
        (line("colour", json!("red")), "/items/0/colour"),
        (
            json!({"user_id": "u", "total_amount": 3, "items": [
                {"description": "d", "quantity": 2, "unit_price": 1},
            ]}),
            "/total_amount",
        ),
        (
            json!({"user_id": "u", "items": [
                {"description": "d", "quantity": 1_000_000, "unit_price": "99999999.99"},
            ]}),
            "/items",
        ),
    ]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_wrong_field_is_named() {
    let system = System::start().await;
    for (body, pointer) in wrong_orders() {
        let reply = system.post("/orders", body.clone()).await;
        let (name, pointers) = reply.problem(422);
        assert_eq!(
            (name, pointers),
            ("invalid-request", vec![pointer]),
            "{body}"
        );
    }
    for (path, body, pointer) in [
        ("/api/orders", json!({"userId": "u"}), "/amount"),
        (
            "/api/orders",
            json!({"userId": "u", "amount": 0}),
            "/amount",
        ),
        ("/api/orders", json!({"amount": 1}), "/userId"),
        (
            "/api/orders",
            json!({"userId": "u", "amount": 1, "user_id": "u"}),
            "/user_id",
        ),
        (
            "/order-service/orders",
            json!({"user_id": "u", "amount": 1}),
            "/description",
        ),
        (
            "/order-service/orders",
            json!({"user_id": "u", "amount": 1, "description": ""}),
            "/description",
        ),
        (
            "/order-service/orders",
            json!({"user_id": "u", "amount": 1, "description": "d", "purchase_dt": "soon"}),
            "/purchase_dt",
        ),
    ] {
        let reply = system.post(path, body.clone()).await;
        assert_eq!(reply.problem(422).1, vec![pointer], "{path} {body}");
    }
    let all = system
        .post(
            "/orders",
            json!({"id": "user", "user_id": "u", "total_amount": 0, "notes": "x".repeat(2001)}),
        )
        .await;
    assert_eq!(all.problem(422).1, vec!["/id", "/notes", "/total_amount"]);
    assert_eq!(system.store.head().await, 0, "nothing of this was appended");
}

/// Numbers as they stand in the body, which no JSON library of the client's may touch.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn numbers_are_judged_by_their_digits() {
    let system = System::start().await;
    for (number, outcome) in [
        ("499.50", Ok("499.50")),
        ("1e2", Ok("100.00")),
        ("1E+2", Ok("100.00")),
        ("0.1", Ok("0.10")),
        ("99999999.99", Ok("99999999.99")),
        ("100.000", Ok("100.00")),
        ("1e400", Err(422)),
        ("99999999.990000000000000000000001", Err(422)),
        ("-0", Err(422)),
        ("0.1e-2", Err(422)),
        ("01", Err(400)),
        ("1.", Err(400)),
        ("+1", Err(400)),
        ("NaN", Err(400)),
    ] {
        let body = format!(r#"{{"user_id":"u","total_amount":{number}}}"#);
        let request = system
            .request(Method::POST, "/orders")
            .header("content-type", "application/json")
            .body(body);
        let reply = request.send().await;
        match outcome {
            Ok(amount) => {
                let reply = reply.expect(StatusCode::CREATED);
                assert_eq!(reply.body["total_amount"], amount, "{number}");
            }
            Err(status) => assert_eq!(reply.status, status, "{number}"),
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_repeated_request_gets_the_first_answer() {
    let system = System::start().await;
    let send = |path: &'static str, key: &'static str, body: Value| {
        let request = system.request(Method::POST, path);
        request.header("idempotency-key", key).json(&body).send()
    };
    let body = json!({"user_id": "u", "total_amount": "1.5"});
    let first = send("/orders", "k1", body.clone())
        .await
        .expect(StatusCode::CREATED);
    let second = send("/orders", "k1", body.clone())
        .await
        .expect(StatusCode::CREATED);
    assert_eq!(first.bytes, second.bytes, "byte for byte");
    assert_eq!(second.header("idempotent-replayed"), "true");
    assert!(!first.headers.contains_key("idempotent-replayed"));
    for name in ["etag", "location", "log-position", "content-type"] {
        assert_eq!(first.header(name), second.header(name), "{name}");
    }
    let other = send("/orders", "k1", json!({"user_id": "u", "total_amount": 2})).await;
    assert_eq!(other.problem(422).0, "idempotency-key-reused");
    let elsewhere = send("/api/orders", "k1", json!({"userId": "u", "amount": 1})).await;
    elsewhere.expect(StatusCode::CREATED);

    // A refusal by a rule is kept as well.
    let taken = json!({"id": first.body["id"], "user_id": "u", "total_amount": 1});
    let refused = send("/orders", "k2", taken.clone()).await;
    assert_eq!(refused.problem(409).0, "order-exists");
    let again = send("/orders", "k2", taken).await;
    assert_eq!(again.bytes, refused.bytes);
    assert_eq!(again.header("idempotent-replayed"), "true");
    assert_eq!(system.store.head().await, 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn of_many_equal_requests_at_once_one_creates() {
    let system = System::start().await;
    let body = json!({"user_id": "u", "total_amount": 1});
    let replies = futures::future::join_all((0..16).map(|_| {
        let request = system.request(Method::POST, "/orders");
        request.header("idempotency-key", "same").json(&body).send()
    }))
    .await;
    assert!(
        replies
            .iter()
            .all(|reply| reply.status == StatusCode::CREATED)
    );
    assert!(replies.iter().all(|reply| reply.bytes == replies[0].bytes));
    let first_hand = replies
        .iter()
        .filter(|reply| !reply.headers.contains_key("idempotent-replayed"));
    assert_eq!(first_hand.count(), 1);
    assert_eq!(system.store.head().await, 1);
}
