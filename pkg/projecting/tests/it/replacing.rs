//! From a loaded generation to the one that answers, beside projectors, writers and readers.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use futures::{FutureExt, TryStreamExt, future::join_all};
use millrace_projecting::{
    Generation, GenerationStatus, LoadEnd, PgReadModel, PgReadOptions, Rebuilds, StoreError, View,
};
use millrace_testkit::{Database, eventually};
use sqlx::Row;
use tokio::{task::JoinSet, time::Instant};

use crate::{
    bed::{Bed, FREELY, load, logs_of, owner},
    log::{MemoryLog, ordering},
    runner::{BOUND, World},
    views::{folded, items, sums},
};

fn rebuilds(world: &World, views: Vec<View>) -> Rebuilds {
    Rebuilds::new(
        views,
        logs_of(&world.log),
        Some(world.postgres.clone()),
        None,
        Some(world.topology.clone()),
    )
}

/// Loads and finishes a generation of `items`.
async fn rebuilt(rebuilds: &Rebuilds, name: &str) -> Generation {
    let begun = rebuilds.begin(&owner(name), "items", FREELY).await.unwrap();
    let generation = begun.generation;
    assert_eq!(load(rebuilds, &generation).await.unwrap(), LoadEnd::Done);
    rebuilds.finish(&generation).await.unwrap();
    generation
}

/// Switches as soon as the generation is near enough.
async fn switched(rebuilds: &Rebuilds, to: &Generation) -> millrace_projecting::Switched {
    eventually(
        "the generation is switched to",
        BOUND,
        async || match rebuilds.switch(to).await {
            Ok(switched) => Some(switched),
            Err(StoreError::Behind { .. }) => None,
            Err(error) => panic!("{error:?}"),
        },
    )
    .await
}

async fn status(world: &World, of: &Generation) -> Option<GenerationStatus> {
    let known = world.postgres.generations("items").await.unwrap();
    let found = known.iter().find(|one| one.id == of.id);
    found.map(|one| one.status)
}

async fn is_current(world: &World, generation: &Generation) {
    eventually("the generation is current", BOUND, async || {
        let rows = crate::postgres::rows(&world.database.pool, &generation.place).await;
        (rows == folded(&world.log.events())).then_some(())
    })
    .await;
}

async fn consumers(world: &World, of: &Generation) -> usize {
    let stream = world.topology.names().stream(&ordering());
    let stream = world.nats.jetstream.get_stream(&stream).await.unwrap();
    let names: Vec<String> = stream.consumer_names().try_collect().await.unwrap();
    let part = format!("-g{}-", of.id);
    names.iter().filter(|name| name.contains(&part)).count()
}

/// How many records say who works on it: whatever is in the bucket, markers included.
async fn lease_groups(world: &World, of: &Generation) -> usize {
    let bucket = format!("KV_{}", world.topology.names().lease_bucket());
    let stream = world.nats.jetstream.get_stream(bucket).await.unwrap();
    let subjects = stream.info_with_subjects("$KV.>").await.unwrap();
    let subjects: Vec<(String, usize)> = subjects.try_collect().await.unwrap();
    let part = format!("items-{}-", of.id);
    subjects
        .iter()
        .filter(|(name, _)| name.contains(&part))
        .count()
}

#[tokio::test]
async fn the_projector_goes_on_from_exactly_the_next_position() {
    let mut world = World::new().await;
    let running = world.start(vec![items(), sums()]);
    world.log.fill(20, 400);
    world.rows_are_the_log().await;
    let rebuilds = rebuilds(&world, vec![items(), sums()]);
    let begun = rebuilds
        .begin(&owner("one"), "items", FREELY)
        .await
        .unwrap();
    let generation = begun.generation.clone();
    // Nobody works on it but its load, whatever comes in meanwhile, and however often projectors
    // look what there is to do.
    world.log.fill(23, 200);
    world.rows_are_the_log().await;
    tokio::time::sleep(Duration::from_millis(2_500)).await;
    let untouched = rebuilds.find(&owner("one"), "items").await.unwrap();
    assert_eq!(untouched.unwrap(), begun);
    assert_eq!(load(&rebuilds, &generation).await.unwrap(), LoadEnd::Done);
    let state = rebuilds.find(&owner("one"), "items").await.unwrap();
    assert_eq!(state.unwrap().events_done, 400);
    assert_eq!(consumers(&world, &generation).await, 0);
    world.log.fill(23, 100);
    rebuilds.finish(&generation).await.unwrap();
    world.log.fill(29, 100);
    is_current(&world, &generation).await;
    assert_eq!(rebuilds.lag(&generation).await.unwrap(), 0);
    // It waits for its owner, however long it is as far as the live one.
    let first = world.place("items").await;
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert_eq!(world.place("items").await, first);
    assert_eq!(
        status(&world, &generation).await,
        Some(GenerationStatus::Candidate)
    );
    // What the load counted stays the load's.
    let state = rebuilds.find(&owner("one"), "items").await.unwrap();
    assert_eq!(state.unwrap().events_done, 400);
    running.stop().await;
}

