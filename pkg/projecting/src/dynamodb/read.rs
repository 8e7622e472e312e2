use std::sync::Arc;

use async_trait::async_trait;
use aws_sdk_dynamodb::Client;
use millrace_es::{Context, LogToken};
use millrace_eventlog::EventLog;
use millrace_streaming::Signals;
use tokio::task::JoinSet;

use super::{DynamoStore, control::checkpoints};
use crate::{
    error::StoreError,
    generation::{Checkpoint, Generation},
    read::{AtLeast, Backend, ReadError, ReadState},
    view::View,
};

/// The query side of one view in DynamoDB.
#[derive(Clone)]
pub struct DynamoReadModel {
    state: Arc<ReadState<DynamoStore>>,
    _tasks: Arc<JoinSet<()>>,
}

#[async_trait]
impl Backend for DynamoStore {
    async fn generations(&self, projection: &str) -> Result<Vec<Generation>, StoreError> {
        Self::generations(self, projection).await
    }

    async fn checkpoints(&self, generation: &Generation) -> Result<Vec<Checkpoint>, StoreError> {
        checkpoints(self.client(), &self.control_table(), generation.id).await
    }
}

impl DynamoReadModel {
    /// Opens the query side of a view; see [`crate::PgReadModel::open`].
    ///
    /// # Errors
    /// When the view is not kept in DynamoDB.
    pub fn open(
        store: DynamoStore,
        view: &View,
        logs: Vec<Arc<dyn EventLog>>,
        signals: Option<Signals>,
    ) -> Result<Self, StoreError> {
        view.dynamodb()?;
        let state = ReadState::new(view.clone(), store, logs);
        let mut tasks = JoinSet::new();
        state.keep_fresh(&mut tasks, signals);
        Ok(Self {
            state,
            _tasks: Arc::new(tasks),
        })
    }

    /// A table to answer from; with `at_least`, one that has seen that position, to be read
    /// consistently.
    ///
    /// # Errors
    /// See [`ReadError`].
    pub async fn read(&self, at_least: Option<&AtLeast>) -> Result<DynamoReader, ReadError> {
        let client = self.state.backend.client().clone();
        let Some(at_least) = at_least else {
            let generation = self.state.generation().await?;
            return Ok(DynamoReader {
                client,
                generation,
                consistent: false,
            });
        };
        let state = &self.state;
        state
            .wait(at_least, |generation| {
                let client = client.clone();
                async move {
                    let found = state.backend.checkpoints(generation.id).await?;
                    let reader = DynamoReader {
                        client,
                        generation,
                        consistent: true,
                    };
                    Ok((reader, found))
                }
            })
            .await
    }

    /// How far the read model is in a context, as of a moment ago, without asking the store. A
    /// lower bound for consistent reads, and for eventually consistent ones as far as DynamoDB's
    /// replicas keep up.
    #[must_use]
    pub fn current(&self, context: &Context) -> Option<LogToken> {
        self.state.current(context)
    }

    /// Whether a generation answers, and DynamoDB can be reached.
    ///
    /// # Errors
    /// See [`ReadError`].
    pub async fn check(&self) -> Result<(), ReadError> {
        self.state.refresh().await?;
        self.state.generation().await.map(|_| ())
    }
}

/// A generation's table to query.
#[derive(Debug, Clone)]
pub struct DynamoReader {
    client: Client,
    generation: Generation,
    consistent: bool,
}

impl DynamoReader {
    /// The SDK's client.
    #[must_use]
    pub const fn client(&self) -> &Client {
        &self.client
    }

    /// The table's name.
    #[must_use]
    pub fn table(&self) -> &str {
        &self.generation.place
    }

    /// Whether requests have to set `consistent_read`, because the reader waited for a position.
    #[must_use]
    pub const fn consistent(&self) -> bool {
        self.consistent
    }

    /// The generation that answers.
    #[must_use]
    pub const fn generation(&self) -> &Generation {
        &self.generation
    }
}
