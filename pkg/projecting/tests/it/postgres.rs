//! Batches, checkpoints and generations in PostgreSQL.

use std::collections::BTreeMap;

use millrace_es::RecordedEvent;
use millrace_projecting::{Generation, GenerationStatus, PgStore, StoreError, View};
use millrace_testkit::{Database, postgres};
use sqlx::{PgPool, Row};

use crate::{
    log::MemoryLog,
    views::{ItemRow, ItemsNext, folded, items, read_row, sums},
};

pub async fn store(database: &Database) -> PgStore {
    let store = PgStore::open(&database.url).unwrap();
    store.migrate().await.unwrap();
    store
}

pub async fn rows(pool: &PgPool, schema: &str) -> BTreeMap<String, ItemRow> {
    let sql = format!("SELECT id, total, trail, note FROM {schema}.items");
    let rows = sqlx::query(sqlx::AssertSqlSafe(sql))
        .fetch_all(pool)
        .await
        .unwrap();
    rows.iter().map(|row| read_row(row).unwrap()).collect()
}

pub async fn total(pool: &PgPool, schema: &str) -> (i64, i64) {
    let sql = format!("SELECT count, total FROM {schema}.sums WHERE id = 'all'");
    let row = sqlx::query(sqlx::AssertSqlSafe(sql))
        .fetch_optional(pool)
        .await
        .unwrap();
    row.map_or((0, 0), |row| (row.get(0), row.get(1)))
}

async fn made(store: &PgStore, view: &View, log: &MemoryLog) -> Generation {
    store.ensure_generation(view, &log.heads()).await.unwrap()
}

#[tokio::test]
async fn migrations_run_twice_and_at_once() {
    let database = postgres().await;
    let store = PgStore::open(&database.url).unwrap();
    let all = (0..6).map(|_| store.migrate());
    for done in futures::future::join_all(all).await {
        done.unwrap();
    }
}

#[tokio::test]
async fn the_first_generation_is_made_once_by_many() {
    let database = postgres().await;
    let store = store(&database).await;
    let log = MemoryLog::new();
    let view = items();
    let all = (0..6).map(|_| made(&store, &view, &log));
    let made = futures::future::join_all(all).await;
    assert!(made.iter().all(|one| one.id == made[0].id));
    assert_eq!(made[0].status, GenerationStatus::Active);
    assert_eq!(store.generations("items").await.unwrap().len(), 1);
}

#[tokio::test]
async fn batches_fold_and_duplicates_change_nothing() {
    let database = postgres().await;
    let store = store(&database).await;
    let log = MemoryLog::new();
    let events = log.fill(7, 100);
    log.push("item-3", "item.removed", "{}");
    log.push("item-4", "item.noticed", "{}");
    let (view, tally) = (items(), sums());
    let generation = made(&store, &view, &log).await;
    let tallied = made(&store, &tally, &log).await;
    let mut folder = store.folder(&generation, &view).await.unwrap();
    let mut adder = store.folder(&tallied, &tally).await.unwrap();
    for page in log.events().chunks(9) {
        folder.fold(page.to_vec()).await.unwrap();
        adder.fold(page.to_vec()).await.unwrap();
        // The same again, and everything before.
        assert_eq!(folder.fold(page.to_vec()).await.unwrap().events, 0);
        assert_eq!(
            adder
                .fold(events.clone()[..9].to_vec())
                .await
                .unwrap()
                .events,
            0
        );
    }
    assert_eq!(
        rows(&database.pool, &generation.place).await,
        folded(&log.events())
    );
    assert_eq!(total(&database.pool, &tallied.place).await, (100, 100));
}

