//! `millrace lag`: how far relay and projections are behind the log.

use std::{io::IsTerminal as _, time::Duration};

use clap::Args;
use millrace_es::{Context, Partition, Position};
use millrace_eventlog::{EventLog, LogHead};
use millrace_kernel::Timestamp;
use millrace_projecting::{Checkpoint, Generation, GenerationStatus, StoreKind};
use millrace_streaming::Topology;
use serde::Serialize;

use crate::{
    contexts,
    endpoints::{Endpoints, Target},
    failure::Failure,
    opened::{self, ReadStores},
    output::{self, Format, Table},
};

/// How often a refreshing table is drawn again, in milliseconds.
const REFRESH_MS: u64 = 1_000;

/// Show how far the stream and every projection are behind the log
///
/// The lag of a partition is counted in positions from its checkpoint to its newest event: an
/// upper bound of its unread events that ends at 0.
#[derive(Debug, Args)]
pub struct Lag {
    #[command(flatten)]
    target: Target,
    /// Whose log
    #[arg(long, default_value = "ordering", value_parser = Context::new)]
    context: Context,
    /// A row for every partition
    #[arg(long)]
    partitions: bool,
    /// Print once and end; what happens anyway when the output is no terminal
    #[arg(long, conflicts_with = "watch")]
    once: bool,
    /// Print again and again, on no terminal too; as JSON a line each
    #[arg(long)]
    watch: bool,
}

/// How everything stands behind one log.
#[derive(Debug, Serialize)]
struct Standing {
    context: Context,
    at: Timestamp,
    head: Position,
    halted: Option<String>,
    /// The last position in the stream; `None` when there is no stream.
    stream: Option<Position>,
    /// Events that are not in the stream yet.
    relay_lag_events: u64,
    projections: Vec<ProjectionLag>,
}

/// How far a generation of a projection is.
#[derive(Debug, Serialize)]
struct ProjectionLag {
    projection: &'static str,
    store: &'static str,
    generation: Generation,
    /// The positions that are missing, of the partition that lacks the most.
    lag_events: u64,
    /// The age of the oldest event that is missing.
    lag_seconds: f64,
    partitions: Vec<PartitionLag>,
}

/// How far a generation is in one partition.
#[derive(Debug, Serialize)]
struct PartitionLag {
    partition: Partition,
    checkpoint: Position,
    newest: Position,
    lag_events: u64,
    lag_seconds: f64,
}

impl Lag {
    pub async fn run(&self, format: Format) -> Result<(), Failure> {
        let endpoints = self.target.resolve()?;
        let log = opened::log(&endpoints, &self.context).await?;
        let topology = opened::topology(&endpoints).await?;
        let stores = opened::read_stores(&endpoints).await?;
        let on_terminal = std::io::stdout().is_terminal() && format == Format::Table;
        let again = self.watch || (on_terminal && !self.once);
        let watching = async {
            loop {
                let standing = look(&*log, &topology, &stores).await?;
                self.show(&standing, format, again, on_terminal)?;
                if !again {
                    return Ok(());
                }
                tokio::time::sleep(Duration::from_millis(REFRESH_MS)).await;
            }
        };
        tokio::select! {
            ended = watching => ended,
            // Whoever watches ends it so: that is no failure.
            _ = tokio::signal::ctrl_c() => Ok(()),
        }
    }

    fn show(
        &self,
        standing: &Standing,
        format: Format,
        again: bool,
        on_terminal: bool,
    ) -> Result<(), Failure> {
        match format {
            Format::Json if again => output::json_line(standing)?,
            Format::Json => output::print(format, standing, |_| Table::default())?,
            Format::Table => {
                // Home and clear to the end: the table is drawn over the last one.
                let over = if again && on_terminal {
                    "\x1b[H\x1b[J"
                } else {
                    ""
                };
                output::text(&format!("{over}{}", self.table(standing)))?;
            }
        }
        Ok(())
    }

    fn table(&self, standing: &Standing) -> String {
        let mut log = Table::new(&["log", "#head", "#stream", "#relay lag", "appends"]);
        let halted = standing.halted.as_deref();
        log.row([
            standing.context.to_string(),
            standing.head.to_string(),
            standing
                .stream
                .map_or("none".into(), |last| last.to_string()),
            standing.relay_lag_events.to_string(),
            halted.map_or("taken".into(), |reason| format!("HALTED: {reason}")),
        ]);
        let mut views = Table::new(&[
            "projection",
            "store",
            "generation",
            "status",
            "partition",
            "#checkpoint",
            "#lag events",
            "#lag seconds",
        ]);
        for view in &standing.projections {
            let name = |partition: String, checkpoint: String| {
                [
                    view.projection.to_owned(),
                    view.store.to_owned(),
                    view.generation.id.to_string(),
                    status(view.generation.status).to_owned(),
                    partition,
                    checkpoint,
                ]
            };
            let lag = |events: u64, seconds: f64| [events.to_string(), format!("{seconds:.1}")];
            if self.partitions {
                for one in &view.partitions {
                    let what = name(one.partition.to_string(), one.checkpoint.to_string());
                    views.row(what.into_iter().chain(lag(one.lag_events, one.lag_seconds)));
                }
            } else {
                let most = view.partitions.iter().map(|one| one.checkpoint).max();
                let what = name(
                    format!("all {}", view.partitions.len()),
                    most.unwrap_or_default().to_string(),
                );
                views.row(
                    what.into_iter()
                        .chain(lag(view.lag_events, view.lag_seconds)),
                );
            }
        }
        format!("{log}\n{views}")
    }
}

