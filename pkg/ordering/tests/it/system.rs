//! The whole way of an order in one process, and a client of it.

use std::{net::SocketAddr, ops::Deref, sync::Arc, time::Duration};

use http::StatusCode;
use millrace_contracts::customers;
use millrace_effects::Archive;
use millrace_es::Context;
use millrace_eventlog::{
    EventLog, PgEventLog, PgLogOptions, Repository, RepositoryOptions, migrate,
};
use millrace_http::{Api, ApiOptions, CursorKey, ServerLimits, serve};
use millrace_ordering::{
    CONTEXT, CommandState, Payments, QueryState, command_routes, inline_tables, migrations,
    projections, query_routes,
};
use millrace_projecting::{
    DynamoReadModel, DynamoStore, PgReadModel, PgReadOptions, PgStore, Runner, RunnerParts, View,
};
use millrace_streaming::{
    DeadLetterPublisher, LeaseOptions, Leases, MemberId, Names, Relay, RelayOptions, Signals,
    Topology, TopologyOptions,
};
use millrace_testkit::{Database, Dynamo, HttpClient, Nats, Reply};
use serde_json::json;
use tokio::{net::TcpListener, task::JoinSet};
use tokio_util::sync::CancellationToken;

use crate::users::{Users, users_context};

/// How long a test waits for what has to come.
pub const PATIENCE: Duration = Duration::from_secs(30);

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
        let mut options = PgLogOptions::new(context());
        options.inline = inline_tables();
        migrate(&database.pool, &context(), options.partitions, migrations())
            .await
            .unwrap();
        let log = PgEventLog::open(database.pool.clone(), options)
            .await
            .unwrap();
        let users = Users::open(&database).await;
        Self {
            database,
            log: Arc::new(log),
            users,
        }
    }

    /// Both logs.
    pub fn logs(&self) -> Vec<Arc<dyn EventLog>> {
        vec![self.log.clone(), self.users.log.clone()]
    }

    /// The position of the newest event.
    pub async fn head(&self) -> u64 {
        self.log.head().await.unwrap().position.get()
    }
}

/// Both services and everything behind them.
pub struct System {
    pub store: Store,
    pub signals: Signals,
    client: HttpClient,
    stop: CancellationToken,
    tasks: JoinSet<()>,
    _servers: (Nats, Dynamo),
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
    /// Starts it, and waits until its read models answer.
    pub async fn start() -> Self {
        Self::with(Vec::new(), None).await
    }

    /// Starts it with reactions, and with an archive to read receipts from.
    pub async fn with(reactions: Vec<View>, receipts: Option<Archive>) -> Self {
        let (store, nats, dynamo) = tokio::join!(
            Store::start(),
            millrace_testkit::nats(),
            millrace_testkit::dynamodb()
        );
        let stop = CancellationToken::new();
        let mut tasks = JoinSet::new();
        let names = Names::new(&nats.namespace).unwrap();
        let topology = Topology::new(
            nats.jetstream.clone(),
            names.clone(),
            TopologyOptions::default(),
        );
        topology
            .ensure(&[context(), users_context()])
            .await
            .unwrap();
        let member = MemberId::new("one").unwrap();
        let leases = Leases::new(topology.clone(), member, LeaseOptions::default());
        let signals = Signals::new(nats.client.clone(), names.clone());
        for log in store.logs() {
            let options = RelayOptions::default();
            let relay = Relay::new(log, topology.clone(), leases.clone(), options);
            let stopping = stop.clone();
            tasks.spawn(async move { relay.run(stopping).await.unwrap() });
        }

        let postgres = PgStore::open(&store.database.url).unwrap();
        let dynamodb = DynamoStore::new(dynamo.client.clone(), dynamo.prefix.clone());
        postgres.migrate().await.unwrap();
        dynamodb.migrate().await.unwrap();
        let parts = RunnerParts {
            logs: store.logs(),
            topology,
            leases,
            signals: signals.clone(),
            letters: DeadLetterPublisher::new(nats.jetstream.clone(), names),
            postgres: Some(postgres),
            dynamodb: Some(dynamodb.clone()),
            link: None,
        };
        let views = projections().into_iter().chain(reactions);
        let runner = Runner::new(views.collect(), parts).unwrap();
        tasks.spawn(runner.run(stop.clone()));

        let state = QueryState {
            receipts,
            ..query_state(&store, dynamodb, &signals)
        };
        let address = listen(&state, &stop, &mut tasks).await;
        let system = Self {
            store,
            signals,
            client: HttpClient::new(address),
            stop,
            tasks,
            _servers: (nats, dynamo),
        };
        system.ready(&state).await;
        system
    }

    async fn ready(&self, state: &QueryState) {
        millrace_testkit::eventually("every read model answers", PATIENCE, || async {
            let all = tokio::join!(
                state.order_read_models.check(),
                state.order_statistics.check(),
                state.orders_by_user.check(),
            );
            (all.0.is_ok() && all.1.is_ok() && all.2.is_ok()).then_some(())
        })
        .await;
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
        let head = self.store.users.log.head().await.unwrap().position;
        self.get_at(path, &format!("{}/{head}", customers::CONTEXT))
            .await
    }

    /// Reads what everything written so far must be in.
    pub async fn get_now(&self, path: &str) -> Reply {
        let head = self.store.log.head().await.unwrap().position;
        self.get_at(path, &format!("{CONTEXT}/{head}")).await
    }
}

fn query_state(store: &Store, dynamodb: DynamoStore, signals: &Signals) -> QueryState {
    let log: Arc<dyn EventLog> = store.log.clone();
    let view = |name: &str| -> View {
        let mut all = projections().into_iter();
        all.find(|view| view.name() == name).unwrap()
    };
    let postgres = |name: &str| {
        PgReadModel::open(
            &store.database.url,
            &view(name),
            store.logs(),
            Some(signals.clone()),
            PgReadOptions {
                max_connections: 4,
                ..PgReadOptions::default()
            },
        )
        .unwrap()
    };
    QueryState {
        orders: Arc::new(Repository::new(log.clone(), RepositoryOptions::default())),
        orders_by_user: DynamoReadModel::open(
            dynamodb,
            &view("orders-by-user"),
            vec![log.clone()],
            Some(signals.clone()),
        )
        .unwrap(),
        order_read_models: postgres("order-read-models"),
        order_statistics: postgres("order-statistics"),
        payments: Payments::new(store.database.pool.clone()),
        log,
        receipts: None,
    }
}

async fn listen(
    state: &QueryState,
    stop: &CancellationToken,
    tasks: &mut JoinSet<()>,
) -> SocketAddr {
    let commands = CommandState {
        orders: state.orders.clone(),
    };
    let router = Api::new(ApiOptions::new(CursorKey::of_this_process()))
        .serve(command_routes().with_state(commands))
        .serve(query_routes().with_state(state.clone()))
        .finish();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (limits, stop) = (ServerLimits::default(), stop.clone());
    tasks.spawn(async move {
        serve(listener, router, limits, stop, Duration::from_secs(1))
            .await
            .unwrap();
    });
    address
}