#[tokio::test]
async fn events_that_do_not_follow_are_refused() {
    let database = postgres().await;
    let store = store(&database).await;
    let log = MemoryLog::new();
    let view = items();
    let events: Vec<RecordedEvent> = (0..3)
        .map(|_| log.push("item-1", "item.added", r#"{"n":1}"#))
        .collect();
    let generation = made(&store, &view, &log).await;
    let mut folder = store.folder(&generation, &view).await.unwrap();
    let refused = folder
        .fold(vec![events[0].clone(), events[2].clone()])
        .await;
    assert!(
        matches!(refused, Err(StoreError::Invalid(_))),
        "{refused:?}"
    );
    assert!(rows(&database.pool, &generation.place).await.is_empty());
}

#[tokio::test]
async fn of_two_owners_one_is_fenced_off() {
    let database = postgres().await;
    let store = store(&database).await;
    let log = MemoryLog::new();
    let events = log.fill(1, 20);
    let view = sums();
    let generation = made(&store, &view, &log).await;
    let mut one = store.folder(&generation, &view).await.unwrap();
    let mut other = store.folder(&generation, &view).await.unwrap();
    one.fold(events[..10].to_vec()).await.unwrap();
    // The other one read the checkpoint before; it is a zombie now.
    let fenced = other.fold(events[..10].to_vec()).await;
    assert!(
        matches!(fenced, Err(StoreError::Fenced { .. })),
        "{fenced:?}"
    );
    let (a, b) = tokio::join!(one.fold(events[10..].to_vec()), async {
        let mut third = store.folder(&generation, &view).await.unwrap();
        third.fold(events[10..].to_vec()).await
    });
    assert!(a.is_ok() || b.is_ok());
    assert_eq!(total(&database.pool, &generation.place).await, (20, 20));
}

#[tokio::test]
async fn a_connection_that_dies_leaves_nothing_half_done() {
    let database = postgres().await;
    let store = store(&database).await;
    let log = MemoryLog::new();
    let events = log.fill(5, 40);
    let view = sums();
    let generation = made(&store, &view, &log).await;
    // Holds the row that the batch will want to add to.
    sqlx::query(sqlx::AssertSqlSafe(format!(
        "INSERT INTO {}.sums VALUES ('all', 0, 0)",
        generation.place
    )))
    .execute(&database.pool)
    .await
    .unwrap();
    let mut held = database.pool.begin().await.unwrap();
    sqlx::query(sqlx::AssertSqlSafe(format!(
        "SELECT 1 FROM {}.sums FOR UPDATE",
        generation.place
    )))
    .execute(&mut *held)
    .await
    .unwrap();
    let mut folder = store.folder(&generation, &view).await.unwrap();
    let pool = database.pool.clone();
    let killer = async {
        millrace_testkit::eventually(
            "a waiting batch is killed",
            std::time::Duration::from_secs(10),
            async || {
                let killed = sqlx::query(
                    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity
                     WHERE datname = current_database() AND wait_event_type = 'Lock' AND query LIKE 'INSERT INTO sums%'",
                )
                .fetch_all(&pool)
                .await
                .unwrap();
                (!killed.is_empty()).then_some(())
            },
        )
        .await;
    };
    let (failed, ()) = tokio::join!(folder.fold(events.clone()), killer);
    assert!(
        matches!(failed, Err(StoreError::Unavailable(_))),
        "{failed:?}"
    );
    held.rollback().await.unwrap();
    assert_eq!(total(&database.pool, &generation.place).await, (0, 0));
    let mut again = store.folder(&generation, &view).await.unwrap();
    again.fold(events).await.unwrap();
    assert_eq!(total(&database.pool, &generation.place).await, (40, 40));
}

#[tokio::test]
async fn a_switch_never_goes_back() {
    let database = postgres().await;
    let store = store(&database).await;
    let log = MemoryLog::new();
    let events = log.fill(9, 30);
    let (old, new) = (items(), View::postgres_rows::<ItemsNext>());
    let live = made(&store, &old, &log).await;
    let candidate = made(&store, &new, &log).await;
    assert_eq!(candidate.status, GenerationStatus::Candidate);
    let mut live_folder = store.folder(&live, &old).await.unwrap();
    let mut candidate_folder = store.folder(&candidate, &new).await.unwrap();
    live_folder.fold(events.clone()).await.unwrap();
    candidate_folder.fold(events[..29].to_vec()).await.unwrap();
    let refused = store.switch(&candidate, &log.heads()).await;
    assert!(
        matches!(refused, Err(StoreError::Behind { .. })),
        "{refused:?}"
    );
    // The live one is held still while the candidate goes the last steps.
    let heads = log.heads();
    let (switched, folded) = tokio::join!(
        store.switch(&candidate, &heads),
        candidate_folder.fold(events)
    );
    switched.unwrap();
    folded.unwrap();
    let now = store.generations("items").await.unwrap();
    // Both versions answer their own release's queries.
    assert!(now.iter().all(|one| one.status == GenerationStatus::Active));
}

#[tokio::test]
async fn a_new_life_of_the_log_gets_a_new_generation() {
    use millrace_eventlog::EventLog;
    let database = postgres().await;
    let store = store(&database).await;
    let log = MemoryLog::new();
    let events = log.fill(9, 30);
    let view = items();
    let live = made(&store, &view, &log).await;
    let mut folder = store.folder(&live, &view).await.unwrap();
    folder.fold(events).await.unwrap();
    log.truncate(20);
    log.start_epoch().await.unwrap();
    let candidate = made(&store, &view, &log).await;
    assert_ne!(candidate.id, live.id);
    assert_eq!(candidate.status, GenerationStatus::Candidate);
    // The lost tail makes the old one further in positions; that must not matter, but an empty
    // candidate is not taken either.
    let refused = store.switch(&candidate, &log.heads()).await;
    assert!(
        matches!(refused, Err(StoreError::Behind { .. })),
        "{refused:?}"
    );
}