#[tokio::test]
async fn switched_to_gone_back_and_dropped() {
    let mut world = World::new().await;
    let running = world.start(vec![items()]);
    world.log.fill(20, 300);
    world.rows_are_the_log().await;
    let rebuilds = rebuilds(&world, vec![items()]);
    let live = rebuilds.plan("items").await.unwrap().live.unwrap();
    let one = rebuilt(&rebuilds, "one").await;
    let refused = rebuilds.rollback("items", one.id, true).await;
    assert!(
        matches!(&refused, Err(StoreError::Invalid(why)) if why.contains("never answered")),
        "{refused:?}"
    );
    // One after the other, whoever asks.
    let busy = rebuilds.begin(&owner("two"), "items", FREELY).await;
    assert!(
        matches!(&busy, Err(StoreError::Busy { generation, .. }) if *generation == one.id),
        "{busy:?}"
    );
    // Two processes at once, and both are told what it replaced.
    let (first, second) = tokio::join!(switched(&rebuilds, &one), switched(&rebuilds, &one));
    assert_eq!(
        (first.previous, second.previous),
        (Some(live.id), Some(live.id))
    );
    let two = rebuilt(&rebuilds, "two").await;
    assert_eq!(switched(&rebuilds, &two).await.previous, Some(one.id));
    let (other, last) = (&one, &two);
    for generation in [&live, &one, &two] {
        let expected = if generation.id == last.id {
            GenerationStatus::Active
        } else {
            GenerationStatus::Retained
        };
        assert_eq!(status(&world, generation).await, Some(expected));
    }
    // Those that are retained are kept current, so that going back is another switch.
    world.log.fill(20, 100);
    is_current(&world, &live).await;
    is_current(&world, last).await;
    for _ in 0..2 {
        let back = rebuilds.rollback("items", live.id, false).await.unwrap();
        assert_eq!(back.previous, Some(last.id));
    }
    world.rows_are_the_log().await;
    let refused = rebuilds.discard(&live).await;
    assert!(
        matches!(&refused, Err(StoreError::Invalid(why)) if why.contains("answers")),
        "{refused:?}"
    );
    eventually("projectors work on it", BOUND, async || {
        (consumers(&world, other).await == 4).then_some(())
    })
    .await;
    assert_eq!(lease_groups(&world, other).await, 1);
    for generation in [other, last, other] {
        rebuilds.discard(generation).await.unwrap();
        assert_eq!(consumers(&world, generation).await, 0);
    }
    world.log.fill(20, 100);
    world.rows_are_the_log().await;
    // Nor does a projector that was at work make any again.
    tokio::time::sleep(Duration::from_secs(3)).await;
    for generation in [&one, &two] {
        assert_eq!(consumers(&world, generation).await, 0);
        eventually("nobody shares its work", BOUND, async || {
            (lease_groups(&world, generation).await == 0).then_some(())
        })
        .await;
        assert_eq!(status(&world, generation).await, None);
    }
    let left = sqlx::query(
        "SELECT (SELECT count(*) FROM pg_namespace WHERE nspname LIKE 'items%'),
                (SELECT count(DISTINCT generation) FROM projections.checkpoints),
                (SELECT count(*) FROM projections.generations)",
    )
    .fetch_one(&world.database.pool)
    .await
    .unwrap();
    let left: [i64; 3] = [left.get(0), left.get(1), left.get(2)];
    assert_eq!(left, [1, 1, 1]);
    let refused = rebuilds.rollback("items", one.id, true).await;
    assert!(matches!(refused, Err(StoreError::Gone(_))), "{refused:?}");
    running.stop().await;
}

