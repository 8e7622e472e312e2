//! What the parts of the benchmark measure on.

use std::{
    sync::atomic::{AtomicU32, Ordering},
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail};
use millrace_parts::{
    Durability, Guarded, Nats, NatsOptions, Postgres, PostgresOptions, StopSignal, free_port,
    http_get, log_tail,
};
use sqlx::{Connection as _, Executor as _, PgConnection, PgPool};

use crate::output;

/// What a part measures on.
#[derive(Debug)]
pub struct BenchContext {
    /// A database of a PostgreSQL with `fsync` and `synchronous_commit` on, to make others from.
    pub database_url: String,
    /// A nats-server with JetStream.
    pub nats_url: String,
    /// A DynamoDB endpoint.
    pub dynamodb_endpoint: String,
    /// Whether this is only a look whether everything runs.
    pub quick: bool,
    /// What PostgreSQL and nats-server were found as.
    pub sources: Vec<String>,
    /// Tells names apart that several parts, or several runs on one server, make.
    run: String,
    names: AtomicU32,
    /// Ended when the benchmark does.
    _parts: Parts,
}

/// Servers of the benchmark's own, where none were given.
#[derive(Debug)]
struct Parts {
    _postgres: Option<Postgres>,
    _nats: Option<Nats>,
    _dynamodb: Option<DynamoDb>,
}

/// The embedded DynamoDB as `up` runs it: this program as a process of its own, on a file.
#[derive(Debug)]
struct DynamoDb {
    endpoint: String,
    _process: Guarded,
    _folder: tempfile::TempDir,
}

impl DynamoDb {
    async fn start() -> anyhow::Result<Self> {
        let folder = tempfile::tempdir()?;
        let port = free_port();
        let mut command = std::process::Command::new(std::env::current_exe()?);
        command
            .arg("dynamodb")
            .arg("--file")
            .arg(folder.path().join("dynamodb.sqlite"))
            .args(["--listen", &format!("127.0.0.1:{port}")]);
        let log = folder.path().join("dynamodb.log");
        let mut process = Guarded::spawn(command, &log, StopSignal::Terminate, None)?;
        let deadline = Instant::now() + Duration::from_millis(DYNAMODB_READY_MS);
        while http_get(port, "/", Duration::from_secs(1)).await.is_err() {
            if process.try_wait()?.is_some() || Instant::now() > deadline {
                bail!("the embedded DynamoDB is not ready: {}", log_tail(&log));
            }
            tokio::time::sleep(Duration::from_millis(DYNAMODB_POLL_MS)).await;
        }
        Ok(Self {
            endpoint: format!("http://127.0.0.1:{port}"),
            _process: process,
            _folder: folder,
        })
    }
}

/// Servers that were given; what is `None` gets a server of its own.
#[derive(Debug, Clone, Default)]
pub struct Given {
    pub database_url: Option<String>,
    pub nats_url: Option<String>,
    pub dynamodb_endpoint: Option<String>,
}

/// A database that a part has for itself.
#[derive(Debug, Clone)]
pub struct BenchDatabase {
    /// Where it is.
    pub url: String,
    /// A few connections to it, for preparing and looking.
    pub pool: PgPool,
}

/// How long the embedded DynamoDB may take until it answers, in milliseconds.
const DYNAMODB_READY_MS: u64 = 30_000;
/// How often it is asked, in milliseconds.
const DYNAMODB_POLL_MS: u64 = 20;
/// Connections of a [`BenchDatabase`]'s pool.
const POOL_CONNECTIONS: u32 = 8;

