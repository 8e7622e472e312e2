//! `millrace bench`: what this machine gives, each figure beside a baseline of the same run.
//!
//! Every part is a module with `run(&BenchContext) -> Result<Vec<Figure>>`. A part makes what it
//! needs fresh (a database, a namespace), so parts can run in any order and alone.

mod append;
mod banking;
mod baseline;
mod commands;
mod context;
mod copying;
mod figure;
mod growth;
mod http;
mod latency;
mod load;
mod orders;
mod pgbench;
mod projector;
mod readable;
mod reads;
mod rebuild;
mod relay;
mod replays;
mod system;
mod timing;

use std::{fs, path::PathBuf};

use anyhow::Context as _;
use clap::{Args, ValueEnum};
use serde::Serialize;

pub use context::{BenchContext, BenchDatabase, Given};
pub use figure::{Figure, Target};
pub use latency::Latencies;
pub use load::{HttpLoad, Seen};
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
    /// A rebuild of a read model from the log
    Rebuild,
    /// Commands and queries while a read model is rebuilt and switched
    Replays,
    /// From the answer of a command to its visibility in a query
    Readable,
    /// How the figures change when the log grows
    Growth,
    /// Deposits, transfers and balances, with the log in each store
    Banking,
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
    parts: Vec<String>,
    release: &'static str,
    optimised: bool,
}

impl Machine {
    fn this(context: &BenchContext) -> Self {
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
            parts: context.sources.clone(),
            release: env!("CARGO_PKG_VERSION"),
            optimised: !cfg!(debug_assertions),
        }
    }
}

impl Bench {
    pub async fn run(self, format: Format) -> Result<(), Failure> {
        if cfg!(debug_assertions) && !self.quick {
            return Err(Failure::Refused(
                "this build is not optimised and its figures would mean nothing: use \
                 `cargo run --release -- bench`, or --quick to see that everything runs"
                    .to_owned(),
            ));
        }
        let given = Given {
            database_url: self.database_url.clone(),
            nats_url: self.nats_url.clone(),
            dynamodb_endpoint: self.dynamodb_endpoint.clone(),
        };
        output::say("starting the servers")?;
        let context = BenchContext::start(given, self.quick).await?;
        let mut report = Report {
            machine: Machine::this(&context),
            quick: self.quick,
            figures: Vec::new(),
        };
        for part in self.chosen() {
            output::say(&format!("measuring {part:?}"))?;
            let figures = Box::pin(part.measure(&context)).await;
            let figures = figures.with_context(|| format!("{part:?} could not be measured"))?;
            if format == Format::Table {
                output::text(&figure::table(&figures).to_string())?;
            }
            report.figures.extend(figures);
        }
        if format == Format::Json {
            output::print(format, &report, |report| figure::table(&report.figures))?;
        }
        if let Some(file) = &self.json {
            let text = serde_json::to_string_pretty(&report).map_err(anyhow::Error::from)?;
            fs::write(file, text + "\n")
                .with_context(|| format!("{} cannot be written", file.display()))?;
        }
        Ok(())
    }

    /// The parts asked for, each once, in the order in which they are listed.
    fn chosen(&self) -> Vec<Part> {
        let all = self.parts.contains(&Part::All);
        let single = Part::value_variants().iter().copied();
        single
            .filter(|part| *part != Part::All && (all || self.parts.contains(part)))
            .collect()
    }
}

impl Part {
    /// One line per part, as in [`Part`].
    async fn measure(self, context: &BenchContext) -> anyhow::Result<Vec<Figure>> {
        match self {
            Self::Append => append::run(context).await,
            Self::Commands => Box::pin(commands::run(context)).await,
            Self::Reads => Box::pin(reads::run(context)).await,
            Self::Relay => relay::run(context).await,
            Self::Projector => projector::run(context).await,
            Self::Rebuild => rebuild::run(context).await,
            Self::Replays => Box::pin(replays::run(context)).await,
            Self::Readable => readable::run(context).await,
            Self::Growth => growth::run(context).await,
            Self::Banking => banking::run(context).await,
            Self::All => Ok(Vec::new()),
        }
    }
}
