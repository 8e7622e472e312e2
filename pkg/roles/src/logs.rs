//! The event logs of a process's contexts, wherever each is kept.

use std::{fmt, sync::Arc};

use anyhow::Context as _;
use aws_sdk_dynamodb::Client;
use clap::ValueEnum;
use millrace_es::{Context, PartitionCount, Position};
use millrace_eventlog::{
    EventLog, LogError, PgEventLog, PgLogOptions,
    dynamodb::{
        self, DynamoEventLog, DynamoLogOptions, create_log_table, streams::StreamProcessor,
        table_name,
    },
};
use millrace_internal::{Owners, RemoteLog};
use millrace_projecting::View;
use serde::{Deserialize, Serialize};
use sqlx::PgPool;
use tokio_util::sync::CancellationToken;

use crate::{
    DynamoSettings, KnownContext, Late, LogSettings, OwnLog,
    open::{check_log, may_be_made, may_pass, patiently, pool},
};

/// Where a context's log is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogStore {
    /// In PostgreSQL
    Postgres,
    /// In DynamoDB, with DynamoDB Streams
    #[default]
    #[value(name = "dynamodb")]
    DynamoDb,
}

impl LogStore {
    /// Its name as a setting.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Postgres => "postgres",
            Self::DynamoDb => "dynamodb",
        }
    }

    const fn other(self) -> Self {
        match self {
            Self::Postgres => Self::DynamoDb,
            Self::DynamoDb => Self::Postgres,
        }
    }
}

/// Connections to the databases of the logs in PostgreSQL: one for all, and others for contexts that
/// have their own.
#[derive(Debug, Clone, Default)]
pub struct PgPlaces {
    default: Option<PgPool>,
    own: Vec<(String, PgPool)>,
}

impl PgPlaces {
    /// Every log in one database, where there is one.
    #[must_use]
    pub const fn new(default: Option<PgPool>) -> Self {
        Self {
            default,
            own: Vec::new(),
        }
    }

    /// With a context's log in another.
    #[must_use]
    pub fn with(mut self, context: impl Into<String>, pool: PgPool) -> Self {
        self.own.push((context.into(), pool));
        self
    }

    /// The database of a context's log, if something says which it is.
    #[must_use]
    pub fn find(&self, context: &Context) -> Option<&PgPool> {
        let own = self.own.iter().find(|(name, _)| name == context.as_str());
        own.map(|(_, pool)| pool).or(self.default.as_ref())
    }

    /// The database of a context's log.
    ///
    /// # Errors
    /// When nothing says which it is.
    pub fn of(&self, context: &Context) -> anyhow::Result<&PgPool> {
        self.find(context).with_context(|| {
            let own = context.as_str().to_uppercase();
            format!(
                "there is no PostgreSQL for the event log of {context}: set \
                 MILLRACE_{own}_DATABASE_URL, or DATABASE_URL for all that have no other"
            )
        })
    }
}

/// Where the logs of an installation are.
#[derive(Clone)]
pub struct LogPlaces {
    /// Connections to the PostgreSQL of those that are kept there.
    pub postgres: PgPlaces,
    /// The DynamoDB of those that are kept there.
    pub dynamodb: Client,
    /// What their tables' names begin with.
    pub namespace: String,
    /// Where the log of banking is kept.
    pub banking: LogStore,
    /// How many partitions they spread their events over.
    pub partitions: PartitionCount,
}

impl fmt::Debug for LogPlaces {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LogPlaces")
            .field("namespace", &self.namespace)
            .field("banking", &self.banking)
            .field("partitions", &self.partitions)
            .finish_non_exhaustive()
    }
}