impl BenchContext {
    /// Starts what was not given: PostgreSQL as durable as in production, on disk; nats-server;
    /// the embedded DynamoDB.
    ///
    /// # Errors
    /// When a server cannot be started, or a given PostgreSQL acknowledges before it is durable.
    pub async fn start(given: Given, quick: bool) -> anyhow::Result<Self> {
        let mut sources = Vec::new();
        let postgres = match given.database_url {
            Some(_) => None,
            None => {
                let mut options = PostgresOptions::temporary()?;
                options.durability = Durability::Full;
                let server = Postgres::start(options).await?;
                sources.push(server.source().to_owned());
                Some(server)
            }
        };
        let nats = match given.nats_url {
            Some(_) => None,
            None => {
                let server = Nats::start(NatsOptions::temporary()?).await?;
                sources.push(server.source().to_owned());
                Some(server)
            }
        };
        let dynamodb = match given.dynamodb_endpoint {
            Some(_) => None,
            None => Some(DynamoDb::start().await?),
        };
        let own = "a server that was not given was started";
        let context = Self {
            database_url: given
                .database_url
                .or_else(|| postgres.as_ref().map(|server| server.url("postgres")))
                .context(own)?,
            nats_url: given
                .nats_url
                .or_else(|| nats.as_ref().map(Nats::url))
                .context(own)?,
            dynamodb_endpoint: given
                .dynamodb_endpoint
                .or_else(|| dynamodb.as_ref().map(|server| server.endpoint.clone()))
                .context(own)?,
            quick,
            sources,
            run: run_name(),
            names: AtomicU32::new(0),
            _parts: Parts {
                _postgres: postgres,
                _nats: nats,
                _dynamodb: dynamodb,
            },
        };
        context.check_durability().await?;
        Ok(context)
    }

    /// A server that answers before the disk has it would make every figure a lie.
    async fn check_durability(&self) -> anyhow::Result<()> {
        let mut connection = PgConnection::connect(&self.database_url).await?;
        for setting in ["fsync", "synchronous_commit"] {
            let value: String = sqlx::query_scalar("SELECT current_setting($1)")
                .bind(setting)
                .fetch_one(&mut connection)
                .await?;
            if value != "on" {
                bail!("PostgreSQL runs with {setting} = {value}: benchmarks need it on");
            }
        }
        connection.close().await?;
        Ok(())
    }

    /// The size of something in a full run, or in a quick one.
    pub fn size<T>(&self, full: T, quick: T) -> T {
        if self.quick { quick } else { full }
    }

    /// A name that nothing else has, valid in PostgreSQL, NATS and DynamoDB: `what` is a short
    /// word of `a-z`.
    pub fn fresh_name(&self, what: &str) -> String {
        let number = self.names.fetch_add(1, Ordering::Relaxed);
        format!("bench{}{what}{number}", self.run)
    }

    /// A fresh, empty database.
    ///
    /// # Errors
    /// When PostgreSQL does not make it.
    pub async fn database(&self, what: &str) -> anyhow::Result<BenchDatabase> {
        let name = self.fresh_name(what);
        let admin = PgPool::connect(&self.database_url).await?;
        admin
            .execute(sqlx::AssertSqlSafe(format!("CREATE DATABASE {name}")))
            .await
            .context("the benchmark's database could not be created")?;
        admin.close().await;
        let url = with_database(&self.database_url, &name);
        let pool = sqlx::postgres::PgPoolOptions::new()
            .max_connections(POOL_CONNECTIONS)
            .connect(&url)
            .await?;
        Ok(BenchDatabase { url, pool })
    }

    /// A client of the DynamoDB endpoint, as the roles make theirs.
    pub async fn dynamodb(&self) -> aws_sdk_dynamodb::Client {
        millrace_runtime::aws::dynamodb_client(Some(&self.dynamodb_endpoint)).await
    }

    /// Tells the person who waits what is being done.
    pub fn say(&self, text: &str) {
        // Progress is for people: when nobody reads it, the measurement goes on.
        let _ = output::say(&format!("  {text}"));
    }
}

/// Six letters and digits that differ from run to run.
fn run_name() -> String {
    format!("{:06x}", rand::random::<u32>() & 0xff_ffff)
}

/// The URL of another database of the same server.
fn with_database(url: &str, name: &str) -> String {
    let (base, query) = url.split_once('?').unwrap_or((url, ""));
    let scheme = base.find("://").map_or(0, |at| at + 3);
    let host_end = base[scheme..]
        .find('/')
        .map_or(base.len(), |at| scheme + at);
    let mark = if query.is_empty() { "" } else { "?" };
    format!("{}/{name}{mark}{query}", &base[..host_end])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_is_turned_to_another_database() {
        for (url, expected) in [
            ("postgres://u@h:1/a", "postgres://u@h:1/b"),
            ("postgres://u:p@h:1", "postgres://u:p@h:1/b"),
            (
                "postgres://h/a?sslmode=disable",
                "postgres://h/b?sslmode=disable",
            ),
        ] {
            assert_eq!(with_database(url, "b"), expected);
        }
    }
}
