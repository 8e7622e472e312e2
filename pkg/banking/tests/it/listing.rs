//! Lists: what is in them, in which order, and page after page.

use std::collections::BTreeMap;

use http::StatusCode;
use serde_json::{Value, json};

use crate::{folders::Folders, system::System, teller::Teller};

/// Twelve accounts, newest last: every third one of Ann, the others of Bob, with 0 to 11 on them,
/// every fourth one closed.
async fn twelve(teller: &mut Teller) -> Vec<(String, &'static str, u32, bool)> {
    let mut all = Vec::new();
    for n in 0..12_u32 {
        let (id, closed) = (format!("a-{n}"), n % 4 == 0);
        let holder = if n % 3 == 0 {
            "Ann_99%"
        } else {
            "Bob\\Müller"
        };
        teller.open(&id, holder).await;
        let balance = n * 7 % 12;
        if balance > 0 {
            assert!(teller.deposit(&id, &balance.to_string()).await);
        }
        if closed {
            if balance > 0 {
                assert!(teller.withdraw(&id, &balance.to_string()).await);
            }
            assert!(teller.close(&id).await);
        }
        all.push((id, holder, if closed { 0 } else { balance }, closed));
    }
    all
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_way_to_select_accounts_gives_them_newest_first() {
    let system = System::still().await;
    let all = twelve(&mut system.teller()).await;
    Folders::open(&system).await.fold_all(&system).await;
    type Account = (String, &'static str, u32, bool);
    let newest = |keep: &dyn Fn(&Account) -> bool| -> Vec<String> {
        let kept = all.iter().rev().filter(|account| keep(account));
        kept.map(|account| account.0.clone()).collect()
    };
    let cases = [
        ("/accounts", newest(&|_| true)),
        ("/accounts?status=OPEN", newest(&|a| !a.3)),
        ("/accounts?status=CLOSED", newest(&|a| a.3)),
        ("/accounts?min_balance=5", newest(&|a| a.2 >= 5)),
        ("/accounts?max_balance=4.99", newest(&|a| a.2 < 5)),
        (
            "/accounts?min_balance=3&max_balance=7",
            newest(&|a| (3..=7).contains(&a.2)),
        ),
        (
            "/accounts?status=OPEN&max_balance=2",
            newest(&|a| !a.3 && a.2 <= 2),
        ),
        ("/accounts?holder=ann", newest(&|a| a.1.starts_with("Ann"))),
        ("/accounts?holder=N_9", newest(&|a| a.1.starts_with("Ann"))),
        ("/accounts?holder=9%25", newest(&|a| a.1.starts_with("Ann"))),
        (
            "/accounts?holder=m%C3%9CL",
            newest(&|a| a.1.starts_with("Bob")),
        ),
        (
            "/accounts?holder=b%5Cm",
            newest(&|a| a.1.starts_with("Bob")),
        ),
        ("/accounts?holder=_", newest(&|a| a.1.starts_with("Ann"))),
        (
            "/accounts?holder=B&status=CLOSED",
            newest(&|a| a.1.starts_with("Bob") && a.3),
        ),
        (
            "/accounts?holder=b&status=OPEN&min_balance=4&max_balance=9",
            newest(&|a| a.1.starts_with("Bob") && !a.3 && (4..=9).contains(&a.2)),
        ),
        ("/accounts?holder=nobody", vec![]),
        ("/accounts?min_balance=12", vec![]),
        ("/accounts?min_balance=9999999999999999.99", vec![]),
    ];
    for (path, expected) in cases {
        for limit in [1, 5, 500] {
            let (ids, pages) = system.walk(path, "account_id", limit).await;
            assert_eq!(ids, expected, "{path} by {limit}");
            let wanted = expected.len().div_ceil(limit).max(1);
            assert_eq!(pages, wanted, "{path} by {limit}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pages_neither_skip_nor_repeat_while_money_moves() {
    let system = System::still().await;
    let mut teller = system.teller();
    let mut folders = Folders::open(&system).await;
    for n in 0..15 {
        teller.open(&format!("a-{n}"), "Ann").await;
    }
    for n in 1..=30 {
        teller.deposit("a-0", &n.to_string()).await;
    }
    folders.fold_all(&system).await;
    let before: Vec<String> = (1..=30).map(|n| format!("{n}.00")).rev().collect();
    for (path, field) in [
        ("/accounts/a-0/transactions", "amount"),
        ("/accounts/a-0/statement", "amount"),
        ("/accounts/a-0/statement?type=DEPOSIT", "amount"),
        ("/accounts", "account_id"),
    ] {
        let (mut seen, mut cursor) = (BTreeMap::new(), String::new());
        let joint = if path.contains('?') { '&' } else { '?' };
        loop {
            let page = system.get(&format!("{path}{joint}limit=7{cursor}")).await;
            for one in page.listed(field) {
                *seen.entry(one.to_owned()).or_insert(0) += 1;
            }
            // Between two pages a movement comes, and an account moves money.
            teller.withdraw("a-0", "0.01").await;
            teller.deposit("a-7", "1").await;
            folders.fold_all(&system).await;
            match page.body["next_cursor"].as_str() {
                Some(next) => cursor = format!("&cursor={next}"),
                None => break,
            }
        }
        if field == "amount" {
            let deposits: Vec<_> = before.iter().map(|amount| seen.get(amount)).collect();
            assert_eq!(deposits, [Some(&1); 30], "{path}");
        } else {
            let times: Vec<i32> = seen.values().copied().collect();
            assert_eq!(times, [1; 15], "{path}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_statement_is_of_a_range_a_kind_and_a_size() {
    let system = System::still().await;
    let mut teller = system.teller();
    teller.open("a", "Ann").await;
    teller.open("b", "Bob").await;
    for (n, text) in ["10", "20", "30", "40"].into_iter().enumerate() {
        teller.deposit("a", text).await;
        if n % 2 == 0 {
            teller.withdraw("a", "5").await;
            teller.transfer("a", "b", "1").await;
        }
    }
    Folders::open(&system).await.fold_all(&system).await;
    let amounts = async |query: &str| -> Vec<String> {
        let (amounts, _) = system
            .walk(&format!("/accounts/a/statement{query}"), "amount", 2)
            .await;
        amounts
    };
    let all = [
        "40.00", "1.00", "5.00", "30.00", "20.00", "1.00", "5.00", "10.00",
    ];
    assert_eq!(amounts("").await, all);
    assert_eq!(
        amounts("?type=DEPOSIT").await,
        ["40.00", "30.00", "20.00", "10.00"]
    );
    assert_eq!(amounts("?min_amount=20").await, ["40.00", "30.00", "20.00"]);
    assert_eq!(
        amounts("?type=WITHDRAWAL&min_amount=5").await,
        ["5.00", "5.00"]
    );
    assert_eq!(amounts("?type=WITHDRAWAL&min_amount=5.01").await, [""; 0]);
    assert_eq!(amounts("?type=TRANSFER_RECEIVED").await, [""; 0]);

    let page = system.get("/accounts/a/statement").await;
    let times = page.listed("occurred_at");
    // The first of the two deposits in the middle; what has its time is in `from` and out of `to`.
    let at = times[4];
    let same = times.iter().filter(|time| **time == at).count();
    let since = amounts(&format!("?from={at}")).await;
    let until = amounts(&format!("?to={at}")).await;
    assert_eq!(since.len() + until.len(), all.len());
    assert!(since.len() >= 4 + same.min(1) && since.ends_with(&[all[since.len() - 1].to_owned()]));
    let within = amounts(&format!("?from={at}&to={at}")).await;
    assert_eq!(within, [""; 0]);
    assert_eq!(amounts("?to=2020-01-01").await, [""; 0]);
    assert_eq!(amounts("?from=2020-01-01&to=2100-01-01").await, all);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_day_of_a_range_has_a_row() {
    let system = System::still().await;
    let mut teller = system.teller();
    teller.open("a", "Ann").await;
    teller.deposit("a", "10").await;
    teller.withdraw("a", "4").await;
    Folders::open(&system).await.fold_all(&system).await;
    let account = system.get("/accounts/a").await;
    let today = account.body["opened_at"].as_str().unwrap()[..10].to_owned();

    let range = "/accounts/a/daily-balances?from=2026-01-01&to=2027-01-02";
    let year = system.get(range).await.expect(StatusCode::OK);
    let days = year.body["items"].as_array().unwrap();
    assert_eq!(days.len(), 366);
    assert_eq!(year.body["next_cursor"], Value::Null);
    let dates: Vec<&str> = year.listed("date");
    assert!(dates.is_sorted() && dates[0] == "2026-01-01" && dates[365] == "2027-01-01");
    for day in days {
        let date = day["date"].as_str().unwrap();
        let expected = match date.cmp(today.as_str()) {
            std::cmp::Ordering::Less => ["0.00", "0.00", "0.00", "0.00"],
            std::cmp::Ordering::Equal => ["0.00", "6.00", "10.00", "4.00"],
            std::cmp::Ordering::Greater => ["6.00", "6.00", "0.00", "0.00"],
        };
        let row = ["opening_balance", "closing_balance", "credits", "debits"];
        assert_eq!(
            row.map(|name| day[name].as_str().unwrap()),
            expected,
            "{date}"
        );
    }
    let none = format!("/accounts/a/daily-balances?from={today}&to={today}");
    assert_eq!(system.get(&none).await.body["items"], json!([]));
    // Before and after all that is known, the account is there all the same.
    for (range, closing) in [
        ("from=2020-01-01&to=2020-01-02", "0.00"),
        ("from=2100-01-01&to=2100-01-02", "6.00"),
    ] {
        let path = format!("/accounts/a/daily-balances?{range}");
        assert_eq!(system.get(&path).await.listed("closing_balance"), [closing]);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cursor_belongs_to_its_list() {
    let system = System::still().await;
    let mut teller = system.teller();
    teller.open("a", "Ann").await;
    teller.open("b", "Bob").await;
    for _ in 0..3 {
        teller.deposit("a", "1").await;
    }
    Folders::open(&system).await.fold_all(&system).await;
    let lists = [
        "/accounts?limit=1",
        "/accounts?limit=1&status=OPEN",
        "/accounts/a/transactions?limit=1",
        "/accounts/a/statement?limit=1",
        "/accounts/a/events?limit=1",
    ];
    for list in lists {
        let page = system.get(list).await.expect(StatusCode::OK);
        let cursor = page.body["next_cursor"].as_str().unwrap().to_owned();
        for other in lists.into_iter().filter(|other| *other != list) {
            let reply = system.get(&format!("{other}&cursor={cursor}")).await;
            assert_eq!(reply.problem(400).0, "invalid-cursor", "{list} to {other}");
        }
        for tampered in [
            format!("{cursor}A"),
            format!(
                "{}{}",
                if cursor.starts_with('A') { 'B' } else { 'A' },
                &cursor[1..]
            ),
            "AAAA".to_owned(),
        ] {
            let reply = system.get(&format!("{list}&cursor={tampered}")).await;
            assert_eq!(reply.problem(400).0, "invalid-cursor", "{list}");
        }
        let again = format!("{list}&cursor={cursor}").replace("limit=1", "limit=2");
        system.get(&again).await.expect(StatusCode::OK);
    }
}
