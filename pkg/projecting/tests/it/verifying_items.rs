//! Verification in DynamoDB, while both tables move and while they stand still.

use std::{sync::Arc, time::Duration};

use aws_sdk_dynamodb::types::AttributeValue;
use millrace_projecting::{
    DynamoStore, Generation, StoreError, Subjects, Verification, VerifyMode, VerifyOptions, View,
};
use millrace_testkit::{Dynamo, dynamodb, eventually, nats};
use tokio_util::sync::CancellationToken;

use crate::{
    bed::logs_of,
    log::MemoryLog,
    runner::World,
    verifying::ALL,
    views::{DynamoItemsDoubled, item_table},
};

const BOUND: Duration = Duration::from_secs(40);

fn s(text: &str) -> AttributeValue {
    AttributeValue::S(text.to_owned())
}

fn n(number: u64) -> AttributeValue {
    AttributeValue::N(number.to_string())
}

/// Two generations of one version: one that is kept current, and the one that answers.
async fn two(
    dynamo: &Dynamo,
    store: &DynamoStore,
    view: &View,
    log: &MemoryLog,
) -> (Generation, Generation) {
    let one = store.ensure_generation(view, &log.heads()).await.unwrap();
    dynamo
        .client
        .update_item()
        .table_name(format!("{}_projections", dynamo.prefix))
        .key("pk", s(&format!("generation#{}", view.name())))
        .key("sk", s(&format!("{:010}", one.id.get())))
        .update_expression("SET #t = :retained")
        .expression_attribute_names("#t", "status")
        .expression_attribute_values(":retained", s("retained"))
        .send()
        .await
        .unwrap();
    let live = store.ensure_generation(view, &log.heads()).await.unwrap();
    assert_ne!(one.id, live.id);
    (one, live)
}

struct Folded {
    dynamo: Dynamo,
    store: DynamoStore,
    log: Arc<MemoryLog>,
    view: View,
    candidate: Generation,
    live: Generation,
}

impl Folded {
    async fn of_one_version() -> Self {
        let dynamo = dynamodb().await;
        let store = crate::dynamodb::store(&dynamo).await;
        let log = MemoryLog::new();
        log.fill(20, 60);
        log.push("item-5", "item.removed", "{}");
        let view = item_table();
        let (candidate, live) = two(&dynamo, &store, &view, &log).await;
        for generation in [&candidate, &live] {
            let mut folder = store.folder(generation, &view).await.unwrap();
            folder.fold(log.events()).await.unwrap();
        }
        Self {
            dynamo,
            store,
            log,
            view,
            candidate,
            live,
        }
    }

    async fn verify(&self, options: &VerifyOptions) -> Result<Verification, StoreError> {
        let subjects = Subjects {
            candidate: &self.candidate,
            live: &self.live,
            view: &self.view,
            logs: &logs_of(&self.log),
        };
        let never = CancellationToken::new();
        self.store.verify(subjects, options, &never).await
    }

    async fn set(&self, generation: &Generation, id: &str, name: &str, value: AttributeValue) {
        self.dynamo
            .client
            .update_item()
            .table_name(&generation.place)
            .key("kind", s("item"))
            .key("id", s(id))
            .update_expression("SET #n = :value")
            .expression_attribute_names("#n", name)
            .expression_attribute_values(":value", value)
            .send()
            .await
            .unwrap();
    }

    async fn delete(&self, generation: &Generation, id: &str) {
        self.dynamo
            .client
            .delete_item()
            .table_name(&generation.place)
            .key("kind", s("item"))
            .key("id", s(id))
            .send()
            .await
            .unwrap();
    }
}

#[tokio::test]
async fn equal_tables_are_equal_and_every_kind_of_damage_is_found() {
    let world = Folded::of_one_version().await;
    let found = world.verify(&ALL).await.unwrap();
    assert_eq!((found.compared, found.mismatches), (19, 0), "{found:?}");
    let at = world.store.checkpoints(world.candidate.id).await.unwrap();
    assert_eq!(found.at, at);
    // A row that is gone and one that never was are the same.
    world.delete(&world.candidate, "item-5").await;
    assert_eq!(world.verify(&ALL).await.unwrap().mismatches, 0);
    let mut expected = Vec::new();
    for id in ["item-1", "item-2", "item-3"] {
        expected.push(format!("item-table/item,{id}"));
    }
    world.set(&world.candidate, "item-1", "total", n(99)).await;
    world.delete(&world.candidate, "item-2").await;
    world.delete(&world.live, "item-3").await;
    let found = world.verify(&ALL).await.unwrap();
    let mut keys = found.sample_keys.clone();
    keys.sort();
    assert_eq!((found.mismatches, keys), (3, expected), "{found:?}");
    let counts = VerifyOptions {
        mode: VerifyMode::Counts,
        ..ALL
    };
    let found = world.verify(&counts).await.unwrap();
    assert_eq!(
        found.mismatches, 2,
        "what a row holds is not counted: {found:?}"
    );
    // A tombstone where the other table has the row.
    let flag = AttributeValue::Bool(true);
    world
        .set(&world.candidate, "item-7", "tombstone", flag)
        .await;
    assert_eq!(world.verify(&counts).await.unwrap().mismatches, 3);
    let few = VerifyOptions {
        max_mismatches: 0,
        ..ALL
    };
    assert!(!world.verify(&few).await.unwrap().is_within(&few));
}

