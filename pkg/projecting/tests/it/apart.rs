//! A view in a database of its own is found through the store of all views.

use millrace_projecting::{
    Action, DeadLetters, LetterFilter, LetterRun, LetterSelector, LoadEnd, OnFailure, PgStore,
    Reason, Rebuilds, RunStatus,
};
use millrace_testkit::{Database, postgres};

use crate::{
    bed::{FREELY, load, logs_of, owner},
    log::MemoryLog,
    views::{folded, items, sums},
};

/// The projections that have generations in a database.
async fn projections(database: &Database) -> Vec<String> {
    sqlx::query_scalar("SELECT DISTINCT projection FROM projections.generations ORDER BY 1")
        .fetch_all(&database.pool)
        .await
        .unwrap()
}

#[tokio::test]
async fn a_view_with_its_own_database_is_rebuilt_and_its_letters_settled_there() {
    let (all, own) = tokio::join!(postgres(), postgres());
    let store = PgStore::open(&all.url).unwrap();
    let store = store.with(&[items()], PgStore::open(&own.url).unwrap());
    store.migrate().await.unwrap();
    let log = MemoryLog::new();
    let events = log.fill(8, 64);
    let (views, logs) = (vec![items(), sums()], logs_of(&log));
    let rebuilds = Rebuilds::new(views.clone(), logs, Some(store.clone()), None, None);
    for projection in ["items", "sums"] {
        let begun = rebuilds.begin(&owner("one"), projection, FREELY).await;
        let generation = begun.unwrap().generation;
        assert_eq!(load(&rebuilds, &generation).await.unwrap(), LoadEnd::Done);
        let listed = rebuilds.generations(projection).await.unwrap();
        assert_eq!(listed.len(), 1, "{projection}");
    }
    assert_eq!(projections(&own).await, ["items"]);
    assert_eq!(projections(&all).await, ["sums"]);
    let generation = &store.of("items").generations("items").await.unwrap()[0];
    let rows = crate::postgres::rows(&own.pool, &generation.place).await;
    assert_eq!(rows, folded(&events));

    // A letter is kept, listed, and counted by a run there.
    let live = store
        .of("items")
        .ensure_generation(&items(), &log.heads())
        .await;
    let live = live.unwrap();
    log.push("item-2", "item.added", "{}");
    let mut folder = store.of("items").folder(&live, &items()).await.unwrap();
    folder.fold(log.events()).await.unwrap();
    let letters = DeadLetters::new(views, Some(store.clone()), None);
    let found = letters.list(&LetterFilter::default(), 10).await.unwrap();
    let reasons: Vec<Reason> = found.iter().map(|letter| letter.reason).collect();
    assert_eq!(reasons, [Reason::Malformed]);
    let run = LetterRun {
        projection: "items".to_owned(),
        selector: LetterSelector::default(),
        action: Action::Discard,
        on_failure: OnFailure::Park,
        max_messages: None,
    };
    assert_eq!(letters.count_run(&run).await.unwrap(), 1);
    letters.begin_run(&owner("two"), &run).await.unwrap();
    letters.advance_run(&owner("two")).await.unwrap();
    folder.settle_requests().await.unwrap();
    let ended = letters.advance_run(&owner("two")).await.unwrap().unwrap();
    assert_eq!(ended.status, RunStatus::Done);
    assert_eq!(
        letters.run(&owner("two")).await.unwrap().unwrap().status,
        RunStatus::Done
    );
    letters.forget_run(&owner("two")).await.unwrap();
    assert_eq!(
        letters
            .run(&owner("two"))
            .await
            .unwrap()
            .map(|run| run.status),
        None
    );
}
