//! The write model's table, in the append's own transaction.

use http::StatusCode;
use millrace_banking::account::AccountStatus;
use serde_json::json;

use crate::bank::{Bank, money};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_row_is_there_when_the_command_is_answered() {
    let bank = Bank::start().await;
    assert_eq!(bank.row("a").await, None);
    let body = json!({
        "id": "a", "holder_name": "Zoë", "user_id": 42, "currency": "EUR", "initial_deposit": "3",
    });
    bank.post("/accounts", body)
        .await
        .expect(StatusCode::CREATED);
    let row = bank.row("a").await.unwrap();
    assert_eq!(row.account_id.as_str(), "a");
    assert_eq!(row.holder_name, "Zoë");
    assert_eq!(row.user_id.unwrap().as_str(), "42");
    assert_eq!(row.currency.as_str(), "EUR");
    assert_eq!((row.balance, row.version.get()), (money("3"), 2));
    assert_eq!(row.status, AccountStatus::Open);

    bank.account("b", "0").await;
    bank.withdraw("a", "3").await.expect(StatusCode::CREATED);
    bank.close("a").await.expect(StatusCode::OK);
    let row = bank.row("a").await.unwrap();
    assert_eq!((row.balance, row.version.get()), (money("0"), 4));
    assert_eq!(row.status, AccountStatus::Closed);
    let other = bank.row("b").await.unwrap();
    assert_eq!((other.user_id, other.version.get()), (None, 1));
    assert_eq!(other.status, AccountStatus::Open);
}

/// Whoever reads the row while money moves never sees a balance below 0 nor a version go back.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_reader_sees_every_state_once_and_none_that_never_was() {
    let bank = Bank::start().await;
    bank.account("a", "1").await;
    bank.account("b", "1").await;
    let writer = async {
        for n in 0..40 {
            let (from, to) = if n % 2 == 0 { ("a", "b") } else { ("b", "a") };
            let reply = bank
                .transfer(from, to, "1")
                .await
                .expect(StatusCode::CREATED);
            let row = bank.row(from).await.unwrap();
            assert!(row.version.get() >= reply.body["from"]["version"].as_u64().unwrap());
        }
    };
    let reader = async {
        let mut seen = 0;
        while seen < 40 {
            let row = bank.row("a").await.unwrap();
            assert!(row.version.get() >= seen, "{} after {seen}", row.version);
            seen = row.version.get();
            assert!(row.balance >= money("0") && row.balance <= money("2"));
            tokio::task::yield_now().await;
        }
    };
    tokio::join!(writer, reader);
    assert_eq!(bank.row("a").await.unwrap().version.get(), 42);
}
