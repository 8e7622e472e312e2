//! The query side: which generation answers, and waiting for a position.

use std::{sync::Arc, time::Duration};

use futures::FutureExt;
use millrace_es::{LogToken, RecordedEvent};
use millrace_eventlog::EventLog;
use millrace_projecting::{AtLeast, DynamoReadModel, PgReadModel, PgReadOptions, ReadError};
use millrace_streaming::{Names, Progress, Signals};
use millrace_testkit::{Database, dynamodb, eventually, nats, postgres};
use sqlx::Row;

use crate::{
    bed::logs_of,
    log::{MemoryLog, ordering},
    views::{item_table, items},
};

fn token(event: &RecordedEvent) -> LogToken {
    format!(
        "ordering/{}~{}~{}_{}",
        event.position, event.epoch, event.partition, event.position
    )
    .parse()
    .unwrap()
}

fn within(token: LogToken, wait: Duration) -> AtLeast {
    AtLeast { token, wait }
}

const SHORT: Duration = Duration::from_millis(150);
const LONG: Duration = Duration::from_secs(10);

fn open(database: &Database, log: &Arc<MemoryLog>, signals: Option<Signals>) -> PgReadModel {
    let options = PgReadOptions::default();
    PgReadModel::open(&database.url, &items(), logs_of(log), signals, options).unwrap()
}

async fn count(model: &PgReadModel, at_least: Option<&AtLeast>) -> Result<i64, ReadError> {
    model
        .query(at_least, |conn| {
            async move {
                let row = sqlx::query("SELECT count(*) FROM items")
                    .fetch_one(conn)
                    .await?;
                row.try_get(0)
            }
            .boxed()
        })
        .await
}

#[tokio::test]
async fn nothing_answers_before_the_first_generation() {
    let database = postgres().await;
    let store = crate::postgres::store(&database).await;
    let log = MemoryLog::new();
    let model = open(&database, &log, None);
    let early = count(&model, None).await;
    assert!(
        matches!(early, Err(ReadError::NotReady { .. })),
        "{early:?}"
    );
    store
        .ensure_generation(&items(), &log.heads())
        .await
        .unwrap();
    assert_eq!(count(&model, None).await.unwrap(), 0);
}

#[tokio::test]
async fn a_reader_waits_for_its_own_partition_only() {
    let database = postgres().await;
    let store = crate::postgres::store(&database).await;
    let log = MemoryLog::new();
    let view = items();
    let generation = store.ensure_generation(&view, &log.heads()).await.unwrap();
    let mut folder = store.folder(&generation, &view).await.unwrap();
    let model = open(&database, &log, None);
    // Events of many streams are in several partitions; only one of them is folded.
    let events = log.fill(12, 12);
    let own: Vec<_> = events
        .iter()
        .filter(|one| one.partition == events[0].partition)
        .cloned()
        .collect();
    let last = own.last().unwrap().clone();
    let late = model.read(Some(&within(token(&last), SHORT))).await;
    assert!(matches!(late, Err(ReadError::Behind { reached, .. }) if reached.get() == 0));
    let wanted = within(token(&last), LONG);
    let (seen, folded) = tokio::join!(count(&model, Some(&wanted)), folder.fold(own.clone()));
    folded.unwrap();
    assert_eq!(seen.unwrap(), i64::try_from(own.len()).unwrap());
    // A bare position waits for all partitions.
    let bare = LogToken {
        epoch: None,
        partitions: Vec::new(),
        ..token(&last)
    };
    let behind = model.read(Some(&within(bare.clone(), SHORT))).await;
    assert!(matches!(behind, Err(ReadError::Behind { .. })));
    let all = within(bare, LONG);
    let (seen, folded) = tokio::join!(count(&model, Some(&all)), folder.fold(events));
    folded.unwrap();
    assert_eq!(seen.unwrap(), 12);
}

#[tokio::test]
async fn idle_partitions_do_not_hold_a_bare_position_up() {
    let database = postgres().await;
    let store = crate::postgres::store(&database).await;
    let log = MemoryLog::new();
    let view = items();
    let generation = store.ensure_generation(&view, &log.heads()).await.unwrap();
    let mut folder = store.folder(&generation, &view).await.unwrap();
    // One stream: three of four partitions never get an event.
    folder.fold(log.fill(1, 5)).await.unwrap();
    let model = open(&database, &log, None);
    let bare: LogToken = "ordering/5".parse().unwrap();
    count(&model, Some(&within(bare, SHORT))).await.unwrap();
    eventually("the watermark is the head", LONG, async || {
        let current = model.current(&ordering())?;
        (current.to_string() == "ordering/5~1").then_some(())
    })
    .await;
    // Beyond the head there is nothing yet.
    let beyond: LogToken = "ordering/6".parse().unwrap();
    let refused = model.read(Some(&within(beyond, SHORT))).await;
    assert!(matches!(refused, Err(ReadError::Behind { .. })));
}

