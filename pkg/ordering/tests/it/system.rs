//! The whole way of an order in one process, and a client of it.

use std::{ops::Deref, sync::Arc};

use http::StatusCode;
use millrace_effects::Archive;
use millrace_es::Context;
use millrace_eventlog::{EventLog, PgEventLog, Repository, RepositoryOptions};
use millrace_ordering::{
    CONTEXT, CommandState, Payments, QueryState, command_routes, inline_tables, migrations,
    projections, query_routes,
};
use millrace_projecting::View;
use millrace_streaming::Signals;
use millrace_testkit::{Database, Dynamo, HttpClient, Reply};
use millrace_teststage::{Stage, Stores, api, head, pg_log, token};
use serde_json::json;

use crate::users::Users;

pub fn context() -> Context {
    Context::new(CONTEXT).unwrap()
}

/// A log on a database of its own, what it stands on, and the log of users beside it.
pub struct Store {
    pub database: Database,
    pub log: Arc<PgEventLog>,
    pub users: Users,
}

impl Store {
    pub async fn start() -> Self {
        let database = millrace_testkit::postgres().await;
        Self {
            log: pg_log(&database, CONTEXT, inline_tables(), migrations()).await,
            users: Users::open(&database).await,
            database,
        }
    }

    /// The position of the newest event.
    pub async fn head(&self) -> u64 {
        head(&*self.log).await.get()
    }
}

/// Both services and everything behind them. The stage ends before what it stands on.
pub struct System {
    stage: Stage,
    client: HttpClient,
    pub store: Store,
    _dynamo: Dynamo,
}

impl Deref for System {
    type Target = HttpClient;
    fn deref(&self) -> &HttpClient {
        &self.client
    }
}

impl System {
    /// Starts it, and waits until its read models answer.
    pub async fn start() -> Self {
        Self::with(Vec::new(), None).await
    }

    /// Starts it with reactions, and with an archive to read receipts from.
    pub async fn with(reactions: Vec<View>, receipts: Option<Archive>) -> Self {
        let (store, dynamo) = tokio::join!(Store::start(), millrace_testkit::dynamodb());
        let rows = Stores::in_postgres(&store.database).await;
        let rows = rows.and_in(&dynamo).await;
        let logs: Vec<Arc<dyn EventLog>> = vec![store.log.clone(), store.users.0.log()];
        let views = projections().into_iter().chain(reactions);
        let mut stage = Stage::set(views.collect(), logs, rows, 1).await;
        let queries = query_state(&store, &mut stage, receipts);
        let commands = CommandState {
            orders: queries.orders.clone(),
        };
        let services = api()
            .serve(command_routes().with_state(commands))
            .serve(query_routes().with_state(queries));
        let client = stage.serve(services).await;
        Self {
            stage,
            client,
            store,
            _dynamo: dynamo,
        }
    }

    pub fn signals(&self) -> &Signals {
        self.stage.signals().unwrap()
    }

    /// Creates an order and gives its id.
    pub async fn order(&self, user: &str, amount: &str) -> String {
        let body = json!({ "user_id": user, "total_amount": amount });
        let reply = self.post("/orders", body).await.expect(StatusCode::CREATED);
        reply.body["id"].as_str().unwrap().to_owned()
    }

    pub async fn become_(&self, id: &str, status: &str) -> Reply {
        let path = format!("/orders/{id}/status");
        self.put(&path, json!({ "status": status })).await
    }

    /// Reads what everything said so far about users must be in.
    pub async fn get_after_users(&self, path: &str) -> Reply {
        self.get_at(path, &self.store.users.0.token().await).await
    }

    /// Reads what everything written so far must be in.
    pub async fn get_now(&self, path: &str) -> Reply {
        self.get_at(path, &token(&*self.store.log).await).await
    }
}

fn query_state(store: &Store, stage: &mut Stage, receipts: Option<Archive>) -> QueryState {
    let log: Arc<dyn EventLog> = store.log.clone();
    QueryState {
        orders: Arc::new(Repository::new(log.clone(), RepositoryOptions::default())),
        orders_by_user: stage.in_dynamodb("orders-by-user"),
        order_read_models: stage.in_postgres("order-read-models"),
        order_statistics: stage.in_postgres("order-statistics"),
        payments: Payments::new(store.database.pool.clone()),
        log,
        receipts,
    }
}
