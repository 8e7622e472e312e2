use std::sync::Arc;

use async_trait::async_trait;
use aws_sdk_dynamodb::{Client, types::AttributeValue};
use millrace_es::{Context, LogToken};
use millrace_eventlog::EventLog;
use millrace_streaming::Signals;
use tokio::task::JoinSet;

use super::{DynamoStore, control::checkpoints};
use crate::{
    error::{StoreError, unavailable},
    generation::{Checkpoint, Generation},
    read::{AtLeast, Backend, ReadError, ReadState, Reading},
    stores::{DynamoRows, TOMBSTONE_ATTRIBUTE},
    view::View,
};

/// The most pages of a table that are read to fill one page of a list: rows that are gone leave
/// items that are passed over.
const MAX_TABLE_PAGES: usize = 20;

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
            let (generation, reading) = self.state.enter().await?;
            return Ok(DynamoReader {
                client,
                generation,
                consistent: false,
                _reading: reading,
            });
        };
        let state = &self.state;
        state
            .wait(at_least, |generation, reading| {
                let client = client.clone();
                async move {
                    let found = state.backend.checkpoints(generation.id).await?;
                    let reader = DynamoReader {
                        client,
                        generation,
                        consistent: true,
                        _reading: reading,
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
        self.state.check().await
    }
}

/// A generation's table to query.
#[derive(Debug, Clone)]
pub struct DynamoReader {
    client: Client,
    generation: Generation,
    consistent: bool,
    _reading: Reading,
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

    /// Reads the row of a key, if there is one.
    ///
    /// # Errors
    /// See [`ReadError`].
    pub async fn row<P: DynamoRows>(&self, key: &P::Key) -> Result<Option<P::Row>, ReadError> {
        let answer = self
            .client
            .get_item()
            .table_name(self.table())
            .set_key(Some(P::item_key(key)))
            .consistent_read(self.consistent)
            .send()
            .await
            .map_err(unavailable)?;
        match answer.item {
            Some(item) if !item.contains_key(TOMBSTONE_ATTRIBUTE) => {
                let row = P::from_item(&item).map_err(StoreError::from)?;
                Ok(Some(row))
            }
            _ => Ok(None),
        }
    }

    /// Reads the rows under one partition key from the largest sort key down, or from below a
    /// place, at most `limit`. Rows that are gone are passed over.
    ///
    /// # Errors
    /// See [`ReadError`]; [`StoreError::Invalid`] for a view whose table has no sort key.
    pub async fn descending<P: DynamoRows>(
        &self,
        partition: AttributeValue,
        mut below: Option<AttributeValue>,
        limit: usize,
    ) -> Result<Descending<P::Row>, ReadError> {
        let Some(sort_key) = P::TABLE.sort_key else {
            let error = format!("the table of {} has no sort key", P::NAME);
            return Err(StoreError::Invalid(error).into());
        };
        let mut rows = Vec::with_capacity(limit.min(64));
        for _ in 0..MAX_TABLE_PAGES {
            let wanted = i32::try_from(limit - rows.len()).unwrap_or(i32::MAX);
            let mut query = self
                .client
                .query()
                .table_name(self.table())
                .consistent_read(self.consistent)
                .scan_index_forward(false)
                .limit(wanted)
                .expression_attribute_names("#partition", P::TABLE.partition_key.name)
                .expression_attribute_values(":partition", partition.clone());
            query = match below {
                None => query.key_condition_expression("#partition = :partition"),
                Some(place) => query
                    .key_condition_expression("#partition = :partition AND #sort < :place")
                    .expression_attribute_names("#sort", sort_key.name)
                    .expression_attribute_values(":place", place),
            };
            let answer = query.send().await.map_err(unavailable)?;
            for item in answer.items() {
                // A row that is gone leaves its key, so that a late duplicate cannot bring it back.
                if !item.contains_key(TOMBSTONE_ATTRIBUTE) {
                    rows.push(P::from_item(item).map_err(StoreError::from)?);
                }
            }
            below = answer
                .last_evaluated_key()
                .and_then(|key| key.get(sort_key.name).cloned());
            if below.is_none() || rows.len() >= limit {
                return Ok(Descending { rows, unread: None });
            }
        }
        Ok(Descending {
            rows,
            unread: below,
        })
    }
}

/// What [`DynamoReader::descending`] found.
#[derive(Debug, Clone)]
pub struct Descending<R> {
    /// The rows, the largest sort key first.
    pub rows: Vec<R>,
    /// Where to go on when the table was not read to the end of what was wanted.
    pub unread: Option<AttributeValue>,
}