impl LogPlaces {
    /// As the settings say. `name` is what PostgreSQL shows for the connections.
    ///
    /// # Errors
    /// When a URL of PostgreSQL is none.
    pub async fn of(
        log: &LogSettings,
        dynamodb: &DynamoSettings,
        namespace: &str,
        name: &'static str,
    ) -> anyhow::Result<Self> {
        let default = log
            .database_url
            .as_ref()
            .filter(|url| !url.expose().is_empty());
        let default = default.map(|url| pool(log, (url, "DATABASE_URL"), name));
        let mut postgres = PgPlaces::new(default.transpose()?);
        for (context, url) in log.own_urls() {
            let setting = format!("MILLRACE_{}_DATABASE_URL", context.to_uppercase());
            postgres = postgres.with(context, pool(log, (url, &setting), name)?);
        }
        Ok(Self {
            postgres,
            dynamodb: millrace_runtime::aws::dynamodb_client(dynamodb.endpoint()).await,
            namespace: namespace.to_owned(),
            banking: log.banking_log,
            partitions: log.partitions,
        })
    }

    /// Where a context's log is kept.
    #[must_use]
    pub fn store(&self, own: &OwnLog) -> LogStore {
        (own.log_store)(self.banking)
    }

    /// Makes or upgrades a context's log, and its own tables beside it. `false` when told to stop
    /// before the store answered.
    ///
    /// # Errors
    /// When the context has no log, the log was made otherwise than the settings say, or its events
    /// are in the other store.
    pub async fn migrate(
        &self,
        known: &KnownContext,
        stop: &CancellationToken,
    ) -> anyhow::Result<bool> {
        let (context, own) = (known.context()?, log_of(known)?);
        // Boxed, as every role's own future holds this one: its layout is nested deeply enough.
        if !Box::pin(self.is_its_place(own, &context, stop)).await? {
            return Ok(false);
        }
        let migrated = match self.store(own) {
            LogStore::Postgres => {
                let tables = (own.migrations)();
                let pool = self.postgres.of(&context)?;
                patiently("migrate the event log", stop, may_pass, || {
                    millrace_eventlog::migrate(pool, &context, self.partitions, tables)
                })
                .await?
            }
            LogStore::DynamoDb => {
                patiently("make the event log's table", stop, may_pass, || {
                    let (client, namespace) = (&self.dynamodb, &self.namespace);
                    create_log_table(client, namespace, &context, self.partitions)
                })
                .await?
            }
        };
        Ok(migrated.is_some())
    }

    /// Refuses to begin a log in one store when the context's events are in the other: its stream
    /// and its views are theirs. `false` when told to stop before the stores answered.
    async fn is_its_place(
        &self,
        own: &OwnLog,
        context: &Context,
        stop: &CancellationToken,
    ) -> anyhow::Result<bool> {
        let store = self.store(own);
        let other = store.other();
        if (own.log_store)(other) == store {
            return Ok(true);
        }
        for place in [store, other] {
            let newest = patiently("look for the event log", stop, may_pass, || {
                self.newest(place, context)
            });
            let Some(newest) = newest.await? else {
                return Ok(false);
            };
            if newest == Position::ZERO {
                continue;
            }
            anyhow::ensure!(
                place == store,
                "{context} is to be kept in {}, but its {newest} events are in {}, and they do not \
                 move: set MILLRACE_BANKING_LOG={}, or begin anew with other databases and another \
                 MILLRACE_NAMESPACE (on a laptop: another --data-dir, or --fresh)",
                store.as_str(),
                other.as_str(),
                other.as_str(),
            );
            break;
        }
        Ok(true)
    }

    /// How many events a context has in a store.
    async fn newest(&self, store: LogStore, context: &Context) -> Result<Position, LogError> {
        let head = match store {
            LogStore::Postgres => match self.postgres.find(context) {
                Some(pool) => millrace_eventlog::log_head(pool, context).await,
                None => return Ok(Position::ZERO),
            },
            LogStore::DynamoDb => {
                dynamodb::log_head(&self.dynamodb, &self.namespace, context).await
            }
        };
        match head {
            Ok(head) => Ok(head.position),
            Err(LogError::Missing(_)) => Ok(Position::ZERO),
            Err(error) => Err(error),
        }
    }

