//! Money that is paid in and out.

use futures::future::join_all;
use http::{Method, StatusCode};
use serde_json::{Value, json};

use crate::bank::Bank;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_movement_is_answered_with_what_it_left() {
    let bank = Bank::start().await;
    bank.account("a", "0").await;
    let paid = bank.deposit("a", "10.10").await.expect(StatusCode::CREATED);
    let transaction = paid.body["transaction_id"].clone();
    assert_eq!(
        paid.body,
        json!({
            "account_id": "a", "balance": "10.10", "version": 2, "transaction_id": transaction,
        })
    );
    assert_eq!(paid.header("etag"), "\"2\"");
    assert!(paid.position().starts_with("banking/2"));
    let body = json!({"amount": 0.2, "description": "coffee ☕"});
    let reply = bank.post("/accounts/a/withdrawals", body).await;
    let reply = reply.expect(StatusCode::CREATED);
    assert_eq!(
        json!([reply.body["balance"], reply.body["version"]]),
        json!(["9.90", 3])
    );
    let events = bank.events().await;
    let said: Value = serde_json::from_str(events[2].payload.get()).unwrap();
    assert_eq!(
        said,
        json!({
            "account_id": "a",
            "transaction_id": reply.body["transaction_id"],
            "amount": "0.20",
            "balance": "9.90",
            "description": "coffee ☕",
        })
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_cannot_be_moved_is_refused() {
    let bank = Bank::start().await;
    bank.account("a", "5").await;
    let short = bank.withdraw("a", "5.01").await;
    assert_eq!(short.problem(422).0, "insufficient-funds");
    assert_eq!(
        json!([
            short.body["balance"],
            short.body["requested"],
            short.body["account_id"]
        ]),
        json!(["5.00", "5.01", "a"])
    );
    for path in ["/accounts/a/deposits", "/accounts/a/withdrawals"] {
        for (body, pointer) in [
            (json!({}), "/amount"),
            (json!({"amount": 0}), "/amount"),
            (json!({"amount": "-0"}), "/amount"),
            (json!({"amount": -1}), "/amount"),
            (json!({"amount": "0.001"}), "/amount"),
            (json!({"amount": 0.001}), "/amount"),
            (json!({"amount": "1000000000000"}), "/amount"),
            (json!({"amount": null}), "/amount"),
            (json!({"amount": "1,5"}), "/amount"),
            (
                json!({"amount": 1, "description": "x".repeat(501)}),
                "/description",
            ),
            (json!({"amount": 1, "description": 1}), "/description"),
            (json!({"amount": 1, "balance": 1}), "/balance"),
        ] {
            let reply = bank.post(path, body.clone()).await;
            assert_eq!(
                reply.problem(422),
                ("invalid-request", vec![pointer]),
                "{body}"
            );
        }
    }
    for path in ["deposits", "withdrawals"] {
        let nobody = bank
            .post(&format!("/accounts/x/{path}"), json!({"amount": 1}))
            .await;
        assert_eq!(nobody.problem(404).0, "not-found");
        let wrong = bank
            .post(&format!("/accounts/-/{path}"), json!({"amount": 1}))
            .await;
        assert_eq!(wrong.problem(422).1, ["/id"]);
    }
    assert_eq!(bank.balance("a").await, "5.00");
    assert_eq!(bank.head().await, 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_balance_goes_up_to_its_bound_and_not_beyond() {
    let bank = Bank::start().await;
    bank.account("a", "999999999999.99").await;
    // Nobody makes ten thousand deposits in a test: the last of them is what counts.
    let sql = "UPDATE banking.events SET payload = replace(payload::text, '\"balance\":\"999999999999.99\"',
               '\"balance\":\"9999999999999999.00\"')::json WHERE version = 2";
    let changed = sqlx::query(sql).execute(&bank.database.pool).await;
    assert_eq!(changed.unwrap().rows_affected(), 1);
    let mut bank = bank;
    let fresh = bank.second().await;
    let deposit =
        |amount: &'static str| fresh.post("/accounts/a/deposits", json!({"amount": amount}));
    let full = deposit("0.99").await.expect(StatusCode::CREATED);
    assert_eq!(full.body["balance"], "9999999999999999.99");
    assert_eq!(bank.balance("a").await, "9999999999999999.99");
    let refused = deposit("0.01").await;
    assert_eq!(refused.problem(422).0, "balance-too-large");
    assert_eq!(refused.body["balance"], "9999999999999999.99");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_repeated_request_moves_money_once() {
    let bank = Bank::start().await;
    bank.account("a", "10").await;
    let send = |path: &'static str, key: &'static str, body: Value| {
        let request = bank.request(Method::POST, path);
        request.header("idempotency-key", key).json(&body).send()
    };
    let body = json!({"amount": "4"});
    let first = send("/accounts/a/withdrawals", "k", body.clone()).await;
    let first = first.expect(StatusCode::CREATED);
    bank.deposit("a", "1").await.expect(StatusCode::CREATED);
    let again = send("/accounts/a/withdrawals", "k", body.clone()).await;
    assert_eq!(again.bytes, first.bytes, "byte for byte");
    assert_eq!(again.header("idempotent-replayed"), "true");
    for name in ["etag", "log-position", "content-type"] {
        assert_eq!(first.header(name), again.header(name), "{name}");
    }
    let other = send("/accounts/a/withdrawals", "k", json!({"amount": "5"})).await;
    assert_eq!(other.problem(422).0, "idempotency-key-reused");
    let elsewhere = send("/accounts/a/deposits", "k", body).await;
    elsewhere.expect(StatusCode::CREATED);
    assert_eq!(bank.balance("a").await, "11.00");

    // A refusal by a rule is kept as well, whatever came since.
    let refused = send("/accounts/a/withdrawals", "r", json!({"amount": "12"})).await;
    assert_eq!(refused.problem(422).0, "insufficient-funds");
    bank.deposit("a", "100").await.expect(StatusCode::CREATED);
    let again = send("/accounts/a/withdrawals", "r", json!({"amount": "12"})).await;
    assert_eq!(again.bytes, refused.bytes);
    assert_eq!(again.header("idempotent-replayed"), "true");
    assert_eq!(bank.balance("a").await, "111.00");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn if_match_holds_a_movement_to_a_version() {
    let bank = Bank::start().await;
    bank.account("a", "10").await;
    let send = |version: &'static str| {
        bank.request(Method::POST, "/accounts/a/withdrawals")
            .header("if-match", version)
            .json(&json!({"amount": "1"}))
            .send()
    };
    assert_eq!(send("\"1\"").await.problem(412).0, "precondition-failed");
    let done = send("\"2\"").await.expect(StatusCode::CREATED);
    assert_eq!(done.header("etag"), "\"3\"");
    assert_eq!(send("\"2\"").await.problem(412).0, "precondition-failed");
    assert_eq!(bank.balance("a").await, "9.00");
}

/// One account, many clients: every deposit counts once, and none is refused as contended.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_hot_account_takes_many_clients() {
    let bank = Bank::start().await;
    bank.account("hot", "0").await;
    let clients = (0..64).map(|_| async {
        let mut versions = Vec::new();
        for _ in 0..5 {
            let reply = bank
                .deposit("hot", "0.01")
                .await
                .expect(StatusCode::CREATED);
            let cents = reply.body["version"].as_i64().unwrap() - 1;
            assert_eq!(
                reply.body["balance"],
                format!("{}.{:02}", cents / 100, cents % 100)
            );
            versions.push(cents);
        }
        versions
    });
    let mut versions: Vec<i64> = join_all(clients).await.into_iter().flatten().collect();
    versions.sort_unstable();
    assert_eq!(versions, (1..=320).collect::<Vec<_>>());
    assert_eq!(bank.balance("hot").await, "3.20");
}

/// More is asked for than is there, by all at once: exactly what is there goes out.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn an_account_is_never_overdrawn() {
    let bank = Bank::start().await;
    bank.account("a", "10").await;
    let replies = join_all((0..64).map(|_| bank.withdraw("a", "0.75"))).await;
    let (paid, refused): (Vec<_>, Vec<_>) = replies
        .iter()
        .partition(|reply| reply.status == StatusCode::CREATED);
    assert_eq!(paid.len(), 13);
    for reply in refused {
        assert_eq!(reply.problem(422).0, "insufficient-funds");
        assert_eq!(
            reply.body["balance"], "0.25",
            "no refusal rests on an older state"
        );
    }
    assert_eq!(bank.balance("a").await, "0.25");
}
