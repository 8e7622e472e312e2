//! Reads that need no read model: nothing is folded into the views here.

use http::StatusCode;
use millrace_eventlog::EventLog;

use crate::system::System;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_strong_read_has_what_was_acknowledged_a_moment_ago() {
    let system = System::still().await;
    let mut teller = system.teller();
    teller.open("a", "Ann").await;
    teller.open("b", "Bob").await;
    let balance = async |account: &str| {
        let kept = system
            .get_strong(&format!("/accounts/{account}/balance"))
            .await;
        let folded = system.get_strong(&format!("/accounts/{account}")).await;
        for field in ["account_id", "balance", "currency", "status", "version"] {
            assert_eq!(kept.body[field], folded.body[field], "{field}");
        }
        assert_eq!(kept.header("etag"), folded.header("etag"));
        let head = system.log.head().await.unwrap().position;
        assert!(kept.position().starts_with(&format!("banking/{head}~")));
        kept.body["balance"].as_str().unwrap().to_owned()
    };
    for n in 1..=20_u32 {
        assert!(teller.deposit("a", "2").await);
        assert_eq!(balance("a").await, format!("{}.00", n + 1));
        assert!(teller.transfer("a", "b", "1").await);
        assert_eq!(balance("a").await, format!("{n}.00"));
        assert_eq!(balance("b").await, format!("{n}.00"));
    }
    assert!(teller.withdraw("b", "20").await);
    assert!(teller.close("b").await);
    assert_eq!(balance("b").await, "0.00");
    let closed = system.get_strong("/accounts/b/balance").await;
    assert_eq!(closed.body["status"], "CLOSED");
    for path in ["/accounts/nobody/balance", "/accounts/nobody"] {
        let missing = system.get(&format!("{path}?consistency=strong")).await;
        assert_eq!(missing.problem(404).0, "not-found");
    }
    let eventual = system.get("/accounts/a/balance").await;
    assert_eq!(eventual.status, StatusCode::NOT_FOUND, "no view was folded");
}

/// While transfers go back and forth, the strong balances of the two accounts are never below
/// nothing, and never older than what was answered before they were read.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_strong_balance_never_goes_back_and_is_never_negative() {
    let system = System::still().await;
    let mut teller = system.teller();
    teller.open("a", "Ann").await;
    teller.open("b", "Bob").await;
    teller.deposit("a", "3").await;
    let moving = async {
        for _ in 0..40 {
            assert!(teller.transfer("a", "b", "3").await);
            assert!(teller.transfer("b", "a", "3").await);
        }
    };
    let reading = async {
        let mut seen = 0;
        for _ in 0..40 {
            let read = system.get_strong("/accounts/a/balance").await;
            let version = read.body["version"].as_u64().unwrap();
            assert!(version >= seen, "{version} after {seen}");
            seen = version;
            let even = if version % 2 == 0 { "3.00" } else { "0.00" };
            assert_eq!(read.body["balance"], even, "at version {version}");
        }
    };
    tokio::join!(moving, reading);
    let last = system.get_strong("/accounts/a/balance").await;
    assert_eq!(last.body["version"], 82);
}
