//! Making a log's table, for the laptop and for tests. For production there is a template in
//! `docs/dynamodb-log.md`; what is there is not made again, so that both go together.

use std::time::Duration;

use aws_sdk_dynamodb::{
    Client,
    error::ProvideErrorMetadata,
    types::{
        AttributeDefinition, BillingMode, GlobalSecondaryIndex, IndexStatus, KeySchemaElement,
        KeyType, Projection, ProjectionType, ScalarAttributeType, StreamSpecification,
        StreamViewType, TableDescription, TableStatus, TimeToLiveSpecification, TimeToLiveStatus,
    },
};
use millrace_es::{Context, Epoch, PartitionCount, Position};
use millrace_kernel::Timestamp;

use super::{
    calls::{Table, defect},
    failure::Failure,
    items::{self, BUCKET, BY_POSITION, EXPIRES, POSITION},
    values::{PK, SK},
};
use crate::{
    LogError,
    lane::{limits::check_partitions, plan::Head},
};

/// How long a new table may take until it can be used.
const TABLE_TIMEOUT_MS: u64 = 60_000;
/// How often a new table is looked at meanwhile.
const TABLE_POLL_MS: u64 = 50;

/// Makes the table of a context's log, with its index, stream and TTL, and its head, and waits until
/// it can be used. What is there stays as it is, so any process may call it at its start.
///
/// # Errors
/// [`LogError::Misconfigured`] when the log is there with another partition count or the table
/// lacks its index or stream; [`LogError::Unreachable`] when the store does not answer, or the table
/// is not ready after a minute.
pub async fn create_log_table(
    client: &Client,
    namespace: &str,
    context: &Context,
    partitions: PartitionCount,
) -> Result<(), LogError> {
    let table = Table::of(client, namespace, context);
    create(&table).await?;
    let waiting = wait_until_usable(&table);
    match tokio::time::timeout(Duration::from_millis(TABLE_TIMEOUT_MS), waiting).await {
        Ok(usable) => usable?,
        Err(_) => {
            return Err(LogError::Unreachable(
                format!(
                    "table {} was not ready after {TABLE_TIMEOUT_MS} ms",
                    table.name
                )
                .into(),
            ));
        }
    }
    expire(&table).await?;
    put_head(&table, partitions).await?;
    let (head, _) = table.head().await?;
    check_partitions(context, head.partitions.len(), partitions)
}

fn key(name: &str, kind: KeyType) -> Result<KeySchemaElement, Failure> {
    let key = KeySchemaElement::builder().attribute_name(name);
    key.key_type(kind).build().map_err(defect)
}

async fn create(table: &Table) -> Result<(), Failure> {
    let index = GlobalSecondaryIndex::builder()
        .index_name(BY_POSITION)
        .key_schema(key(BUCKET, KeyType::Hash)?)
        .key_schema(key(POSITION, KeyType::Range)?)
        .projection(
            Projection::builder()
                .projection_type(ProjectionType::All)
                .build(),
        )
        .build()
        .map_err(defect)?;
    let stream = StreamSpecification::builder()
        .stream_enabled(true)
        .stream_view_type(StreamViewType::NewImage)
        .build()
        .map_err(defect)?;
    let mut request = table
        .client
        .create_table()
        .table_name(&table.name)
        .billing_mode(BillingMode::PayPerRequest)
        .key_schema(key(PK, KeyType::Hash)?)
        .key_schema(key(SK, KeyType::Range)?)
        .global_secondary_indexes(index)
        .stream_specification(stream);
    for (name, kind) in [
        (PK, ScalarAttributeType::S),
        (SK, ScalarAttributeType::N),
        (BUCKET, ScalarAttributeType::N),
        (POSITION, ScalarAttributeType::N),
    ] {
        let attribute = AttributeDefinition::builder()
            .attribute_name(name)
            .attribute_type(kind);
        request = request.attribute_definitions(attribute.build().map_err(defect)?);
    }
    match request.send().await {
        Ok(_) => Ok(()),
        Err(error) if error.code() == Some("ResourceInUseException") => Ok(()),
        Err(error) => Err(Failure::of(error)),
    }
}

async fn wait_until_usable(table: &Table) -> Result<(), LogError> {
    loop {
        let found = table
            .client
            .describe_table()
            .table_name(&table.name)
            .send()
            .await;
        let described = match found {
            Ok(answer) => answer
                .table
                .unwrap_or_else(|| TableDescription::builder().build()),
            // A table that was just made may not be known everywhere yet.
            Err(error) if error.code() == Some("ResourceNotFoundException") => {
                TableDescription::builder().build()
            }
            Err(error) => return Err(Failure::of(error).into()),
        };
        if described.table_status() == Some(&TableStatus::Active) {
            let index = described
                .global_secondary_indexes()
                .iter()
                .find(|index| index.index_name() == Some(BY_POSITION));
            let Some(index) = index else {
                return Err(lacks(table, "the index by-position"));
            };
            let streams = described
                .stream_specification()
                .is_some_and(|stream| stream.stream_enabled());
            if !streams {
                return Err(lacks(table, "a stream of new images"));
            }
            if index
                .index_status()
                .is_none_or(|status| *status == IndexStatus::Active)
            {
                return Ok(());
            }
        }
        tokio::time::sleep(Duration::from_millis(TABLE_POLL_MS)).await;
    }
}

fn lacks(table: &Table, what: &str) -> LogError {
    LogError::Misconfigured(format!(
        "the table {} has not {what}; make it from the template in docs/dynamodb-log.md",
        table.name
    ))
}

/// Lets DynamoDB remove answers that have expired.
async fn expire(table: &Table) -> Result<(), Failure> {
    let described = table
        .client
        .describe_time_to_live()
        .table_name(&table.name)
        .send()
        .await
        .map_err(Failure::of)?;
    let status = described
        .time_to_live_description
        .and_then(|ttl| ttl.time_to_live_status);
    if matches!(
        status,
        Some(TimeToLiveStatus::Enabled | TimeToLiveStatus::Enabling)
    ) {
        return Ok(());
    }
    let ttl = TimeToLiveSpecification::builder()
        .enabled(true)
        .attribute_name(EXPIRES)
        .build()
        .map_err(defect)?;
    let set = table
        .client
        .update_time_to_live()
        .table_name(&table.name)
        .time_to_live_specification(ttl)
        .send()
        .await;
    match set {
        Ok(_) => Ok(()),
        // Another process was faster.
        Err(error) if error.code() == Some("ValidationException") => Ok(()),
        Err(error) => Err(Failure::of(error)),
    }
}

async fn put_head(table: &Table, partitions: PartitionCount) -> Result<(), Failure> {
    let now = Timestamp::now();
    let head = Head {
        position: Position::ZERO,
        epoch: Epoch::new(1),
        guard: 0,
        halted: None,
        partitions: partitions.all().map(|_| Position::ZERO).collect(),
        recorded_at: now,
        now,
    };
    let put = table
        .client
        .put_item()
        .table_name(&table.name)
        .set_item(Some(items::head_item(&head)))
        .condition_expression("attribute_not_exists(pk)")
        .send()
        .await;
    match put {
        Ok(_) => Ok(()),
        Err(error) if error.code() == Some("ConditionalCheckFailedException") => Ok(()),
        Err(error) => Err(Failure::of(error)),
    }
}
