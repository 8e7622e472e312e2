use std::{path::PathBuf, time::Duration};

use anyhow::Context as _;
use clap::{Args, ValueEnum};
use millrace_es::PartitionCount;
use millrace_eventlog::dynamodb::streams::StreamsOptions;
use millrace_internal::{Owner, Owners};
use millrace_projecting::PgStore;
use millrace_runtime::Secret;
use millrace_streaming::{LEASE_TTL_MS, LeaseOptions, TopologyOptions};

use crate::{CONTEXTS, KnownContext, LogStore};

/// The shortest time between two calls on a shard of an endpoint of one's own, in milliseconds.
const OWN_ENDPOINT_CALL_MS: u64 = 5;
/// A lease is renewed this many times in its life.
const RENEWALS_PER_LEASE: u32 = 4;

/// Where the event log is.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Event log")]
pub struct LogSettings {
    /// PostgreSQL of the event logs that have no other
    #[arg(long, env = "DATABASE_URL", value_name = "URL")]
    pub database_url: Option<Secret<String>>,

    /// PostgreSQL of the event log of customers [default: as DATABASE_URL says]
    #[arg(long, env = "MILLRACE_CUSTOMERS_DATABASE_URL", value_name = "URL")]
    pub customers_database_url: Option<Secret<String>>,

    /// PostgreSQL of the event log of ordering [default: as DATABASE_URL says]
    #[arg(long, env = "MILLRACE_ORDERING_DATABASE_URL", value_name = "URL")]
    pub ordering_database_url: Option<Secret<String>>,

    /// PostgreSQL of the event log of banking, where it is kept there [default: as DATABASE_URL
    /// says]
    #[arg(long, env = "MILLRACE_BANKING_DATABASE_URL", value_name = "URL")]
    pub banking_database_url: Option<Secret<String>>,

    /// Connections to the event log's PostgreSQL, beside the one that appends
    #[arg(
        long,
        env = "MILLRACE_DATABASE_CONNECTIONS",
        default_value = "16",
        value_name = "COUNT"
    )]
    pub database_connections: u32,

    /// How many partitions a context's events are spread over, 1 to 256. Said once: a log that was
    /// made with another count is refused
    #[arg(
        long,
        env = "MILLRACE_PARTITIONS",
        default_value = "16",
        value_name = "COUNT",
        value_parser = partition_count
    )]
    pub partitions: PartitionCount,

    /// The contexts that this process serves, by name, separated by commas [default: all]
    #[arg(
        long = "contexts",
        env = "MILLRACE_CONTEXTS",
        value_delimiter = ',',
        value_name = "NAMES"
    )]
    pub context_names: Vec<String>,

    /// Where the event log of banking is kept. Events do not move from one to the other
    #[arg(
        long,
        env = "MILLRACE_BANKING_LOG",
        default_value_t,
        value_enum,
        value_name = "STORE"
    )]
    pub banking_log: LogStore,
}

impl LogSettings {
    /// The databases of contexts' logs that are not where `DATABASE_URL` says.
    pub(crate) fn own_urls(&self) -> impl Iterator<Item = (&'static str, &Secret<String>)> {
        [
            ("customers", &self.customers_database_url),
            ("ordering", &self.ordering_database_url),
            ("banking", &self.banking_database_url),
        ]
        .into_iter()
        .filter_map(|(context, url)| Some((context, given(url)?)))
    }

    /// The contexts that this process serves.
    ///
    /// # Errors
    /// When a name is not that of a context of this release.
    pub fn contexts(&self) -> anyhow::Result<Vec<&'static KnownContext>> {
        let names = &self.context_names;
        let known = |name: &String| CONTEXTS.iter().any(|context| context.name == name);
        if let Some(unknown) = names.iter().find(|name| !known(name)) {
            let all: Vec<_> = CONTEXTS.iter().map(|context| context.name).collect();
            anyhow::bail!(
                "there is no context {unknown:?} (MILLRACE_CONTEXTS); there are {}",
                all.join(", ")
            );
        }
        let chosen = |context: &&KnownContext| {
            names.is_empty() || names.iter().any(|name| name == context.name)
        };
        Ok(CONTEXTS.iter().filter(chosen).collect())
    }
}

