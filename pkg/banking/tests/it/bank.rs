//! The command service of a bank in one process, and a client of it.

use std::sync::Arc;

use http::{Method, StatusCode};
use millrace_banking::{
    AccountsRow, CONTEXT, CommandState,
    account::{Account, AccountId},
    command_routes, inline_tables, migrations,
};
use millrace_es::{Context, RecordedEvent};
use millrace_eventlog::{EventLog, PgEventLog, Repository, RepositoryOptions};
use millrace_kernel::{EntityId, Money};
use millrace_testkit::{Database, HttpClient, Reply, Request};
use millrace_teststage::{Tasks, api, events, head, pg_log};
use serde_json::{Value, json};

pub fn context() -> Context {
    Context::new(CONTEXT).unwrap()
}

/// A log on this database.
pub async fn open_log(database: &Database) -> Arc<PgEventLog> {
    pg_log(database, CONTEXT, inline_tables(), migrations()).await
}

/// The command service and what it stands on.
pub struct Bank {
    pub client: HttpClient,
    tasks: Tasks,
    pub log: Arc<PgEventLog>,
    pub database: Database,
}

impl Bank {
    pub async fn start() -> Self {
        let database = millrace_testkit::postgres().await;
        let log = open_log(&database).await;
        let mut tasks = Tasks::default();
        Self {
            client: serve_commands(log.clone(), &mut tasks).await,
            tasks,
            log,
            database,
        }
    }

    /// Another process on the same log.
    pub async fn second(&mut self) -> HttpClient {
        let log = open_log(&self.database).await;
        serve_commands(log, &mut self.tasks).await
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
        events(&*self.log).await
    }

    /// The position of the newest event.
    pub async fn head(&self) -> u64 {
        head(&*self.log).await.get()
    }
}

pub async fn transfer(client: &HttpClient, from: &str, to: &str, amount: &str) -> Reply {
    let body = json!({"from_account_id": from, "to_account_id": to, "amount": amount});
    client.post("/transfers", body).await
}

pub async fn serve_commands(log: Arc<dyn EventLog>, tasks: &mut Tasks) -> HttpClient {
    let accounts: Repository<Account> = Repository::new(log, RepositoryOptions::default());
    let state = CommandState {
        accounts: Arc::new(accounts),
    };
    let routes = command_routes().with_state(state);
    tasks.listen(api().serve(routes).finish()).await
}

pub fn money(text: &str) -> Money {
    text.parse().unwrap()
}
