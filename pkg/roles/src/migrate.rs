//! Making and upgrading what the roles need. All of it may run twice, at once, and beside
//! processes of the release before.

use millrace_es::Context;
use millrace_projecting::{DynamoStore, PgStore, StoreError};
use millrace_streaming::{NatsError, Topology};
use tokio_util::sync::CancellationToken;

use crate::open::patiently;

/// The streams of contexts, of dead letters and advisories, and the bucket of leases, as soon as
/// NATS answers.
///
/// # Errors
/// None: what NATS refuses now it may take later, and it is tried until told to stop.
pub async fn migrate_streams(
    topology: &Topology,
    contexts: &[Context],
    stop: &CancellationToken,
) -> anyhow::Result<()> {
    patiently(
        "make the streams",
        stop,
        |_: &NatsError| true,
        || topology.ensure(contexts),
    )
    .await?;
    Ok(())
}

/// The control tables of the read models, in DynamoDB where some are kept there. `false` when told to
/// stop meanwhile.
///
/// # Errors
/// When a store refuses for good.
pub async fn migrate_views(
    postgres: &PgStore,
    dynamodb: Option<&DynamoStore>,
    stop: &CancellationToken,
) -> Result<bool, StoreError> {
    let may_pass = |error: &StoreError| matches!(error, StoreError::Unavailable(_));
    let in_postgres = patiently("migrate the read database", stop, may_pass, || {
        postgres.migrate()
    })
    .await?;
    let Some(dynamodb) = dynamodb else {
        return Ok(in_postgres.is_some());
    };
    let in_dynamodb = patiently("migrate DynamoDB", stop, may_pass, || dynamodb.migrate()).await?;
    Ok(in_postgres.is_some() && in_dynamodb.is_some())
}