/// Where the owners of other contexts are.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Other contexts")]
pub struct OwnerSettings {
    /// The internal ports of the contexts that this process has no log of, separated by commas,
    /// such as `customers=http://command:8090`
    #[arg(
        long,
        env = "MILLRACE_OWNERS",
        value_delimiter = ',',
        value_name = "CONTEXT=URL"
    )]
    pub owners: Vec<Owner>,

    /// What internal ports ask for, and what this process's own asks for; all processes of an
    /// installation share it. Without it whoever reaches such a port is let in
    #[arg(long, env = "MILLRACE_INTERNAL_TOKEN", value_name = "SECRET")]
    pub internal_token: Option<Secret<String>>,
}

impl OwnerSettings {
    /// The owners, to be asked.
    #[must_use]
    pub fn owners(&self) -> Owners {
        Owners {
            owners: self.owners.clone(),
            token: self.internal_token.clone(),
        }
    }
}

fn partition_count(text: &str) -> Result<PartitionCount, String> {
    let count = text
        .parse()
        .map_err(|_| "must be a number from 1 to 256".to_owned())?;
    PartitionCount::new(count).map_err(|error| error.to_string())
}

/// Where NATS is.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "NATS")]
pub struct NatsSettings {
    /// NATS servers, separated by commas
    #[arg(
        long,
        env = "NATS_URL",
        default_value = "nats://127.0.0.1:4222",
        value_name = "URL"
    )]
    pub nats_url: Secret<String>,

    /// File with the credentials (JWT and key) that NATS asks for; `docs/nats.md` says which rights
    /// they need
    #[arg(long, env = "NATS_CREDS", value_name = "FILE")]
    pub nats_creds: Option<PathBuf>,

    /// Copies of every stream in the NATS cluster: 1 on a laptop, 3 in production
    #[arg(
        long,
        env = "MILLRACE_NATS_REPLICAS",
        default_value = "1",
        value_name = "COUNT"
    )]
    pub nats_replicas: usize,

    /// How long a lease on a partition or on the relay lives without being renewed, in
    /// milliseconds: how long others wait when a process dies
    #[arg(
        long,
        env = "MILLRACE_LEASE_TTL_MS",
        default_value_t = LEASE_TTL_MS,
        value_name = "MS"
    )]
    pub lease_ttl_ms: u64,
}

impl NatsSettings {
    /// How streams are kept.
    #[must_use]
    pub fn topology(&self) -> TopologyOptions {
        TopologyOptions {
            replicas: self.nats_replicas,
        }
    }

    /// How long leases live.
    #[must_use]
    pub fn leases(&self) -> LeaseOptions {
        let ttl = Duration::from_millis(self.lease_ttl_ms);
        LeaseOptions {
            ttl,
            renew_every: ttl / RENEWALS_PER_LEASE,
            ..LeaseOptions::default()
        }
    }
}

/// Where projectors write in PostgreSQL.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Read models")]
pub struct ReadStoreSettings {
    /// PostgreSQL of the read models [default: the event log's]
    #[arg(long, env = "READ_DATABASE_URL", value_name = "URL")]
    pub read_database_url: Option<Secret<String>>,

    /// PostgreSQL of billing, which has read models only [default: that of the others']
    #[arg(long, env = "MILLRACE_BILLING_DATABASE_URL", value_name = "URL")]
    pub billing_database_url: Option<Secret<String>>,
}

impl ReadStoreSettings {
    /// Where the read models in PostgreSQL are that have no database of their own: beside the event
    /// log unless said otherwise.
    ///
    /// # Errors
    /// When nothing says it.
    pub fn url<'a>(&'a self, log: &'a LogSettings) -> anyhow::Result<&'a Secret<String>> {
        // A process of billing alone has no other database.
        given(&self.read_database_url)
            .or_else(|| given(&log.database_url))
            .or_else(|| given(&self.billing_database_url))
            .context("there is no PostgreSQL for the read models: set READ_DATABASE_URL, or DATABASE_URL for the event logs too")
    }

