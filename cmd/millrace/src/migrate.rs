//! `millrace migrate`: makes and upgrades schemas, tables and streams.

use clap::Args;
use millrace_es::{Context, PartitionCount, Position};
use millrace_roles::{CONTEXTS, migrate_views};
use millrace_streaming::TopologyOptions;
use tokio_util::sync::CancellationToken;

use crate::endpoints::{Endpoints, Target};
use crate::failure::Failure;
use crate::opened;
use crate::output;

/// Make and upgrade schemas, tables and streams
///
/// Safe to run twice, at once, and beside running processes of the release before.
#[derive(Debug, Args)]
pub struct Migrate {
    #[command(flatten)]
    target: Target,
    /// How many partitions the log spreads its events over; one that exists has to agree
    #[arg(long, env = "MILLRACE_PARTITIONS", value_name = "COUNT")]
    partitions: Option<u16>,
    /// Copies of every stream in the NATS cluster
    #[arg(
        long,
        env = "MILLRACE_NATS_REPLICAS",
        default_value_t = 1,
        value_name = "COUNT"
    )]
    nats_replicas: usize,
}

impl Migrate {
    /// Migrates everything.
    pub async fn run(&self) -> Result<(), Failure> {
        let endpoints = self.target.resolve()?;
        let partitions = match self.partitions {
            Some(count) => {
                PartitionCount::new(count).map_err(|error| Failure::Usage(error.to_string()))?
            }
            None => PartitionCount::DEFAULT,
        };
        let topology = TopologyOptions {
            replicas: self.nats_replicas,
        };
        everything_as(&endpoints, partitions, topology).await?;
        output::say("schemas, tables and streams are up to date")?;
        Ok(())
    }
}

/// Migrates everything as on a laptop.
pub async fn everything(endpoints: &Endpoints) -> Result<(), Failure> {
    let partitions = std::env::var("MILLRACE_PARTITIONS")
        .ok()
        .and_then(|text| text.parse().ok());
    let partitions = partitions
        .and_then(|count| PartitionCount::new(count).ok())
        .unwrap_or(PartitionCount::DEFAULT);
    everything_as(endpoints, partitions, TopologyOptions::default()).await
}

async fn everything_as(
    endpoints: &Endpoints,
    partitions: PartitionCount,
    topology: TopologyOptions,
) -> Result<(), Failure> {
    // A command is not patient for ever: whoever calls it can call it again.
    let stop = CancellationToken::new();
    let places = opened::places(endpoints, partitions).await?;
    let mut contexts = Vec::new();
    for known in CONTEXTS.iter().filter(|known| known.own_log().is_some()) {
        places.migrate(known, &stop).await?;
        contexts.push(known.context()?);
    }
    let topology = opened::topology_with(endpoints, topology).await?;
    topology
        .ensure(&contexts)
        .await
        .map_err(|error| Failure::unavailable("the streams could not be made", error))?;
    let stores = opened::read_stores(endpoints).await?;
    migrate_views(&stores.postgres, Some(&stores.dynamodb), &stop)
        .await
        .map_err(anyhow::Error::from)?;
    Ok(())
}

fn ordering() -> Result<Context, Failure> {
    Context::new(millrace_ordering::CONTEXT).map_err(|error| Failure::Failed(error.into()))
}

/// The end of the ordering log.
pub async fn ordering_head(endpoints: &Endpoints) -> Result<Position, Failure> {
    let log = opened::log(endpoints, &ordering()?).await?;
    Ok(log.head().await?.position)
}
