//! The logs of users and of orders, billing's own database, its view and its routes, and a client.
//!
//! [`System::still`] folds nothing by itself: a test folds by hand, with [`System::folder`].
//! [`System::running`] has everything in between: relays, NATS, and two projectors that share the
//! partitions.

use std::{ops::Deref, sync::Arc, time::Duration};

use http::StatusCode;
use millrace_billing::{QueryState, projections, query_routes};
use millrace_contracts::{customers::CustomersEvent, ordering::OrderingEvent};
use millrace_es::{Context, EventId, Metadata, NewEvent, Position, RecordedEvent, StreamId};
use millrace_eventlog::{
    AppendRequest, EventLog, ExpectedVersion, PgEventLog, PgLogOptions, StreamAppend, migrate,
};
use millrace_http::{Api, ApiOptions, CursorKey, ServerLimits, serve};
use millrace_projecting::{
    ContextHead, DeadLetters, Folder, PgReadModel, PgReadOptions, PgStore, Runner, RunnerParts,
    View,
};
use millrace_streaming::{
    DeadLetterPublisher, LeaseOptions, Leases, MemberId, Names, Relay, RelayOptions, Signals,
    Topology, TopologyOptions,
};
use millrace_testkit::{Database, HttpClient, Nats, Reply};
use serde_json::value::{RawValue, to_raw_value};
use tokio::{net::TcpListener, task::JoinSet};
use tokio_util::sync::CancellationToken;

/// How long a test waits for what has to come.
pub const PATIENCE: Duration = Duration::from_secs(30);
/// Two, so that orders of one invoice are folded side by side.
const PROJECTORS: [&str; 2] = ["one", "two"];

pub fn view() -> View {
    projections().remove(0)
}

/// A log of another context, as far as billing may know it.
#[derive(Clone)]
pub struct Foreign(pub Arc<PgEventLog>);

impl Foreign {
    async fn open(database: &Database, context: &str) -> Self {
        let options = PgLogOptions::new(Context::new(context).unwrap());
        migrate(&database.pool, &options.context, options.partitions, &[])
            .await
            .unwrap();
        let log = PgEventLog::open(database.pool.clone(), options).await;
        Self(Arc::new(log.unwrap()))
    }

    pub async fn append(&self, stream: &str, event_type: &'static str, payload: Box<RawValue>) {
        let new = NewEvent {
            id: EventId::generate(),
            event_type: event_type.into(),
            schema_version: 1,
            payload,
            metadata: Arc::new(Metadata::default()),
        };
        let request = AppendRequest {
            streams: vec![StreamAppend {
                stream: StreamId::new(stream).unwrap(),
                expected: ExpectedVersion::Any,
                events: vec![new],
            }],
            ..AppendRequest::default()
        };
        self.0.append(request).await.unwrap();
    }

    pub async fn head(&self) -> Position {
        self.0.head().await.unwrap().position
    }

    pub async fn events(&self) -> Vec<RecordedEvent> {
        self.0.read_log(Position::ZERO, 5_000).await.unwrap()
    }
}

/// Everything that a test needs.
pub struct System {
    pub database: Database,
    pub users: Foreign,
    pub orders: Foreign,
    pub postgres: PgStore,
    client: HttpClient,
    stop: CancellationToken,
    tasks: JoinSet<()>,
    _servers: (Database, Option<Nats>),
}

