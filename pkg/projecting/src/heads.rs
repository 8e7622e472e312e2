use std::sync::Arc;

use millrace_es::Context;
use millrace_eventlog::EventLog;

use crate::{error::StoreError, generation::ContextHead};

/// The event log of a context, among those at hand.
pub(crate) fn log_of(
    logs: &[Arc<dyn EventLog>],
    context: &Context,
) -> Result<Arc<dyn EventLog>, StoreError> {
    logs.iter()
        .find(|log| log.context() == context)
        .cloned()
        .ok_or_else(|| StoreError::Invalid(format!("no event log of {context}")))
}

/// The heads of the contexts' logs, fresh.
pub(crate) async fn context_heads(
    logs: &[Arc<dyn EventLog>],
    contexts: &[Context],
) -> Result<Vec<ContextHead>, StoreError> {
    let mut heads = Vec::with_capacity(contexts.len());
    for context in contexts {
        let head = log_of(logs, context)?
            .head()
            .await
            .map_err(|error| StoreError::Unavailable(Box::new(error)))?;
        heads.push(ContextHead {
            context: context.clone(),
            epoch: head.epoch,
            partition_positions: head.partition_positions,
        });
    }
    Ok(heads)
}
