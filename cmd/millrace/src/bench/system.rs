//! The roles as child processes of this very program, over a database and names of their own.

use std::{
    net::SocketAddr,
    path::PathBuf,
    process::Command,
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail};
use millrace_es::Context;
use millrace_parts::{Guarded, StopSignal, free_port, http_get, log_tail};
use millrace_projecting::{ContextHead, GenerationStatus, Rebuilds, StoreKind, View};

use super::{BenchContext, BenchDatabase};
use crate::{contexts, endpoints::Endpoints, lag, migrate, opened};
use millrace_roles::LogStore;

/// How long a role may take until it is ready, in milliseconds.
const READY_MS: u64 = 60_000;
/// How often that is asked, in milliseconds.
const POLL_MS: u64 = 50;
/// Connections for the queries of one read model: four for each of two cores. As many as there are
/// readers would have PostgreSQL switch between its processes instead of working.
const QUERY_CONNECTIONS: &str = "8";

/// Which roles run beside the command service.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Roles {
    relay: bool,
    query: bool,
    context: &'static str,
    banking_log: LogStore,
    /// The views that are kept.
    projections: &'static [&'static str],
}

/// The views of accounts.
const BANKING_VIEWS: [&str; 6] = [
    "account-balance",
    "transaction-history",
    "accounts",
    "transactions",
    "daily-balances",
    "account-summaries",
];

impl Roles {
    /// Everything.
    pub const ALL: Self = Self {
        relay: true,
        query: true,
        context: millrace_ordering::CONTEXT,
        banking_log: LogStore::Postgres,
        projections: &["orders-by-user", "order-read-models", "order-statistics"],
    };
    /// Everything but the view in DynamoDB, which has a generation and stays empty.
    pub const WITHOUT_DYNAMODB: Self = Self {
        projections: &["order-read-models", "order-statistics"],
        ..Self::ALL
    };
    /// The command service alone, without its relay.
    pub const COMMAND: Self = Self {
        relay: false,
        query: false,
        projections: &[],
        ..Self::ALL
    };

    /// Accounts instead of orders, with all their views and their log in this store.
    pub const fn banking(banking_log: LogStore) -> Self {
        Self {
            context: millrace_banking::CONTEXT,
            banking_log,
            projections: &BANKING_VIEWS,
            ..Self::ALL
        }
    }

    /// The command service alone, without its relay, for accounts.
    pub const fn banking_command(banking_log: LogStore) -> Self {
        Self {
            context: millrace_banking::CONTEXT,
            banking_log,
            ..Self::COMMAND
        }
    }
}

/// A running system.
#[derive(Debug)]
pub struct System {
    /// Takes writes.
    pub command: SocketAddr,
    /// Answers queries.
    pub query: SocketAddr,
    /// The log and the views in PostgreSQL.
    pub database: BenchDatabase,
    endpoints: Endpoints,
    context: Context,
    /// The contexts that the roles serve: the one that is measured and, where there is a query
    /// side, those that its views read as well.
    served: Vec<Context>,
    kept: &'static [&'static str],
    roles: Vec<Role>,
    /// The roles' logs.
    _folder: tempfile::TempDir,
}

#[derive(Debug)]
struct Role {
    name: &'static str,
    process: Guarded,
    admin: u16,
    log: PathBuf,
}

impl System {
    /// Makes a database and starts roles on it; returns when they are ready.
    ///
    /// # Errors
    /// When a store refuses or a role does not become ready.
    pub async fn start(context: &BenchContext, roles: Roles) -> anyhow::Result<Self> {
        let database = context.database("system").await?;
        Self::start_on(context, roles, database).await
    }

