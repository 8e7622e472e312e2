//! A log on a table of its own.

use std::time::Duration;

use aws_sdk_dynamodb::{Client, config::retry::RetryConfig};
use millrace_es::PartitionCount;
use millrace_eventlog::dynamodb::{
    DynamoEventLog, DynamoLogOptions, Item, create_log_table, table_name,
};
use millrace_testkit::Dynamo;

use crate::support::context;

/// A table with an empty log.
pub async fn table() -> Dynamo {
    let dynamo = millrace_testkit::dynamodb().await;
    create_log_table(
        &dynamo.client,
        &dynamo.prefix,
        &context(),
        PartitionCount::DEFAULT,
    )
    .await
    .unwrap();
    dynamo
}

pub fn name(dynamo: &Dynamo) -> String {
    table_name(&dynamo.prefix, &context())
}

/// A client that goes another way to the same endpoint, and is quick to try again.
pub fn through(dynamo: &Dynamo, endpoint: &str) -> Client {
    let retries = RetryConfig::standard()
        .with_max_attempts(4)
        .with_initial_backoff(Duration::from_millis(20));
    let config = dynamo.client.config().to_builder();
    Client::from_conf(config.endpoint_url(endpoint).retry_config(retries).build())
}

pub async fn open(dynamo: &Dynamo) -> DynamoEventLog {
    open_with(dynamo, dynamo.client.clone(), |_| {}).await
}

pub async fn open_with(
    dynamo: &Dynamo,
    client: Client,
    change: impl FnOnce(&mut DynamoLogOptions),
) -> DynamoEventLog {
    let mut options = DynamoLogOptions::new(dynamo.prefix.clone(), context());
    change(&mut options);
    DynamoEventLog::open(client, options).await.unwrap()
}

/// Every item of the table.
pub async fn items(dynamo: &Dynamo) -> Vec<Item> {
    let mut items = Vec::new();
    let mut from = None;
    loop {
        let page = dynamo
            .client
            .scan()
            .table_name(name(dynamo))
            .consistent_read(true)
            .set_exclusive_start_key(from)
            .send()
            .await
            .unwrap();
        items.extend(page.items.unwrap_or_default());
        from = page.last_evaluated_key.filter(|key| !key.is_empty());
        if from.is_none() {
            return items;
        }
    }
}
