//! What may be said when an account is opened or closed, and what is answered.

use http::{Method, StatusCode};
use serde_json::{Value, json};

use crate::bank::Bank;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_account_is_answered_as_it_was_opened() {
    let bank = Bank::start().await;
    let body = json!({
        "id": 7,
        "holder_name": "Zoë 🏦",
        "user_id": 42,
        "currency": "EUR",
        "initial_deposit": 12.5,
    });
    let reply = bank.post("/accounts", body.clone()).await;
    let reply = reply.expect(StatusCode::CREATED);
    assert_eq!(
        reply.body,
        json!({
            "account_id": "7",
            "holder_name": "Zoë 🏦",
            "user_id": "42",
            "currency": "EUR",
            "balance": "12.50",
            "status": "OPEN",
            "version": 2,
        })
    );
    assert_eq!(reply.header("etag"), "\"2\"");
    assert_eq!(reply.header("location"), "/accounts/7");
    assert!(reply.position().starts_with("banking/2"));
    let types: Vec<String> = bank
        .events()
        .await
        .iter()
        .map(|event| event.event_type.to_string())
        .collect();
    assert_eq!(types, ["account.opened", "money.deposited"]);

    let again = bank.post("/accounts", body).await;
    assert_eq!(again.problem(409).0, "account-exists");
    assert_eq!(bank.head().await, 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn little_needs_to_be_said() {
    let bank = Bank::start().await;
    let reply = bank.post("/accounts", json!({"holder_name": "Ann"})).await;
    let reply = reply.expect(StatusCode::CREATED);
    let id = reply.body["account_id"].as_str().unwrap();
    assert_eq!(id.len(), 36, "a generated id: {id}");
    assert_eq!(reply.header("location"), format!("/accounts/{id}"));
    let rest = ["user_id", "currency", "balance", "status", "version"].map(|f| &reply.body[f]);
    assert_eq!(json!(rest), json!([null, "USD", "0.00", "OPEN", 1]));
    let zero = json!({"holder_name": "Ann", "initial_deposit": 0});
    let reply = bank.post("/accounts", zero).await;
    assert_eq!(reply.expect(StatusCode::CREATED).body["version"], 1);
}

/// Every field, with what it may not be: the body, and the pointer that is answered.
fn wrong_accounts() -> Vec<(Value, &'static str)> {
    let with = |field: &str, value: Value| {
        let mut body = json!({"holder_name": "Ann"});
        body[field] = value;
        body
    };
    let mut wrong = vec![(json!({}), "/holder_name")];
    for (field, pointer, values) in [
        (
            "holder_name",
            "/holder_name",
            vec![
                json!(""),
                json!(" \n"),
                json!(null),
                json!(1),
                json!("a\u{0}"),
                json!("é".repeat(201)),
            ],
        ),
        (
            "id",
            "/id",
            vec![
                json!(""),
                json!("a/b"),
                json!("-a"),
                json!(1.5),
                json!(-1),
                json!("x".repeat(65)),
                json!(["a"]),
            ],
        ),
        ("user_id", "/user_id", vec![json!("a b"), json!({})]),
        (
            "currency",
            "/currency",
            vec![
                json!("usd"),
                json!("KWD"),
                json!("XXX"),
                json!(""),
                json!(1),
            ],
        ),
        (
            "initial_deposit",
            "/initial_deposit",
            vec![
                json!(-1),
                json!("0.001"),
                json!("1000000000000"),
                json!("NaN"),
                json!(true),
                json!("1e400"),
            ],
        ),
        ("balance", "/balance", vec![json!(1)]),
    ] {
        wrong.extend(
            values
                .into_iter()
                .map(|value| (with(field, value), pointer)),
        );
    }
    wrong
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_wrong_field_is_named() {
    let bank = Bank::start().await;
    for (body, pointer) in wrong_accounts() {
        let reply = bank.post("/accounts", body.clone()).await;
        let (name, pointers) = reply.problem(422);
        assert_eq!(
            (name, pointers),
            ("invalid-request", vec![pointer]),
            "{body}"
        );
    }
    let yen = json!({"holder_name": "Ann", "currency": "JPY", "initial_deposit": "1.50"});
    let reply = bank.post("/accounts", yen).await;
    assert_eq!(reply.problem(422).0, "too-many-decimals");
    assert_eq!(
        json!([reply.body["currency"], reply.body["decimals"]]),
        json!(["JPY", 0])
    );
    assert_eq!(bank.head().await, 0, "nothing of this was appended");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_empty_account_is_closed_for_good() {
    let bank = Bank::start().await;
    bank.account("a", "1.50").await;
    let refused = bank.close("a").await;
    assert_eq!(refused.problem(409).0, "account-not-empty");
    assert_eq!(refused.body["balance"], "1.50");
    bank.withdraw("a", "1.5").await.expect(StatusCode::CREATED);

    let body = json!({"reason": "moved away"});
    let closed = bank
        .post("/accounts/a/close", body)
        .await
        .expect(StatusCode::OK);
    assert_eq!(
        json!([
            closed.body["status"],
            closed.body["balance"],
            closed.body["version"]
        ]),
        json!(["CLOSED", "0.00", 4])
    );
    assert_eq!(closed.header("etag"), "\"4\"");
    let again = bank.close("a").await.expect(StatusCode::OK);
    assert_eq!(again.bytes, closed.bytes, "it is so already");
    assert_eq!(bank.head().await, 4, "and that is no event");
    let events = bank.events().await;
    let event = events.last().unwrap();
    let said: Value = serde_json::from_str(event.payload.get()).unwrap();
    assert_eq!(said, json!({"account_id": "a", "reason": "moved away"}));

    for refused in [bank.deposit("a", "1").await, bank.withdraw("a", "1").await] {
        assert_eq!(refused.problem(409).0, "account-closed");
    }
    let taken = json!({"id": "a", "holder_name": "Ben"});
    let refused = bank.post("/accounts", taken).await;
    assert_eq!(refused.problem(409).0, "account-exists");
    assert_eq!(bank.close("b").await.problem(404).0, "not-found");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_body_that_may_be_left_out_is_read_strictly_when_it_comes() {
    let bank = Bank::start().await;
    bank.account("a", "0").await;
    for (body, pointer) in [
        (json!({"reason": "x".repeat(501)}), "/reason"),
        (json!({"why": "x"}), "/why"),
        (json!({"reason": 1}), "/reason"),
    ] {
        let reply = bank.post("/accounts/a/close", body).await;
        assert_eq!(reply.problem(422).1, [pointer]);
    }
    let untyped = bank.request(Method::POST, "/accounts/a/close").body("{}");
    assert_eq!(
        untyped.send().await.problem(415).0,
        "unsupported-media-type"
    );
    let xml = bank
        .request(Method::POST, "/accounts/a/close")
        .header("content-type", "text/xml");
    assert_eq!(xml.send().await.problem(415).0, "unsupported-media-type");
    let empty = bank.post("/accounts/a/close", json!({})).await;
    empty.expect(StatusCode::OK);
}
