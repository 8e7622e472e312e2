//! What stands in the leases about generations that are gone. Who drops a generation removes it, and so
//! does every worker that leaves; but a process that was cut off from NATS meanwhile may write there once
//! more when it is back, and be killed before it leaves.

use std::{sync::Arc, time::Duration};

use millrace_streaming::Leases;
use tokio_util::sync::CancellationToken;

use super::Shared;
use crate::{batch::describe, error::StoreError};

/// How often it is looked for, in milliseconds.
const SWEEP_MS: u64 = 15_000;

/// Looks for it until told to stop.
pub(super) async fn sweep_leases(shared: Arc<Shared>, stop: CancellationToken) {
    let pause = || tokio::time::sleep(Duration::from_millis(SWEEP_MS));
    while stop.run_until_cancelled(pause()).await.is_some() {
        if let Some(Err(error)) = stop.run_until_cancelled(Box::pin(sweep(&shared))).await {
            let projection = shared.view.name();
            tracing::debug!(projection, error = %describe(&error), "leases not looked through");
        }
    }
}

/// The records are read first: a generation is there before anybody shares its work, and a number is
/// given out once, so one that is not there afterwards is gone.
async fn sweep(shared: &Shared) -> Result<(), StoreError> {
    let failed = |error| StoreError::Unavailable(Box::new(error));
    let groups = Leases::groups(&shared.topology).await.map_err(failed)?;
    let known = shared.all_generations().await?;
    for group in groups {
        let Some(number) = shared.generation_of(&group) else {
            continue;
        };
        if known.iter().any(|one| one.id.get() == number) {
            continue;
        }
        Leases::forget_group(&shared.topology, &group)
            .await
            .map_err(failed)?;
        tracing::info!(
            group,
            "removed what stood in the leases about a generation that is gone"
        );
    }
    Ok(())
}

impl Shared {
    /// The number of the generation of this view whose work a group shares.
    fn generation_of(&self, group: &str) -> Option<i64> {
        let rest = group.strip_prefix(self.view.name())?.strip_prefix("-g")?;
        let (number, context) = rest.split_once('-')?;
        let mut contexts = self.view.contexts().iter();
        contexts.find(|one| one.as_str() == context)?;
        number.parse().ok()
    }
}