    /// The databases of contexts' read models that are not where the others are.
    pub fn own_urls(&self) -> impl Iterator<Item = (&'static str, &Secret<String>)> {
        [("billing", &self.billing_database_url)]
            .into_iter()
            .filter_map(|(context, url)| Some((context, given(url)?)))
    }

    /// Opens the databases of these contexts' read models. Nothing is asked of them yet.
    ///
    /// # Errors
    /// When nothing says where they are, or a URL is none.
    pub fn open(
        &self,
        log: &LogSettings,
        contexts: &[&'static KnownContext],
    ) -> anyhow::Result<PgStore> {
        let mut store = PgStore::open(self.url(log)?.expose())?;
        for (name, url) in self.own_urls() {
            for known in contexts.iter().filter(|known| known.name == name) {
                store = store.with(&(known.views)(), PgStore::open(url.expose())?);
            }
        }
        Ok(store)
    }
}

/// A setting that is not empty.
fn given(setting: &Option<Secret<String>>) -> Option<&Secret<String>> {
    setting
        .as_ref()
        .filter(|setting| !setting.expose().is_empty())
}

/// Where receipts are archived.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Receipts")]
pub struct ArchiveSettings {
    /// Where receipts are archived: file:///folder or s3://bucket/prefix. For S3 region and keys are
    /// Amazon's usual environment variables, web identity, container or instance [default: nowhere]
    #[arg(long, env = "MILLRACE_RECEIPTS_URL", value_name = "URL")]
    pub receipts_url: Option<String>,

    /// S3 endpoint [default: Amazon's]. It gets path-style requests, and HTTP only if it says so
    #[arg(long, env = "S3_ENDPOINT", value_name = "URL")]
    pub s3_endpoint: Option<String>,

    /// The id of an access key for S3 alone [default: as for everything of Amazon's]
    #[arg(long, env = "S3_ACCESS_KEY_ID", value_name = "ID")]
    pub s3_access_key_id: Option<String>,

    /// The secret of that key
    #[arg(long, env = "S3_SECRET_ACCESS_KEY", value_name = "SECRET")]
    pub s3_secret_access_key: Option<Secret<String>>,
}

/// Where the effects of reactions go.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Notifications")]
pub struct EffectSettings {
    /// SNS topic that is told of every order; one whose name ends in .fifo keeps the order of each
    /// [default: nobody is told]
    #[arg(long, env = "MILLRACE_NOTIFICATIONS_TOPIC_ARN", value_name = "ARN")]
    pub notifications_topic_arn: Option<String>,

    /// SNS endpoint [default: Amazon's, with the usual AWS settings]
    #[arg(long, env = "SNS_ENDPOINT", value_name = "URL")]
    pub sns_endpoint: Option<String>,

    /// Where receipts are archived.
    #[command(flatten)]
    pub archive: ArchiveSettings,
}

/// Who does the bulk work of rebuilds: one setting, of the controller and of the projectors.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum RebuildBy {
    /// An Indexed Job, which takes nothing from the live projector.
    Job,
    /// The projector, where no Jobs can run.
    Projector,
}

/// Where DynamoDB is.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "DynamoDB")]
pub struct DynamoSettings {
    /// DynamoDB endpoint [default: Amazon's, with the usual AWS settings]
    #[arg(long, env = "DYNAMODB_ENDPOINT", value_name = "URL")]
    pub dynamodb_endpoint: Option<String>,
}

impl DynamoSettings {
    /// The endpoint, where one is named.
    #[must_use]
    pub fn endpoint(&self) -> Option<&str> {
        self.dynamodb_endpoint
            .as_deref()
            .filter(|endpoint| !endpoint.is_empty())
    }

    /// How DynamoDB Streams are read: Amazon's takes five calls a second on a shard, an endpoint of
    /// one's own as many as it can answer.
    #[must_use]
    pub fn streams(&self) -> StreamsOptions {
        if self.endpoint().is_none() {
            return StreamsOptions::default();
        }
        StreamsOptions {
            call_every: Duration::from_millis(OWN_ENDPOINT_CALL_MS),
            ..StreamsOptions::default()
        }
    }
}
