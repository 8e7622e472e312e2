//! Which rebuild a generation is kept for that answered before: the one that took over from it last. And
//! that nothing is kept of those that are gone.

use millrace_es::{Partition, Position};
use millrace_eventlog::EventLog;
use millrace_projecting::{Generation, GenerationStatus, LoadEnd, Rebuilds};
use millrace_streaming::{ConsumerOptions, ConsumerSpec, PartitionConsumer};
use millrace_testkit::{dynamodb, eventually, postgres};

use crate::{
    bed::{FREELY, load, logs_of, owner},
    log::MemoryLog,
    runner::{BOUND, World},
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
    let (views, logs) = (vec![items(), item_table()], logs_of(&log));
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

#[tokio::test]
async fn a_projector_removes_what_nats_has_of_generations_that_are_gone() {
    let mut world = World::new().await;
    let running = world.start(vec![items()]);
    world.log.fill(5, 20);
    world.rows_are_the_log().await;
    let live = world.postgres.generations("items").await.unwrap().remove(0);
    let context = world.log.context();
    let bucket = world.topology.names().lease_bucket();
    let leases = world.nats.jetstream.get_key_value(bucket).await.unwrap();
    // Written late by somebody who was cut off; and what is of others.
    let gone = format!("group.items-g{}-{context}", live.id.get() + 1_000);
    let others = [
        format!("group.items-{}-{context}", live.id),
        format!("group.items-g99999-elsewhere{context}"),
        format!("group.items-of-another-g99999-{context}"),
    ];
    for key in others[1..].iter().chain([&gone]) {
        leases.put(key, "{}".into()).await.unwrap();
    }
    let spec = ConsumerSpec {
        context: context.clone(),
        partition: Partition::new(0),
        projection: "items".to_owned(),
        generation: format!("g{}", live.id.get() + 1_000),
    };
    let options = ConsumerOptions::default();
    let late = PartitionConsumer::open(&world.topology, spec, Position::ZERO, options).await;
    drop(late.unwrap());
    let consumers = async || {
        let names = PartitionConsumer::names(&world.topology, context).await;
        names.unwrap().len()
    };
    let own = consumers().await - 1;
    eventually("they are removed", BOUND, async || {
        let gone = leases.entry(&gone).await.unwrap().is_none();
        (gone && consumers().await == own).then_some(())
    })
    .await;
    for key in &others {
        assert!(leases.entry(key).await.unwrap().is_some(), "{key}");
    }
    running.stop().await;
}
