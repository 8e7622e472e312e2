//! The calls to the log's table, each with its keys and names in one place.

use std::{collections::HashMap, time::Duration};

use aws_sdk_dynamodb::{
    Client,
    error::SdkError,
    operation::update_item::{UpdateItemError, builders::UpdateItemFluentBuilder},
    types::{
        AttributeValue, CancellationReason, Get, ReturnValuesOnConditionCheckFailure,
        TransactGetItem, TransactWriteItem,
    },
};
use futures::{StreamExt, TryStreamExt, stream};
use millrace_es::{Context, StreamId, StreamVersion};
use millrace_kernel::Timestamp;

use super::{
    failure::Failure,
    items::{self, event_id, stream_pk},
    memory::End,
    values::{Item, PK, SK, get_number, number, text},
};
use crate::{LogError, lane::plan::Head};

/// How often a single write that meets a transaction is tried again.
const MAX_CONFLICT_RETRIES: u32 = 10;
/// How many reads of one batch are under way together.
const MAX_PARALLEL_READS: usize = 16;
/// The first pause after a conflict; it doubles, and a random half is left out.
const CONFLICT_PAUSE_MS: u64 = 5;
/// The longest such pause.
const MAX_CONFLICT_PAUSE_MS: u64 = 200;

/// A log's table.
#[derive(Debug, Clone)]
pub(super) struct Table {
    pub client: Client,
    pub context: Context,
    pub name: String,
}

/// What became of a transaction that did not fail otherwise.
pub(super) enum Transacted {
    Done,
    /// It was cancelled, with a reason for each action.
    Cancelled(Vec<CancellationReason>),
}

impl Table {
    pub(super) fn of(client: &Client, namespace: &str, context: &Context) -> Self {
        Self {
            client: client.clone(),
            context: context.clone(),
            name: items::table_name(namespace, context),
        }
    }

    /// Reads an item, consistently.
    pub(super) async fn get(&self, key: Item) -> Result<Option<Item>, Failure> {
        let answer = self
            .client
            .get_item()
            .table_name(&self.name)
            .set_key(Some(key))
            .consistent_read(true)
            .send()
            .await
            .map_err(Failure::of)?;
        Ok(answer.item)
    }

    /// Reads the head, consistently, with this process's clock.
    pub(super) async fn head(&self) -> Result<(Head, Item), Failure> {
        let item = self.get(items::head_key()).await?.ok_or_else(|| {
            Failure::Fatal(LogError::Missing(format!(
                "the table {} has no head; run `millrace migrate`",
                self.name
            )))
        })?;
        Ok((items::head_from(&item, Timestamp::now())?, item))
    }

    /// The newest event of a stream, consistently.
    async fn newest(&self, stream: &StreamId) -> Result<End, Failure> {
        let answer = self
            .client
            .query()
            .table_name(&self.name)
            .key_condition_expression("#pk = :pk")
            .projection_expression("#pk, #sk, #id")
            .expression_attribute_names("#pk", PK)
            .expression_attribute_names("#sk", SK)
            .expression_attribute_names("#id", items::ID)
            .expression_attribute_values(":pk", text(stream_pk(stream)))
            .scan_index_forward(false)
            .limit(1)
            .consistent_read(true)
            .send()
            .await
            .map_err(Failure::of)?;
        match answer.items().first() {
            None => Ok(None),
            Some(item) => Ok(Some((
                StreamVersion::new(get_number(item, SK)?),
                event_id(item)?,
            ))),
        }
    }

    /// Where streams end, each read consistently, in no order among each other.
    pub(super) async fn ends(
        &self,
        streams: Vec<StreamId>,
    ) -> Result<Vec<(StreamId, End)>, Failure> {
        stream::iter(streams)
            .map(|stream| async move {
                let end = self.newest(&stream).await?;
                Ok((stream, end))
            })
            .buffer_unordered(MAX_PARALLEL_READS)
            .try_collect()
            .await
    }

    /// Reads items, each consistently, in the order of their keys.
    pub(super) async fn get_each(&self, keys: Vec<Item>) -> Result<Vec<Option<Item>>, Failure> {
        stream::iter(keys)
            .map(|key| self.get(key))
            .buffered(MAX_PARALLEL_READS)
            .try_collect()
            .await
    }

    /// Reads items as they stand between transactions, never in the middle of one.
    pub(super) async fn get_settled(&self, keys: Vec<Item>) -> Result<Vec<Option<Item>>, Failure> {
        let mut request = self.client.transact_get_items();
        for key in keys {
            let get = Get::builder()
                .table_name(&self.name)
                .set_key(Some(key))
                .build()
                .map_err(defect)?;
            request = request.transact_items(TransactGetItem::builder().get(get).build());
        }
        let answer = request.send().await.map_err(Failure::of)?;
        let found = answer.responses.unwrap_or_default();
        Ok(found.into_iter().map(|one| one.item).collect())
    }

