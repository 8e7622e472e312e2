//! Attribute values in and out of items, and what an error of the SDK means.

use aws_sdk_dynamodb::{
    error::{ProvideErrorMetadata, SdkError},
    types::AttributeValue,
};
use millrace_es::{Context, Epoch, Partition, Position};
use millrace_kernel::Timestamp;

use crate::{
    error::StoreError,
    generation::Lane,
    stores::{BadItem, Item},
};

pub(super) fn text(value: impl Into<String>) -> AttributeValue {
    AttributeValue::S(value.into())
}

pub(super) fn number(value: impl std::fmt::Display + Copy) -> AttributeValue {
    AttributeValue::N(value.to_string())
}

pub(super) fn get_text<'a>(item: &'a Item, name: &str) -> Result<&'a str, BadItem> {
    item.get(name)
        .and_then(|value| value.as_s().ok())
        .map(String::as_str)
        .ok_or_else(|| BadItem::at(name))
}

pub(super) fn get_number<T: std::str::FromStr>(item: &Item, name: &str) -> Result<T, BadItem> {
    item.get(name)
        .and_then(|value| value.as_n().ok())
        .and_then(|digits| digits.parse().ok())
        .ok_or_else(|| BadItem::at(name))
}

pub(super) fn get_position(item: &Item, name: &str) -> Result<Position, BadItem> {
    get_number(item, name).map(Position::new)
}

pub(super) fn get_epoch(item: &Item) -> Result<Epoch, BadItem> {
    get_number(item, "epoch").map(Epoch::new)
}

pub(super) fn get_time(item: &Item, name: &str) -> Result<Timestamp, BadItem> {
    get_text(item, name)?.parse().map_err(|_| BadItem::at(name))
}

pub(super) fn get_lane(item: &Item) -> Result<Lane, BadItem> {
    let context = Context::new(get_text(item, "context")?).map_err(|_| BadItem::at("context"))?;
    let partition = get_number(item, "partition").map(Partition::new)?;
    Ok(Lane::new(context, partition))
}

/// What an error of DynamoDB means for a batch.
#[derive(Debug)]
pub(crate) enum DynamoFailure {
    /// Try again: connection, throttling, a conflict of transactions.
    Transient(StoreError),
    /// Some item of the request is refused for good.
    Data(Box<dyn std::error::Error + Send + Sync>),
    /// Anything else.
    Failed(StoreError),
}

impl From<StoreError> for DynamoFailure {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Unavailable(_) => Self::Transient(error),
            other => Self::Failed(other),
        }
    }
}

impl From<BadItem> for StoreError {
    fn from(error: BadItem) -> Self {
        Self::Unusable(Box::new(error))
    }
}

/// Sorts an error of the SDK by its code. What is not known to be a matter of the data is never
/// taken for one.
pub(super) fn failure<E, R>(error: SdkError<E, R>) -> DynamoFailure
where
    E: ProvideErrorMetadata + std::error::Error + Send + Sync + 'static,
    R: std::fmt::Debug + Send + Sync + 'static,
{
    let code = error.code().unwrap_or_default().to_owned();
    match code.as_str() {
        "ValidationException" | "ItemCollectionSizeLimitExceededException" => {
            DynamoFailure::Data(Box::new(error))
        }
        "ResourceNotFoundException"
        | "AccessDeniedException"
        | "UnrecognizedClientException"
        | "MissingAuthenticationTokenException"
        | "IncompleteSignatureException" => {
            DynamoFailure::Failed(StoreError::Unusable(Box::new(error)))
        }
        _ => match error {
            SdkError::ConstructionFailure(_) => {
                DynamoFailure::Failed(StoreError::Unusable(Box::new(error)))
            }
            other => DynamoFailure::Transient(StoreError::Unavailable(Box::new(other))),
        },
    }
}

/// The same for calls whose request is our own making, so that no data can be at fault.
pub(super) fn store_error<E, R>(error: SdkError<E, R>) -> StoreError
where
    E: ProvideErrorMetadata + std::error::Error + Send + Sync + 'static,
    R: std::fmt::Debug + Send + Sync + 'static,
{
    match failure(error) {
        DynamoFailure::Transient(error) | DynamoFailure::Failed(error) => error,
        DynamoFailure::Data(source) => StoreError::Unusable(source),
    }
}
