//! Tables as views and the control records need them.

use std::time::Duration;

use aws_sdk_dynamodb::{
    Client,
    error::{ProvideErrorMetadata, SdkError},
    types::{
        AttributeDefinition, BillingMode, GlobalSecondaryIndex, KeySchemaElement, KeyType,
        LocalSecondaryIndex, Projection, ProjectionType, ScalarAttributeType, TableStatus,
    },
};

use super::values::store_error;
use crate::{
    error::{StoreError, unavailable},
    stores::{KeyAttribute, KeyKind, TableDefinition},
};

/// How long a new table may take until it can be used, in milliseconds.
const TABLE_TIMEOUT_MS: u64 = 60_000;

/// How often a new table is looked at meanwhile, in milliseconds.
const TABLE_POLL_MS: u64 = 50;

/// Makes a table and waits until it can be used; one that exists is fine.
pub(super) async fn create_table(
    client: &Client,
    name: &str,
    definition: &TableDefinition,
) -> Result<(), StoreError> {
    let built = |error| StoreError::Unusable(Box::new(error) as _);
    let mut attributes: Vec<KeyAttribute> = vec![definition.partition_key];
    attributes.extend(definition.sort_key);
    attributes.extend(definition.local_indexes.iter().map(|index| index.sort_key));
    for index in definition.global_indexes {
        attributes.push(index.partition_key);
        attributes.extend(index.sort_key);
    }
    attributes.sort_by_key(|attribute| attribute.name);
    attributes.dedup_by_key(|attribute| attribute.name);
    let mut request = client
        .create_table()
        .table_name(name)
        .billing_mode(BillingMode::PayPerRequest)
        .set_key_schema(Some(key_schema(
            definition.partition_key,
            definition.sort_key,
        )?));
    for attribute in attributes {
        let kind = match attribute.kind {
            KeyKind::Text => ScalarAttributeType::S,
            KeyKind::Number => ScalarAttributeType::N,
        };
        let attribute = AttributeDefinition::builder()
            .attribute_name(attribute.name)
            .attribute_type(kind);
        request = request.attribute_definitions(attribute.build().map_err(built)?);
    }
    let all = Projection::builder()
        .projection_type(ProjectionType::All)
        .build();
    for index in definition.local_indexes {
        let index = LocalSecondaryIndex::builder()
            .index_name(index.name)
            .set_key_schema(Some(key_schema(
                definition.partition_key,
                Some(index.sort_key),
            )?))
            .projection(all.clone());
        request = request.local_secondary_indexes(index.build().map_err(built)?);
    }
    for index in definition.global_indexes {
        let index = GlobalSecondaryIndex::builder()
            .index_name(index.name)
            .set_key_schema(Some(key_schema(index.partition_key, index.sort_key)?))
            .projection(all.clone());
        request = request.global_secondary_indexes(index.build().map_err(built)?);
    }
    match request.send().await {
        Ok(_) => {}
        Err(SdkError::ServiceError(refused))
            if refused.err().code() == Some("ResourceInUseException") => {}
        Err(error) => return Err(store_error(error)),
    }
    wait_until_active(client, name).await
}

fn key_schema(
    partition: KeyAttribute,
    sort: Option<KeyAttribute>,
) -> Result<Vec<KeySchemaElement>, StoreError> {
    [
        Some((partition, KeyType::Hash)),
        sort.map(|sort| (sort, KeyType::Range)),
    ]
    .into_iter()
    .flatten()
    .map(|(attribute, kind)| {
        KeySchemaElement::builder()
            .attribute_name(attribute.name)
            .key_type(kind)
            .build()
            .map_err(|error| StoreError::Unusable(Box::new(error)))
    })
    .collect()
}

async fn wait_until_active(client: &Client, name: &str) -> Result<(), StoreError> {
    let looking = async {
        loop {
            let found = client.describe_table().table_name(name).send().await;
            let status = found
                .map_err(store_error)?
                .table
                .and_then(|table| table.table_status);
            if status == Some(TableStatus::Active) {
                return Ok(());
            }
            tokio::time::sleep(Duration::from_millis(TABLE_POLL_MS)).await;
        }
    };
    tokio::time::timeout(Duration::from_millis(TABLE_TIMEOUT_MS), looking)
        .await
        .unwrap_or_else(|_| Err(unavailable(format!("table {name} is not ready yet"))))
}