    /// Opens a context's log, as soon as its store answers and the log is made. Without `appends` it keeps no tables in
    /// the append's transaction, for processes that only read. `None` when told to stop meanwhile.
    ///
    /// # Errors
    /// When the context has no log, or it is not as the settings say.
    pub async fn open(
        &self,
        known: &KnownContext,
        appends: bool,
        stop: &CancellationToken,
    ) -> anyhow::Result<Option<OpenedLog>> {
        let (context, own) = (known.context()?, log_of(known)?);
        let opened = match self.store(own) {
            LogStore::Postgres => {
                let pool = self.postgres.of(&context)?;
                let place = (pool, &context);
                let log = self.open_postgres(own, place, appends, stop).await?;
                log.map(|log| OpenedLog::Postgres(log, pool.clone()))
            }
            LogStore::DynamoDb => {
                let log = self.open_dynamodb(own, &context, appends, stop).await?;
                log.map(OpenedLog::DynamoDb)
            }
        };
        Ok(opened)
    }

    async fn open_postgres(
        &self,
        own: &OwnLog,
        (pool, context): (&PgPool, &Context),
        appends: bool,
        stop: &CancellationToken,
    ) -> Result<Option<Arc<PgEventLog>>, LogError> {
        let opened = patiently("open the event log", stop, may_be_made, || {
            let mut options = PgLogOptions::new(context.clone());
            options.partitions = self.partitions;
            if appends {
                options.inline = (own.inline_tables)();
            }
            async move {
                // Tells a log that is yet to be made from one that this release cannot read.
                millrace_eventlog::log_head(pool, context).await?;
                PgEventLog::open(pool.clone(), options).await
            }
        });
        Ok(opened.await?.map(Arc::new))
    }

    async fn open_dynamodb(
        &self,
        own: &OwnLog,
        context: &Context,
        appends: bool,
        stop: &CancellationToken,
    ) -> Result<Option<Arc<DynamoEventLog>>, LogError> {
        let opened = patiently("open the event log", stop, may_be_made, || {
            let mut options = DynamoLogOptions::new(self.namespace.clone(), context.clone());
            options.partitions = self.partitions;
            if appends {
                options.inline = (own.inline_items)();
            }
            DynamoEventLog::open(self.dynamodb.clone(), options)
        });
        Ok(opened.await?.map(Arc::new))
    }
}

/// A context's own log.
fn log_of(known: &KnownContext) -> anyhow::Result<&OwnLog> {
    known.own_log().with_context(|| {
        let name = known.name;
        format!("{name} has no event log: it only listens to others")
    })
}

/// A context's event log, opened.
#[derive(Debug, Clone)]
pub enum OpenedLog {
    /// In PostgreSQL, reached over these connections.
    Postgres(Arc<PgEventLog>, PgPool),
    /// In DynamoDB.
    DynamoDb(Arc<DynamoEventLog>),
}

impl OpenedLog {
    /// What feeds the relay beside the log itself, if something does; it has to be run.
    pub async fn stream_processor(
        &self,
        dynamodb: &DynamoSettings,
        namespace: &str,
    ) -> Option<StreamProcessor> {
        let Self::DynamoDb(log) = self else {
            return None;
        };
        let endpoint = dynamodb.endpoint();
        Some(StreamProcessor::new(
            Arc::clone(log) as Arc<dyn EventLog>,
            millrace_runtime::aws::dynamodb_client(endpoint).await,
            millrace_runtime::aws::dynamodb_streams_client(endpoint).await,
            table_name(namespace, log.context()),
            dynamodb.streams(),
        ))
    }

    /// Whose it is.
    #[must_use]
    pub fn context(&self) -> &Context {
        match self {
            Self::Postgres(log, _) => log.context(),
            Self::DynamoDb(log) => log.context(),
        }
    }

