//! The servers a command works with, opened; what goes wrong is said in a sentence.

use std::{sync::Arc, time::Duration};

use millrace_es::{Context, PartitionCount};
use millrace_eventlog::{EventLog, dynamodb};
use millrace_projecting::{
    Checkpoint, DynamoStore, Generation, GenerationId, PgStore, StoreError, StoreKind, View,
};
use millrace_roles::{CONTEXTS, LogPlaces, LogStore, PgPlaces};
use millrace_runtime::aws;
use millrace_streaming::{ConnectError, Names, Topology, TopologyOptions, connect_once, jetstream};
use sqlx::{PgPool, postgres::PgPoolOptions};
use tokio_util::sync::CancellationToken;

use crate::{contexts, endpoints::Endpoints, failure::Failure};

/// How long a command waits for a server to answer at all, in milliseconds.
const CONNECT_MS: u64 = 5_000;
/// Connections of a command to one database.
const POOL_CONNECTIONS: u32 = 4;

/// A database.
///
/// # Errors
/// [`Failure::Unavailable`] when it does not answer.
pub async fn database(url: &str) -> Result<PgPool, Failure> {
    PgPoolOptions::new()
        .max_connections(POOL_CONNECTIONS)
        .acquire_timeout(Duration::from_millis(CONNECT_MS))
        .connect(url)
        .await
        .map_err(|error| {
            Failure::unavailable(
                format!("PostgreSQL at {} does not answer", place(url)),
                error,
            )
        })
}

/// The event log of a context.
///
/// # Errors
/// [`Failure::Unavailable`] when the database does not answer, [`Failure::NotFound`] when the
/// context has no log there.
pub async fn log(endpoints: &Endpoints, context: &Context) -> Result<Arc<dyn EventLog>, Failure> {
    let known = contexts::known(context)?;
    let mut places = places(endpoints, PartitionCount::DEFAULT).await?;
    // A tool takes a log as it was made.
    places.partitions = match places.store(contexts::own_log(context)?) {
        LogStore::Postgres => {
            millrace_eventlog::log_head(places.postgres.of(context)?, context).await?
        }
        LogStore::DynamoDb => {
            dynamodb::log_head(&places.dynamodb, &places.namespace, context).await?
        }
    }
    .partitions;
    // A command is not patient for ever: whoever calls it can call it again.
    let stop = CancellationToken::new();
    let open = places.open(known, true, &stop);
    let opened = tokio::time::timeout(Duration::from_millis(CONNECT_MS), open).await;
    let late = |_| anyhow::anyhow!("the event log of {context} does not answer");
    match opened.map_err(late)? {
        Ok(Some(log)) => Ok(log.shared()),
        Ok(None) => Err(Failure::Failed(anyhow::anyhow!("it was told to stop"))),
        Err(error) => Err(Failure::Failed(error)),
    }
}

/// Where the event logs are.
///
/// # Errors
/// [`Failure::Unavailable`] when the database does not answer.
pub async fn places(
    endpoints: &Endpoints,
    partitions: PartitionCount,
) -> Result<LogPlaces, Failure> {
    let mut postgres = PgPlaces::new(Some(database(&endpoints.database_url).await?));
    for known in CONTEXTS.iter().filter(|known| known.own_log().is_some()) {
        if let Some(url) = endpoints.own_databases.get(known.name) {
            postgres = postgres.with(known.name, database(url).await?);
        }
    }
    Ok(LogPlaces {
        postgres,
        dynamodb: aws::dynamodb_client(endpoints.dynamodb_endpoint.as_deref()).await,
        namespace: endpoints.namespace.clone(),
        banking: endpoints.banking_log,
        partitions,
    })
}

/// The streams.
///
/// # Errors
/// [`Failure::Unavailable`] when NATS does not answer.
pub async fn topology(endpoints: &Endpoints) -> Result<Topology, Failure> {
    topology_with(endpoints, TopologyOptions::default()).await
}

/// The streams, as an operator wants them kept.
///
/// # Errors
/// [`Failure::Unavailable`] when NATS does not answer.
pub async fn topology_with(
    endpoints: &Endpoints,
    options: TopologyOptions,
) -> Result<Topology, Failure> {
    let names =
        Names::new(&endpoints.namespace).map_err(|error| Failure::Usage(error.to_string()))?;
    let url = &endpoints.nats_url;
    let credentials = endpoints.nats_creds.as_deref();
    let limit = Duration::from_millis(CONNECT_MS);
    let client = connect_once(url, credentials, "millrace", limit)
        .await
        .map_err(|error| match error {
            ConnectError::Credentials { .. } => Failure::Usage(error.to_string()),
            ConnectError::Server(error) => {
                Failure::unavailable(format!("NATS at {} does not answer", place(url)), error)
            }
        })?;
    Ok(Topology::new(jetstream(client), names, options))
}

/// Where a URL leads, without the password it may have.
fn place(url: &str) -> &str {
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    let host = rest.rsplit_once('@').map_or(rest, |(_, host)| host);
    host.split(['/', '?']).next().unwrap_or(host)
}

/// Where the views are.
#[derive(Clone)]
pub struct ReadStores {
    /// Views in PostgreSQL.
    pub postgres: PgStore,
    /// Views in DynamoDB.
    pub dynamodb: DynamoStore,
}

/// The stores of the views.
///
/// # Errors
/// When the URL of the read database is none.
pub async fn read_stores(endpoints: &Endpoints) -> Result<ReadStores, Failure> {
    let client = aws::dynamodb_client(endpoints.dynamodb_endpoint.as_deref()).await;
    let mut postgres = PgStore::open(&endpoints.read_database_url)?;
    // Others have their log in their own database, and their views beside all others.
    for known in CONTEXTS.iter().filter(|known| known.own_log().is_none()) {
        if let Some(url) = endpoints.own_databases.get(known.name) {
            postgres = postgres.with(&(known.views)(), PgStore::open(url)?);
        }
    }
    Ok(ReadStores {
        postgres,
        dynamodb: DynamoStore::new(client, endpoints.namespace.as_str()),
    })
}

impl ReadStores {
    /// The generations of a view, newest first.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub async fn generations(&self, view: &View) -> Result<Vec<Generation>, StoreError> {
        match view.store() {
            StoreKind::Postgres => {
                let store = self.postgres.of(view.name());
                store.generations(view.name()).await
            }
            StoreKind::DynamoDb => self.dynamodb.generations(view.name()).await,
        }
    }

    /// How far a generation of a view is.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub async fn checkpoints(
        &self,
        view: &View,
        generation: GenerationId,
    ) -> Result<Vec<Checkpoint>, StoreError> {
        match view.store() {
            StoreKind::Postgres => {
                let store = self.postgres.of(view.name());
                store.checkpoints(generation).await
            }
            StoreKind::DynamoDb => self.dynamodb.checkpoints(generation).await,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_never_shows_a_password() {
        for url in [
            "postgres://u:p@ss@h:5432/db?sslmode=disable",
            "nats://u:p@h:5432",
            "h:5432",
        ] {
            assert_eq!(place(url), "h:5432");
        }
    }
}
