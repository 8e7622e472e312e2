//! One table's items in bulk: loads, and writes guarded by position.

use std::time::Duration;

use aws_sdk_dynamodb::{
    Client,
    error::SdkError,
    operation::transact_write_items::TransactWriteItemsError,
    types::{CancellationReason, KeysAndAttributes, Put, TransactWriteItem},
};
use futures::{StreamExt, TryStreamExt};

use super::{
    values::{DynamoFailure, failure, number, store_error},
    view::ItemWrite,
};
use crate::{
    error::{StoreError, unavailable},
    stores::{Item, POSITION_ATTRIBUTE},
};

/// The most actions of one `TransactWriteItems`, by DynamoDB's own limit.
pub(super) const MAX_TRANSACTION_ACTIONS: usize = 100;

/// The most keys of one `BatchGetItem`, by DynamoDB's own limit.
const MAX_BATCH_GET_KEYS: usize = 100;

/// Requests of one batch that are under way together.
const MAX_PARALLEL_REQUESTS: usize = 8;

/// How often a transaction whose rivals win, or a throttled read, is tried again before the batch
/// as a whole backs off.
const MAX_CONFLICT_RETRIES: u32 = 8;

/// The first pause after a conflict, in milliseconds; it doubles, and a random half is left out.
const CONFLICT_PAUSE_MS: u64 = 5;

/// Writes an item only over an older one: a duplicate or a zombie changes nothing.
pub(super) const GUARD: &str = "attribute_not_exists(#p) OR #p < :p";

/// A table of a generation.
#[derive(Debug, Clone)]
pub(crate) struct Table {
    pub(super) client: Client,
    pub(super) name: String,
}

/// What became of a transaction that did not fail otherwise.
pub(super) enum Transacted {
    Done,
    /// It was cancelled, with a reason for each action.
    Cancelled(Vec<CancellationReason>),
}

impl Table {
    /// Reads the items of these keys, consistently.
    pub(crate) async fn load(&self, keys: Vec<Item>) -> Result<Vec<Item>, DynamoFailure> {
        let pages: Vec<Vec<Item>> = keys
            .chunks(MAX_BATCH_GET_KEYS)
            .map(<[Item]>::to_vec)
            .collect();
        let found: Vec<Vec<Item>> = futures::stream::iter(pages)
            .map(|page| self.load_page(page))
            .buffered(MAX_PARALLEL_REQUESTS)
            .try_collect()
            .await?;
        Ok(found.into_iter().flatten().collect())
    }

    /// Reads the table page by page, consistently, and where the next page begins.
    pub(crate) async fn page(
        &self,
        from: Option<Item>,
        items: i32,
    ) -> Result<(Vec<Item>, Option<Item>), StoreError> {
        let answer = self
            .client
            .scan()
            .table_name(&self.name)
            .consistent_read(true)
            .limit(items)
            .set_exclusive_start_key(from)
            .send()
            .await
            .map_err(store_error)?;
        let next = answer.last_evaluated_key.filter(|key| !key.is_empty());
        Ok((answer.items.unwrap_or_default(), next))
    }

    /// Reads the beginning of one of the segments that the table is divided into, consistently.
    pub(crate) async fn segment(
        &self,
        segment: u64,
        segments: u64,
        items: u64,
    ) -> Result<Vec<Item>, StoreError> {
        let small = |number: u64| i32::try_from(number).unwrap_or(i32::MAX);
        let answer = self
            .client
            .scan()
            .table_name(&self.name)
            .consistent_read(true)
            .segment(small(segment))
            .total_segments(small(segments))
            .limit(small(items))
            .send()
            .await
            .map_err(store_error)?;
        Ok(answer.items.unwrap_or_default())
    }

    async fn load_page(&self, mut keys: Vec<Item>) -> Result<Vec<Item>, DynamoFailure> {
        let mut found = Vec::with_capacity(keys.len());
        for attempt in 0..=MAX_CONFLICT_RETRIES {
            let request = KeysAndAttributes::builder()
                .set_keys(Some(keys))
                .consistent_read(true)
                .build()
                .map_err(|error| DynamoFailure::Data(Box::new(error)))?;
            let mut answer = self
                .client
                .batch_get_item()
                .request_items(&self.name, request)
                .send()
                .await
                .map_err(failure)?;
            if let Some(items) = answer
                .responses
                .as_mut()
                .and_then(|all| all.remove(&self.name))
            {
                found.extend(items);
            }
            let left = answer
                .unprocessed_keys
                .and_then(|mut left| left.remove(&self.name));
            match left {
                None => return Ok(found),
                Some(left) if left.keys.is_empty() => return Ok(found),
                Some(left) => keys = left.keys,
            }
            pause(attempt).await;
        }
        Err(DynamoFailure::Transient(unavailable(
            "the table is throttled: keys stayed unprocessed",
        )))
    }

