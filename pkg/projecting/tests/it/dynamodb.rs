//! Batches, guards and generations in DynamoDB.

use std::collections::BTreeMap;

use millrace_es::RecordedEvent;
use millrace_projecting::{
    DynamoRows, DynamoStore, Generation, GenerationStatus, Item, Reason, StoreError, View,
};
use millrace_testkit::{Dynamo, dynamodb};

use crate::{
    log::MemoryLog,
    views::{DynamoItems, ItemRow, folded, item_table},
};

pub async fn store(dynamo: &Dynamo) -> DynamoStore {
    let store = DynamoStore::new(dynamo.client.clone(), dynamo.prefix.clone());
    store.migrate().await.unwrap();
    store
}

pub async fn scan(dynamo: &Dynamo, table: &str) -> Vec<Item> {
    let mut pages = dynamo
        .client
        .scan()
        .table_name(table)
        .consistent_read(true)
        .into_paginator()
        .items()
        .send();
    let mut found = Vec::new();
    while let Some(item) = pages.next().await {
        found.push(item.unwrap());
    }
    found
}

pub async fn rows(dynamo: &Dynamo, table: &str) -> BTreeMap<String, ItemRow> {
    let items = scan(dynamo, table).await;
    items
        .iter()
        .filter(|item| !item.contains_key("tombstone"))
        .map(|item| {
            let id = item["id"].as_s().unwrap().clone();
            (id, DynamoItems::from_item(item).unwrap())
        })
        .collect()
}

async fn made(store: &DynamoStore, view: &View, log: &MemoryLog) -> Generation {
    store.ensure_generation(view, &log.heads()).await.unwrap()
}

#[tokio::test]
async fn the_first_generation_is_made_once_by_many() {
    let dynamo = dynamodb().await;
    let store = DynamoStore::new(dynamo.client.clone(), dynamo.prefix.clone());
    for done in futures::future::join_all((0..4).map(|_| store.migrate())).await {
        done.unwrap();
    }
    let log = MemoryLog::new();
    let view = item_table();
    let made = futures::future::join_all((0..4).map(|_| made(&store, &view, &log))).await;
    assert!(made.iter().all(|one| one.id == made[0].id), "{made:?}");
    assert_eq!(made[0].status, GenerationStatus::Active);
    assert_eq!(store.generations("item-table").await.unwrap().len(), 1);
}

#[tokio::test]
async fn batches_fold_and_duplicates_change_nothing() {
    let dynamo = dynamodb().await;
    let store = store(&dynamo).await;
    let log = MemoryLog::new();
    log.fill(150, 320);
    log.push("item-3", "item.removed", "{}");
    log.push("item-4", "item.noticed", "{}");
    let view = item_table();
    let generation = made(&store, &view, &log).await;
    let mut folder = store.folder(&generation, &view).await.unwrap();
    // More items than one transaction holds, then fewer.
    for page in [
        &log.events()[..230],
        &log.events()[230..320],
        &log.events()[320..],
    ] {
        folder.fold(page.to_vec()).await.unwrap();
        assert_eq!(folder.fold(page.to_vec()).await.unwrap().events, 0);
    }
    assert_eq!(
        rows(&dynamo, &generation.place).await,
        folded(&log.events())
    );
}

#[tokio::test]
async fn what_a_crash_left_half_done_is_done_again_without_effect() {
    let dynamo = dynamodb().await;
    let store = store(&dynamo).await;
    let log = MemoryLog::new();
    let events = log.fill(3, 12);
    let view = item_table();
    let generation = made(&store, &view, &log).await;
    let mut folder = store.folder(&generation, &view).await.unwrap();
    folder.fold(events.clone()).await.unwrap();
    // As if the items had been written and the checkpoints had not moved.
    for item in scan(&dynamo, &format!("{}_projections", dynamo.prefix)).await {
        if !item["pk"].as_s().unwrap().starts_with("checkpoint#") {
            continue;
        }
        dynamo
            .client
            .update_item()
            .table_name(format!("{}_projections", dynamo.prefix))
            .key("pk", item["pk"].clone())
            .key("sk", item["sk"].clone())
            .update_expression("SET #p = :zero")
            .expression_attribute_names("#p", "position")
            .expression_attribute_values(
                ":zero",
                aws_sdk_dynamodb::types::AttributeValue::N("0".to_owned()),
            )
            .send()
            .await
            .unwrap();
    }
    let mut again = store.folder(&generation, &view).await.unwrap();
    // In other batches than before.
    for page in events.chunks(5) {
        again.fold(page.to_vec()).await.unwrap();
    }
    assert_eq!(rows(&dynamo, &generation.place).await, folded(&events));
}