#[tokio::test]
async fn tokens_that_cannot_be_waited_for_are_refused_at_once() {
    let database = postgres().await;
    let store = crate::postgres::store(&database).await;
    let log = MemoryLog::new();
    log.start_epoch().await.unwrap();
    store
        .ensure_generation(&items(), &log.heads())
        .await
        .unwrap();
    let model = open(&database, &log, None);
    let old: LogToken = "ordering/1~1~0_1".parse().unwrap();
    let refused = model.read(Some(&within(old, LONG))).await;
    assert!(matches!(refused, Err(ReadError::EpochOver { .. })));
    let foreign: LogToken = "banking/1".parse().unwrap();
    let refused = model.read(Some(&within(foreign, LONG))).await;
    assert!(matches!(refused, Err(ReadError::ForeignContext { .. })));
}

#[tokio::test]
async fn a_signal_wakes_a_reader_before_its_poll() {
    let database = postgres().await;
    let nats = nats().await;
    let store = crate::postgres::store(&database).await;
    let log = MemoryLog::new();
    let view = items();
    let generation = store.ensure_generation(&view, &log.heads()).await.unwrap();
    let mut folder = store.folder(&generation, &view).await.unwrap();
    let signals = Signals::new(nats.client.clone(), Names::new(&nats.namespace).unwrap());
    let model = open(&database, &log, Some(signals.clone()));
    count(&model, None).await.unwrap();
    let mut fastest = Duration::MAX;
    for _ in 0..20 {
        let event = log.push("item-1", "item.added", r#"{"n":1}"#);
        let wanted = within(token(&event), LONG);
        let writing = async {
            // Long enough for the reader to have looked once in vain.
            tokio::time::sleep(Duration::from_millis(20)).await;
            folder.fold(vec![event.clone()]).await.unwrap();
            let progress = Progress {
                context: event.context.clone(),
                generation: generation.id.to_string(),
                partition: event.partition,
                position: event.position,
            };
            let committed = std::time::Instant::now();
            signals.progress("items", &progress).await.unwrap();
            committed
        };
        let reading = async {
            count(&model, Some(&wanted)).await.unwrap();
            std::time::Instant::now()
        };
        let (committed, read) = tokio::join!(writing, reading);
        fastest = fastest.min(read.saturating_duration_since(committed));
    }
    // The poll comes every 250 ms: without signals the least of 20 waits would be far longer.
    assert!(fastest < Duration::from_millis(100), "{fastest:?}");
}

#[tokio::test]
async fn a_dropped_generation_is_left_for_the_active_one() {
    let database = postgres().await;
    let store = crate::postgres::store(&database).await;
    let log = MemoryLog::new();
    let view = items();
    let old = store.ensure_generation(&view, &log.heads()).await.unwrap();
    let model = open(&database, &log, None);
    assert_eq!(count(&model, None).await.unwrap(), 0);
    log.start_epoch().await.unwrap();
    let new = store.ensure_generation(&view, &log.heads()).await.unwrap();
    store.switch(&new, &log.heads()).await.unwrap();
    sqlx::query(sqlx::AssertSqlSafe(format!(
        "DROP SCHEMA {} CASCADE",
        old.place
    )))
    .execute(&database.pool)
    .await
    .unwrap();
    assert_eq!(count(&model, None).await.unwrap(), 0);
}

#[tokio::test]
async fn readers_of_dynamodb_wait_too() {
    let dynamo = dynamodb().await;
    let store = crate::dynamodb::store(&dynamo).await;
    let log = MemoryLog::new();
    let view = item_table();
    let generation = store.ensure_generation(&view, &log.heads()).await.unwrap();
    let mut folder = store.folder(&generation, &view).await.unwrap();
    let model = DynamoReadModel::open(store, &view, logs_of(&log), None).unwrap();
    let event = log.push("item-1", "item.added", r#"{"n":1}"#);
    let late = model.read(Some(&within(token(&event), SHORT))).await;
    assert!(matches!(late, Err(ReadError::Behind { .. })));
    let wanted = within(token(&event), LONG);
    let (reader, folded) = tokio::join!(model.read(Some(&wanted)), folder.fold(vec![event]));
    folded.unwrap();
    let reader = reader.unwrap();
    assert!(reader.consistent());
    assert_eq!(reader.table(), generation.place);
}
