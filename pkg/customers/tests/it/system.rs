//! The log of users and that of orders, the view and the routes in one process, and a client of
//! them.
//!
//! [`System::still`] folds nothing by itself: a test folds by hand, with [`System::folder`].
//! [`System::running`] has everything in between: the relay, NATS and the projector.

use std::{ops::Deref, sync::Arc, time::Duration};

use http::StatusCode;
use millrace_contracts::ordering::{
    self, OrderCreated, OrderDeleted, OrderStatus, OrderStatusUpdated, OrderingEvent,
};
use millrace_customers::{
    CONTEXT, CommandState, QueryState, command_routes, inline_tables, migrations, projections,
    query_routes,
};
use millrace_es::{Context, EventId, Metadata, NewEvent, Position, RecordedEvent, StreamId};
use millrace_eventlog::{
    AppendRequest, EventLog, ExpectedVersion, PgEventLog, PgLogOptions, Repository,
    RepositoryOptions, StreamAppend, migrate,
};
use millrace_http::{Api, ApiOptions, CursorKey, ServerLimits, serve};
use millrace_kernel::{EntityId, Money, Timestamp};
use millrace_projecting::{
    ContextHead, Folder, PgReadModel, PgReadOptions, PgStore, Runner, RunnerParts,
};
use millrace_streaming::{
    DeadLetterPublisher, LeaseOptions, Leases, MemberId, Names, Relay, RelayOptions, Signals,
    Topology, TopologyOptions,
};
use millrace_testkit::{Database, HttpClient, Nats, Reply};
use serde_json::json;
use tokio::{net::TcpListener, task::JoinSet};
use tokio_util::sync::CancellationToken;

/// How long a test waits for what has to come.
pub const PATIENCE: Duration = Duration::from_secs(30);

pub fn context(name: &str) -> Context {
    Context::new(name).unwrap()
}

/// The log of users on this database.
pub async fn open_log(database: &Database) -> Arc<PgEventLog> {
    let mut options = PgLogOptions::new(context(CONTEXT));
    options.inline = inline_tables();
    let partitions = options.partitions;
    migrate(&database.pool, &context(CONTEXT), partitions, migrations())
        .await
        .unwrap();
    let log = PgEventLog::open(database.pool.clone(), options).await;
    Arc::new(log.unwrap())
}

/// Everything that a test needs.
pub struct System {
    pub database: Database,
    pub log: Arc<PgEventLog>,
    pub orders: Orders,
    pub postgres: PgStore,
    client: HttpClient,
    stop: CancellationToken,
    tasks: JoinSet<()>,
    _nats: Option<Nats>,
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

    /// With the relay and the projector, once the read model answers.
    pub async fn running() -> Self {
        Self::start(Some(millrace_testkit::nats().await)).await
    }

    async fn start(nats: Option<Nats>) -> Self {
        let database = millrace_testkit::postgres().await;
        let log = open_log(&database).await;
        let orders = Orders::open(&database).await;
        let postgres = PgStore::open(&database.url).unwrap();
        postgres.migrate().await.unwrap();
        let logs: Vec<Arc<dyn EventLog>> = vec![log.clone(), orders.0.clone()];
        let (stop, mut tasks) = (CancellationToken::new(), JoinSet::new());
        let signals = match &nats {
            Some(nats) => Some(run(&logs, nats, &postgres, &stop, &mut tasks).await),
            None => None,
        };
        let options = PgReadOptions {
            max_connections: 2,
            ..PgReadOptions::default()
        };
        let view = &projections()[0];
        let profiles = PgReadModel::open(&database.url, view, logs, signals, options).unwrap();
        let client = listen(&log, profiles.clone(), &stop, &mut tasks).await;
        let running = nats.is_some();
        let system = Self {
            database,
            log,
            orders,
            postgres,
            client,
            stop,
            tasks,
            _nats: nats,
        };
        if running {
            let ready = || async { profiles.check().await.is_ok().then_some(()) };
            millrace_testkit::eventually("the read model answers", PATIENCE, ready).await;
        } else {
            system.folder().await;
        }
        system
    }

    /// Another process on the same log.
    pub async fn second(&mut self) -> HttpClient {
        let log = open_log(&self.database).await;
        let options = PgReadOptions::default();
        let view = &projections()[0];
        let profiles =
            PgReadModel::open(&self.database.url, view, vec![log.clone()], None, options);
        listen(&log, profiles.unwrap(), &self.stop, &mut self.tasks).await
    }

    /// Folds by hand into the generation that answers.
    pub async fn folder(&self) -> Folder {
        let mut heads = Vec::new();
        for log in [&self.log, &self.orders.0] {
            let head = log.head().await.unwrap();
            heads.push(ContextHead {
                context: log.context().clone(),
                epoch: head.epoch,
                partition_positions: head.partition_positions,
            });
        }
        let view = &projections()[0];
        let store = &self.postgres;
        let generation = store.ensure_generation(view, &heads).await.unwrap();
        store.folder(&generation, view).await.unwrap()
    }

