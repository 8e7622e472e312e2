//! The log, the views and their routes in one process, and a client of them.
//!
//! [`System::still`] folds nothing by itself: a test folds by hand, with [`crate::folders`].
//! [`System::running`] has everything in between: the relay, NATS and the projector.

use std::{ops::Deref, sync::Arc, time::Duration};

use http::StatusCode;
use millrace_banking::{
    CONTEXT, CommandState, PgBalances, QueryState, command_routes, projections, query_routes,
};
use millrace_es::{Position, RecordedEvent};
use millrace_eventlog::{EventLog, PgEventLog, Repository, RepositoryOptions};
use millrace_http::{Api, ApiOptions, CursorKey};
use millrace_projecting::{
    DynamoReadModel, DynamoStore, PgReadModel, PgReadOptions, PgStore, Runner, RunnerParts, View,
};
use millrace_streaming::{
    DeadLetterPublisher, LeaseOptions, Leases, MemberId, Names, Relay, RelayOptions, Signals,
    Topology, TopologyOptions,
};
use millrace_testkit::{Database, Dynamo, HttpClient, Nats, Reply};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::{
    bank::{context, listen, open_log},
    folders::Folders,
    teller::Teller,
};

/// How long a test waits for what has to come.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// Everything that a test needs.
pub struct System {
    _database: Database,
    pub log: Arc<PgEventLog>,
    pub postgres: PgStore,
    pub dynamodb: DynamoStore,
    client: HttpClient,
    stop: CancellationToken,
    tasks: JoinSet<()>,
    _servers: (Dynamo, Option<Nats>),
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
    /// A log and the first generation of every view, none of which moves by itself.
    pub async fn still() -> Self {
        Self::start(None).await
    }

    /// With the relay and the projector, once its read models answer.
    pub async fn running() -> Self {
        Self::start(Some(millrace_testkit::nats().await)).await
    }

    async fn start(nats: Option<Nats>) -> Self {
        let (database, dynamo) =
            tokio::join!(millrace_testkit::postgres(), millrace_testkit::dynamodb());
        let log = open_log(&database).await;
        let postgres = PgStore::open(&database.url).unwrap();
        let dynamodb = DynamoStore::new(dynamo.client.clone(), dynamo.prefix.clone());
        tokio::try_join!(postgres.migrate(), dynamodb.migrate()).unwrap();

        let (stop, mut tasks) = (CancellationToken::new(), JoinSet::new());
        let stores = (&postgres, &dynamodb);
        let signals = match &nats {
            Some(nats) => Some(run(&log, nats, stores, &stop, &mut tasks).await),
            None => None,
        };
        let state = query_state(&log, &database, &dynamodb, signals.as_ref());
        let commands = CommandState {
            accounts: state.repository.clone(),
        };
        let router = Api::new(ApiOptions::new(CursorKey::of_this_process()))
            .serve(command_routes().with_state(commands))
            .serve(query_routes().with_state(state.clone()))
            .finish();
        let client = listen(router, &stop, &mut tasks).await;
        let running = nats.is_some();
        let system = Self {
            _database: database,
            log,
            postgres,
            dynamodb,
            client,
            stop,
            tasks,
            _servers: (dynamo, nats),
        };
        if running {
            ready(&state).await;
        } else {
            Folders::open(&system).await;
        }
        system
    }

    pub fn teller(&self) -> Teller {
        Teller::new(Arc::clone(&self.log))
    }

    /// Every event of the log.
    pub async fn events(&self) -> Vec<RecordedEvent> {
        self.log.read_log(Position::ZERO, 5_000).await.unwrap()
    }

    /// Reads what everything written so far must be in.
    pub async fn get_now(&self, path: &str) -> Reply {
        let head = self.log.head().await.unwrap().position;
        self.get_at(path, &format!("{CONTEXT}/{head}")).await
    }

    /// A strong read, which has to find something.
    pub async fn get_strong(&self, path: &str) -> Reply {
        let path = format!("{path}?consistency=strong");
        self.get(&path).await.expect(StatusCode::OK)
    }
}

/// Starts the relay and the projector.
async fn run(
    log: &Arc<PgEventLog>,
    nats: &Nats,
    (postgres, dynamodb): (&PgStore, &DynamoStore),
    stop: &CancellationToken,
    tasks: &mut JoinSet<()>,
) -> Signals {
    let log: Arc<dyn EventLog> = log.clone();
    let names = Names::new(&nats.namespace).unwrap();
    let topology = Topology::new(
        nats.jetstream.clone(),
        names.clone(),
        TopologyOptions::default(),
    );
    topology.ensure(&[context()]).await.unwrap();
    let member = MemberId::new("one").unwrap();
    let leases = Leases::new(topology.clone(), member, LeaseOptions::default());
    let signals = Signals::new(nats.client.clone(), names.clone());
    let relay = Relay::new(
        log.clone(),
        topology.clone(),
        leases.clone(),
        RelayOptions::default(),
    );
    let stopping = stop.clone();
    tasks.spawn(async move { relay.run(stopping).await.unwrap() });
    let parts = RunnerParts {
        logs: vec![log],
        topology,
        leases,
        signals: signals.clone(),
        letters: DeadLetterPublisher::new(nats.jetstream.clone(), names),
        postgres: Some(postgres.clone()),
        dynamodb: Some(dynamodb.clone()),
        link: None,
    };
    tasks.spawn(Runner::new(projections(), parts).unwrap().run(stop.clone()));
    signals
}

async fn ready(state: &QueryState) {
    millrace_testkit::eventually("every read model answers", PATIENCE, || async {
        let all = tokio::join!(
            state.account_balance.check(),
            state.transaction_history.check(),
            state.accounts.check(),
            state.transactions.check(),
            state.daily_balances.check(),
            state.account_summaries.check(),
        );
        let items = all.0.is_ok() && all.1.is_ok();
        (items && all.2.is_ok() && all.3.is_ok() && all.4.is_ok() && all.5.is_ok()).then_some(())
    })
    .await;
}

fn query_state(
    log: &Arc<PgEventLog>,
    database: &Database,
    dynamodb: &DynamoStore,
    signals: Option<&Signals>,
) -> QueryState {
    let log: Arc<dyn EventLog> = log.clone();
    let view = |name: &str| -> View {
        let mut all = projections().into_iter();
        all.find(|view| view.name() == name).unwrap()
    };
    let postgres = |name: &str| {
        let options = PgReadOptions {
            max_connections: 2,
            ..PgReadOptions::default()
        };
        let logs = vec![log.clone()];
        PgReadModel::open(&database.url, &view(name), logs, signals.cloned(), options).unwrap()
    };
    let items = |name: &str| {
        let (store, logs) = (dynamodb.clone(), vec![log.clone()]);
        DynamoReadModel::open(store, &view(name), logs, signals.cloned()).unwrap()
    };
    QueryState {
        repository: Arc::new(Repository::new(log.clone(), RepositoryOptions::default())),
        strong_balance: Arc::new(PgBalances::new(database.pool.clone())),
        account_balance: items("account-balance"),
        transaction_history: items("transaction-history"),
        accounts: postgres("accounts"),
        transactions: postgres("transactions"),
        daily_balances: postgres("daily-balances"),
        account_summaries: postgres("account-summaries"),
        log,
    }
}
