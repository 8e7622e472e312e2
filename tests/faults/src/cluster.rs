use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use async_nats::jetstream;
use millrace_testkit::{Database, Dynamo, DynamoServer, Nats, NatsServer, PostgresServer};
use sqlx::PgPool;
use tokio::sync::{Semaphore, SemaphorePermit};

use crate::{Role, RoleProcess};

/// How many clusters run at once: each has about six processes and the shared PostgreSQL has a
/// bounded number of connections.
const MAX_CLUSTERS: usize = 2;

static CLUSTERS: Semaphore = Semaphore::const_new(MAX_CLUSTERS);

/// What a test's cluster is made of. What is not the test's own is shared with other tests.
#[derive(Debug, Clone)]
pub struct ClusterOptions {
    /// The path of the program `fault-role`.
    pub program: PathBuf,
    /// A PostgreSQL of its own.
    pub own_postgres: bool,
    /// A nats-server of its own.
    pub own_nats: bool,
    /// A DynamoDB endpoint of its own.
    pub own_dynamodb: bool,
    /// Another database for the read models than for the log.
    pub separate_read_database: bool,
    /// A DynamoDB endpoint to use instead, with a client and prefix made beforehand.
    pub dynamodb: Option<String>,
    /// How many processes of each role.
    pub commands: usize,
    /// How many projectors.
    pub projectors: usize,
    /// How many query processes.
    pub queries: usize,
    /// Settings beside or instead of the usual ones.
    pub settings: Vec<(&'static str, String)>,
}

impl ClusterOptions {
    /// Two command, two projector and one query process on shared servers.
    #[must_use]
    pub fn new(program: impl AsRef<Path>) -> Self {
        Self {
            program: program.as_ref().to_owned(),
            own_postgres: false,
            own_nats: false,
            own_dynamodb: false,
            separate_read_database: false,
            dynamodb: None,
            commands: 2,
            projectors: 2,
            queries: 1,
            settings: Vec::new(),
        }
    }
}

/// Servers that belong to one test, to be hurt.
#[derive(Debug, Default)]
pub struct Servers {
    /// The PostgreSQL.
    pub postgres: Option<PostgresServer>,
    /// The nats-server.
    pub nats: Option<NatsServer>,
    /// The DynamoDB endpoint.
    pub dynamodb: Option<DynamoServer>,
}

/// The whole system, as processes. Dropped in the order of the fields: processes before what they
/// use.
#[derive(Debug)]
pub struct Cluster {
    /// The command processes.
    pub commands: Vec<RoleProcess>,
    /// The projectors.
    pub projectors: Vec<RoleProcess>,
    /// The query processes.
    pub queries: Vec<RoleProcess>,
    /// The program that every process runs.
    pub program: PathBuf,
    /// What every role was told.
    pub settings: BTreeMap<String, String>,
    /// What tells this test's names from others'.
    pub namespace: String,
    /// The log's database.
    pub log_pool: PgPool,
    /// The read models' database.
    pub read_pool: PgPool,
    /// The stream.
    pub jetstream: jetstream::Context,
    /// The test's own NATS connection.
    pub nats: async_nats::Client,
    /// A DynamoDB client that nothing is injected into.
    pub dynamodb: aws_sdk_dynamodb::Client,
    _databases: (Database, Option<Database>),
    /// Servers of its own.
    pub servers: Servers,
    _permit: SemaphorePermit<'static>,
}

impl Cluster {
    /// Starts everything and waits until all of it is ready.
    ///
    /// # Panics
    /// When something does not start.
    pub async fn start(options: ClusterOptions) -> Self {
        let permit = CLUSTERS.acquire().await.unwrap();
        let mut servers = Servers::default();
        let (database, read_database) = databases(&options, &mut servers).await;
        let nats = messaging(&options, &mut servers).await;
        let dynamodb = dynamodb(&options, &mut servers).await;
        let read = read_database.as_ref().unwrap_or(&database);
        let mut settings = settings(&nats, &database.url, &read.url);
        let endpoint = options.dynamodb.as_ref().unwrap_or(&dynamodb.endpoint);
        settings.insert("DYNAMODB_ENDPOINT".to_owned(), endpoint.clone());
        for (name, value) in &options.settings {
            settings.insert((*name).to_owned(), value.clone());
        }
        let start = |role, count, settings: &BTreeMap<String, String>| -> Vec<RoleProcess> {
            (0..count)
                .map(|number| RoleProcess::start(&options.program, role, number, settings))
                .collect()
        };
        let mut cluster = Self {
            commands: start(Role::Command, options.commands, &settings),
            projectors: Vec::new(),
            queries: Vec::new(),
            program: options.program.clone(),
            settings: settings.clone(),
            namespace: nats.namespace,
            log_pool: database.pool.clone(),
            read_pool: read.pool.clone(),
            jetstream: nats.jetstream,
            nats: nats.client,
            dynamodb: dynamodb.client,
            _databases: (database, read_database),
            servers,
            _permit: permit,
        };
        // The command processes make the log that the others ask for.
        cluster.wait_ready().await;
        let owner = cluster.commands.first().map(RoleProcess::internal_url);
        if let Some(url) = owner {
            settings.insert("MILLRACE_OWNERS".to_owned(), format!("banking={url}"));
        }
        cluster.projectors = start(Role::Projector, options.projectors, &settings);
        cluster.queries = start(Role::Query, options.queries, &settings);
        cluster.wait_ready().await;
        cluster
    }

