//! Money that goes from one account to another.

use std::collections::HashMap;

use futures::future::join_all;
use http::{Method, StatusCode};
use millrace_banking::account::AccountEvent;
use millrace_es::DomainEvent;
use millrace_kernel::Money;
use serde_json::{Value, json};

use crate::bank::{Bank, money, transfer};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_transfer_is_answered_with_both_sides_and_the_senders_balance() {
    let bank = Bank::start().await;
    bank.account("a", "10").await;
    bank.account("b", "1").await;
    let body = json!({
        "from_account_id": "a", "to_account_id": "b", "amount": "2.5", "description": "dinner",
    });
    let reply = bank
        .post("/transfers", body)
        .await
        .expect(StatusCode::CREATED);
    let of = |pointer: &str| reply.body.pointer(pointer).unwrap().clone();
    assert_eq!(
        reply.body,
        json!({
            "transfer_id": of("/transfer_id"),
            "from_account_id": "a",
            "to_account_id": "b",
            "amount": "2.50",
            "currency": "USD",
            "description": "dinner",
            "from": {
                "account_id": "a", "balance": "7.50", "version": 3,
                "transaction_id": of("/from/transaction_id"),
            },
            "to": {
                "account_id": "b", "transaction_id": of("/to/transaction_id"),
            },
        })
    );
    assert_eq!(reply.header("etag"), "\"3\"", "of the account that sends");
    assert!(reply.position().starts_with("banking/6"));

    let events = bank.events().await;
    let said: Vec<Value> = events[4..]
        .iter()
        .map(|event| serde_json::from_str(event.payload.get()).unwrap())
        .collect();
    assert_eq!(said[0]["to_account_id"], "b");
    assert_eq!(said[1]["from_account_id"], "a");
    assert_eq!(said[0]["transfer_id"], of("/transfer_id"));
    assert_eq!(said[1]["transfer_id"], of("/transfer_id"));
    assert_eq!(said[0]["transaction_id"], of("/from/transaction_id"));
    assert_eq!(said[1]["transaction_id"], of("/to/transaction_id"));
    assert_eq!(said[1]["balance"], "3.50");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_cannot_be_transferred_is_refused_and_nothing_moves() {
    let bank = Bank::start().await;
    bank.account("a", "10").await;
    bank.account("b", "1").await;
    bank.account("closed", "0").await;
    bank.close("closed").await.expect(StatusCode::OK);
    let euros = json!({"id": "euro", "holder_name": "Ann", "currency": "EUR"});
    bank.post("/accounts", euros)
        .await
        .expect(StatusCode::CREATED);
    let head = bank.head().await;

    for (from, to, amount, status, name) in [
        ("a", "b", "10.01", 422, "insufficient-funds"),
        ("a", "nobody", "1", 404, "not-found"),
        ("nobody", "a", "1", 404, "not-found"),
        ("a", "closed", "1", 409, "account-closed"),
        ("closed", "a", "1", 409, "account-closed"),
        ("a", "euro", "1", 422, "currencies-differ"),
    ] {
        let reply = bank.transfer(from, to, amount).await;
        assert_eq!(reply.problem(status).0, name, "{from} {to}");
    }
    let short = bank.transfer("b", "a", "1.01").await;
    assert_eq!(
        json!([
            short.body["balance"],
            short.body["requested"],
            short.body["account_id"]
        ]),
        json!(["1.00", "1.01", "b"])
    );
    let with = |field: &str, value: Value| {
        let mut body = json!({"from_account_id": "a", "to_account_id": "b", "amount": 1});
        body[field] = value;
        body
    };
    for (body, pointer) in [
        (with("to_account_id", json!("a")), "/to_account_id"),
        (with("from_account_id", json!("-")), "/from_account_id"),
        (with("to_account_id", json!(null)), "/to_account_id"),
        (with("amount", json!(0)), "/amount"),
        (with("amount", json!("0.001")), "/amount"),
        (with("amount", json!("1000000000000")), "/amount"),
        (with("description", json!("x".repeat(501))), "/description"),
        (with("fee", json!(1)), "/fee"),
    ] {
        let reply = bank.post("/transfers", body.clone()).await;
        assert_eq!(
            reply.problem(422),
            ("invalid-request", vec![pointer]),
            "{body}"
        );
    }
    // 1 and "1" are the same account.
    let same = json!({"from_account_id": 1, "to_account_id": "1", "amount": 1});
    assert_eq!(
        bank.post("/transfers", same).await.problem(422).1,
        ["/to_account_id"]
    );
    assert_eq!(bank.head().await, head, "nothing of this was appended");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_repeated_transfer_moves_money_once() {
    let bank = Bank::start().await;
    bank.account("a", "10").await;
    bank.account("b", "0").await;
    let send = |version: Option<&'static str>| {
        let body = json!({"from_account_id": "a", "to_account_id": "b", "amount": 4});
        let request = bank.request(Method::POST, "/transfers");
        let request = match version {
            Some(version) => request.header("if-match", version),
            None => request.header("idempotency-key", "k"),
        };
        request.json(&body).send()
    };
    let replies = join_all((0..16).map(|_| send(None))).await;
    for reply in &replies {
        assert_eq!(reply.status, StatusCode::CREATED);
        assert_eq!(reply.bytes, replies[0].bytes, "byte for byte");
        assert_eq!(reply.position(), replies[0].position());
    }
    let first_hand = replies
        .iter()
        .filter(|reply| !reply.headers.contains_key("idempotent-replayed"));
    assert_eq!(first_hand.count(), 1);
    assert_eq!(bank.balance("a").await, "6.00");
    assert_eq!(bank.balance("b").await, "4.00");

    // If-Match is about the account that sends.
    assert_eq!(
        send(Some("\"2\"")).await.problem(412).0,
        "precondition-failed"
    );
    send(Some("\"3\"")).await.expect(StatusCode::CREATED);
    assert_eq!(bank.balance("b").await, "8.00");
}

/// Transfers in both directions, deposits and withdrawals, from two processes at once: every
/// balance is its movements, none is ever below 0, both sides of a transfer are there or none, and
/// the total is what came in.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn the_total_is_conserved_whatever_happens_at_once() {
    let mut bank = Bank::start().await;
    let accounts = ["a", "b", "c", "d"];
    for account in accounts {
        bank.account(account, "20").await;
    }
    let clients = [bank.client.clone(), bank.second().await];
    let bank = &bank;
    let clients = (0..32_usize).map(|n| {
        let client = &clients[n % 2];
        async move {
            let mut answers = Vec::new();
            for round in 0..6_usize {
                let seed = n * 31 + round * 7;
                let (from, to) = (accounts[seed % 4], accounts[(seed + 1 + seed / 4 % 3) % 4]);
                let amount = format!("{}.{:02}", seed % 13, 1 + seed % 99);
                answers.push(match seed % 5 {
                    0 => bank.deposit(from, &amount).await,
                    1 => bank.withdraw(from, &amount).await,
                    _ => transfer(client, from, to, &amount).await,
                });
            }
            answers
        }
    });
    let patience = std::time::Duration::from_secs(120);
    let answers = tokio::time::timeout(patience, join_all(clients)).await;
    for reply in answers.expect("a command waits for ever").iter().flatten() {
        match reply.status.as_u16() {
            201 => {}
            409 => assert_eq!(reply.problem(409).0, "contended"),
            _ => assert_eq!(reply.problem(422).0, "insufficient-funds"),
        }
    }

    let mut balances: HashMap<String, Money> = HashMap::new();
    let mut transfers: HashMap<String, Vec<Money>> = HashMap::new();
    let mut came_in = Money::ZERO;
    for recorded in bank.events().await {
        let version = recorded.schema_version;
        let event = AccountEvent::decode(&recorded.event_type, version, &recorded.payload);
        let event = event.unwrap();
        let Some(movement) = event.movement() else {
            continue;
        };
        let signed = if movement.kind.is_credit() {
            movement.amount
        } else {
            -movement.amount
        };
        let balance = balances.entry(event.account_id().to_string()).or_default();
        *balance = balance.checked_add(signed).unwrap();
        assert_eq!(*balance, movement.balance, "a balance is its movements");
        assert!(*balance >= Money::ZERO);
        match movement.transfer_id {
            Some(id) => transfers.entry(id.to_string()).or_default().push(signed),
            None => came_in = came_in.checked_add(signed).unwrap(),
        }
    }
    assert!(transfers.len() >= 20, "{}", transfers.len());
    for sides in transfers.values() {
        assert_eq!(sides.len(), 2, "{sides:?}");
        assert_eq!(sides[0], -sides[1]);
    }
    let mut total = money("0");
    for (account, balance) in &balances {
        assert_eq!(bank.balance(account).await, balance.to_string());
        total = total.checked_add(*balance).unwrap();
    }
    assert_eq!(total, came_in);
}
