//! Which rebuild a generation is kept for that answered before: the one that took over from it last.

use std::sync::Arc;

use millrace_eventlog::EventLog;
use millrace_projecting::{Generation, GenerationStatus, LoadEnd, Rebuilds};
use millrace_testkit::{dynamodb, postgres};

use crate::{
    log::MemoryLog,
    rebuilding::{FREELY, load, owner},
    views::{item_table, items},
};

/// Loads, finishes and switches to a generation; nothing is appended meanwhile.
async fn rebuilt(rebuilds: &Rebuilds, projection: &str, name: &str) -> Generation {
    let begun = rebuilds.begin(&owner(name), projection, FREELY).await;
    let generation = begun.unwrap().generation;
    assert_eq!(load(rebuilds, &generation).await.unwrap(), LoadEnd::Done);
    rebuilds.finish(&generation).await.unwrap();
    rebuilds.switch(&generation).await.unwrap();
    generation
}

#[tokio::test]
async fn one_that_answered_again_is_kept_for_the_one_that_took_over_last() {
    let (database, dynamo) = tokio::join!(postgres(), dynamodb());
    let in_postgres = crate::postgres::store(&database).await;
    let in_dynamodb = crate::dynamodb::store(&dynamo).await;
    let log = MemoryLog::new();
    log.fill(10, 50);
    let heads = log.heads();
    let logs: Vec<Arc<dyn EventLog>> = vec![log.clone()];
    let views = vec![items(), item_table()];
    let (postgres, dynamodb) = (in_postgres.clone(), in_dynamodb.clone());
    let rebuilds = Rebuilds::new(views, logs, Some(postgres), Some(dynamodb), None);
    let (table, view) = (item_table(), items());
    let live = in_postgres.ensure_generation(&view, &heads).await.unwrap();
    let mut folder = in_postgres.folder(&live, &view).await.unwrap();
    folder.fold(log.events()).await.unwrap();
    kept_for_the_last(&rebuilds, "items", &live).await;
    let live = in_dynamodb.ensure_generation(&table, &heads).await.unwrap();
    let mut folder = in_dynamodb.folder(&live, &table).await.unwrap();
    folder.fold(log.events()).await.unwrap();
    kept_for_the_last(&rebuilds, "item-table", &live).await;
}

async fn kept_for_the_last(rebuilds: &Rebuilds, projection: &str, live: &Generation) {
    let status = async || {
        let known = rebuilds.generations(projection).await.unwrap();
        let found = known.iter().find(|one| one.id == live.id);
        found.map(|one| one.status)
    };
    let one = rebuilt(rebuilds, projection, "one").await;
    let back = rebuilds.rollback(projection, live.id, false).await.unwrap();
    assert_eq!(back.previous, Some(one.id));
    // While it answers it is nobody's to drop.
    assert!(rebuilds.discard_replaced(live, one.id).await.is_err());
    let two = rebuilt(rebuilds, projection, "two").await;
    // The time of the first rebuild's rollback is over; that of the second one's is not.
    assert!(!rebuilds.discard_replaced(live, one.id).await.unwrap());
    assert_eq!(status().await, Some(GenerationStatus::Retained));
    let again = rebuilds.rollback(projection, live.id, false).await.unwrap();
    assert_eq!(again.previous, Some(two.id));
    rebuilds.switch(&one).await.unwrap_err();
    let three = rebuilt(rebuilds, projection, "three").await;
    assert!(!rebuilds.discard_replaced(live, two.id).await.unwrap());
    for _ in 0..2 {
        assert!(rebuilds.discard_replaced(live, three.id).await.unwrap());
        assert_eq!(status().await, None);
    }
}