    /// Waits until every process says that it is ready.
    pub async fn wait_ready(&mut self) {
        for process in self.processes() {
            process.wait_ready().await;
        }
    }

    /// The processes of a role.
    pub fn role(&mut self, role: Role) -> &mut Vec<RoleProcess> {
        match role {
            Role::Command => &mut self.commands,
            Role::Projector => &mut self.projectors,
            Role::Query => &mut self.queries,
            // Not every cluster has an API server: a test that has one keeps its controller.
            Role::Controller => panic!("a cluster has no controller"),
        }
    }

    /// Every role process.
    pub fn processes(&mut self) -> impl Iterator<Item = &mut RoleProcess> {
        self.commands
            .iter_mut()
            .chain(&mut self.projectors)
            .chain(&mut self.queries)
    }

    /// Where commands go.
    #[must_use]
    pub fn command_urls(&self) -> Vec<String> {
        self.commands.iter().map(RoleProcess::url).collect()
    }

    /// Where queries go.
    #[must_use]
    pub fn query_urls(&self) -> Vec<String> {
        self.queries.iter().map(RoleProcess::url).collect()
    }

    /// One of the query processes; any number does.
    #[must_use]
    pub fn query_url(&self, number: usize) -> String {
        self.queries[number % self.queries.len()].url()
    }
}

impl Drop for Cluster {
    /// `FAULT_LOGS=<folder>` keeps what the processes of a failed test logged.
    fn drop(&mut self) {
        let Some(folder) = std::env::var_os("FAULT_LOGS").filter(|_| std::thread::panicking())
        else {
            return;
        };
        let folder = PathBuf::from(folder).join(&self.namespace);
        println!("logs are in {}", folder.display());
        let _ = std::fs::create_dir_all(&folder);
        for process in self.processes() {
            let _ = std::fs::write(folder.join(process.name()), process.output());
        }
    }
}

async fn databases(
    options: &ClusterOptions,
    servers: &mut Servers,
) -> (Database, Option<Database>) {
    if !options.own_postgres {
        let log = millrace_testkit::postgres().await;
        let read = if options.separate_read_database {
            Some(millrace_testkit::postgres().await)
        } else {
            None
        };
        return (log, read);
    }
    let server = millrace_testkit::own_postgres().await;
    let log = server.database().await;
    let read = if options.separate_read_database {
        Some(server.database().await)
    } else {
        None
    };
    servers.postgres = Some(server);
    (log, read)
}

async fn messaging(options: &ClusterOptions, servers: &mut Servers) -> Nats {
    if !options.own_nats {
        return millrace_testkit::nats().await;
    }
    let server = millrace_testkit::own_nats().await;
    let nats = server.connect().await;
    servers.nats = Some(server);
    nats
}

async fn dynamodb(options: &ClusterOptions, servers: &mut Servers) -> Dynamo {
    if !options.own_dynamodb {
        return millrace_testkit::dynamodb().await;
    }
    let server = millrace_testkit::own_dynamodb().await;
    let dynamodb = server.connect();
    servers.dynamodb = Some(server);
    dynamodb
}

/// What every role is told: short leases and time-outs, so that faults are noticed within seconds.
fn settings(nats: &Nats, log: &str, read: &str) -> BTreeMap<String, String> {
    [
        ("DATABASE_URL", log),
        ("READ_DATABASE_URL", read),
        ("NATS_URL", &nats.url),
        ("MILLRACE_NAMESPACE", &nats.namespace),
        // Most tests hurt one context, whose views read another; those that hurt others say so.
        ("MILLRACE_CONTEXTS", "ordering,customers"),
        ("MILLRACE_LEASE_TTL_MS", "1500"),
        ("MILLRACE_DATABASE_CONNECTIONS", "8"),
        ("MILLRACE_QUERY_CONNECTIONS", "8"),
        ("MILLRACE_DRAIN_MS", "8000"),
        (
            "MILLRACE_CURSOR_KEY",
            "every query process signs its cursors with this",
        ),
    ]
    .into_iter()
    .map(|(name, value)| (name.to_owned(), value.to_owned()))
    .collect()
}
