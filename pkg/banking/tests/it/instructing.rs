//! Movements that other contexts ask for, under ids of their own, on both stores of the log.

use std::sync::Arc;

use http::StatusCode;
use millrace_banking::{
    CONTEXT, InternalState, account::stored::account_event, inline_items, instruction::stored,
    internal_routes,
};
use millrace_es::Position;
use millrace_eventlog::{EventLog, RepositoryOptions};
use millrace_testkit::{Database, Dynamo, HttpClient, Reply};
use millrace_teststage::{Tasks, api, dynamo_log};
use serde_json::{Value, json};
use utoipa_axum::router::OpenApiRouter;

use crate::bank::{open_log, serve_commands};

/// Requests of one id at once.
const STORM: usize = 24;

/// What the log stands on, kept until the test ends.
type Store = (Option<Database>, Option<Dynamo>);

/// A bank with its internal routes.
struct Owner {
    log: Arc<dyn EventLog>,
    commands: HttpClient,
    /// Two of them, with caches of their own.
    internal: [HttpClient; 2],
    _tasks: Tasks,
    _store: Store,
}

impl Owner {
    async fn on_postgres() -> Self {
        let database = millrace_testkit::postgres().await;
        let log = open_log(&database).await;
        Self::on(log, (Some(database), None)).await
    }

    async fn on_dynamodb() -> Self {
        let dynamo = millrace_testkit::dynamodb().await;
        let log = dynamo_log(&dynamo, CONTEXT, inline_items()).await;
        Self::on(log, (None, Some(dynamo))).await
    }

    async fn on(log: Arc<dyn EventLog>, store: Store) -> Self {
        let mut tasks = Tasks::default();
        let commands = serve_commands(Arc::clone(&log), &mut tasks).await;
        let first = serve_internal(&log, &mut tasks).await;
        let second = serve_internal(&log, &mut tasks).await;
        let owner = Self {
            log,
            commands,
            internal: [first, second],
            _tasks: tasks,
            _store: store,
        };
        let body = json!({"id": "a-1", "holder_name": "Ann", "initial_deposit": "100"});
        owner.command("/accounts", body).await;
        owner
    }

    async fn command(&self, path: &str, body: Value) {
        let reply = self.commands.post(path, body).await;
        assert!(reply.status.is_success(), "{reply:?}");
    }

    async fn ask(&self, id: &str, what: &str, body: Value) -> Reply {
        let path = format!("/transactions/{id}/{what}");
        self.internal[0].post(&path, body).await
    }

    async fn withdraw(&self, id: &str, amount: &str) -> Value {
        let asked = self.ask(id, "withdrawal", of("a-1", amount)).await;
        asked.expect(StatusCode::OK).body
    }

    async fn void(&self, id: &str) -> Value {
        let asked = self.ask(id, "void", json!({"account_id": "a-1"})).await;
        asked.expect(StatusCode::OK).body
    }

    /// What the events of the account come to, and how many instructions there are.
    async fn book(&self) -> (String, usize) {
        let (mut balance, mut instructions) = (String::new(), 0);
        for event in self.log.read_log(Position::ZERO, 1_000).await.unwrap() {
            if stored::is_type(&event.event_type) {
                instructions += 1;
            }
            let event = account_event(&event).unwrap();
            if let Some(moved) = event.as_ref().and_then(|event| event.movement()) {
                balance = moved.balance.to_string();
            }
        }
        (balance, instructions)
    }
}

async fn serve_internal(log: &Arc<dyn EventLog>, tasks: &mut Tasks) -> HttpClient {
    let state = InternalState::new(log, RepositoryOptions::default());
    let routes = OpenApiRouter::from(internal_routes().with_state(state));
    tasks.listen(api().serve(routes).finish()).await
}

fn of(account: &str, amount: &str) -> Value {
    json!({"account_id": account, "amount": amount, "currency": "USD", "description": "Order o-1"})
}

