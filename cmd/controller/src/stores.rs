//! What the controller asks about rebuilds: the read stores and the event logs.

use std::sync::Arc;

use millrace_projecting::{DeadLetters, DynamoStore, Rebuilds};
use millrace_replay::Engine;
use millrace_replaying::{ReadStores, ReplayTable};
use millrace_roles::{LogPlaces, LogUse, Logs, known_reactions, topology, views};
use millrace_runtime::aws;
use tokio_util::sync::CancellationToken;

use crate::settings::Settings;

/// The name that stores show for the controller's connections.
const NAME: &str = "millrace-controller";

/// What the controller works on.
pub struct Stores {
    /// What rebuilds and switches.
    pub engine: Arc<dyn Engine>,
    /// The event logs behind it.
    pub logs: Logs,
    /// The replays of the same stores that were asked for without Kubernetes.
    pub replays: ReplayTable,
}

/// Opens what is asked and written, as soon as it answers. `None` when told to stop meanwhile.
///
/// # Errors
/// When a setting makes no sense, or a store is not what it should be.
pub async fn open(
    settings: &Settings,
    shutdown: &CancellationToken,
) -> anyhow::Result<Option<Stores>> {
    let namespace = &settings.common.namespace;
    let topology = topology(&settings.nats, namespace, NAME).await?;
    let contexts = settings.log.contexts()?;
    let postgres = settings.read.open(&settings.log, &contexts)?;
    let replays = ReplayTable::open(settings.read.url(&settings.log)?.expose())?;
    let client = aws::dynamodb_client(settings.dynamodb.endpoint()).await;
    let dynamodb = DynamoStore::new(client, namespace.clone());
    let places = LogPlaces::of(&settings.log, &settings.dynamodb, namespace, NAME).await?;
    let log_use = LogUse {
        migrate: false,
        appends: false,
    };
    let Some(logs) = Logs::open(&places, &contexts, log_use, shutdown).await? else {
        return Ok(None);
    };
    // Reactions are refused by name.
    let mut views = views(&contexts);
    views.extend(known_reactions(&contexts));
    let logs = logs.with_others(&views, &settings.owners.owners())?;
    let letters = DeadLetters::new(
        views.clone(),
        Some(postgres.clone()),
        Some(dynamodb.clone()),
    );
    let rebuilds = Rebuilds::new(
        views,
        logs.shared(),
        Some(postgres),
        Some(dynamodb),
        Some(topology),
    );
    Ok(Some(Stores {
        engine: Arc::new(ReadStores::new(rebuilds, letters)),
        logs,
        replays,
    }))
}