#[tokio::test]
async fn one_that_stands_still_is_gone_back_to_only_by_force() {
    let mut world = World::new().await;
    let running = world.start(vec![items()]);
    world.log.fill(20, 100);
    world.rows_are_the_log().await;
    let rebuilds = rebuilds(&world, vec![items()]);
    let live = rebuilds.plan("items").await.unwrap().live.unwrap();
    let one = rebuilt(&rebuilds, "one").await;
    switched(&rebuilds, &one).await;
    running.stop().await;
    // As if nobody had kept it current.
    sqlx::query("UPDATE projections.checkpoints SET position = 0 WHERE generation = $1")
        .bind(live.id.get())
        .execute(&world.database.pool)
        .await
        .unwrap();
    let refused = rebuilds.rollback("items", live.id, false).await;
    assert!(
        matches!(refused, Err(StoreError::Behind { .. })),
        "{refused:?}"
    );
    assert_eq!(world.place("items").await, one.place);
    let forced = rebuilds.rollback("items", live.id, true).await.unwrap();
    assert_eq!(forced.previous, Some(one.id));
    assert_eq!(world.place("items").await, live.place);
}

/// A bed with a generation of `items` that answers, and one that is loaded and as far.
async fn live_and_loaded() -> (Bed, Generation, Generation) {
    let bed = Bed::of(vec![items()]).await;
    bed.log.fill(7, 40);
    let live = bed.live(&items()).await;
    let loaded = rebuilt(&bed.rebuilds, "one").await;
    (bed, live, loaded)
}

/// For how long a reader is looked at that must not go over, in milliseconds: longer than it looks
/// in a row, which is at least a second.
const STAYS_MS: u64 = 3_000;