impl Drop for System {
    fn drop(&mut self) {
        self.stop.cancel();
        self.tasks.abort_all();
    }
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
        Self::start(None).await
    }

    /// With relays and projectors, once the read model answers.
    pub async fn running() -> Self {
        Self::start(Some(millrace_testkit::nats().await)).await
    }

    async fn start(nats: Option<Nats>) -> Self {
        let (database, theirs) =
            tokio::join!(millrace_testkit::postgres(), millrace_testkit::postgres());
        let users = Foreign::open(&theirs, "customers").await;
        let orders = Foreign::open(&theirs, "ordering").await;
        let postgres = PgStore::open(&database.url).unwrap();
        postgres.migrate().await.unwrap();
        let logs: Vec<Arc<dyn EventLog>> = vec![users.0.clone(), orders.0.clone()];
        let (stop, mut tasks) = (CancellationToken::new(), JoinSet::new());
        let signals = match &nats {
            Some(nats) => Some(run(&logs, nats, &postgres, &stop, &mut tasks).await),
            None => None,
        };
        let options = PgReadOptions {
            max_connections: 2,
            ..PgReadOptions::default()
        };
        let invoices = PgReadModel::open(&database.url, &view(), logs, signals, options).unwrap();
        let client = listen(invoices.clone(), &stop, &mut tasks).await;
        let running = nats.is_some();
        let system = Self {
            database,
            users,
            orders,
            postgres,
            client,
            stop,
            tasks,
            _servers: (theirs, nats),
        };
        if running {
            let ready = || async { invoices.check().await.is_ok().then_some(()) };
            millrace_testkit::eventually("the read model answers", PATIENCE, ready).await;
        } else {
            system.folder().await;
        }
        system
    }

    /// Folds by hand into the generation that answers.
    pub async fn folder(&self) -> Folder {
        let mut heads = Vec::new();
        for log in [&self.users.0, &self.orders.0] {
            let head = log.head().await.unwrap();
            heads.push(ContextHead {
                context: log.context().clone(),
                epoch: head.epoch,
                partition_positions: head.partition_positions,
            });
        }
        let generation = self.postgres.ensure_generation(&view(), &heads).await;
        self.postgres
            .folder(&generation.unwrap(), &view())
            .await
            .unwrap()
    }

    pub async fn user(&self, event: &CustomersEvent) {
        let stream = format!("user-{}", event.user_id());
        let payload = to_raw_value(event).unwrap();
        self.users
            .append(&stream, event.event_type(), payload)
            .await;
    }

    pub async fn order(&self, event: &OrderingEvent) {
        let stream = format!("order-{}", event.order_id());
        let payload = to_raw_value(event).unwrap();
        self.orders
            .append(&stream, event.event_type(), payload)
            .await;
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
        let users = format!("customers/{}", self.users.head().await);
        // What the orders make need not be there before the orders are.
        let reply = self.try_get_at(path, &users).await;
        let known = [StatusCode::OK, StatusCode::NOT_FOUND];
        assert!(known.contains(&reply.status), "{reply:?}");
        let orders = format!("ordering/{}", self.orders.head().await);
        self.get_at(path, &orders).await
    }

    pub fn letters(&self) -> DeadLetters {
        DeadLetters::new(projections(), Some(self.postgres.clone()), None)
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

/// Starts the relays and the projectors.
async fn run(
    logs: &[Arc<dyn EventLog>],
    nats: &Nats,
    postgres: &PgStore,
    stop: &CancellationToken,
    tasks: &mut JoinSet<()>,
) -> Signals {
    let names = Names::new(&nats.namespace).unwrap();
    let topology = Topology::new(
        nats.jetstream.clone(),
        names.clone(),
        TopologyOptions::default(),
    );
    let contexts: Vec<Context> = logs.iter().map(|log| log.context().clone()).collect();
    topology.ensure(&contexts).await.unwrap();
    let leases = |name: &str| {
        let member = MemberId::new(name).unwrap();
        Leases::new(topology.clone(), member, LeaseOptions::default())
    };
    let signals = Signals::new(nats.client.clone(), names.clone());
    for log in logs {
        let options = RelayOptions::default();
        let relay = Relay::new(log.clone(), topology.clone(), leases("relay"), options);
        let stopping = stop.clone();
        tasks.spawn(async move { relay.run(stopping).await.unwrap() });
    }
    for name in PROJECTORS {
        let parts = RunnerParts {
            logs: logs.to_vec(),
            topology: topology.clone(),
            leases: leases(name),
            signals: signals.clone(),
            letters: DeadLetterPublisher::new(nats.jetstream.clone(), names.clone()),
            postgres: Some(postgres.clone()),
            dynamodb: None,
            link: None,
        };
        tasks.spawn(Runner::new(projections(), parts).unwrap().run(stop.clone()));
    }
    signals
}

async fn listen(
    invoices: PgReadModel,
    stop: &CancellationToken,
    tasks: &mut JoinSet<()>,
) -> HttpClient {
    let router = Api::new(ApiOptions::new(CursorKey::of_this_process()))
        .serve(query_routes().with_state(QueryState { invoices }))
        .finish();
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
