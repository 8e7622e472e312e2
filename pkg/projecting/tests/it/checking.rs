//! Checks of live views against the log: what they find, and what is no difference.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use aws_sdk_dynamodb::types::AttributeValue;
use millrace_projecting::{
    Check, CheckOptions, Checked, Difference, DifferenceKind, DynamoStore, Folder, Generation,
    KeptCheck, PgStore, View,
};
use millrace_testkit::{Database, Dynamo, dynamodb, postgres};
use sqlx::AssertSqlSafe;

use crate::{
    bed::logs_of,
    log::MemoryLog,
    views::{item_table, items, sums},
};

const ALL: CheckOptions = CheckOptions {
    keys: 400,
    seed: 7,
    also: Vec::new(),
    max_events: 10_000,
};

/// Between two batches that are written while it is checked: the log grows, and what is folded anew
/// with it.
const PACE: Duration = Duration::from_millis(20);
/// How often a view that goes on is checked.
const ROUNDS: usize = 12;

fn done(check: Check) -> Checked {
    match check {
        Check::Done(checked) => checked,
        Check::Skipped(why) => panic!("{why}"),
    }
}

/// What was found, as row, kind and columns.
fn found(checked: &Checked) -> Vec<(String, DifferenceKind, String)> {
    let mut found: Vec<_> = checked
        .named
        .iter()
        .map(|one| (one.row.clone(), one.kind, one.columns.join(",")))
        .collect();
    found.sort_by(|a, b| a.0.cmp(&b.0));
    assert_eq!(u64::try_from(found.len()).unwrap(), checked.differences);
    found
}

fn row(name: &str, kind: DifferenceKind, columns: &str) -> (String, DifferenceKind, String) {
    (name.to_owned(), kind, columns.to_owned())
}

/// A view in PostgreSQL that has folded a log.
struct Kept {
    database: Database,
    store: PgStore,
    log: Arc<MemoryLog>,
    view: View,
    live: Generation,
}

impl Kept {
    async fn of(view: View, log: Arc<MemoryLog>) -> Self {
        let database = postgres().await;
        let store = crate::postgres::store(&database).await;
        let live = store.ensure_generation(&view, &log.heads()).await.unwrap();
        let kept = Self {
            database,
            store,
            log,
            view,
            live,
        };
        kept.folder().await.fold(kept.log.events()).await.unwrap();
        kept
    }

    async fn folder(&self) -> Folder {
        self.store.folder(&self.live, &self.view).await.unwrap()
    }

    async fn check(&self, options: &CheckOptions) -> Check {
        let logs = logs_of(&self.log);
        self.store.check(&self.view, &logs, options).await.unwrap()
    }

    async fn run(&self, sql: &str) {
        let sql = sql.replace("LIVE", &self.live.place);
        sqlx::raw_sql(AssertSqlSafe(sql))
            .execute(&self.database.pool)
            .await
            .unwrap();
    }
}

