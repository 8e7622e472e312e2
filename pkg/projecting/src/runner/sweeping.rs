//! What stands in NATS about generations that are gone: leases and consumers. Who drops a generation removes
//! them, and every worker that leaves removes the leases; but a process that was cut off meanwhile may write
//! there once more when it is back, and be killed before it leaves.

use std::{sync::Arc, time::Duration};

use millrace_es::{Context, Partition};
use millrace_streaming::{ConsumerSpec, Leases, PartitionConsumer};
use tokio_util::sync::CancellationToken;

use super::Shared;
use crate::{batch::describe, error::StoreError};

/// How often it is looked for, in milliseconds.
const SWEEP_MS: u64 = 15_000;

/// Looks for it until told to stop.
pub(super) async fn sweep_streams(shared: Arc<Shared>, stop: CancellationToken) {
    let pause = || tokio::time::sleep(Duration::from_millis(SWEEP_MS));
    while stop.run_until_cancelled(pause()).await.is_some() {
        if let Some(Err(error)) = stop.run_until_cancelled(Box::pin(sweep(&shared))).await {
            let projection = shared.view.name();
            tracing::debug!(projection, error = %describe(&error), "leases and consumers not looked through");
        }
    }
}

/// What stands there is read first: a generation is there before anybody works on it, and a number is
/// given out once, so one that is not there afterwards is gone.
async fn sweep(shared: &Shared) -> Result<(), StoreError> {
    let failed = |error| StoreError::Unavailable(Box::new(error));
    let (view, topology) = (&shared.view, &shared.topology);
    let groups = Leases::groups(topology).await.map_err(failed)?;
    let mut consumers = Vec::new();
    for context in view.contexts() {
        let names = PartitionConsumer::names(topology, context).await;
        let names = names.map_err(failed)?.into_iter();
        consumers.extend(names.filter_map(|name| spec_of(view.name(), context, &name)));
    }
    let known = shared.all_generations().await?;
    let is_gone = |generation: &str| known.iter().all(|one| one.id.to_string() != generation);
    for group in groups {
        if shared.generation_of(&group).is_some_and(&is_gone) {
            let removed = Leases::forget_group(topology, &group).await;
            removed.map_err(failed)?;
            tracing::info!(group, "removed the leases of a generation that is gone");
        }
    }
    for spec in consumers {
        if is_gone(&spec.generation) {
            let removed = PartitionConsumer::delete(topology, &spec).await;
            removed.map_err(|error| StoreError::Unavailable(Box::new(error)))?;
            tracing::info!(?spec, "removed the consumer of a generation that is gone");
        }
    }
    Ok(())
}

/// What a consumer of this projection is for: `<projection>-g<generation>-p<partition>`.
fn spec_of(projection: &str, context: &Context, name: &str) -> Option<ConsumerSpec> {
    let rest = name.strip_prefix(projection)?.strip_prefix("-g")?;
    let (generation, partition) = rest.split_once("-p")?;
    is_generation(generation).then_some(ConsumerSpec {
        context: context.clone(),
        partition: Partition::new(partition.parse().ok()?),
        projection: projection.to_owned(),
        generation: generation.to_owned(),
    })
}

/// Whether it is how a generation is written: `g12`.
fn is_generation(text: &str) -> bool {
    let number = text.strip_prefix('g');
    number.is_some_and(|number| number.parse::<i64>().is_ok())
}

impl Shared {
    /// The generation of this view whose work a group shares.
    fn generation_of<'a>(&self, group: &'a str) -> Option<&'a str> {
        let rest = group.strip_prefix(self.view.name())?.strip_prefix('-')?;
        let (generation, context) = rest.split_once('-')?;
        let mut contexts = self.view.contexts().iter();
        contexts.find(|one| one.as_str() == context)?;
        is_generation(generation).then_some(generation)
    }
}
