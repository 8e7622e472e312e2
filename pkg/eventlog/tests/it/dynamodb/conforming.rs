//! The suite of every backend, on DynamoDB.

use std::{any::Any, sync::Arc};

use async_trait::async_trait;
use aws_sdk_dynamodb::{Client, types::AttributeValue};
use millrace_es::Position;
use millrace_eventlog::{
    EventLog, Faults,
    conformance::Backend,
    dynamodb::{event_from, is_event},
};
use millrace_testkit::Dynamo;
use tokio::{io::AsyncWriteExt, net::TcpStream};

use super::support::{items, name, open_with, table, through};
use crate::{checks::conformance, proxy::Proxy, support::context};

struct InDynamo {
    dynamo: Dynamo,
    proxy: Proxy,
    client: Client,
}

async fn in_dynamodb() -> InDynamo {
    let dynamo = table().await;
    let address = dynamo.endpoint.strip_prefix("http://").unwrap();
    let server = tokio::net::lookup_host(address).await.unwrap().next();
    let proxy = Proxy::before(server.unwrap()).await;
    let client = through(&dynamo, &format!("http://127.0.0.1:{}", proxy.port));
    InDynamo {
        dynamo,
        proxy,
        client,
    }
}

#[async_trait]
impl Backend for InDynamo {
    async fn open(&self, faults: Option<Arc<dyn Faults>>) -> Arc<dyn EventLog> {
        let client = self.client.clone();
        Arc::new(open_with(&self.dynamo, client, |options| options.faults = faults).await)
    }

    /// There is no session to end: what is under way loses its connection, and what comes next
    /// loses its request or its answer.
    async fn cut(&self) {
        self.proxy.cut();
    }

    /// There is no transaction that stays open: a write that has begun to arrive and does not end.
    async fn hold(&self) -> Box<dyn Any + Send> {
        let address = self.dynamo.endpoint.strip_prefix("http://").unwrap();
        let mut connection = TcpStream::connect(address).await.unwrap();
        let half = format!(
            "POST / HTTP/1.1\r\nhost: {address}\r\ncontent-length: 1000\r\n\
             content-type: application/x-amz-json-1.0\r\n\
             x-amz-target: DynamoDB_20120810.PutItem\r\n\r\n{{\"TableName\": \"{}\"",
            name(&self.dynamo)
        );
        connection.write_all(half.as_bytes()).await.unwrap();
        Box::new(connection)
    }

    async fn lose_after(&self, position: Position) {
        let client = &self.dynamo.client;
        let mut partitions = vec![Position::ZERO; 16];
        for item in items(&self.dynamo)
            .await
            .iter()
            .filter(|item| is_event(item))
        {
            let event = event_from(&context(), item).unwrap();
            if event.position > position {
                client
                    .delete_item()
                    .table_name(name(&self.dynamo))
                    .key("pk", item["pk"].clone())
                    .key("sk", item["sk"].clone())
                    .send()
                    .await
                    .unwrap();
            } else {
                let last = &mut partitions[usize::from(event.partition.get())];
                *last = event.position.max(*last);
            }
        }
        let number = |at: Position| AttributeValue::N(at.to_string());
        client
            .update_item()
            .table_name(name(&self.dynamo))
            .key("pk", AttributeValue::S("head".to_owned()))
            .key("sk", AttributeValue::N("0".to_owned()))
            .update_expression("SET #p = :p, partition_positions = :all")
            .expression_attribute_names("#p", "position")
            .expression_attribute_values(":p", number(position))
            .expression_attribute_values(
                ":all",
                AttributeValue::L(partitions.into_iter().map(number).collect()),
            )
            .send()
            .await
            .unwrap();
    }
}

conformance!(in_dynamodb());
