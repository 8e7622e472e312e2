//! Dead letters: a poison event stops its stream only, in order, until it is redriven or
//! discarded.

use std::sync::atomic::Ordering;

use millrace_es::RecordedEvent;
use millrace_projecting::{
    DeadLetters, Folder, Generation, LetterFilter, LetterStatus, Reason, View,
};
use millrace_testkit::{Database, Dynamo, dynamodb, postgres};
use tokio::sync::Mutex;

use crate::{
    log::MemoryLog,
    views::{REFUSES, folded, item_table, items, sums},
};

/// The tests that release a fix share its switch.
pub static FIX: Mutex<()> = Mutex::const_new(());

struct Poisoned {
    poison: RecordedEvent,
    follower: RecordedEvent,
    healthy: Vec<RecordedEvent>,
}

fn poisoned(log: &MemoryLog, payload: &str) -> Poisoned {
    let mut healthy = log.fill(4, 8);
    let poison = log.push("item-2", "item.added", payload);
    let follower = log.push("item-2", "item.added", r#"{"n":5}"#);
    healthy.push(log.push("item-3", "item.added", r#"{"n":7}"#));
    Poisoned {
        poison,
        follower,
        healthy,
    }
}

/// One of the two stores, with the means to look into it.
pub enum Store {
    Postgres(Box<(Database, millrace_projecting::PgStore)>),
    Dynamo(Dynamo, millrace_projecting::DynamoStore),
}

impl Store {
    pub async fn both() -> [Self; 2] {
        let database = postgres().await;
        let pg = crate::postgres::store(&database).await;
        let dynamo = dynamodb().await;
        let store = crate::dynamodb::store(&dynamo).await;
        [
            Self::Postgres(Box::new((database, pg))),
            Self::Dynamo(dynamo, store),
        ]
    }

    pub fn view(&self) -> View {
        match self {
            Self::Postgres(..) => items(),
            Self::Dynamo(..) => item_table(),
        }
    }

    pub async fn generation(&self, log: &MemoryLog) -> Generation {
        match self {
            Self::Postgres(pg) => pg.1.ensure_generation(&self.view(), &log.heads()).await,
            Self::Dynamo(_, store) => store.ensure_generation(&self.view(), &log.heads()).await,
        }
        .unwrap()
    }

    pub async fn folder(&self, generation: &Generation) -> Folder {
        match self {
            Self::Postgres(pg) => pg.1.folder(generation, &self.view()).await,
            Self::Dynamo(_, store) => store.folder(generation, &self.view()).await,
        }
        .unwrap()
    }

    pub async fn rows(
        &self,
        generation: &Generation,
    ) -> std::collections::BTreeMap<String, crate::views::ItemRow> {
        match self {
            Self::Postgres(pg) => crate::postgres::rows(&pg.0.pool, &generation.place).await,
            Self::Dynamo(dynamo, _) => crate::dynamodb::rows(dynamo, &generation.place).await,
        }
    }

    pub fn letters(&self) -> DeadLetters {
        match self {
            Self::Postgres(pg) => DeadLetters::new(vec![self.view()], Some(pg.1.clone()), None),
            Self::Dynamo(_, store) => {
                DeadLetters::new(vec![self.view()], None, Some(store.clone()))
            }
        }
    }
}

#[tokio::test]
async fn a_malformed_event_stops_its_stream_only() {
    for store in Store::both().await {
        let log = MemoryLog::new();
        let case = poisoned(&log, r#"{"n":"many"}"#);
        let generation = store.generation(&log).await;
        let mut folder = store.folder(&generation).await;
        let result = folder.fold(log.events()).await.unwrap();
        assert_eq!(
            result.letters,
            [
                (case.poison.position, Reason::Malformed),
                (case.follower.position, Reason::Follows)
            ]
        );
        // A new owner knows of the parked stream too.
        let mut next = store.folder(&generation).await;
        let later = log.push("item-2", "item.added", r#"{"n":1}"#);
        let result = next.fold(vec![later.clone()]).await.unwrap();
        assert_eq!(result.letters, [(later.position, Reason::Follows)]);
        assert_eq!(store.rows(&generation).await, folded(&case.healthy));
        let listed = store
            .letters()
            .list(&LetterFilter::default(), 100)
            .await
            .unwrap();
        let positions: Vec<_> = listed.iter().map(|letter| letter.position).collect();
        assert_eq!(
            positions,
            [case.poison.position, case.follower.position, later.position]
        );
        assert_eq!(listed[0].event.payload.get(), r#"{"n":"many"}"#);
        assert!(
            listed[0].error.contains("item.added"),
            "{}",
            listed[0].error
        );
    }
}

#[tokio::test]
async fn a_redrive_before_the_fix_fails_again_and_after_it_restores_the_order() {
    let _turn = FIX.lock().await;
    for store in Store::both().await {
        REFUSES.store(true, Ordering::SeqCst);
        let log = MemoryLog::new();
        let case = poisoned(&log, r#"{"n":666}"#);
        let generation = store.generation(&log).await;
        let mut folder = store.folder(&generation).await;
        let result = folder.fold(log.events()).await.unwrap();
        assert_eq!(result.letters[0], (case.poison.position, Reason::Fold));
        let letters = store.letters();
        let asked = letters.redrive(&LetterFilter::default()).await.unwrap();
        assert_eq!(asked.len(), 1, "one stream, one request");
        assert_eq!(letters.outcome(&asked[0]).await.unwrap(), None);
        let outcomes = folder.settle_requests().await.unwrap();
        assert!(outcomes[0].contains("failed again"), "{outcomes:?}");
        let listed = letters.list(&LetterFilter::default(), 100).await.unwrap();
        assert_eq!((listed.len(), listed[0].attempts), (2, 2));
        assert_eq!(listed[1].attempts, 1, "what follows was not tried");
        // The fix is out.
        REFUSES.store(false, Ordering::SeqCst);
        let asked = letters.redrive(&LetterFilter::default()).await.unwrap();
        folder.settle_requests().await.unwrap();
        let outcome = letters.outcome(&asked[0]).await.unwrap().unwrap();
        assert!(
            outcome.contains("2 redriven") && outcome.contains("released"),
            "{outcome}"
        );
        // The stream is folded again, behind what was redriven.
        let later = log.push("item-2", "item.added", r#"{"n":1}"#);
        assert_eq!(folder.fold(vec![later]).await.unwrap().letters, []);
        assert_eq!(store.rows(&generation).await, folded(&log.events()));
        let done = LetterFilter {
            status: Some(LetterStatus::Redriven),
            ..LetterFilter::default()
        };
        assert_eq!(letters.list(&done, 100).await.unwrap().len(), 2);
        REFUSES.store(true, Ordering::SeqCst);
    }
}

#[tokio::test]
async fn a_discarded_letter_is_left_out_and_the_rest_is_redriven() {
    for store in Store::both().await {
        let log = MemoryLog::new();
        let mut case = poisoned(&log, r#"{"n":null}"#);
        let generation = store.generation(&log).await;
        let mut folder = store.folder(&generation).await;
        folder.fold(log.events()).await.unwrap();
        let letters = store.letters();
        let only = LetterFilter {
            projection: Some(store.view().name().to_owned()),
            position: Some(case.poison.position),
            ..LetterFilter::default()
        };
        letters.discard(&only).await.unwrap();
        let outcomes = folder.settle_requests().await.unwrap();
        assert_eq!(outcomes, ["0 redriven, 1 discarded"]);
        letters.redrive(&LetterFilter::default()).await.unwrap();
        let outcomes = folder.settle_requests().await.unwrap();
        assert_eq!(outcomes, ["1 redriven, 0 discarded, stream released"]);
        case.healthy.insert(8, case.follower);
        assert_eq!(store.rows(&generation).await, folded(&case.healthy));
    }
}

#[tokio::test]
async fn a_zombie_cannot_settle_requests() {
    for store in Store::both().await {
        let log = MemoryLog::new();
        let case = poisoned(&log, r#"{"n":[]}"#);
        let generation = store.generation(&log).await;
        let mut zombie = store.folder(&generation).await;
        zombie.fold(log.events()).await.unwrap();
        let mut owner = store.folder(&generation).await;
        let later = log.push("item-2", "item.added", r#"{"n":1}"#);
        owner.fold(vec![later]).await.unwrap();
        store
            .letters()
            .discard(&LetterFilter {
                position: Some(case.poison.position),
                ..LetterFilter::default()
            })
            .await
            .unwrap();
        assert!(zombie.settle_requests().await.is_err());
        assert_eq!(owner.settle_requests().await.unwrap().len(), 1);
    }
}

#[tokio::test]
async fn a_row_the_store_refuses_is_found_in_a_large_batch() {
    let database = postgres().await;
    let store = crate::postgres::store(&database).await;
    let log = MemoryLog::new();
    let mut healthy = log.fill(50, 200);
    let first = log.push("item-7", "item.added", r#"{"n":1,"note":"forbidden"}"#);
    healthy.extend(log.fill(5, 10));
    // NUL is JSON and no text of PostgreSQL.
    let second = log.push("item-9", "item.added", r#"{"n":1,"note":"a\u0000b"}"#);
    let follows = log.push("item-7", "item.added", r#"{"n":1}"#);
    healthy.push(log.push("item-8", "item.added", r#"{"n":1}"#));
    let view = items();
    let generation = store.ensure_generation(&view, &log.heads()).await.unwrap();
    let mut folder = store.folder(&generation, &view).await.unwrap();
    let mut letters = folder.fold(log.events()).await.unwrap().letters;
    letters.sort_by_key(|(position, _)| *position);
    assert_eq!(
        letters,
        [
            (first.position, Reason::Store),
            (second.position, Reason::Store),
            (follows.position, Reason::Follows)
        ]
    );
    assert_eq!(
        crate::postgres::rows(&database.pool, &generation.place).await,
        folded(&healthy)
    );
}

#[tokio::test]
async fn an_event_of_a_newer_release_is_no_letter() {
    let database = postgres().await;
    let store = crate::postgres::store(&database).await;
    let log = MemoryLog::new();
    let known = log.push("item-1", "item.added", r#"{"n":1}"#);
    let newer = log.push("item-1", "item.painted", "{}");
    let view = sums();
    let generation = store.ensure_generation(&view, &log.heads()).await.unwrap();
    let mut folder = store.folder(&generation, &view).await.unwrap();
    let result = folder.fold(log.events()).await.unwrap();
    assert_eq!((result.events, result.letters.len()), (1, 0));
    assert!(result.too_new.unwrap().contains("item.painted"));
    let lane = MemoryLog::lane_of(&newer);
    assert_eq!(folder.position(&lane), known.position);
}
