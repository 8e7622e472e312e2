//! The log on DynamoDB, read from its items as they are.

use std::collections::HashMap;

use aws_sdk_dynamodb::{Client, types::AttributeValue};
use serde_json::Value;
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

use crate::check::log::{Head, LoggedEvent};

type Item = HashMap<String, AttributeValue>;

/// Reads head and events. Nothing may be appended meanwhile: a scan is no snapshot.
///
/// # Panics
/// When the table cannot be read, or an item is not as it should be.
pub async fn read(client: &Client, namespace: &str) -> (Head, Vec<LoggedEvent>) {
    let mut pages = client
        .scan()
        .table_name(format!("{namespace}-banking-log"))
        .consistent_read(true)
        .into_paginator()
        .items()
        .send();
    let (mut head, mut events) = (None, Vec::new());
    while let Some(item) = pages.next().await {
        let item = item.unwrap();
        let key = text(&item, "pk").unwrap();
        if key == "head" {
            head = Some(head_of(&item));
        } else if let Some(stream) = key.strip_prefix("stream#") {
            events.push(event_of(stream, &item));
        }
    }
    events.sort_by_key(|event| event.position);
    (head.expect("the log has no head"), events)
}

fn head_of(item: &Item) -> Head {
    let positions = item["partition_positions"].as_l().unwrap();
    Head {
        position: number(item, "position"),
        partition_positions: positions
            .iter()
            .map(|position| position.as_n().unwrap().parse().unwrap())
            .collect(),
        epoch: number(item, "epoch"),
        halted: text(item, "halted"),
    }
}

fn event_of(stream: &str, item: &Item) -> LoggedEvent {
    let payload_text = text(item, "payload").unwrap();
    let metadata: Value = serde_json::from_str(&text(item, "metadata").unwrap()).unwrap();
    LoggedEvent {
        position: number(item, "position"),
        version: number(item, "sk"),
        previous: number(item, "previous"),
        recorded_at: micros(item),
        event_id: text(item, "id").unwrap().parse().unwrap(),
        partition: i16::try_from(number(item, "partition")).unwrap(),
        stream: stream.to_owned(),
        event_type: text(item, "type").unwrap(),
        payload: serde_json::from_str(&payload_text).unwrap(),
        payload_text,
        key_hash: metadata["idempotency_key_hash"].as_str().map(str::to_owned),
    }
}

fn micros(item: &Item) -> i64 {
    match &item["recorded_at"] {
        AttributeValue::N(micros) => micros.parse().unwrap(),
        other => {
            let time = OffsetDateTime::parse(other.as_s().unwrap(), &Rfc3339).unwrap();
            i64::try_from(time.unix_timestamp_nanos() / 1_000).unwrap()
        }
    }
}

fn text(item: &Item, name: &str) -> Option<String> {
    item.get(name)?.as_s().ok().cloned()
}

fn number(item: &Item, name: &str) -> i64 {
    item[name].as_n().unwrap().parse().unwrap()
}