#[tokio::test]
async fn a_tombstone_keeps_a_late_writer_from_bringing_a_row_back() {
    let dynamo = dynamodb().await;
    let store = store(&dynamo).await;
    let log = MemoryLog::new();
    let view = item_table();
    let generation = made(&store, &view, &log).await;
    let added = log.push("item-1", "item.added", r#"{"n":1}"#);
    let mut zombie = store.folder(&generation, &view).await.unwrap();
    let mut owner = store.folder(&generation, &view).await.unwrap();
    owner.fold(vec![added.clone()]).await.unwrap();
    let removed = log.push("item-1", "item.removed", "{}");
    owner.fold(vec![removed]).await.unwrap();
    let fenced = zombie.fold(vec![added]).await;
    assert!(
        matches!(fenced, Err(StoreError::Fenced { .. })),
        "{fenced:?}"
    );
    let items = scan(&dynamo, &generation.place).await;
    assert_eq!(items.len(), 1);
    assert!(items[0].contains_key("tombstone"));
    assert!(!items[0].contains_key("total"), "it has left the index");
}

#[tokio::test]
async fn racing_owners_leave_the_fold_of_the_log() {
    let dynamo = dynamodb().await;
    let store = store(&dynamo).await;
    let log = MemoryLog::new();
    let events = log.fill(6, 60);
    let view = item_table();
    let generation = made(&store, &view, &log).await;
    let race = |page: usize| {
        let (store, generation, view, events) = (&store, &generation, &view, &events);
        async move {
            loop {
                let mut folder = store.folder(generation, view).await.unwrap();
                let mut done = true;
                for chunk in events.chunks(page) {
                    match folder.fold(chunk.to_vec()).await {
                        Ok(_) => {}
                        Err(StoreError::Fenced { .. } | StoreError::Invalid(_)) => done = false,
                        Err(error) => panic!("{error}"),
                    }
                    if !done {
                        break;
                    }
                }
                if done {
                    return;
                }
            }
        }
    };
    tokio::join!(race(4), race(7), race(11));
    assert_eq!(rows(&dynamo, &generation.place).await, folded(&events));
}

#[tokio::test]
async fn an_item_refused_for_good_parks_its_stream_only() {
    let dynamo = dynamodb().await;
    let store = store(&dynamo).await;
    let log = MemoryLog::new();
    let mut healthy: Vec<RecordedEvent> = log.fill(5, 10);
    let poison = log.push("item-2", "item.added", r#"{"n":1,"note":"forbidden"}"#);
    let follower = log.push("item-2", "item.added", r#"{"n":1}"#);
    healthy.push(log.push("item-3", "item.added", r#"{"n":1}"#));
    let view = item_table();
    let generation = made(&store, &view, &log).await;
    let mut folder = store.folder(&generation, &view).await.unwrap();
    let folded_now = folder.fold(log.events()).await.unwrap();
    assert_eq!(
        folded_now.letters,
        [
            (poison.position, Reason::Store),
            (follower.position, Reason::Follows)
        ]
    );
    assert_eq!(rows(&dynamo, &generation.place).await, folded(&healthy));
}

#[tokio::test]
async fn a_switch_never_goes_back() {
    let dynamo = dynamodb().await;
    let store = store(&dynamo).await;
    let log = MemoryLog::new();
    let events = log.fill(9, 30);
    let view = item_table();
    let live = made(&store, &view, &log).await;
    let mut folder = store.folder(&live, &view).await.unwrap();
    folder.fold(events).await.unwrap();
    log.truncate(20);
    millrace_eventlog::EventLog::start_epoch(&*log)
        .await
        .unwrap();
    let candidate = made(&store, &view, &log).await;
    assert_eq!(candidate.status, GenerationStatus::Candidate);
    let refused = store.switch(&candidate, &log.heads()).await;
    assert!(
        matches!(refused, Err(StoreError::Behind { .. })),
        "{refused:?}"
    );
}