#[tokio::test]
async fn a_candidate_that_is_only_late_is_waited_for() {
    let world = Folded::of_one_version().await;
    let later = world.log.fill(20, 30);
    let mut live = world.store.folder(&world.live, &world.view).await.unwrap();
    live.fold(later.clone()).await.unwrap();
    let mut own = world
        .store
        .folder(&world.candidate, &world.view)
        .await
        .unwrap();
    let catching_up = async {
        tokio::time::sleep(Duration::from_millis(700)).await;
        for page in later.chunks(7) {
            own.fold(page.to_vec()).await.unwrap();
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    let (found, ()) = tokio::join!(world.verify(&ALL), catching_up);
    let found = found.unwrap();
    assert_eq!((found.compared, found.mismatches), (20, 0), "{found:?}");
}

#[tokio::test]
async fn moving_tables_are_equal_and_damage_in_them_is_found() {
    let mut world = World::with(nats().await, Some(dynamodb().await)).await;
    let view = item_table();
    world.log.fill(30, 120);
    let (dynamo, store) = world.dynamo.clone().unwrap();
    let (candidate, live) = two(&dynamo, &store, &view, &world.log).await;
    let running = world.start(vec![item_table()]);
    let head = world.log.head_now().partition_positions;
    for generation in [&candidate, &live] {
        eventually("the generation is current", BOUND, async || {
            let at = store.checkpoints(generation.id).await.unwrap();
            let reached = at
                .iter()
                .zip(&head)
                .all(|(one, head)| one.position >= *head);
            reached.then_some(())
        })
        .await;
    }
    let stop = CancellationToken::new();
    let (log, stopped) = (Arc::clone(&world.log), stop.clone());
    let mut load = tokio::task::JoinSet::new();
    load.spawn(async move {
        let mut nth = 0;
        while !stopped.is_cancelled() {
            // Half of the items move all the time; some come and go.
            log.push(&format!("item-{}", nth % 15), "item.added", r#"{"n":1}"#);
            if nth % 20 == 0 {
                log.push(&format!("item-{}", 100 + nth), "item.added", r#"{"n":1}"#);
                log.push("item-29", "item.removed", "{}");
            }
            nth += 1;
            tokio::time::sleep(Duration::from_millis(40)).await;
        }
    });
    let moved = Folded {
        dynamo,
        store,
        log: Arc::clone(&world.log),
        view,
        candidate,
        live,
    };
    for _ in 0..3 {
        let found = moved.verify(&ALL).await.unwrap();
        assert!(found.compared >= 29 && found.mismatches == 0, "{found:?}");
    }
    // One that moves and one that does not.
    moved
        .set(&moved.candidate, "item-3", "total", n(9_999))
        .await;
    moved.delete(&moved.candidate, "item-20").await;
    let found = moved.verify(&ALL).await.unwrap();
    let mut keys = found.sample_keys.clone();
    keys.sort();
    assert_eq!(
        keys,
        ["item-table/item,item-20", "item-table/item,item-3"],
        "{found:?}"
    );
    stop.cancel();
    while load.join_next().await.is_some() {}
    running.stop().await;
}

#[tokio::test]
async fn of_a_changed_fold_what_is_declared_is_compared_and_the_rest_folded_again() {
    let dynamo = dynamodb().await;
    let store = crate::dynamodb::store(&dynamo).await;
    let log = MemoryLog::new();
    log.fill(10, 30);
    let (old, next) = (item_table(), View::dynamodb_rows::<DynamoItemsDoubled>());
    let live = store.ensure_generation(&old, &log.heads()).await.unwrap();
    let candidate = store.ensure_generation(&next, &log.heads()).await.unwrap();
    for (generation, view) in [(&live, &old), (&candidate, &next)] {
        let mut folder = store.folder(generation, view).await.unwrap();
        folder.fold(log.events()).await.unwrap();
    }
    let world = Folded {
        dynamo,
        store,
        log,
        view: next,
        candidate,
        live,
    };
    let found = world.verify(&ALL).await.unwrap();
    assert_eq!((found.compared, found.mismatches), (20, 0), "{found:?}");
    world.set(&world.candidate, "item-3", "total", n(3)).await;
    let found = world.verify(&ALL).await.unwrap();
    assert_eq!(found.sample_keys, ["item-table/item,item-3"], "{found:?}");
    world.set(&world.live, "item-6", "trail", s("1")).await;
    let found = world.verify(&ALL).await.unwrap();
    let expected = ["item-table/item,item-6", "item-table/item,item-3"];
    assert_eq!(found.sample_keys, expected, "{found:?}");
}