    /// Every event of users.
    pub async fn events(&self) -> Vec<RecordedEvent> {
        self.log.read_log(Position::ZERO, 5_000).await.unwrap()
    }

    /// The position of the newest event of users.
    pub async fn head(&self) -> u64 {
        self.log.head().await.unwrap().position.get()
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
        let head = self.head().await;
        self.get_at(path, &format!("{CONTEXT}/{head}")).await
    }

    /// Reads what everything written so far about orders must be in.
    pub async fn get_after_orders(&self, path: &str) -> Reply {
        let head = self.orders.0.head().await.unwrap().position;
        self.get_at(path, &format!("{}/{head}", ordering::CONTEXT))
            .await
    }
}

/// The log of orders, as far as others may know it.
#[derive(Clone)]
pub struct Orders(pub Arc<PgEventLog>);

impl Orders {
    async fn open(database: &Database) -> Self {
        let options = PgLogOptions::new(context(ordering::CONTEXT));
        let (context, partitions) = (options.context.clone(), options.partitions);
        migrate(&database.pool, &context, partitions, &[])
            .await
            .unwrap();
        let log = PgEventLog::open(database.pool.clone(), options).await;
        Self(Arc::new(log.unwrap()))
    }

    async fn append(&self, event: OrderingEvent) {
        let event_type = event.event_type();
        let newest = ordering::EVENT_TYPES.iter().find(|it| it.0 == event_type);
        let stream = StreamId::of("order", event.order_id());
        let new = NewEvent {
            id: EventId::generate(),
            event_type: event_type.into(),
            schema_version: newest.unwrap().1,
            payload: serde_json::value::to_raw_value(&event).unwrap(),
            metadata: Arc::new(Metadata::default()),
        };
        let request = AppendRequest {
            streams: vec![StreamAppend {
                stream,
                expected: ExpectedVersion::Any,
                events: vec![new],
            }],
            ..AppendRequest::default()
        };
        self.0.append(request).await.unwrap();
    }

    pub async fn create(&self, order: &str, user: &str) {
        self.append(OrderingEvent::OrderCreated(OrderCreated {
            order_id: id(order),
            user_id: id(user),
            items: Vec::new(),
            total_amount: amount(),
            shipping_address: None,
            notes: None,
            payment_account_id: None,
            description: None,
            purchase_dt: None,
            created_at: Timestamp::now(),
        }))
        .await;
    }

    pub async fn cancel(&self, order: &str, user: &str) {
        self.append(OrderingEvent::OrderStatusUpdated(OrderStatusUpdated {
            order_id: id(order),
            user_id: id(user),
            from: OrderStatus::Pending,
            to: OrderStatus::Cancelled,
            reason: None,
            total_amount: amount(),
            purchase_dt: None,
            created_at: Timestamp::now(),
            updated_at: Timestamp::now(),
        }))
        .await;
    }

    pub async fn delete(&self, order: &str, user: &str) {
        self.append(OrderingEvent::OrderDeleted(OrderDeleted {
            order_id: id(order),
            user_id: id(user),
            status: OrderStatus::Pending,
            total_amount: amount(),
            purchase_dt: None,
            created_at: Timestamp::now(),
            deleted_at: Timestamp::now(),
        }))
        .await;
    }

    pub async fn events(&self) -> Vec<RecordedEvent> {
        self.0.read_log(Position::ZERO, 5_000).await.unwrap()
    }
}

fn id(text: &str) -> EntityId {
    EntityId::new(text).unwrap()
}

fn amount() -> Money {
    "1.00".parse().unwrap()
}

/// Starts the relays and the projector.
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
    let member = MemberId::new("one").unwrap();
    let leases = Leases::new(topology.clone(), member, LeaseOptions::default());
    let signals = Signals::new(nats.client.clone(), names.clone());
    for log in logs {
        let options = RelayOptions::default();
        let relay = Relay::new(log.clone(), topology.clone(), leases.clone(), options);
        let stopping = stop.clone();
        tasks.spawn(async move { relay.run(stopping).await.unwrap() });
    }
    let parts = RunnerParts {
        logs: logs.to_vec(),
        topology,
        leases,
        signals: signals.clone(),
        letters: DeadLetterPublisher::new(nats.jetstream.clone(), names),
        postgres: Some(postgres.clone()),
        dynamodb: None,
        link: None,
    };
    tasks.spawn(Runner::new(projections(), parts).unwrap().run(stop.clone()));
    signals
}

async fn listen(
    log: &Arc<PgEventLog>,
    user_profiles: PgReadModel,
    stop: &CancellationToken,
    tasks: &mut JoinSet<()>,
) -> HttpClient {
    let log: Arc<dyn EventLog> = log.clone();
    let users = Arc::new(Repository::new(log.clone(), RepositoryOptions::default()));
    let queries = QueryState {
        log,
        users: users.clone(),
        user_profiles,
    };
    let router = Api::new(ApiOptions::new(CursorKey::of_this_process()))
        .serve(command_routes().with_state(CommandState { users }))
        .serve(query_routes().with_state(queries))
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