    /// As [`System::start`], on a database that is there already.
    ///
    /// # Errors
    /// When a store refuses or a role does not become ready.
    pub async fn start_on(
        context: &BenchContext,
        roles: Roles,
        database: BenchDatabase,
    ) -> anyhow::Result<Self> {
        let local = || SocketAddr::from(([127, 0, 0, 1], free_port()));
        let (command, query) = (local(), local());
        let endpoints = Endpoints {
            database_url: database.url.clone(),
            read_database_url: database.url.clone(),
            own_databases: std::collections::BTreeMap::new(),
            nats_url: context.nats_url.clone(),
            nats_creds: None,
            dynamodb_endpoint: Some(context.dynamodb_endpoint.clone()),
            namespace: context.fresh_name("ns"),
            banking_log: roles.banking_log,
            public_url: None,
            admin_url: None,
        };
        migrate::everything(&endpoints)
            .await
            .map_err(|failure| anyhow::anyhow!("{failure}"))?;
        let context = Context::new(roles.context)?;
        let mut system = Self {
            command,
            query,
            database,
            endpoints,
            served: if roles.query {
                read_beside(&context)?
            } else {
                vec![context.clone()]
            },
            context,
            kept: roles.projections,
            roles: Vec::new(),
            _folder: tempfile::tempdir()?,
        };
        Box::pin(system.make_generations()).await?;
        let relay = if roles.relay { "true" } else { "false" };
        system.spawn("command", Some(command), &[("MILLRACE_RELAY", relay)])?;
        if !roles.projections.is_empty() {
            let views = roles.projections.join(",");
            // What is rebuilt is rebuilt by who measures it, and by nobody beside.
            let settings = [
                ("MILLRACE_PROJECTIONS", views.as_str()),
                ("MILLRACE_REBUILD_BY", "job"),
            ];
            system.spawn("projector", None, &settings)?;
        }
        if roles.query {
            let connections = [("MILLRACE_QUERY_CONNECTIONS", QUERY_CONNECTIONS)];
            system.spawn("query", Some(query), &connections)?;
        }
        for role in &mut system.roles {
            role.ready().await?;
        }
        Ok(system)
    }

    /// Nothing of this process's environment speaks for the roles.
    fn spawn(
        &mut self,
        name: &'static str,
        listen: Option<SocketAddr>,
        settings: &[(&str, &str)],
    ) -> anyhow::Result<()> {
        let admin = free_port();
        let log = self._folder.path().join(format!("{name}.log"));
        let mut command = Command::new(std::env::current_exe()?);
        let foreign = std::env::vars_os().map(|(name, _)| name).filter(|name| {
            let name = name.to_string_lossy();
            name.starts_with("MILLRACE_") || name.ends_with("_URL") || name.starts_with("OTEL_")
        });
        for name in foreign {
            command.env_remove(name);
        }
        let endpoints = &self.endpoints;
        let served: Vec<&str> = self.served.iter().map(Context::as_str).collect();
        command
            .args(["role", name])
            .env("DATABASE_URL", &endpoints.database_url)
            .env("NATS_URL", &endpoints.nats_url)
            .env("MILLRACE_NAMESPACE", &endpoints.namespace)
            .env("MILLRACE_ADMIN_LISTEN", format!("127.0.0.1:{admin}"))
            .env("MILLRACE_LOG", "warn")
            .env("MILLRACE_CONTEXTS", served.join(","))
            .env("MILLRACE_BANKING_LOG", endpoints.banking_log.as_str())
            .envs(settings.iter().copied());
        if let Some(endpoint) = &endpoints.dynamodb_endpoint {
            command.env("DYNAMODB_ENDPOINT", endpoint);
        }
        if let Some(address) = listen {
            command.env("MILLRACE_LISTEN", address.to_string());
        }
        if name == "command" {
            command.env("MILLRACE_INTERNAL_LISTEN", "127.0.0.1:0");
        }
        let process = Guarded::spawn(command, &log, StopSignal::Terminate, None)?;
        self.roles.push(Role {
            name,
            process,
            admin,
            log,
        });
        Ok(())
    }

