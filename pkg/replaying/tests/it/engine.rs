//! The read stores as the driver's engine.

use std::sync::Arc;

use millrace_es::Context;
use millrace_eventlog::{EventLog, PgEventLog, PgLogOptions};
use millrace_ordering::views::order_statistics::OrderStatistics;
use millrace_projecting::{DeadLetters, PgStore, Rebuilds, View};
use millrace_replay::{Engine, EngineError, Owner, world::Pace};
use millrace_replaying::ReadStores;
use millrace_testkit::{Database, postgres};

const PROJECTION: &str = "order-statistics";

async fn engine() -> (Database, ReadStores) {
    let database = postgres().await;
    let context = Context::new(millrace_ordering::CONTEXT).unwrap();
    let options = PgLogOptions::new(context.clone());
    millrace_eventlog::migrate(&database.pool, &context, options.partitions, &[])
        .await
        .unwrap();
    let log = PgEventLog::open(database.pool.clone(), options).await;
    let store = PgStore::open(&database.url).unwrap();
    store.migrate().await.unwrap();
    let views = vec![View::postgres_tally::<OrderStatistics>()];
    let logs = vec![Arc::new(log.unwrap()) as Arc<dyn EventLog>];
    let letters = DeadLetters::new(views.clone(), Some(store.clone()), None);
    let rebuilds = Rebuilds::new(views, logs, Some(store), None, None);
    (database, ReadStores::new(rebuilds, letters))
}

fn owner(uid: &str) -> Owner {
    Owner(uid.to_owned())
}

async fn count(database: &Database, sql: &'static str) -> i64 {
    let counted = sqlx::query_scalar(sql).fetch_one(&database.pool);
    counted.await.unwrap()
}

#[tokio::test]
async fn what_was_dropped_half_is_dropped_whole_by_the_next_look() {
    let (database, engine) = engine().await;
    let one = owner("one");
    let begun = engine.begin(&one, PROJECTION, Pace::default()).await;
    let generation = begun.unwrap().generation;
    // As whoever was killed between taking it out of everybody's hands and forgetting it.
    sqlx::query("UPDATE projections.generations SET status = 'retired'")
        .execute(&database.pool)
        .await
        .unwrap();
    let left = engine.unfinished().await.unwrap();
    assert_eq!(left[0].generation, generation);
    assert!(engine.find(&one, PROJECTION).await.unwrap().is_none());
    for nothing in [
        "SELECT count(*) FROM projections.generations",
        "SELECT count(*) FROM projections.checkpoints",
        "SELECT count(*) FROM pg_namespace WHERE nspname LIKE 'order_statistics%'",
    ] {
        assert_eq!(count(&database, nothing).await, 0, "{nothing}");
    }
    assert!(engine.unfinished().await.unwrap().is_empty());
}

#[tokio::test]
async fn a_rebuild_waits_for_another_door_s() {
    let (_database, engine) = engine().await;
    let (one, two) = (owner("one"), owner("two"));
    let begun = engine.begin(&one, PROJECTION, Pace::default()).await;
    let first = begun.unwrap().generation;
    let early = engine.begin(&two, PROJECTION, Pace::default()).await;
    assert!(
        matches!(&early, Err(EngineError::NotYet(why)) if why.contains(&first) && why.contains("one")),
        "{early:?}"
    );
    engine.discard(PROJECTION, &first).await.unwrap();
    let begun = engine.begin(&two, PROJECTION, Pace::default()).await;
    assert_ne!(begun.unwrap().generation, first);
}