/// One movement per id, whatever is asked and however often.
async fn an_id_moves_money_once(owner: &Owner) {
    let first = owner.withdraw("pay-1", "30").await;
    assert_eq!(
        first,
        json!({"outcome": "done", "transaction_id": "pay-1", "account_id": "a-1",
            "kind": "withdrawal", "amount": "30.00", "currency": "USD", "balance": "70.00"})
    );
    owner
        .command("/accounts/a-1/deposits", json!({"amount": "5"}))
        .await;
    assert_eq!(owner.withdraw("pay-1", "30.00").await, first);
    assert_eq!(owner.void("pay-1").await, first, "a void undoes nothing");
    let back = owner.ask("refund-1", "deposit", of("a-1", "30")).await;
    assert_eq!(back.expect(StatusCode::OK).body["balance"], "105.00");
    assert_eq!(owner.book().await, ("105.00".to_owned(), 2));

    let other = owner.ask("pay-1", "withdrawal", of("a-1", "31")).await;
    assert_eq!(other.problem(409).0, "transaction-mismatch");
    let other = owner.ask("pay-1", "deposit", of("a-1", "30")).await;
    assert_eq!(other.problem(409).0, "transaction-mismatch");
    let other = owner
        .ask("pay-1", "void", json!({"account_id": "a-2"}))
        .await;
    assert_eq!(other.problem(409).0, "transaction-mismatch");
    assert_eq!(owner.book().await, ("105.00".to_owned(), 2));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_id_moves_money_once_in_postgres() {
    an_id_moves_money_once(&Owner::on_postgres().await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_id_moves_money_once_in_dynamodb() {
    an_id_moves_money_once(&Owner::on_dynamodb().await).await;
}

/// What was refused stays refused, also when it could be done by now.
async fn a_refusal_is_final(owner: &Owner) {
    let refused = owner.withdraw("pay-1", "130").await;
    assert_eq!(refused["outcome"], "refused");
    assert_eq!(refused["reason"], "insufficient-funds");
    owner
        .command("/accounts/a-1/deposits", json!({"amount": "900"}))
        .await;
    assert_eq!(owner.withdraw("pay-1", "130").await, refused);
    assert_eq!(owner.void("pay-1").await, refused);

    let reason = async |id: &str, body: Value| {
        let asked = owner.ask(id, "withdrawal", body).await;
        asked.expect(StatusCode::OK).body["reason"].clone()
    };
    assert_eq!(reason("pay-2", of("nobody", "1")).await, "unknown-account");
    let body = json!({"id": "nobody", "holder_name": "Bo", "initial_deposit": "9"});
    owner.command("/accounts", body).await;
    assert_eq!(reason("pay-2", of("nobody", "1")).await, "unknown-account");
    let euros = json!({"account_id": "a-1", "amount": "1", "currency": "EUR"});
    assert_eq!(reason("pay-3", euros).await, "currency");
    let body = json!({"id": "gone", "holder_name": "Cy"});
    owner.command("/accounts", body).await;
    owner.command("/accounts/gone/close", json!({})).await;
    assert_eq!(reason("pay-4", of("gone", "1")).await, "closed");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refusal_is_final_in_postgres() {
    a_refusal_is_final(&Owner::on_postgres().await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refusal_is_final_in_dynamodb() {
    a_refusal_is_final(&Owner::on_dynamodb().await).await;
}

/// Many ask for the same id at once, and some void it: all hear the same.
async fn a_storm_on_one_id_has_one_outcome(owner: &Owner) {
    for round in 0..4 {
        let id = format!("pay-{round}");
        let ask = async |n: usize| {
            let (what, body) = if n.is_multiple_of(3) {
                ("void", json!({"account_id": "a-1"}))
            } else {
                ("withdrawal", of("a-1", "10"))
            };
            let path = format!("/transactions/{id}/{what}");
            let reply = owner.internal[n % 2].post(&path, body).await;
            reply.expect(StatusCode::OK).body
        };
        // Others move money on the same account meanwhile.
        let body = json!({"amount": "1"});
        let beside = (0..STORM).map(|_| owner.command("/accounts/a-1/deposits", body.clone()));
        let (answers, _) = tokio::join!(
            futures::future::join_all((0..STORM).map(ask)),
            futures::future::join_all(beside)
        );
        let first = &answers[0];
        assert!(answers.iter().all(|answer| answer == first), "{answers:?}");
    }
    let (_, instructions) = owner.book().await;
    assert_eq!(instructions, 4);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_storm_on_one_id_has_one_outcome_in_postgres() {
    a_storm_on_one_id_has_one_outcome(&Owner::on_postgres().await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_storm_on_one_id_has_one_outcome_in_dynamodb() {
    a_storm_on_one_id_has_one_outcome(&Owner::on_dynamodb().await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_voided_id_never_moves_money() {
    let owner = Owner::on_postgres().await;
    let voided = owner.void("pay-1").await;
    assert_eq!(voided["outcome"], "refused");
    assert_eq!(voided["reason"], "voided");
    assert_eq!(owner.withdraw("pay-1", "1").await, voided);
    assert_eq!(owner.void("pay-1").await, voided);
    assert_eq!(owner.book().await, ("100.00".to_owned(), 1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_wrong_with_the_body_is_said_and_nothing_is_kept_of_it() {
    let owner = Owner::on_postgres().await;
    for (body, pointer) in [
        (of("a-1", "0"), "/amount"),
        (
            json!({"account_id": "a-1", "amount": "1", "currency": "usd"}),
            "/currency",
        ),
        (
            json!({"account_id": "a-1", "amount": "1", "currency": "USD", "tip": 1}),
            "/tip",
        ),
    ] {
        let asked = owner.ask("pay-1", "withdrawal", body).await;
        let (_, pointers) = asked.problem(422);
        assert_eq!(pointers, [pointer]);
    }
    assert_eq!(owner.withdraw("pay-1", "1").await["outcome"], "done");
}
