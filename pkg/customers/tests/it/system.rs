//! The log of users and that of orders, the view and the routes in one process, and a client of
//! them.
//!
//! [`System::still`] folds nothing by itself: a test folds by hand, with [`System::folder`].
//! [`System::running`] has everything in between: the relay, NATS and the projector.

use std::{ops::Deref, sync::Arc};

use http::StatusCode;
use millrace_contracts::ordering::{self, OrderCreated, OrderStatus, OrderingEvent};
use millrace_customers::{
    CONTEXT, CommandState, QueryState, command_routes, inline_tables, migrations, projections,
    query_routes,
};
use millrace_es::{RecordedEvent, StreamId};
use millrace_eventlog::{EventLog, PgEventLog, Repository, RepositoryOptions};
use millrace_kernel::Timestamp;
use millrace_projecting::Folder;
use millrace_testkit::{Database, HttpClient, Reply};
use millrace_teststage::{Foreign, Stage, Stores, api, events, facts, head, pg_log, token};
use serde_json::json;

const VIEW: &str = "user-profiles";

/// The log of users on this database.
async fn open_log(database: &Database) -> Arc<PgEventLog> {
    pg_log(database, CONTEXT, inline_tables(), migrations()).await
}

/// Everything that a test needs. The stage ends before what it stands on.
pub struct System {
    stage: Stage,
    client: HttpClient,
    log: Arc<PgEventLog>,
    pub orders: Orders,
    pub database: Database,
}

impl Deref for System {
    type Target = HttpClient;
    fn deref(&self) -> &HttpClient {
        &self.client
    }
}

impl System {
    /// The logs and the first generation of the view, which does not move by itself.
    pub async fn still() -> Self {
        Self::start(0).await
    }

    /// With the relays and a projector, once the read model answers.
    pub async fn running() -> Self {
        Self::start(1).await
    }

    async fn start(projectors: usize) -> Self {
        let database = millrace_testkit::postgres().await;
        let log = open_log(&database).await;
        let orders = Orders(Foreign::open(&database, ordering::CONTEXT).await);
        let stores = Stores::in_postgres(&database).await;
        let logs: Vec<Arc<dyn EventLog>> = vec![log.clone(), orders.0.log()];
        let mut stage = Stage::set(projections(), logs, stores, projectors).await;
        let client = serve(&log, &mut stage).await;
        Self {
            stage,
            client,
            log,
            orders,
            database,
        }
    }

    /// Another process on the same log.
    pub async fn second(&mut self) -> HttpClient {
        let log = open_log(&self.database).await;
        serve(&log, &mut self.stage).await
    }

    /// Folds by hand into the generation that answers.
    pub async fn folder(&self) -> Folder {
        self.stage.folder(VIEW).await
    }

    /// Every event of users.
    pub async fn events(&self) -> Vec<RecordedEvent> {
        events(&*self.log).await
    }

    /// The position of the newest event of users.
    pub async fn head(&self) -> u64 {
        head(&*self.log).await.get()
    }

    /// Creates a user.
    pub async fn user(&self, id: &str, name: &str) -> Reply {
        let email = format!("{name}@demo.com");
        let body = json!({ "id": id, "name": name, "email": email });
        let reply = self.post("/system-api/users", body).await;
        reply.expect(StatusCode::CREATED)
    }

    /// Reads what everything written so far about users must be in.
    pub async fn get_now(&self, path: &str) -> Reply {
        self.get_at(path, &token(&*self.log).await).await
    }

    /// Reads what everything written so far about orders must be in.
    pub async fn get_after_orders(&self, path: &str) -> Reply {
        self.get_at(path, &self.orders.0.token().await).await
    }
}

/// Serves both services on a log, once their read model answers.
async fn serve(log: &Arc<PgEventLog>, stage: &mut Stage) -> HttpClient {
    let users = Arc::new(Repository::new(log.clone(), RepositoryOptions::default()));
    let queries = QueryState {
        log: log.clone(),
        users: users.clone(),
        user_profiles: stage.in_postgres(VIEW),
    };
    let services = api()
        .serve(command_routes().with_state(CommandState { users }))
        .serve(query_routes().with_state(queries));
    stage.serve(services).await
}

/// The log of orders, as far as others may know it.
pub struct Orders(Foreign);

impl Orders {
    async fn append(&self, event: OrderingEvent) {
        let newest = ordering::EVENT_TYPES
            .into_iter()
            .find(|(name, _)| *name == event.event_type());
        let stream = StreamId::of("order", event.order_id());
        self.0.append(stream, newest.unwrap(), &event).await;
    }

    pub async fn create(&self, order: &str, user: &str) {
        let order = created(order, user);
        self.append(OrderingEvent::OrderCreated(order)).await;
    }

    pub async fn cancel(&self, order: &str, user: &str) {
        let (order, to) = (created(order, user), OrderStatus::Cancelled);
        self.append(facts::order_becomes(&order, to, Timestamp::now()))
            .await;
    }

    pub async fn delete(&self, order: &str, user: &str) {
        let order = created(order, user);
        self.append(facts::order_deleted(&order, Timestamp::now()))
            .await;
    }

    pub async fn events(&self) -> Vec<RecordedEvent> {
        self.0.events().await
    }
}

fn created(order: &str, user: &str) -> OrderCreated {
    facts::order_created(order, user, "1.00", Timestamp::now())
}