fn filled() -> Arc<MemoryLog> {
    let log = MemoryLog::new();
    log.fill(20, 60);
    log.push("item-4", "item.added", r#"{"n":1,"note":"a note"}"#);
    log.push("item-5", "item.removed", "{}");
    log
}

#[tokio::test]
async fn rows_that_were_changed_lost_or_made_up_are_found_with_their_keys() {
    use DifferenceKind::{Changed, Extra, Missing};
    let kept = Kept::of(items(), filled()).await;
    let checked = done(kept.check(&ALL).await);
    assert_eq!((checked.keys, checked.rows), (20, 19), "{checked:?}");
    assert_eq!(checked.differences, 0, "{checked:?}");
    assert_eq!(checked.generation, kept.live.id);

    kept.run(
        "UPDATE LIVE.items SET total = 99, note = 'mine' WHERE id = 'item-3';
         DELETE FROM LIVE.items WHERE id = 'item-7';
         INSERT INTO LIVE.items VALUES ('item-5', 1, '{1}', NULL), ('nobody', 1, '{1}', NULL), ('no stream', 1, '{1}', NULL);",
    )
    .await;
    let checked = done(kept.check(&ALL).await);
    assert_eq!(
        found(&checked),
        [
            row("items/item-3", Changed, "note,total"),
            row("items/item-5", Extra, ""),
            row("items/item-7", Missing, ""),
            row("items/no stream", Extra, ""),
            row("items/nobody", Extra, ""),
        ]
    );
    let changed = checked.named.iter().find(|one| one.kind == Changed);
    let changed: &Difference = changed.unwrap();
    assert_eq!(changed.key.as_deref(), Some("item-3"));
    let of_it = |event: &&millrace_es::RecordedEvent| event.stream.as_str() == "item-3";
    let event = kept.log.events();
    let event = event.iter().find(of_it).unwrap();
    let lane = MemoryLog::lane_of(event);
    let at = checked.at.iter().find(|one| one.lane == lane).unwrap();
    assert_eq!(changed.position, at.position);

    // One key alone; and one that differed is looked at again whatever the sample.
    for (key, differences) in [("item-3", 1), ("item-4", 0), ("item-7", 1), ("nobody", 1)] {
        let only = CheckOptions {
            keys: 0,
            also: vec![key.to_owned()],
            ..ALL
        };
        let checked = done(kept.check(&only).await);
        assert_eq!(
            (checked.keys, checked.differences),
            (1, differences),
            "{key}"
        );
    }
}

#[tokio::test]
async fn a_view_that_is_behind_or_has_parked_keys_is_not_different() {
    let log = filled();
    log.push("item-3", "item.added", r#"{"n":666}"#);
    log.push("item-3", "item.added", r#"{"n":1}"#);
    let kept = Kept::of(items(), Arc::clone(&log)).await;
    log.fill(30, 90);
    let checked = done(kept.check(&ALL).await);
    assert_eq!(checked.differences, 0, "{checked:?}");
    assert_eq!((checked.parked, checked.left_out), (1, 0));
    assert_eq!(checked.parked_keys, ["item-3"]);
}

#[tokio::test]
async fn a_view_that_has_seen_what_the_log_lost_is_ahead() {
    let kept = Kept::of(items(), filled()).await;
    kept.log.truncate(40);
    let checked = done(kept.check(&ALL).await);
    let ahead = checked.named.iter();
    let ahead = ahead.filter(|one| one.kind == DifferenceKind::Ahead);
    assert!(ahead.count() > 0, "{checked:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_view_that_goes_on_gives_no_false_alarm() {
    let kept = Kept::of(items(), filled()).await;
    let sums = Kept::of(sums(), Arc::clone(&kept.log)).await;
    let stop = Arc::new(AtomicBool::new(false));
    let (own, others) = (kept.folder().await, sums.folder().await);
    let writing = async {
        let (mut own, mut others) = (own, others);
        while !stop.load(Ordering::SeqCst) {
            let mut events = vec![kept.log.push("item-4", "item.removed", "{}")];
            events.extend(kept.log.fill(25, 40));
            own.fold(events.clone()).await.unwrap();
            others.fold(events).await.unwrap();
            tokio::time::sleep(PACE).await;
        }
    };
    let checking = async {
        for seed in 0..ROUNDS {
            let options = CheckOptions {
                keys: 24,
                seed: u64::try_from(seed).unwrap(),
                max_events: 1_000_000,
                ..ALL
            };
            for view in [&kept, &sums] {
                let checked = done(view.check(&options).await);
                assert_eq!(checked.differences, 0, "{checked:?}");
                assert!(checked.keys > 0, "{checked:?}");
            }
        }
        stop.store(true, Ordering::SeqCst);
    };
    tokio::join!(writing, checking);
}

#[tokio::test]
async fn a_view_of_sums_is_folded_whole() {
    use DifferenceKind::{Changed, Extra, Missing};
    let log = filled();
    // What is refused, and what follows it, is in no sum.
    log.push("item-3", "item.added", r#"{"n":666}"#);
    log.push("item-3", "item.added", r#"{"n":1}"#);
    let kept = Kept::of(sums(), log).await;
    let checked = done(kept.check(&ALL).await);
    assert_eq!((checked.rows, checked.differences), (2, 0), "{checked:?}");
    assert_eq!(checked.parked_keys, ["item-3"]);

    kept.run(
        "UPDATE LIVE.sums SET total = total + 1 WHERE id = 'all';
         DELETE FROM LIVE.sums WHERE id = 'parity-1';
         INSERT INTO LIVE.sums VALUES ('parity-2', 0, 0);",
    )
    .await;
    let checked = done(kept.check(&ALL).await);
    assert_eq!(
        found(&checked),
        [
            row("sums/all", Changed, "total"),
            row("sums/parity-1", Missing, ""),
            row("sums/parity-2", Extra, ""),
        ]
    );
    let few = CheckOptions {
        max_events: 10,
        ..ALL
    };
    assert!(matches!(kept.check(&few).await, Check::Skipped(why) if why.contains("--max-events")));
}

#[tokio::test]
async fn what_a_check_came_to_is_kept() {
    let database = postgres().await;
    let store = crate::postgres::store(&database).await;
    let mut kept = KeptCheck {
        context: "ordering".to_owned(),
        projection: Some("items".to_owned()),
        checked: 20,
        differences: 2,
        differing: vec!["item-3".to_owned(), "item-7".to_owned()],
        checked_at: millrace_kernel::Timestamp::now(),
    };
    store.keep_check(&kept).await.unwrap();
    kept.projection = None;
    store.keep_check(&kept).await.unwrap();
    kept.differences = 0;
    kept.differing.clear();
    store.keep_check(&kept).await.unwrap();
    let found = store.kept_checks().await.unwrap();
    let found: Vec<_> = found
        .iter()
        .map(|one| {
            (
                one.projection.as_deref(),
                one.differences,
                one.differing.len(),
            )
        })
        .collect();
    assert_eq!(found, [(None, 0, 0), (Some("items"), 2, 2)]);
}

/// A view in DynamoDB that has folded a log.
struct KeptItems {
    dynamo: Dynamo,
    store: DynamoStore,
    log: Arc<MemoryLog>,
    live: Generation,
}

impl KeptItems {
    async fn of(log: Arc<MemoryLog>) -> Self {
        let dynamo = dynamodb().await;
        let store = crate::dynamodb::store(&dynamo).await;
        let view = item_table();
        let live = store.ensure_generation(&view, &log.heads()).await.unwrap();
        let kept = Self {
            dynamo,
            store,
            log,
            live,
        };
        kept.folder().await.fold(kept.log.events()).await.unwrap();
        kept
    }

    async fn folder(&self) -> Folder {
        let view = item_table();
        self.store.folder(&self.live, &view).await.unwrap()
    }

    async fn check(&self, options: &CheckOptions) -> Checked {
        let (view, logs) = (item_table(), logs_of(&self.log));
        done(self.store.check(&view, &logs, options).await.unwrap())
    }

    async fn set(&self, id: &str, total: u64) {
        self.dynamo
            .client
            .update_item()
            .table_name(&self.live.place)
            .key("kind", AttributeValue::S("item".to_owned()))
            .key("id", AttributeValue::S(id.to_owned()))
            .update_expression("SET #t = :total")
            .expression_attribute_names("#t", "total")
            .expression_attribute_values(":total", AttributeValue::N(total.to_string()))
            .send()
            .await
            .unwrap();
    }

    async fn delete(&self, id: &str) {
        self.dynamo
            .client
            .delete_item()
            .table_name(&self.live.place)
            .key("kind", AttributeValue::S("item".to_owned()))
            .key("id", AttributeValue::S(id.to_owned()))
            .send()
            .await
            .unwrap();
    }
}

#[tokio::test]
async fn items_that_were_changed_lost_or_made_up_are_found_with_their_keys() {
    use DifferenceKind::{Changed, Extra, Missing};
    let log = filled();
    log.push("item-9", "item.added", r#"{"n":666}"#);
    let kept = KeptItems::of(log).await;
    let checked = kept.check(&ALL).await;
    assert_eq!((checked.keys, checked.differences), (19, 0), "{checked:?}");
    assert_eq!(checked.parked_keys, ["item-9"]);
    kept.set("item-3", 99).await;
    kept.delete("item-7").await;
    kept.set("nobody", 1).await;
    let checked = kept.check(&ALL).await;
    assert_eq!(
        found(&checked),
        [
            row("item-table/item,item-3", Changed, "total"),
            row("item-table/item,item-7", Missing, ""),
            row("item-table/item,nobody", Extra, ""),
        ]
    );
    let mut keys: Vec<_> = checked.named.iter().map(|one| one.key.as_deref()).collect();
    keys.sort_unstable();
    assert_eq!(keys, [Some("item-3"), Some("item-7"), Some("nobody")]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn items_that_go_on_give_no_false_alarm() {
    let kept = KeptItems::of(filled()).await;
    let stop = Arc::new(AtomicBool::new(false));
    let folder = kept.folder().await;
    let writing = async {
        let mut folder = folder;
        while !stop.load(Ordering::SeqCst) {
            let mut events = vec![kept.log.push("item-4", "item.removed", "{}")];
            events.extend(kept.log.fill(25, 40));
            folder.fold(events).await.unwrap();
            tokio::time::sleep(PACE).await;
        }
    };
    let checking = async {
        for seed in 0..ROUNDS {
            let options = CheckOptions {
                keys: 16,
                seed: u64::try_from(seed).unwrap(),
                ..ALL
            };
            let checked = kept.check(&options).await;
            assert_eq!(checked.differences, 0, "{checked:?}");
            assert!(checked.keys > 0, "{checked:?}");
        }
        stop.store(true, Ordering::SeqCst);
    };
    tokio::join!(writing, checking);
}