const fn status(status: GenerationStatus) -> &'static str {
    match status {
        GenerationStatus::Loading => "loading",
        GenerationStatus::Candidate => "candidate",
        GenerationStatus::Active => "active",
        GenerationStatus::Retained => "retained",
        GenerationStatus::Retired => "retired",
    }
}

/// What is behind the log the furthest, of the relay and the views that are asked about, if
/// anything is.
///
/// # Errors
/// When a store does not answer.
pub async fn furthest_behind(
    endpoints: &Endpoints,
    context: &Context,
    asked: impl Fn(&str) -> bool,
) -> Result<Option<String>, Failure> {
    let log = opened::log(endpoints, context).await?;
    let topology = opened::topology(endpoints).await?;
    let standing = look(&*log, &topology, &opened::read_stores(endpoints).await?).await?;
    let relay = (standing.relay_lag_events, "relay");
    let views = standing
        .projections
        .iter()
        .filter(|view| asked(view.projection));
    let furthest = views
        .map(|view| (view.lag_events, view.projection))
        .chain([relay])
        .max()
        .filter(|(events, _)| *events > 0);
    Ok(furthest.map(|(events, name)| format!("{name} is {events} behind")))
}

async fn look(
    log: &dyn EventLog,
    topology: &Topology,
    stores: &ReadStores,
) -> Result<Standing, Failure> {
    let context = log.context().clone();
    let mut projections = Vec::new();
    let mut generations = Vec::new();
    // Checkpoints first, then the head: what is appended in between looks behind, never ahead.
    for view in contexts::views_and_reactions(&context)? {
        for generation in stores.generations(&view).await? {
            if generation.status.is_worked_on() {
                let checkpoints = stores.checkpoints(&view, generation.id).await?;
                generations.push((view.clone(), generation, checkpoints));
            }
        }
    }
    let state = topology
        .state(&context)
        .await
        .map_err(|error| Failure::unavailable("the stream cannot be read", error))?;
    let head = log.head().await?;
    let now = Timestamp::now();
    for (view, generation, checkpoints) in generations {
        let partitions = partition_lags(log, &head, &checkpoints, now).await?;
        projections.push(ProjectionLag {
            projection: view.name(),
            store: match view.store() {
                _ if view.is_reaction() => "effects",
                StoreKind::Postgres => "PostgreSQL",
                StoreKind::DynamoDb => "DynamoDB",
            },
            generation,
            lag_events: partitions
                .iter()
                .map(|one| one.lag_events)
                .max()
                .unwrap_or(0),
            lag_seconds: partitions
                .iter()
                .map(|one| one.lag_seconds)
                .fold(0.0, f64::max),
            partitions,
        });
    }
    let stream = state.map(|state| state.last);
    Ok(Standing {
        context,
        at: now,
        head: head.position,
        halted: head.halted,
        stream,
        relay_lag_events: head
            .position
            .get()
            .saturating_sub(stream.unwrap_or_default().get()),
        projections,
    })
}

async fn partition_lags(
    log: &dyn EventLog,
    head: &LogHead,
    checkpoints: &[Checkpoint],
    now: Timestamp,
) -> Result<Vec<PartitionLag>, Failure> {
    let mut lags = Vec::new();
    for checkpoint in checkpoints
        .iter()
        .filter(|one| one.lane.context == *log.context())
    {
        let partition = checkpoint.lane.partition;
        let newest = head.partition_positions.get(usize::from(partition.get()));
        let newest = newest.copied().unwrap_or_default();
        let lag_events = newest.get().saturating_sub(checkpoint.position.get());
        let mut lag_seconds = 0.0;
        if lag_events > 0 {
            let oldest = log
                .read_partition(partition, checkpoint.position, newest, 1)
                .await?;
            if let Some(oldest) = oldest.first() {
                lag_seconds = seconds_between(oldest.recorded_at, now);
            }
        }
        lags.push(PartitionLag {
            partition,
            checkpoint: checkpoint.position,
            newest,
            lag_events,
            lag_seconds,
        });
    }
    Ok(lags)
}

fn seconds_between(from: Timestamp, to: Timestamp) -> f64 {
    (to.get() - from.get()).as_seconds_f64().max(0.0)
}
