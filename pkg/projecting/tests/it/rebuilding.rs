//! Loads: from the log into a generation that nobody reads, through kills, rivals and pauses.

use std::{sync::Arc, time::Duration};

use millrace_es::Position;
use millrace_eventlog::EventLog;
use millrace_projecting::{
    DeadLetters, DynamoStore, GenerationStatus, LetterFilter, LoadEnd, Owner, Pace, Reason,
    Rebuilds, Share, StoreError, View,
};
use millrace_testkit::{Dynamo, dynamodb, eventually};
use tokio::{task::JoinSet, time::Instant};
use tokio_util::sync::CancellationToken;

use crate::{
    bed::{Bed, FREELY, at_most, load, logs_of, owner},
    log::MemoryLog,
    runner::BOUND,
    views::{ItemsNext, folded, item_table, items},
};

/// Events of every kind: rows that come, change, go and come again.
fn fill(log: &MemoryLog, count: usize) {
    for n in 0..count {
        let stream = format!("item-{}", n % 97);
        match n % 31 {
            7 => log.push(&stream, "item.removed", "{}"),
            9 => log.push(&stream, "item.noticed", "{}"),
            11 => log.push(&stream, "item.added", r#"{"n":2,"note":"noted"}"#),
            _ => log.push(&stream, "item.added", &format!(r#"{{"n":{}}}"#, n % 5)),
        };
    }
}

/// How often something was added, and to what sum.
fn added(log: &MemoryLog) -> (i64, i64) {
    let events = log.events();
    let added = events.iter().filter(|one| one.event_type == "item.added");
    let amounts = added.map(|one| {
        let payload: serde_json::Value = serde_json::from_str(one.payload.get()).unwrap();
        payload["n"].as_i64().unwrap()
    });
    amounts.fold((0, 0), |(count, total), n| (count + 1, total + n))
}

#[tokio::test]
async fn a_loaded_generation_equals_the_live_one() {
    let bed = Bed::new().await;
    fill(&bed.log, 2_000);
    let live = bed.live(&items()).await;
    let plan = bed.rebuilds.plan("items").await.unwrap();
    assert_eq!(
        (plan.live.as_ref(), plan.events_total, plan.lanes_total),
        (Some(&live), 2_000, 4)
    );
    let begun = bed.begin("items", FREELY).await;
    let generation = begun.generation.clone();
    assert_eq!(generation.status, GenerationStatus::Loading);
    assert_eq!((begun.events_done, begun.lanes_done), (0, 0));
    assert_eq!(begun.targets, plan.targets);
    assert_eq!(begun.targets[0].to, Position::new(2_000));
    // The same owner begins nothing else, and what comes later is not its matter.
    fill(&bed.log, 100);
    let again = bed.begin("items", at_most(1)).await;
    assert_eq!(again, begun);
    let indexes = format!(
        "SELECT count(*) FROM pg_indexes WHERE schemaname = '{}'",
        generation.place
    );
    let unfinished = bed.rebuilds.finish(&generation).await;
    assert!(
        matches!(unfinished, Err(StoreError::Behind { .. })),
        "{unfinished:?}"
    );
    assert_eq!(bed.load(&generation).await, LoadEnd::Done);
    assert_eq!(bed.count(&indexes).await, 1);
    let loaded = bed.state("items").await;
    assert_eq!(
        (loaded.events_done, loaded.lanes_done, loaded.lanes_total),
        (2_000, 4, 4)
    );
    assert_eq!(bed.rows(&generation).await, bed.rows(&live).await);
    assert_eq!(
        bed.rows(&generation).await,
        folded(&bed.log.events()[..2_000])
    );
    for _ in 0..2 {
        bed.rebuilds.finish(&generation).await.unwrap();
    }
    assert_eq!(bed.count(&indexes).await, 2);
    assert_eq!(
        bed.state("items").await.generation.status,
        GenerationStatus::Candidate
    );
    assert_eq!(bed.load(&generation).await, LoadEnd::Done);
    // Its newest lane lacks what came since.
    let lag = bed.rebuilds.lag(&generation).await.unwrap();
    assert!((1..=2_100).contains(&lag), "{lag}");
}

#[tokio::test]
async fn an_empty_log_is_loaded_at_once() {
    let bed = Bed::new().await;
    let begun = bed.begin("sums", FREELY).await;
    assert_eq!(bed.load(&begun.generation).await, LoadEnd::Done);
    bed.rebuilds.finish(&begun.generation).await.unwrap();
    assert_eq!(bed.rebuilds.lag(&begun.generation).await.unwrap(), 0);
}

#[tokio::test]
async fn killed_at_random_points_it_goes_on_from_its_checkpoints() {
    let bed = Bed::new().await;
    fill(&bed.log, 3_000);
    for projection in ["sums", "items"] {
        let generation = bed.begin(projection, at_most(2_500)).await.generation;
        let mut kills = 0;
        loop {
            let mut worker = JoinSet::new();
            let (rebuilds, of) = (bed.rebuilds.clone(), generation.clone());
            worker.spawn(async move { load(&rebuilds, &of).await });
            let life = Duration::from_millis(rand::random_range(30..200));
            if let Ok(ended) = tokio::time::timeout(life, worker.join_next()).await {
                assert_eq!(ended.unwrap().unwrap().unwrap(), LoadEnd::Done);
                break;
            }
            if kills % 2 == 0 {
                sqlx::query(
                    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity
                     WHERE datname = current_database() AND application_name = 'millrace-projector'",
                )
                .execute(&bed.database.pool)
                .await
                .unwrap();
            }
            worker.shutdown().await;
            kills += 1;
        }
        assert!(kills >= 3, "{kills}");
        assert_eq!(bed.state(projection).await.events_done, 3_000);
        if projection == "sums" {
            assert_eq!(bed.total(&generation).await, added(&bed.log));
        } else {
            assert_eq!(bed.rows(&generation).await, folded(&bed.log.events()));
        }
    }
}

#[tokio::test]
async fn two_workers_on_one_share_do_no_harm() {
    let bed = Bed::new().await;
    fill(&bed.log, 3_000);
    let generation = bed.begin("sums", at_most(6_000)).await.generation;
    let stop = CancellationToken::new();
    let all = (0..3).map(|_| bed.rebuilds.load(&generation, Share::WHOLE, stop.clone()));
    for ended in futures::future::join_all(all).await {
        assert_eq!(ended.unwrap(), LoadEnd::Done);
    }
    assert_eq!(bed.total(&generation).await, added(&bed.log));
    assert_eq!(bed.state("sums").await.events_done, 3_000);
}

#[tokio::test]
async fn shares_have_all_lanes_between_them() {
    let bed = Bed::new().await;
    fill(&bed.log, 2_000);
    let generation = bed.begin("items", FREELY).await.generation;
    let stop = CancellationToken::new();
    let none = Share { index: 3, of: 3 };
    let refused = bed.rebuilds.load(&generation, none, stop.clone()).await;
    assert!(
        matches!(refused, Err(StoreError::Invalid(_))),
        "{refused:?}"
    );
    let first = Share { index: 0, of: 3 };
    let ended = bed.rebuilds.load(&generation, first, stop.clone()).await;
    assert_eq!(ended.unwrap(), LoadEnd::Done);
    // Of four partitions, 0 and 3.
    assert_eq!(bed.state("items").await.lanes_done, 2);
    let rest = [1, 2].map(|index| {
        let share = Share { index, of: 3 };
        bed.rebuilds.load(&generation, share, stop.clone())
    });
    for ended in futures::future::join_all(rest).await {
        assert_eq!(ended.unwrap(), LoadEnd::Done);
    }
    assert_eq!(bed.rows(&generation).await, folded(&bed.log.events()));
}

#[tokio::test]
async fn a_pace_is_followed_while_it_runs() {
    let bed = Bed::new().await;
    fill(&bed.log, 3_000);
    let suspended = Pace {
        suspended: true,
        ..FREELY
    };
    let generation = bed.begin("sums", suspended).await.generation;
    let mut worker = JoinSet::new();
    let stop = CancellationToken::new();
    let (rebuilds, of, stopped) = (bed.rebuilds.clone(), generation.clone(), stop.clone());
    worker.spawn(async move { rebuilds.load(&of, Share::WHOLE, stopped).await });
    tokio::time::sleep(Duration::from_millis(1_200)).await;
    assert_eq!(bed.state("sums").await.events_done, 0);
    // It follows within a second, and keeps to it.
    bed.rebuilds
        .set_pace(&generation, at_most(400))
        .await
        .unwrap();
    let begun = Instant::now();
    eventually("it goes on", BOUND, async || {
        (bed.state("sums").await.events_done > 0).then_some(())
    })
    .await;
    eventually("it has come some way", BOUND, async || {
        (bed.state("sums").await.events_done > 400).then_some(())
    })
    .await;
    let (done, took) = (bed.state("sums").await.events_done, begun.elapsed());
    let most = 400.0 * (took.as_secs_f64() + 0.5);
    assert!((done as f64) < most, "{done} in {took:?}");
    bed.rebuilds.set_pace(&generation, suspended).await.unwrap();
    tokio::time::sleep(Duration::from_millis(1_000)).await;
    let still = bed.state("sums").await;
    assert!(still.pace.suspended);
    tokio::time::sleep(Duration::from_millis(700)).await;
    assert_eq!(bed.state("sums").await.events_done, still.events_done);
    assert!(still.events_done < 3_000);
    bed.rebuilds.set_pace(&generation, FREELY).await.unwrap();
    let ended = tokio::time::timeout(BOUND, worker.join_next()).await;
    assert_eq!(ended.unwrap().unwrap().unwrap().unwrap(), LoadEnd::Done);
    assert_eq!(bed.total(&generation).await, added(&bed.log));
}

#[tokio::test]
async fn told_to_stop_it_ends_between_two_batches() {
    let bed = Bed::new().await;
    fill(&bed.log, 3_000);
    let generation = bed.begin("items", at_most(1_000)).await.generation;
    let stop = CancellationToken::new();
    let (ended, ()) = tokio::join!(
        bed.rebuilds.load(&generation, Share::WHOLE, stop.clone()),
        async {
            eventually("it has begun", BOUND, async || {
                (bed.state("items").await.events_done > 0).then_some(())
            })
            .await;
            stop.cancel();
        }
    );
    assert_eq!(ended.unwrap(), LoadEnd::Stopped);
    bed.rebuilds.set_pace(&generation, FREELY).await.unwrap();
    assert_eq!(bed.load(&generation).await, LoadEnd::Done);
    assert_eq!(bed.rows(&generation).await, folded(&bed.log.events()));
}

#[tokio::test]
async fn poison_events_become_letters_of_the_candidate() {
    let bed = Bed::new().await;
    fill(&bed.log, 400);
    let healthy = bed.log.events();
    bed.log.push("item-1", "item.added", r#"{"n":"nothing"}"#);
    bed.log.push("item-1", "item.added", r#"{"n":3}"#);
    bed.log
        .push("item-2", "item.added", r#"{"n":1,"note":"forbidden"}"#);
    let generation = bed.begin("items", FREELY).await.generation;
    assert_eq!(bed.load(&generation).await, LoadEnd::Done);
    let letters = DeadLetters::new(vec![items()], Some(bed.store.clone()), None);
    let found = letters.list(&LetterFilter::default(), 10).await.unwrap();
    let found: Vec<_> = found
        .iter()
        .map(|one| (one.generation, one.position.get(), one.reason))
        .collect();
    let id = generation.id;
    assert_eq!(
        found,
        [
            (id, 401, Reason::Malformed),
            (id, 402, Reason::Follows),
            (id, 403, Reason::Store)
        ]
    );
    assert_eq!(bed.rows(&generation).await, folded(&healthy));
    assert_eq!(bed.state("items").await.events_done, 403);
    bed.rebuilds.discard(&generation).await.unwrap();
    for table in ["dead_letters", "parked_keys", "checkpoints", "generations"] {
        let sql = format!("SELECT count(*) FROM projections.{table}");
        assert_eq!(bed.count(&sql).await, 0, "{table}");
    }
}

#[tokio::test]
async fn what_can_never_go_on_says_so() {
    let bed = Bed::new().await;
    fill(&bed.log, 300);
    bed.log.push("item-1", "item.painted", "{}");
    let generation = bed.begin("items", FREELY).await.generation;
    let refused = load(&bed.rebuilds, &generation).await;
    assert!(
        matches!(&refused, Err(StoreError::Invalid(why)) if why.contains("newer release")),
        "{refused:?}"
    );
    bed.log.start_epoch().await.unwrap();
    let refused = load(&bed.rebuilds, &generation).await;
    assert!(
        matches!(&refused, Err(StoreError::Invalid(why)) if why.contains("new life")),
        "{refused:?}"
    );
    let refused = bed.rebuilds.plan("nothing").await;
    assert!(
        matches!(refused, Err(StoreError::Invalid(_))),
        "{refused:?}"
    );
    for text in ["", "A", "a b", &"a".repeat(65)] {
        assert!(Owner::new(text).is_err(), "{text:?}");
    }
}

#[tokio::test]
async fn a_discarded_load_ends_and_leaves_nothing() {
    let bed = Bed::new().await;
    fill(&bed.log, 3_000);
    let generation = bed.begin("items", at_most(500)).await.generation;
    let (ended, ()) = tokio::join!(load(&bed.rebuilds, &generation), async {
        eventually("it has begun", BOUND, async || {
            (bed.state("items").await.events_done > 0).then_some(())
        })
        .await;
        bed.rebuilds.discard(&generation).await.unwrap();
    });
    assert_eq!(ended.unwrap(), LoadEnd::Gone);
    bed.rebuilds.discard(&generation).await.unwrap();
    let found = bed.rebuilds.find(&owner("one"), "items").await.unwrap();
    assert_eq!(found, None);
    let schemas = format!(
        "SELECT count(*) FROM pg_namespace WHERE nspname = '{}'",
        generation.place
    );
    assert_eq!(bed.count(&schemas).await, 0);
    assert_eq!(
        load(&bed.rebuilds, &generation).await.unwrap(),
        LoadEnd::Gone
    );
    let gone = bed.rebuilds.finish(&generation).await;
    assert!(matches!(gone, Err(StoreError::Gone(_))), "{gone:?}");
}

#[tokio::test]
async fn a_release_that_knows_no_rebuilds_leaves_them_alone() {
    let bed = Bed::of(vec![View::postgres_rows::<ItemsNext>()]).await;
    fill(&bed.log, 200);
    let (old, new) = (items(), View::postgres_rows::<ItemsNext>());
    let live = bed.live(&old).await;
    let generation = bed.begin("items", FREELY).await.generation;
    assert_eq!(generation.version, 2);
    assert_eq!(bed.load(&generation).await, LoadEnd::Done);
    bed.rebuilds.finish(&generation).await.unwrap();
    // The words that it knows are those of the first migration.
    let words = "SELECT count(*) FROM projections.generations
                 WHERE status IN ('candidate', 'active', 'retained')";
    assert_eq!(bed.count(words).await, 1);
    // Projectors of either release make and keep what is theirs, and do not take this one for it.
    let heads = bed.log.heads();
    assert_eq!(
        bed.store.ensure_generation(&old, &heads).await.unwrap().id,
        live.id
    );
    let own = bed.store.ensure_generation(&new, &heads).await.unwrap();
    assert_ne!(own.id, generation.id);
    assert_eq!(own.owner, None);
    // The new version is switched to; the old one goes on answering its own release.
    let switched = bed.rebuilds.switch(&generation).await.unwrap();
    assert_eq!(switched.previous, Some(live.id));
    let known = bed.store.generations("items").await.unwrap();
    let active = known
        .iter()
        .filter(|one| one.status == GenerationStatus::Active);
    assert_eq!(active.count(), 2);
    // A candidate that a projector made meanwhile is no longer needed.
    let kept = bed.store.ensure_generation(&new, &heads).await.unwrap();
    assert_eq!(kept.id, generation.id);
    let known = bed.store.generations("items").await.unwrap();
    let own = known.iter().find(|one| one.id == own.id).unwrap();
    assert_eq!(own.status, GenerationStatus::Retired);
    // As it writes them.
    sqlx::raw_sql(
        "INSERT INTO projections.generations (projection, version, status, schema_name)
         VALUES ('elsewhere', 1, 'active', 'elsewhere_g1');
         INSERT INTO projections.checkpoints (generation, context, partition, position, epoch)
         SELECT max(id), 'ordering', 0, 0, 1 FROM projections.generations",
    )
    .execute(&bed.database.pool)
    .await
    .unwrap();
    // And frozen is what nobody keeps current.
    let refused = bed.rebuilds.rollback("items", live.id, false).await;
    assert!(
        matches!(&refused, Err(StoreError::Invalid(why)) if why.contains("frozen")),
        "{refused:?}"
    );
    let forced = bed.rebuilds.rollback("items", live.id, true).await.unwrap();
    assert_eq!(forced.previous, Some(generation.id));
    let plan = bed.rebuilds.plan("items").await.unwrap();
    assert_eq!(plan.live.unwrap().id, live.id);
}

struct DynamoBed {
    log: Arc<MemoryLog>,
    dynamo: Dynamo,
    store: DynamoStore,
    rebuilds: Rebuilds,
}

impl DynamoBed {
    async fn new() -> Self {
        let dynamo = dynamodb().await;
        let store = crate::dynamodb::store(&dynamo).await;
        let log = MemoryLog::new();
        let (views, logs) = (vec![item_table()], logs_of(&log));
        let rebuilds = Rebuilds::new(views, logs, None, Some(store.clone()), None);
        Self {
            log,
            dynamo,
            store,
            rebuilds,
        }
    }

    async fn count(&self, pk: &str) -> usize {
        let items =
            crate::dynamodb::scan(&self.dynamo, &format!("{}_projections", self.dynamo.prefix))
                .await;
        let own = items
            .iter()
            .filter(|one| one["pk"].as_s().unwrap().starts_with(pk));
        own.count()
    }
}

#[tokio::test]
async fn a_view_in_dynamodb_is_loaded_switched_to_and_discarded() {
    let bed = DynamoBed::new().await;
    fill(&bed.log, 900);
    let view = item_table();
    let heads = bed.log.heads();
    let live = bed.store.ensure_generation(&view, &heads).await.unwrap();
    let mut folder = bed.store.folder(&live, &view).await.unwrap();
    folder.fold(bed.log.events()).await.unwrap();
    let healthy = bed.log.events();
    let poison = bed.log.push("item-5", "item.added", r#"{"n":"nothing"}"#);
    let one = owner("one");
    let pace = at_most(3_000);
    let both = [&one, &one].map(|own| bed.rebuilds.begin(own, "item-table", pace));
    let [begun, again] = <[_; 2]>::try_from(futures::future::join_all(both).await).unwrap();
    let begun = begun.unwrap();
    assert_eq!(begun, again.unwrap());
    assert_eq!(
        (begun.pace, begun.targets[0].to),
        (pace, Position::new(901))
    );
    let generation = begun.generation;
    // Killed a few times on the way.
    for _ in 0..3 {
        let killed = load(&bed.rebuilds, &generation);
        let _killed = tokio::time::timeout(Duration::from_millis(90), killed).await;
    }
    bed.rebuilds.set_pace(&generation, FREELY).await.unwrap();
    assert_eq!(
        load(&bed.rebuilds, &generation).await.unwrap(),
        LoadEnd::Done
    );
    let state = bed
        .rebuilds
        .find(&one, "item-table")
        .await
        .unwrap()
        .unwrap();
    assert_eq!((state.events_done, state.lanes_done), (901, 4));
    assert_eq!(
        crate::dynamodb::rows(&bed.dynamo, &generation.place).await,
        folded(&healthy)
    );
    let early = bed.rebuilds.switch(&generation).await;
    assert!(matches!(early, Err(StoreError::Invalid(_))), "{early:?}");
    bed.rebuilds.finish(&generation).await.unwrap();
    // A projector does not take it for its own.
    assert_eq!(
        bed.store.ensure_generation(&view, &heads).await.unwrap().id,
        live.id
    );
    for _ in 0..2 {
        let switched = bed.rebuilds.switch(&generation).await.unwrap();
        assert_eq!(switched.previous, Some(live.id));
    }
    // The one before has not seen the newest event.
    let refused = bed.rebuilds.rollback("item-table", live.id, false).await;
    assert!(
        matches!(refused, Err(StoreError::Behind { .. })),
        "{refused:?}"
    );
    folder.fold(vec![poison]).await.unwrap();
    let back = bed.rebuilds.rollback("item-table", live.id, false).await;
    assert_eq!(back.unwrap().previous, Some(generation.id));
    let refused = bed.rebuilds.discard(&live).await;
    assert!(
        matches!(refused, Err(StoreError::Invalid(_))),
        "{refused:?}"
    );
    for _ in 0..2 {
        bed.rebuilds.discard(&generation).await.unwrap();
    }
    for kind in ["checkpoint", "parked", "letter"] {
        let left = bed.count(&format!("{kind}#{}", generation.id)).await;
        assert_eq!(left, 0, "{kind}");
    }
    assert_eq!(bed.count("generation#").await, 1);
    let table = bed.dynamo.client.describe_table();
    assert!(table.table_name(&generation.place).send().await.is_err());
    let found = bed.rebuilds.find(&one, "item-table").await.unwrap();
    assert_eq!(found, None);
}
