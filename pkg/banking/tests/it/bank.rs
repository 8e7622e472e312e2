//! The command service of a bank in one process, and a client of it.

use std::{sync::Arc, time::Duration};

use http::{Method, StatusCode};
use millrace_banking::{
    AccountsRow, CONTEXT, CommandState,
    account::{Account, AccountId},
    command_routes, inline_tables, migrations,
};
use millrace_es::{Context, Position, RecordedEvent};
use millrace_eventlog::{
    EventLog, PgEventLog, PgLogOptions, Repository, RepositoryOptions, migrate,
};
use millrace_http::{Api, ApiOptions, CursorKey, ServerLimits, serve};
use millrace_kernel::{EntityId, Money};
use millrace_testkit::{Database, HttpClient, Reply, Request};
use serde_json::{Value, json};
use tokio::{net::TcpListener, task::JoinSet};
use tokio_util::sync::CancellationToken;

pub fn context() -> Context {
    Context::new(CONTEXT).unwrap()
}

/// A log on this database.
pub async fn open_log(database: &Database) -> Arc<PgEventLog> {
    let mut options = PgLogOptions::new(context());
    options.inline = inline_tables();
    migrate(&database.pool, &context(), options.partitions, migrations())
        .await
        .unwrap();
    let log = PgEventLog::open(database.pool.clone(), options).await;
    Arc::new(log.unwrap())
}

/// The command service and what it stands on.
pub struct Bank {
    pub database: Database,
    pub log: Arc<PgEventLog>,
    pub client: HttpClient,
    stop: CancellationToken,
    tasks: JoinSet<()>,
}

impl Drop for Bank {
    fn drop(&mut self) {
        self.stop.cancel();
        self.tasks.abort_all();
    }
}

impl Bank {
    pub async fn start() -> Self {
        let database = millrace_testkit::postgres().await;
        let log = open_log(&database).await;
        let stop = CancellationToken::new();
        let mut tasks = JoinSet::new();
        let client = serve_commands(log.clone(), &stop, &mut tasks).await;
        Self {
            database,
            log,
            client,
            stop,
            tasks,
        }
    }

    /// Another process on the same log.
    pub async fn second(&mut self) -> HttpClient {
        let log = open_log(&self.database).await;
        serve_commands(log, &self.stop, &mut self.tasks).await
    }

    pub fn request(&self, method: Method, path: &str) -> Request<'_> {
        self.client.request(method, path)
    }

    pub async fn post(&self, path: &str, body: Value) -> Reply {
        self.client.post(path, body).await
    }

    /// Opens an account with this on it.
    pub async fn account(&self, id: &str, deposit: &str) {
        let body = json!({"id": id, "holder_name": "Ann", "initial_deposit": deposit});
        let reply = self.post("/accounts", body).await;
        reply.expect(StatusCode::CREATED);
    }

    pub async fn deposit(&self, id: &str, amount: &str) -> Reply {
        let path = format!("/accounts/{id}/deposits");
        self.post(&path, json!({ "amount": amount })).await
    }

    pub async fn withdraw(&self, id: &str, amount: &str) -> Reply {
        let path = format!("/accounts/{id}/withdrawals");
        self.post(&path, json!({ "amount": amount })).await
    }

    pub async fn transfer(&self, from: &str, to: &str, amount: &str) -> Reply {
        transfer(&self.client, from, to, amount).await
    }

    /// Closes an account, without a body.
    pub async fn close(&self, id: &str) -> Reply {
        let path = format!("/accounts/{id}/close");
        self.request(Method::POST, &path).send().await
    }

    /// The account's row, as the newest append left it.
    pub async fn row(&self, id: &str) -> Option<AccountsRow> {
        let id = AccountId::new(EntityId::new(id).unwrap());
        AccountsRow::by_id(&self.database.pool, &id).await.unwrap()
    }

    pub async fn balance(&self, id: &str) -> String {
        self.row(id).await.unwrap().balance.to_string()
    }

    /// The whole log.
    pub async fn events(&self) -> Vec<RecordedEvent> {
        let mut all = Vec::new();
        let mut after = Position::new(0);
        loop {
            let page = self.log.read_log(after, 1_000).await.unwrap();
            let Some(last) = page.last() else {
                return all;
            };
            after = last.position;
            all.extend(page);
        }
    }

    /// The position of the newest event.
    pub async fn head(&self) -> u64 {
        self.log.head().await.unwrap().position.get()
    }
}

pub async fn transfer(client: &HttpClient, from: &str, to: &str, amount: &str) -> Reply {
    let body = json!({"from_account_id": from, "to_account_id": to, "amount": amount});
    client.post("/transfers", body).await
}

pub async fn serve_commands(
    log: Arc<dyn EventLog>,
    stop: &CancellationToken,
    tasks: &mut JoinSet<()>,
) -> HttpClient {
    let accounts: Repository<Account> = Repository::new(log, RepositoryOptions::default());
    let state = CommandState {
        accounts: Arc::new(accounts),
    };
    let router = Api::new(ApiOptions::new(CursorKey::of_this_process()))
        .serve(command_routes().with_state(state))
        .finish();
    listen(router, stop, tasks).await
}

/// Serves on a port of its own until it is told to stop.
pub async fn listen(
    router: axum::Router,
    stop: &CancellationToken,
    tasks: &mut JoinSet<()>,
) -> HttpClient {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (limits, stop) = (ServerLimits::default(), stop.clone());
    tasks.spawn(async move {
        serve(listener, router, limits, stop, Duration::from_secs(1))
            .await
            .unwrap();
    });
    HttpClient::new(address)
}

pub fn money(text: &str) -> Money {
    text.parse().unwrap()
}