#[tokio::test]
async fn a_reader_stays_until_it_would_not_go_back() {
    let (bed, live, other) = live_and_loaded().await;
    let view = items();
    let mut ahead = bed.store.folder(&live, &view).await.unwrap();
    let model = bed.model(&view, PgReadOptions::default());
    let total = async || {
        let read = model.query(None, |conn| {
            async move {
                let row = sqlx::query("SELECT sum(total)::bigint FROM items")
                    .fetch_one(conn)
                    .await?;
                row.try_get::<i64, _>(0)
            }
            .boxed()
        });
        read.await.unwrap()
    };
    let answering = async || model.read(None).await.unwrap().generation().id;
    assert_eq!(total().await, 40);
    // While somebody reads nothing takes over, and meanwhile the one that answered goes on and the
    // one that is to answer does not.
    let reading = model.read(None).await.unwrap();
    bed.rebuilds.switch(&other).await.unwrap();
    let newer = bed.log.fill(7, 10);
    ahead.fold(newer.clone()).await.unwrap();
    assert_eq!(total().await, 50);
    drop(reading);
    let until = Instant::now() + Duration::from_millis(STAYS_MS);
    let mut ready = 0;
    while Instant::now() < until {
        assert_eq!((answering().await, total().await), (live.id, 50));
        // It answers, so it is ready: who asks does not wait for the one that is to take over.
        model.check().await.unwrap();
        ready += 1;
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert!(ready > STAYS_MS / 1_000, "asked {ready} times");
    let mut behind = bed.store.folder(&other, &view).await.unwrap();
    behind.fold(newer).await.unwrap();
    eventually("the other one answers", BOUND, async || {
        assert_eq!(total().await, 50);
        (answering().await == other.id).then_some(())
    })
    .await;
    // Who forces a rollback has said that readers may go back.
    let newest = bed.log.fill(7, 10);
    behind.fold(newest).await.unwrap();
    assert_eq!(total().await, 60);
    bed.rebuilds.rollback("items", live.id, true).await.unwrap();
    eventually("readers have gone back", BOUND, async || {
        (total().await == 50).then_some(())
    })
    .await;
    assert_eq!(answering().await, live.id);
}

/// How many connections a read model has in a database, and when the newest of them was made.
async fn connections(database: &Database) -> (i64, Option<String>) {
    let row = sqlx::query(
        "SELECT count(*), max(backend_start)::text FROM pg_stat_activity
         WHERE datname = current_database() AND application_name = 'millrace-query'",
    )
    .fetch_one(&database.pool)
    .await
    .unwrap();
    (row.get(0), row.get(1))
}

#[tokio::test]
async fn the_connections_to_a_generation_are_there_before_it_answers() {
    let (bed, live, next) = live_and_loaded().await;
    let options = PgReadOptions {
        max_connections: 4,
        ..PgReadOptions::default()
    };
    let model = bed.model(&items(), options);
    let all_at_once = async || {
        let readers = join_all((0..4).map(|_| model.read(None))).await;
        readers[0].as_ref().unwrap().generation().id
    };
    assert_eq!(all_at_once().await, live.id);
    let (before, _) = connections(&bed.database).await;
    bed.rebuilds.switch(&next).await.unwrap();
    eventually("the other one answers", BOUND, async || {
        let reader = model.read(None).await.unwrap();
        (reader.generation().id == next.id).then_some(())
    })
    .await;
    // Its own, and those of the control tables; the others go.
    let (_, newest) = connections(&bed.database).await;
    eventually("the other connections are closed", BOUND, async || {
        (connections(&bed.database).await.0 <= before).then_some(())
    })
    .await;
    for _ in 0..10 {
        assert_eq!(all_at_once().await, next.id);
    }
    assert_eq!(connections(&bed.database).await, (before, newest));
}

/// No read hangs, in milliseconds. How long readers are held up by a switch is for the benchmark
/// to say: here they wait for the processors more than for anything else.
const MAX_READ_MS: u64 = 10_000;

/// What readers went through.
#[derive(Default)]
struct Seen {
    reads: AtomicU64,
    slowest_ms: AtomicU64,
}

/// Reads again and again; what is seen of the log never gets less.
async fn read_on(model: PgReadModel, seen: Arc<Seen>, stop: Arc<AtomicBool>) {
    let mut most = 0;
    while !stop.load(Ordering::SeqCst) {
        let begun = Instant::now();
        let (one, two) = model
            .query(None, |conn| {
                async move {
                    let mut found = Vec::new();
                    // Two statements of one query answer from one generation.
                    for _ in 0..2 {
                        let row = sqlx::query(
                            "SELECT current_schema()::text, coalesce(sum(total), 0)::bigint FROM items",
                        )
                        .fetch_one(&mut *conn)
                        .await?;
                        found.push((row.try_get::<String, _>(0)?, row.try_get::<i64, _>(1)?));
                    }
                    Ok((found[0].clone(), found[1].clone()))
                }
                .boxed()
            })
            .await
            .unwrap();
        assert_eq!(one.0, two.0);
        assert!(
            most <= one.1 && one.1 <= two.1,
            "{most} and then {one:?}, {two:?}"
        );
        most = two.1;
        let took = u64::try_from(begun.elapsed().as_millis()).unwrap();
        seen.slowest_ms.fetch_max(took, Ordering::SeqCst);
        seen.reads.fetch_add(1, Ordering::SeqCst);
    }
}

async fn write_on(log: Arc<MemoryLog>, stop: Arc<AtomicBool>) {
    let mut n = 0_u32;
    while !stop.load(Ordering::SeqCst) {
        log.push(&format!("item-{}", n % 50), "item.added", r#"{"n":1}"#);
        n += 1;
        tokio::time::sleep(Duration::from_millis(15)).await;
    }
}

#[tokio::test]
async fn readers_and_writers_go_on_through_switches() {
    let mut world = World::new().await;
    let running = world.start(vec![items()]);
    world.log.fill(50, 200);
    world.rows_are_the_log().await;
    let rebuilds = rebuilds(&world, vec![items()]);
    let live = rebuilds.plan("items").await.unwrap().live.unwrap();
    let stop = Arc::new(AtomicBool::new(false));
    let seen = Arc::new(Seen::default());
    let mut tasks = JoinSet::new();
    tasks.spawn(write_on(world.log.clone(), stop.clone()));
    for _ in 0..3 {
        let (logs, options) = (logs_of(&world.log), PgReadOptions::default());
        let model = PgReadModel::open(&world.database.url, &items(), logs, None, options).unwrap();
        tasks.spawn(read_on(model, seen.clone(), stop.clone()));
    }
    for name in ["one", "two"] {
        let generation = rebuilt(&rebuilds, name).await;
        switched(&rebuilds, &generation).await;
        let before = seen.reads.load(Ordering::SeqCst);
        eventually("readers have gone on", BOUND, async || {
            (seen.reads.load(Ordering::SeqCst) > before + 100).then_some(())
        })
        .await;
        // Until every reader has looked which generation answers.
        tokio::time::sleep(Duration::from_millis(1_500)).await;
    }
    eventually("it is gone back to", BOUND, async || {
        match rebuilds.rollback("items", live.id, false).await {
            Ok(_) => Some(()),
            Err(StoreError::Behind { .. }) => None,
            Err(error) => panic!("{error:?}"),
        }
    })
    .await;
    tokio::time::sleep(Duration::from_millis(1_500)).await;
    // Readers of a generation that is dropped under them answer from the other.
    for name in ["one", "two"] {
        let state = rebuilds.find(&owner(name), "items").await.unwrap();
        rebuilds.discard(&state.unwrap().generation).await.unwrap();
    }
    stop.store(true, Ordering::SeqCst);
    while let Some(ended) = tasks.join_next().await {
        ended.unwrap();
    }
    let slowest = seen.slowest_ms.load(Ordering::SeqCst);
    println!("the slowest read took {slowest} ms");
    assert!(slowest < MAX_READ_MS, "{slowest} ms");
    world.rows_are_the_log().await;
    running.stop().await;
}
