//! The logs of users and of orders, billing's own database, its view and its routes, and a client.
//!
//! [`System::still`] folds nothing by itself: a test folds by hand, with [`System::folder`].
//! [`System::running`] has everything in between: relays, NATS, and two projectors that share the
//! partitions.

use std::ops::Deref;

use http::StatusCode;
use millrace_billing::{QueryState, projections, query_routes};
use millrace_contracts::{
    customers::{self, CustomersEvent},
    ordering::{self, OrderingEvent},
};
use millrace_es::StreamId;
use millrace_projecting::{DeadLetters, Folder};
use millrace_testkit::{Database, HttpClient, Reply};
use millrace_teststage::{Foreign, Stage, Stores, api};

/// Two, so that orders of one invoice are folded side by side.
const PROJECTORS: usize = 2;
const VIEW: &str = "invoices";

/// Everything that a test needs. The stage ends before what it stands on.
pub struct System {
    stage: Stage,
    client: HttpClient,
    pub users: Foreign,
    pub orders: Foreign,
    pub database: Database,
    _theirs: Database,
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

    /// With relays and projectors, once the read model answers.
    pub async fn running() -> Self {
        Self::start(PROJECTORS).await
    }

    async fn start(projectors: usize) -> Self {
        let (database, theirs) =
            tokio::join!(millrace_testkit::postgres(), millrace_testkit::postgres());
        let users = Foreign::open(&theirs, customers::CONTEXT).await;
        let orders = Foreign::open(&theirs, ordering::CONTEXT).await;
        let logs = vec![users.log(), orders.log()];
        let stores = Stores::in_postgres(&database).await;
        let mut stage = Stage::set(projections(), logs, stores, projectors).await;
        let invoices = stage.in_postgres(VIEW);
        let routes = query_routes().with_state(QueryState { invoices });
        let client = stage.serve(api().serve(routes)).await;
        Self {
            stage,
            client,
            users,
            orders,
            database,
            _theirs: theirs,
        }
    }

    /// Folds by hand into the generation that answers.
    pub async fn folder(&self) -> Folder {
        self.stage.folder(VIEW).await
    }

    pub async fn user(&self, event: &CustomersEvent) {
        let stream = StreamId::of("user", event.user_id());
        let users = &self.users;
        users.append(stream, (event.event_type(), 1), event).await;
    }

    pub async fn order(&self, event: &OrderingEvent) {
        let stream = StreamId::of("order", event.order_id());
        let orders = &self.orders;
        orders.append(stream, (event.event_type(), 1), event).await;
    }

    /// Folds everything that happened and is not folded yet.
    pub async fn fold_all(&self) {
        let mut events = self.users.events().await;
        events.extend(self.orders.events().await);
        let folded = self.folder().await.fold(events).await.unwrap();
        assert_eq!(folded.letters, []);
    }

    /// Reads what everything written so far must be in.
    pub async fn get_now(&self, path: &str) -> Reply {
        let users = self.users.token().await;
        // What the orders make need not be there before the orders are.
        let reply = self.try_get_at(path, &users).await;
        let known = [StatusCode::OK, StatusCode::NOT_FOUND];
        assert!(known.contains(&reply.status), "{reply:?}");
        let orders = self.orders.token().await;
        self.get_at(path, &orders).await
    }

    pub fn letters(&self) -> DeadLetters {
        let store = self.stage.stores().postgres.clone();
        DeadLetters::new(projections(), Some(store), None)
    }

    /// Every row of the view, in one text a table.
    pub async fn rows(&self) -> Vec<String> {
        let place: String = sqlx::query_scalar(
            "SELECT schema_name FROM projections.generations WHERE projection = 'invoices'",
        )
        .fetch_one(&self.database.pool)
        .await
        .unwrap();
        let mut rows = Vec::new();
        for table in ["invoices", "invoice_account"] {
            let sql = format!("SELECT t::text FROM {place}.{table} t ORDER BY 1");
            let found: Vec<String> = sqlx::query_scalar(sqlx::AssertSqlSafe(sql))
                .fetch_all(&self.database.pool)
                .await
                .unwrap();
            rows.extend(found);
        }
        rows
    }
}