    /// The log.
    #[must_use]
    pub fn shared(&self) -> Arc<dyn EventLog> {
        match self {
            Self::Postgres(log, _) => Arc::clone(log) as Arc<dyn EventLog>,
            Self::DynamoDb(log) => Arc::clone(log) as Arc<dyn EventLog>,
        }
    }
}

/// How a process uses its logs.
#[derive(Debug, Clone, Copy)]
pub struct LogUse {
    /// Whether to bring them up to date first.
    pub migrate: bool,
    /// Whether it appends, and so keeps the tables of the append's own transaction.
    pub appends: bool,
}

/// The event logs of a process: one for each of its contexts that has one, and those of others that
/// it reads through their owners.
#[derive(Debug, Clone, Default)]
pub struct Logs {
    own: Vec<OpenedLog>,
    others: Vec<Arc<RemoteLog>>,
}

impl Logs {
    /// Opens the logs of contexts that have one, each as soon as its store answers and the log is
    /// made, by this process or another. `None` when told to stop meanwhile.
    ///
    /// # Errors
    /// When a log is not as the settings say.
    pub async fn open(
        places: &LogPlaces,
        contexts: &[&'static KnownContext],
        log_use: LogUse,
        stop: &CancellationToken,
    ) -> anyhow::Result<Option<Self>> {
        let mut own = Vec::new();
        let decides = |known: &&&KnownContext| known.own_log().is_some();
        for known in contexts.iter().filter(decides) {
            if log_use.migrate && !places.migrate(known, stop).await? {
                return Ok(None);
            }
            let Some(log) = places.open(known, log_use.appends, stop).await? else {
                return Ok(None);
            };
            own.push(log);
        }
        let others = Vec::new();
        Ok(Some(Self { own, others }))
    }

    /// Adds the logs that views read and that are none of this process's own, through their owners.
    ///
    /// # Errors
    /// When nobody is named as the owner of one, or by a URL that is none.
    pub fn with_others(mut self, views: &[View], owners: &Owners) -> anyhow::Result<Self> {
        for view in views {
            for context in view.contexts() {
                if self.shared().iter().any(|log| log.context() == context) {
                    continue;
                }
                let owner = owners.client(context)?.with_context(|| {
                    let name = view.name();
                    format!(
                        "the view {name} reads the events of {context}, which is none of this \
                         process's contexts: name its owner's internal port with \
                         MILLRACE_OWNERS={context}=http://<host>:<port>, or add it to \
                         MILLRACE_CONTEXTS"
                    )
                })?;
                self.others.push(Arc::new(RemoteLog::new(owner)));
            }
        }
        Ok(self)
    }

    /// Each of this process's own.
    pub fn iter(&self) -> impl Iterator<Item = &OpenedLog> {
        self.own.iter()
    }

    /// The log of a context.
    #[must_use]
    pub fn of(&self, context: &KnownContext) -> Option<&OpenedLog> {
        self.own
            .iter()
            .find(|log| log.context().as_str() == context.name)
    }

    /// All of them, those of others too, to read from.
    #[must_use]
    pub fn shared(&self) -> Vec<Arc<dyn EventLog>> {
        let others = self
            .others
            .iter()
            .map(|log| Arc::clone(log) as Arc<dyn EventLog>);
        self.own
            .iter()
            .map(OpenedLog::shared)
            .chain(others)
            .collect()
    }

    /// Finishes the appends that wait, and ends what the logs do beside.
    pub async fn close(&self) {
        for one in &self.own {
            one.shared().close().await;
        }
    }
}

impl Late<Logs> {
    /// Whether every log of this process's own answers and takes appends. Those of others are not
    /// asked: what they are needed for can wait, and the streams go on without them.
    ///
    /// # Errors
    /// A sentence for `/readyz`.
    pub async fn check(&self) -> Result<(), String> {
        for one in self.get()?.iter() {
            check_log(&*one.shared())
                .await
                .map_err(|error| format!("{}: {error}", one.context()))?;
        }
        Ok(())
    }
}
