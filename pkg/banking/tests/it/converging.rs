//! However the events reach them, the views come to say what the log says.

use http::StatusCode;
use millrace_kernel::Money;
use rand::{SeedableRng as _, rngs::StdRng};
use serde_json::{Value, json};

use crate::{
    book::{Book, Page},
    folders::Folders,
    system::System,
};

/// How many commands a script has.
const COMMANDS: usize = 120;

/// Compares every view with the log.
async fn agree(system: &System) {
    let book = Book::of(&system.events().await);
    let mut newest: Vec<Value> = Vec::new();
    for (id, page) in &book.0 {
        newest.push(page.account());
        agree_on(system, id, page).await;
    }
    newest.sort_by_key(|account| {
        let text = |name: &str| account[name].as_str().unwrap().to_owned();
        std::cmp::Reverse((text("opened_at"), text("account_id")))
    });
    let accounts = system.get_now("/accounts?limit=500").await;
    assert_eq!(accounts.body["items"], json!(newest));
}

async fn agree_on(system: &System, id: &str, page: &Page) {
    let read = async |route: &str| system.get_now(&format!("/accounts/{id}{route}")).await.body;
    assert_eq!(read("").await, page.account());
    assert_eq!(read("/balance").await, page.balance_shown());
    assert_eq!(read("/summary").await, page.summary());
    let all = json!({"items": page.transactions(), "next_cursor": null});
    assert_eq!(read("/transactions?limit=500").await, all);
    assert_eq!(read("/statement?limit=500").await, all);
    for kind in [
        "DEPOSIT",
        "WITHDRAWAL",
        "TRANSFER_SENT",
        "TRANSFER_RECEIVED",
    ] {
        let some = page.statement(Some(kind), Money::from_cents(10_000));
        let path = format!("/statement?limit=500&type={kind}&min_amount=100");
        assert_eq!(read(&path).await["items"], json!(some));
    }
    let opened_at = page.account()["opened_at"]
        .as_str()
        .unwrap()
        .parse()
        .unwrap();
    let (range, days) = page.days_around(opened_at);
    let path = format!("/daily-balances?{range}");
    assert_eq!(read(&path).await["items"], json!(days));
    let strong = system.get_strong(&format!("/accounts/{id}")).await;
    assert_eq!(strong.body, page.account());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn any_interleaving_of_batches_and_restarts_comes_to_what_the_log_says() {
    for seed in [1, 2, 3] {
        println!("seed {seed}");
        let random = &mut StdRng::seed_from_u64(seed);
        let system = System::still().await;
        let accounts = system.teller().script(random, COMMANDS).await;
        let mut folders = Folders::open(&system).await;
        folders.fold_randomly(&system, random).await;
        agree(&system).await;
        // What came in pieces is what would have come at once, also for what follows.
        let more = folders.fold_all(&system).await;
        assert!(more.values().all(|folded| folded.events == 0), "{more:?}");
        assert_eq!(accounts.len(), 6);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_projector_brings_every_view_to_what_the_log_says() {
    let random = &mut StdRng::seed_from_u64(4);
    let system = System::running().await;
    system.teller().script(random, COMMANDS).await;
    agree(&system).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_written_is_in_what_is_read_after_it() {
    let system = System::running().await;
    let open = async |id: &str| {
        let body = json!({"id": id, "holder_name": "Late Comer", "initial_deposit": "1"});
        let opened = system.post("/accounts", body).await;
        opened.expect(StatusCode::CREATED)
    };
    open("sink").await;
    for n in 1..=10_u32 {
        let id = format!("b-{n}");
        let opened = open(&id).await;
        let found = system
            .get_after("/accounts?holder=late&limit=1", &opened)
            .await;
        assert_eq!(found.listed("account_id"), [&id]);
        let body = json!({"amount": n});
        let paid = system.post(&format!("/accounts/{id}/deposits"), body).await;
        let paid = paid.expect(StatusCode::CREATED);
        let balance = system
            .get_after(&format!("/accounts/{id}/balance"), &paid)
            .await;
        assert_eq!(balance.body["balance"], paid.body["balance"]);
        let list = system
            .get_after(&format!("/accounts/{id}/transactions"), &paid)
            .await;
        let transaction = &paid.body["transaction_id"];
        assert_eq!(list.body["items"][0]["transaction_id"], *transaction);
        // A transfer is waited for in both its partitions.
        let body = json!({"from_account_id": id, "to_account_id": "sink", "amount": "1"});
        let sent = system
            .post("/transfers", body)
            .await
            .expect(StatusCode::CREATED);
        for (account, balance) in [(id.as_str(), n), ("sink", n + 1)] {
            for route in ["", "/balance", "/summary"] {
                let path = format!("/accounts/{account}{route}");
                let read = system.get_after(&path, &sent).await;
                assert_eq!(read.body["balance"], format!("{balance}.00"), "{path}");
            }
        }
        let path = format!("/accounts/{id}/statement?limit=1");
        let list = system.get_after(&path, &sent).await;
        assert_eq!(
            list.body["items"][0]["transfer_id"],
            sent.body["transfer_id"]
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_side_of_a_transfer_may_come_first_and_the_sum_is_right_once_both_are_there() {
    let system = System::still().await;
    let mut teller = system.teller();
    let mut folders = Folders::open(&system).await;
    teller.open("a", "Ann").await;
    teller.open("b", "Bob").await;
    teller.deposit("a", "10").await;
    assert!(teller.transfer("a", "b", "4").await);
    folders.fold_all(&system).await;
    for (account, balance, other, kind) in [
        ("a", "6.00", "b", "TRANSFER_SENT"),
        ("b", "4.00", "a", "TRANSFER_RECEIVED"),
    ] {
        let list = system
            .get_now(&format!("/accounts/{account}/transactions?limit=1"))
            .await;
        let newest = &list.body["items"][0];
        assert_eq!(newest["type"], kind);
        assert_eq!(newest["counterparty"], other);
        assert_eq!(newest["balance_after"], balance);
    }
    let sides = ["a", "b"].map(|account| format!("/accounts/{account}/statement?limit=1"));
    let [sent, received] = [system.get(&sides[0]).await, system.get(&sides[1]).await];
    assert_eq!(sent.listed("transfer_id"), received.listed("transfer_id"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_event_that_contradicts_its_account_stops_that_account_only() {
    use millrace_banking::account::{AccountEvent, AccountId, MoneyDeposited, TransactionId};
    use millrace_projecting::Reason;

    let system = System::still().await;
    let mut teller = system.teller();
    let mut folders = Folders::open(&system).await;
    teller.open("a", "Ann").await;
    teller.open("b", "Bob").await;
    teller.deposit("a", "10").await;
    teller.deposit("b", "10").await;
    let forged = MoneyDeposited {
        account_id: AccountId::new(crate::teller::id("a")),
        transaction_id: TransactionId::new(crate::teller::id("forged")),
        amount: Money::from_cents(100),
        balance: Money::from_cents(900_000),
        description: None,
    };
    teller.forge("a", AccountEvent::Deposited(forged)).await;
    teller.deposit("a", "1").await;
    teller.deposit("b", "1").await;
    let came = folders.fold_all(&system).await;
    // The lists keep what the event says; it contradicts nothing in a row of its own.
    let lists = ["transaction-history", "transactions"];
    for (view, folded) in &came {
        let reasons: Vec<Reason> = folded.letters.iter().map(|(_, reason)| *reason).collect();
        if lists.contains(view) {
            assert_eq!(reasons, [], "{view}");
        } else {
            assert_eq!(reasons, [Reason::Fold, Reason::Follows], "{view}");
        }
    }
    for (account, balance) in [("a", "10.00"), ("b", "11.00")] {
        for route in ["", "/balance", "/summary"] {
            let path = format!("/accounts/{account}{route}");
            let read = system.get(&path).await.expect(StatusCode::OK);
            assert_eq!(read.body["balance"], balance, "{path}");
        }
    }
}
