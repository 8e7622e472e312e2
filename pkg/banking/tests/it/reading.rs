//! One account at a time: how fresh, from where, and what a wrong question is answered.

use http::{Method, StatusCode};
use millrace_banking::account::{AccountEvent, AccountId, MoneyDeposited, TransactionId};
use millrace_kernel::Money;
use serde_json::{Value, json};

use crate::{folders::Folders, system::System, teller::id};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_client_has_is_not_sent_again() {
    let system = System::still().await;
    let mut teller = system.teller();
    let mut folders = Folders::open(&system).await;
    teller.open("a", "Ann").await;
    teller.deposit("a", "1").await;
    folders.fold_all(&system).await;
    for (path, tag) in [
        ("/accounts", None),
        ("/accounts/a", Some("\"2\"")),
        ("/accounts/a?consistency=strong", Some("\"2\"")),
        ("/accounts/a/balance", Some("\"2\"")),
        ("/accounts/a/summary", Some("\"2\"")),
        ("/accounts/a/transactions", None),
        ("/accounts/a/statement", None),
        (
            "/accounts/a/daily-balances?from=2026-01-01&to=2026-02-01",
            None,
        ),
        ("/accounts/a/events", None),
    ] {
        let first = if path.contains("strong") {
            system.get(path).await.expect(StatusCode::OK)
        } else {
            system.get_now(path).await
        };
        assert!(!first.position().is_empty(), "{path}");
        let given = first.header("etag").to_owned();
        assert!(tag.is_none_or(|tag| tag == given), "{path}: {given}");
        let request = |tag: &str| {
            let request = system.request(Method::GET, path);
            request.header("if-none-match", tag).send()
        };
        let same = request(&given).await;
        assert_eq!(same.status, StatusCode::NOT_MODIFIED, "{path}");
        assert!(same.bytes.is_empty());
        assert_eq!(same.header("etag"), given);
        request("\"other\"").await.expect(StatusCode::OK);
    }
    teller.deposit("a", "1").await;
    folders.fold_all(&system).await;
    for route in ["", "/balance", "/summary"] {
        let read = system.get_now(&format!("/accounts/a{route}")).await;
        assert_eq!(read.header("etag"), "\"3\"");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reader_hears_how_far_the_view_is_that_does_not_get_there() {
    let system = System::still().await;
    let mut teller = system.teller();
    teller.open("a", "Ann").await;
    Folders::open(&system).await.fold_all(&system).await;
    let days = "/daily-balances?from=2026-01-01&to=2026-01-02";
    let routes = [
        "",
        "/balance",
        "/summary",
        "/transactions",
        "/statement",
        days,
        "/events",
    ];
    for route in routes {
        let path = format!("/accounts/a{route}");
        let joint = if path.contains('?') { '&' } else { '?' };
        let request = system
            .request(Method::GET, &format!("{path}{joint}at_least=banking/999"))
            .header("prefer", "wait=0");
        let late = request.send().await;
        assert_eq!(late.problem(504).0, "not-yet-readable", "{path}");
        assert_eq!(late.body["wanted"], "banking/999");
        assert_eq!(late.body["reached"], "banking/1", "{path}");
        let foreign = system
            .get(&format!("{path}{joint}at_least=ordering/1"))
            .await;
        assert_eq!(foreign.problem(422).1, ["/at_least"], "{path}");
        let request = system.request(Method::GET, &path);
        let header = request.header("min-log-position", "banking/1").send().await;
        let header = header.expect(StatusCode::OK);
        assert_eq!(header.header("preference-applied"), "wait=2", "{path}");
    }
    // What was not folded yet is waited for, and then it is there.
    teller.deposit("a", "1").await;
    let (read, _) = tokio::join!(system.get_now("/accounts/a/balance"), async {
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        Folders::open(&system).await.fold_all(&system).await
    });
    assert_eq!(read.body["balance"], "1.00");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_history_is_read_from_its_end_however_long_it_is() {
    let system = System::still().await;
    let mut teller = system.teller();
    teller.open("a", "Ann").await;
    for count in [1, 2, 3, 7, 8, 9, 60] {
        while system.get("/accounts/a/events?limit=500").await.body["items"]
            .as_array()
            .unwrap()
            .len()
            < count
        {
            teller.deposit("a", "1").await;
        }
        for limit in [1, 2, 7, 500] {
            let mut versions = Vec::new();
            let mut cursor = String::new();
            loop {
                let path = format!("/accounts/a/events?limit={limit}{cursor}");
                let page = system.get(&path).await.expect(StatusCode::OK);
                let items = page.body["items"].as_array().unwrap();
                assert!(items.len() <= limit);
                versions.extend(items.iter().map(|item| item["version"].as_u64().unwrap()));
                match page.body["next_cursor"].as_str() {
                    Some(next) => cursor = format!("&cursor={next}"),
                    None => break,
                }
            }
            let expected: Vec<u64> = (1..=count as u64).rev().collect();
            assert_eq!(versions, expected, "{count} by {limit}");
        }
    }
    let newest = system.get("/accounts/a/events?limit=1").await;
    let newest = &newest.body["items"][0];
    assert_eq!(newest["type"], "money.deposited");
    assert_eq!(newest["data"]["balance"], "59.00");
    let unknown = system.get("/accounts/nobody/events").await;
    assert_eq!(unknown.problem(404).0, "not-found");
}

/// The log gives less than was asked for when payloads are large; a page has its newest events all
/// the same.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_history_of_large_events_is_read_from_its_end_too() {
    let system = System::still().await;
    let mut teller = system.teller();
    teller.open("a", "Ann").await;
    for n in 1..=25 {
        teller.forge("a", deposit(n, "x".repeat(400_000))).await;
    }
    for limit in [500, 22] {
        let page = system
            .get(&format!("/accounts/a/events?limit={limit}"))
            .await;
        let items = page.body["items"].as_array().unwrap();
        let versions: Vec<u64> = items
            .iter()
            .map(|item| item["version"].as_u64().unwrap())
            .collect();
        let expected: Vec<u64> = (1..=26).rev().take(limit).collect();
        assert_eq!(versions, expected);
    }
}

/// A deposit of 1.00, the n-th one.
fn deposit(n: i64, description: String) -> AccountEvent {
    AccountEvent::Deposited(MoneyDeposited {
        account_id: AccountId::new(id("a")),
        transaction_id: TransactionId::new(id(&format!("t-{n}"))),
        amount: Money::from_cents(100),
        balance: Money::from_cents(100 * n),
        description: Some(description),
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_account_without_movements_is_told_from_one_that_is_not_there() {
    let system = System::still().await;
    let mut teller = system.teller();
    teller.open("a", "Ann").await;
    Folders::open(&system).await.fold_all(&system).await;
    for route in [
        "",
        "?consistency=strong",
        "/balance",
        "/summary",
        "/transactions",
        "/statement",
        "/statement?type=DEPOSIT&min_amount=5",
        "/events",
        "/daily-balances?from=2020-01-01&to=2020-01-02",
    ] {
        let there = system.get(&format!("/accounts/a{route}")).await;
        assert_eq!(there.status, StatusCode::OK, "{route}");
        let missing = system.get(&format!("/accounts/nobody{route}")).await;
        assert_eq!(missing.problem(404).0, "not-found", "{route}");
    }
    for route in ["/transactions", "/statement"] {
        let empty = system.get(&format!("/accounts/a{route}")).await;
        assert_eq!(empty.body, json!({"items": [], "next_cursor": null}));
    }
    let summary = system.get("/accounts/a/summary").await;
    assert_eq!(summary.body["last_movement_at"], Value::Null);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wrong_question_gets_no_empty_answer() {
    let system = System::still().await;
    for (path, pointer) in [
        ("/accounts/a%20b", "/id"),
        ("/accounts/a%20b/balance", "/id"),
        ("/accounts/a%20b/transactions", "/id"),
        ("/accounts?limit=0", "/limit"),
        ("/accounts?limit=501", "/limit"),
        ("/accounts?status=open", "/status"),
        ("/accounts?status=", "/status"),
        ("/accounts?holder=", "/holder"),
        ("/accounts?min_balance=x", "/min_balance"),
        ("/accounts?max_balance=0.001", "/max_balance"),
        ("/accounts?min_balance=2&max_balance=1", "/min_balance"),
        ("/accounts?name=ann", "/name"),
        ("/accounts?consistency=strong", "/consistency"),
        ("/accounts/a?limit=1", "/limit"),
        ("/accounts/a/balance?at_least=nonsense", "/at_least"),
        ("/accounts/a/balance?consistency=weak", "/consistency"),
        ("/accounts/a/summary?consistency=strong", "/consistency"),
        ("/accounts/a/transactions?limit=x", "/limit"),
        ("/accounts/a/transactions?type=DEPOSIT", "/type"),
        ("/accounts/a/statement?type=deposit", "/type"),
        ("/accounts/a/statement?type=FEE", "/type"),
        ("/accounts/a/statement?from=yesterday", "/from"),
        ("/accounts/a/statement?to=2026-02-30", "/to"),
        ("/accounts/a/statement?to=9999-12-31T23:59:59-01:00", "/to"),
        (
            "/accounts/a/statement?from=2026-01-02&to=2026-01-01",
            "/from",
        ),
        ("/accounts/a/statement?min_amount=x", "/min_amount"),
        ("/accounts/a/daily-balances?to=2026-01-01", "/from"),
        ("/accounts/a/daily-balances?from=2026-01-01", "/to"),
        (
            "/accounts/a/daily-balances?from=2026-01-02&to=2026-01-01",
            "/from",
        ),
        (
            "/accounts/a/daily-balances?from=2026-01-01&to=2027-01-03",
            "/to",
        ),
        (
            "/accounts/a/daily-balances?from=2026-01-01T12:00:00Z&to=2026-01-03",
            "/from",
        ),
        (
            "/accounts/a/daily-balances?from=2026-01-01&to=2026-01-03&limit=1",
            "/limit",
        ),
    ] {
        let reply = system.get(path).await;
        assert_eq!(reply.problem(422).1, vec![pointer], "{path}");
    }
    let long = "x".repeat(201);
    let reply = system.get(&format!("/accounts?holder={long}")).await;
    assert_eq!(reply.problem(422).1, ["/holder"]);
    // What looks like SQL is a text like any other.
    let sql = system
        .get("/accounts?holder=%27;DROP%20TABLE%20accounts--")
        .await;
    assert_eq!(sql.expect(StatusCode::OK).body["items"], json!([]));
}