    /// Makes the first generation of every view, so that queries are ready whoever keeps them.
    async fn make_generations(&self) -> anyhow::Result<()> {
        let failed = |failure| anyhow::anyhow!("{failure}");
        let stores = opened::read_stores(&self.endpoints).await.map_err(failed)?;
        let mut heads = Vec::new();
        for context in read_beside(&self.context)? {
            let log = opened::log(&self.endpoints, &context)
                .await
                .map_err(failed)?;
            let head = log.head().await?;
            heads.push(ContextHead {
                context,
                epoch: head.epoch,
                partition_positions: head.partition_positions,
            });
        }
        for view in contexts::views(&self.context).map_err(failed)? {
            match view.store() {
                StoreKind::Postgres => stores.postgres.ensure_generation(&view, &heads).await?,
                StoreKind::DynamoDb => stores.dynamodb.ensure_generation(&view, &heads).await?,
            };
        }
        Ok(())
    }

    /// Waits until relay and projections have all that is in the log.
    ///
    /// # Errors
    /// When the deadline passes first, or something does not answer.
    pub async fn caught_up(&self, deadline: Instant) -> anyhow::Result<()> {
        let context = &self.context;
        loop {
            let kept = |view: &str| self.kept.contains(&view);
            let behind = lag::furthest_behind(&self.endpoints, context, kept)
                .await
                .map_err(|failure| anyhow::anyhow!("{failure}"))?;
            let Some(behind) = behind else {
                return Ok(());
            };
            if Instant::now() > deadline {
                bail!("{behind} did not catch up in time");
            }
            tokio::time::sleep(Duration::from_millis(POLL_MS)).await;
        }
    }

    /// Rebuilds of a view of this system's.
    ///
    /// # Errors
    /// When a store does not answer.
    pub async fn rebuilds(&self, view: View) -> anyhow::Result<Rebuilds> {
        let failed = |failure| anyhow::anyhow!("{failure}");
        let mut logs = Vec::new();
        for context in view.contexts() {
            logs.push(
                opened::log(&self.endpoints, context)
                    .await
                    .map_err(failed)?,
            );
        }
        let stores = opened::read_stores(&self.endpoints).await.map_err(failed)?;
        let postgres = Some(stores.postgres);
        Ok(Rebuilds::new(vec![view], logs, postgres, None, None))
    }

    /// The table that answers for a projection.
    ///
    /// # Errors
    /// When there is none, or DynamoDB does not answer.
    pub async fn dynamodb_table(&self, projection: &str) -> anyhow::Result<String> {
        let stores = opened::read_stores(&self.endpoints)
            .await
            .map_err(|failure| anyhow::anyhow!("{failure}"))?;
        let generations = stores.dynamodb.generations(projection).await?;
        let active = generations
            .into_iter()
            .find(|generation| generation.status == GenerationStatus::Active);
        Ok(active.context("no generation answers")?.place)
    }

    /// Ends the roles, readers first; the database stays.
    ///
    /// # Errors
    /// When a role cannot be signalled.
    pub async fn stop(mut self) -> anyhow::Result<BenchDatabase> {
        for role in self.roles.iter_mut().rev() {
            role.process.stop().await?;
        }
        Ok(self.database)
    }
}

/// A context and those that are read by the views that read it.
fn read_beside(context: &Context) -> anyhow::Result<Vec<Context>> {
    let views = contexts::views(context).map_err(|failure| anyhow::anyhow!("{failure}"))?;
    let mut all = vec![context.clone()];
    for other in views.iter().flat_map(millrace_projecting::View::contexts) {
        if !all.contains(other) {
            all.push(other.clone());
        }
    }
    Ok(all)
}

impl Role {
    async fn ready(&mut self) -> anyhow::Result<()> {
        let deadline = Instant::now() + Duration::from_millis(READY_MS);
        loop {
            let bound = Duration::from_secs(1);
            if let Ok((200, _)) = http_get(self.admin, "/readyz", bound).await {
                return Ok(());
            }
            if self.process.try_wait()?.is_some() || Instant::now() > deadline {
                bail!("{} is not ready: {}", self.name, log_tail(&self.log));
            }
            tokio::time::sleep(Duration::from_millis(POLL_MS)).await;
        }
    }
}