    /// Writes items unless newer ones are there, packed into transactions: one of a hundred puts
    /// costs one request, and its cancellation names the items that were newer already, which are
    /// taken out.
    pub(super) async fn store(&self, writes: &[ItemWrite]) -> Result<(), DynamoFailure> {
        let pages: Vec<_> = writes
            .chunks(MAX_TRANSACTION_ACTIONS)
            .map(|page| self.store_page(page))
            .collect();
        futures::stream::iter(pages)
            .buffer_unordered(MAX_PARALLEL_REQUESTS)
            .try_collect::<()>()
            .await
    }

    async fn store_page(&self, page: &[ItemWrite]) -> Result<(), DynamoFailure> {
        if let [write] = page {
            return self.store_one(write).await;
        }
        let mut left: Vec<&ItemWrite> = page.iter().collect();
        for attempt in 0..=MAX_CONFLICT_RETRIES {
            let actions = left
                .iter()
                .map(|write| self.guarded_put(write))
                .collect::<Result<_, _>>()?;
            let reasons = match transact(&self.client, actions).await? {
                Transacted::Done => return Ok(()),
                Transacted::Cancelled(reasons) => reasons,
            };
            let mut newer = Vec::new();
            for (index, reason) in reasons.iter().enumerate() {
                match reason.code() {
                    Some("ConditionalCheckFailed") => newer.push(index),
                    code => check_reason(code, reason)?,
                }
            }
            let mut index = 0;
            left.retain(|_| {
                index += 1;
                !newer.contains(&(index - 1))
            });
            if left.is_empty() {
                return Ok(());
            }
            if newer.is_empty() {
                pause(attempt).await;
            }
        }
        Err(DynamoFailure::Transient(unavailable(
            "transactions on the table conflict",
        )))
    }

    async fn store_one(&self, write: &ItemWrite) -> Result<(), DynamoFailure> {
        let put = self
            .client
            .put_item()
            .table_name(&self.name)
            .set_item(Some(write.item.clone()))
            .condition_expression(GUARD)
            .expression_attribute_names("#p", POSITION_ATTRIBUTE)
            .expression_attribute_values(":p", number(write.position))
            .send()
            .await;
        match put {
            Ok(_) => Ok(()),
            Err(SdkError::ServiceError(refused))
                if refused.err().is_conditional_check_failed_exception() =>
            {
                Ok(())
            }
            Err(error) => Err(failure(error)),
        }
    }

    /// A put under the guard, as an action of a transaction.
    pub(super) fn guarded_put(
        &self,
        write: &ItemWrite,
    ) -> Result<TransactWriteItem, DynamoFailure> {
        let put = Put::builder()
            .table_name(&self.name)
            .set_item(Some(write.item.clone()))
            .condition_expression(GUARD)
            .expression_attribute_names("#p", POSITION_ATTRIBUTE)
            .expression_attribute_values(":p", number(write.position))
            .build()
            .map_err(|error| DynamoFailure::Data(Box::new(error)))?;
        Ok(TransactWriteItem::builder().put(put).build())
    }
}

/// Takes a reason of a cancelled transaction that is no failed condition: what passes is none or
/// a conflict, to be tried again.
pub(super) fn check_reason(
    code: Option<&str>,
    reason: &CancellationReason,
) -> Result<(), DynamoFailure> {
    let message = || reason.message().unwrap_or_default().to_owned();
    match code {
        None | Some("None" | "TransactionConflict") => Ok(()),
        Some("ValidationError" | "ItemCollectionSizeLimitExceeded") => {
            Err(DynamoFailure::Data(message().into()))
        }
        Some(code) => Err(DynamoFailure::Transient(unavailable(format!(
            "the transaction was cancelled: {code} {}",
            message()
        )))),
    }
}

/// Runs a transaction; being cancelled is an answer.
pub(super) async fn transact(
    client: &Client,
    actions: Vec<TransactWriteItem>,
) -> Result<Transacted, DynamoFailure> {
    let sent = client
        .transact_write_items()
        .set_transact_items(Some(actions))
        .send()
        .await;
    match sent {
        Ok(_) => Ok(Transacted::Done),
        Err(SdkError::ServiceError(refused)) => match refused.err() {
            TransactWriteItemsError::TransactionCanceledException(cancelled) => Ok(
                Transacted::Cancelled(cancelled.cancellation_reasons().to_vec()),
            ),
            _ => Err(failure(SdkError::ServiceError(refused))),
        },
        Err(error) => Err(failure(error)),
    }
}

/// Waits before another try, longer each time and never the same as a rival.
pub(super) async fn pause(attempt: u32) {
    let whole = CONFLICT_PAUSE_MS << attempt.min(MAX_CONFLICT_RETRIES);
    let jittered = rand::random_range(whole / 2..=whole);
    tokio::time::sleep(Duration::from_millis(jittered)).await;
}
