//! `millrace bench`: what this machine gives, each figure beside a baseline of the same run.
//!
//! Every part is a module with `run(&BenchContext) -> Result<Vec<Figure>>`. A part makes what it
//! needs fresh (a database, a namespace), so parts can run in any order and alone.

mod figure;
mod http;
mod latency;
mod load;
mod pgbench;

use std::{
    fs,
    path::PathBuf,
    sync::atomic::{AtomicU32, Ordering},
};

use anyhow::Context as _;
use clap::{Args, ValueEnum};
use serde::Serialize;
use sqlx::{Executor as _, PgPool};

pub use figure::{Figure, Target};
pub use latency::Latencies;
pub use pgbench::{SqlLoad, SqlRate};

use crate::{
    failure::Failure,
    output::{self, Format},
};

/// Measure this machine: each figure with its baseline from the same run
#[derive(Debug, Args)]
pub struct Bench {
    /// What to measure
    #[arg(value_enum, default_value = "all", value_name = "PART")]
    parts: Vec<Part>,
    /// Also write the figures to a file
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// A look whether everything runs, in less than a minute; the numbers mean little
    #[arg(long)]
    quick: bool,
    /// PostgreSQL to measure on, as a user who may create databases [default: one of its own]
    #[arg(long, value_name = "URL")]
    database_url: Option<String>,
    /// NATS to measure on [default: one of its own]
    #[arg(long, value_name = "URL")]
    nats_url: Option<String>,
    /// DynamoDB to measure on [default: an embedded one]
    #[arg(long, value_name = "URL")]
    dynamodb_endpoint: Option<String>,
}

/// What can be measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Part {
    /// Everything below
    All,
    /// The event log's append lane
    Append,
    /// Commands over HTTP
    Commands,
    /// Queries over HTTP
    Reads,
    /// The relay from the log to the stream
    Relay,
    /// The projector from the stream to the read models
    Projector,
    /// From the answer of a command to its visibility in a query
    Readable,
    /// How the figures change when the log grows
    Growth,
}

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
    /// Tells names apart that several parts, or several runs on one server, make.
    run: String,
    names: AtomicU32,
}

/// A database that a part has for itself.
#[derive(Debug, Clone)]
pub struct BenchDatabase {
    /// Where it is.
    pub url: String,
    /// A few connections to it, for preparing and looking.
    pub pool: PgPool,
}

/// Connections of a [`BenchDatabase`]'s pool.
const POOL_CONNECTIONS: u32 = 8;

impl BenchContext {
    /// The size of something in a full run, or in a quick one.
    pub fn size<T>(&self, full: T, quick: T) -> T {
        if self.quick { quick } else { full }
    }

    /// A name that nothing else has, valid in PostgreSQL, NATS and DynamoDB.
    pub fn fresh_name(&self, what: &str) -> String {
        let number = self.names.fetch_add(1, Ordering::Relaxed);
        format!("bench_{}_{what}_{number}", self.run)
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

    /// Tells the person who waits what is being done.
    pub fn say(&self, text: &str) {
        // Progress is for people: when nobody reads it, the measurement goes on.
        let _ = output::say(&format!("  {text}"));
    }
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

/// What a run found, as it is written to the JSON file.
#[derive(Debug, Serialize)]
struct Report {
    machine: Machine,
    quick: bool,
    figures: Vec<Figure>,
}

/// What the figures were taken on.
#[derive(Debug, Serialize)]
struct Machine {
    cpus: usize,
    cpu: String,
    memory_mib: u64,
    release: &'static str,
    optimised: bool,
}

impl Machine {
    fn this() -> Self {
        let field = |file: &str, lead: &str| {
            let text = fs::read_to_string(file).unwrap_or_default();
            let line = text.lines().find(|line| line.starts_with(lead));
            let value = line.and_then(|line| line.split_once(':'));
            value
                .map(|(_, value)| value.trim().to_owned())
                .unwrap_or_default()
        };
        let memory = field("/proc/meminfo", "MemTotal");
        let kib = memory
            .split(' ')
            .next()
            .and_then(|kib| kib.parse::<u64>().ok());
        Self {
            cpus: std::thread::available_parallelism().map_or(0, usize::from),
            cpu: field("/proc/cpuinfo", "model name"),
            memory_mib: kib.unwrap_or(0) / 1024,
            release: env!("CARGO_PKG_VERSION"),
            optimised: !cfg!(debug_assertions),
        }
    }
}

impl Bench {
    pub async fn run(self, format: Format) -> Result<(), Failure> {
        let report = Report {
            machine: Machine::this(),
            quick: self.quick,
            figures: Vec::new(),
        };
        output::print(format, &report, |report| figure::table(&report.figures))?;
        if let Some(file) = &self.json {
            let text = serde_json::to_string_pretty(&report).map_err(anyhow::Error::from)?;
            fs::write(file, text + "\n")
                .with_context(|| format!("{} cannot be written", file.display()))?;
        }
        Ok(())
    }
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