    /// Runs a transaction once, under a token of its own: whatever on the way sends it twice, it
    /// happens once. The SDK's own retries are off, since after one of them nobody knows what the
    /// first became.
    pub(super) async fn transact(
        &self,
        actions: Vec<TransactWriteItem>,
        token: &str,
    ) -> Result<Transacted, Failure> {
        let once = aws_sdk_dynamodb::config::Builder::new()
            .retry_config(aws_sdk_dynamodb::config::retry::RetryConfig::disabled());
        let sent = self
            .client
            .transact_write_items()
            .client_request_token(token)
            .set_transact_items(Some(actions))
            .customize()
            .config_override(once)
            .send()
            .await;
        let error = match sent {
            Ok(_) => return Ok(Transacted::Done),
            Err(error) => error,
        };
        let cancelled = error.as_service_error().and_then(|service| match service {
            aws_sdk_dynamodb::operation::transact_write_items::TransactWriteItemsError::TransactionCanceledException(
                cancelled,
            ) => Some(cancelled.cancellation_reasons().to_vec()),
            _ => None,
        });
        match cancelled {
            Some(reasons) => Ok(Transacted::Cancelled(reasons)),
            None => Err(Failure::of(error)),
        }
    }

    /// An update of one item, to be sent with [`Table::update`].
    pub(super) fn updating(&self, key: Item) -> UpdateItemFluentBuilder {
        self.client
            .update_item()
            .table_name(&self.name)
            .set_key(Some(key))
            .return_values(aws_sdk_dynamodb::types::ReturnValue::AllNew)
            .return_values_on_condition_check_failure(ReturnValuesOnConditionCheckFailure::AllOld)
    }

    /// Sends an update and gives the item as it is then; `None` when its condition does not hold.
    /// A transaction that has the item is waited for.
    pub(super) async fn update(
        &self,
        update: UpdateItemFluentBuilder,
    ) -> Result<Option<Item>, Failure> {
        let mut attempt = 0;
        loop {
            let error = match update.clone().send().await {
                Ok(answer) => return Ok(Some(answer.attributes.unwrap_or_default())),
                Err(error) => error,
            };
            match refused(&error) {
                Some(UpdateItemError::ConditionalCheckFailedException(_)) => return Ok(None),
                Some(UpdateItemError::TransactionConflictException(_))
                    if attempt < MAX_CONFLICT_RETRIES =>
                {
                    pause(attempt).await;
                    attempt += 1;
                }
                _ => return Err(Failure::of(error)),
            }
        }
    }
}

fn refused(error: &SdkError<UpdateItemError>) -> Option<&UpdateItemError> {
    error.as_service_error()
}

/// A request that this code built wrongly.
pub(super) fn defect(error: impl std::error::Error + Send + Sync + 'static) -> Failure {
    Failure::data(error.to_string())
}

/// Waits before another try, longer each time and never the same as a rival.
pub(super) async fn pause(attempt: u32) {
    let whole = (CONFLICT_PAUSE_MS << attempt.min(MAX_CONFLICT_RETRIES)).min(MAX_CONFLICT_PAUSE_MS);
    tokio::time::sleep(Duration::from_millis(rand::random_range(whole / 2..=whole))).await;
}

/// Names and values of an expression, numbered as they come.
#[derive(Debug, Default)]
pub(super) struct Expression {
    pub names: HashMap<String, String>,
    pub values: HashMap<String, AttributeValue>,
}

impl Expression {
    /// A placeholder for an attribute's name: many plain words are reserved.
    pub(super) fn name(&mut self, name: &str) -> String {
        let known = self.names.iter().find(|(_, known)| *known == name);
        if let Some((placeholder, _)) = known {
            return placeholder.clone();
        }
        let placeholder = format!("#n{}", self.names.len());
        self.names.insert(placeholder.clone(), name.to_owned());
        placeholder
    }

    /// A placeholder for a value.
    pub(super) fn value(&mut self, value: AttributeValue) -> String {
        let placeholder = format!(":v{}", self.values.len());
        self.values.insert(placeholder.clone(), value);
        placeholder
    }

    /// `name = value`.
    pub(super) fn equals(&mut self, name: &str, value: AttributeValue) -> String {
        format!("{} = {}", self.name(name), self.value(value))
    }

    /// The condition that the head is where a batch was decided: of the same life, not fenced off,
    /// and halted or not as it was.
    pub(super) fn head_is(&mut self, head: &Head) -> String {
        let halted = match head.halted {
            Some(_) => "attribute_exists",
            None => "attribute_not_exists",
        };
        [
            self.equals(items::POSITION, number(head.position)),
            self.equals(items::EPOCH, number(head.epoch)),
            self.equals(items::GUARD, number(head.guard)),
            format!("{halted}({})", self.name(items::HALTED)),
        ]
        .join(" AND ")
    }
}
