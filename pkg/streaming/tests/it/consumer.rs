use std::time::Duration;

use async_nats::jetstream::consumer::pull;
use millrace_es::{Partition, PartitionCount, Position, RecordedEvent, StreamId};
use millrace_eventlog::EventLog as _;
use millrace_streaming::{ConsumeError, ConsumerOptions, ConsumerSpec, PartitionConsumer};
use millrace_testkit::{eventually, own_nats};
use tokio::time::Instant;

use crate::world::{BOUND, World, position};

const WAIT: Duration = Duration::from_secs(10);

/// The partition of the stream `order-0`.
fn partition() -> Partition {
    StreamId::new("order-0")
        .unwrap()
        .partition(PartitionCount::DEFAULT)
}

impl World {
    fn spec(&self, partition: Partition) -> ConsumerSpec {
        ConsumerSpec {
            context: self.context.clone(),
            partition,
            projection: "orders-by-user".to_owned(),
            generation: "1".to_owned(),
        }
    }

    async fn open(&self, after: Position) -> PartitionConsumer {
        self.open_with(after, ConsumerOptions::default()).await
    }

    async fn open_with(&self, after: Position, options: ConsumerOptions) -> PartitionConsumer {
        eventually("the consumer to open", BOUND, || async {
            let spec = self.spec(partition());
            PartitionConsumer::open(&self.topology, spec, after, options)
                .await
                .ok()
        })
        .await
    }

    /// What the log says of the partition after a position.
    async fn logged(&self, after: Position) -> Vec<Position> {
        let through = self.log.position();
        let events = self
            .log
            .read_partition(partition(), after, through, usize::MAX)
            .await;
        events.unwrap().iter().map(|event| event.position).collect()
    }

    async fn server_consumer(&self) -> async_nats::jetstream::consumer::Consumer<pull::Config> {
        let name = self
            .names()
            .consumer("orders-by-user", "1", partition())
            .unwrap();
        let stream = self
            .nats
            .jetstream
            .get_stream(self.names().stream(&self.context));
        stream.await.unwrap().get_consumer(&name).await.unwrap()
    }
}

fn positions(events: &[RecordedEvent]) -> Vec<Position> {
    events.iter().map(|event| event.position).collect()
}

/// Reads until `count` events came, acknowledging as it goes.
async fn read(consumer: &mut PartitionConsumer, count: usize) -> Vec<Position> {
    let mut read = Vec::new();
    while read.len() < count {
        let batch = consumer.next_batch(100, WAIT).await.unwrap();
        assert!(
            !batch.is_empty(),
            "waited in vain after {} of {count}",
            read.len()
        );
        assert!(batch.len() <= 100);
        read.extend(positions(&batch));
        consumer.ack_through(*read.last().unwrap()).await.unwrap();
    }
    read
}

/// Waits for the next error; the few events before it do not matter.
async fn fails(consumer: &mut PartitionConsumer) -> ConsumeError {
    let deadline = Instant::now() + BOUND;
    loop {
        assert!(Instant::now() < deadline, "it should have failed");
        let batch = consumer.next_batch(100, Duration::from_millis(100)).await;
        if let Err(error) = batch {
            return error;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_partition_comes_in_order_from_the_checkpoint_on() {
    let world = World::on_shared_server().await;
    let relay = world.relay();
    world.log.grow(20_000);
    world.caught_up().await;
    let mut consumer = world.open(Position::ZERO).await;
    assert_eq!(consumer.first_position(), position(1));
    let all = world.logged(Position::ZERO).await;
    assert_eq!(read(&mut consumer, all.len()).await, all);
    let idle = consumer
        .next_batch(100, Duration::from_millis(50))
        .await
        .unwrap();
    assert!(idle.is_empty());

    let checkpoint = all[all.len() / 2];
    let mut consumer = world.open(checkpoint).await;
    let rest = world.logged(checkpoint).await;
    assert_eq!(read(&mut consumer, rest.len()).await, rest);
    relay.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_acknowledged_is_known_to_the_server() {
    let world = World::on_shared_server().await;
    let relay = world.relay();
    world.log.grow(5_000);
    world.caught_up().await;
    let mut consumer = world.open(Position::ZERO).await;
    let all = world.logged(Position::ZERO).await;
    let mut batch = Vec::new();
    while batch.len() < 50 {
        batch.extend(consumer.next_batch(50 - batch.len(), WAIT).await.unwrap());
    }
    consumer.ack_through(batch[29].position).await.unwrap();
    let server = world.server_consumer().await;
    eventually("the floor to be the 30th", BOUND, || async {
        let info = server.get_info().await.ok()?;
        (info.ack_floor.stream_sequence == all[29].get()).then_some(())
    })
    .await;
    relay.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_event_reaches_an_idle_consumer_at_once() {
    let world = World::on_shared_server().await;
    let relay = world.relay();
    world.log.grow(1);
    world.caught_up().await;
    let mut consumer = world.open(Position::ZERO).await;
    read(&mut consumer, 1).await;
    let mut times = Vec::new();
    for _ in 0..50 {
        let appended = Instant::now();
        world.log.grow_traced(
            "order-0",
            "00-00000000000000000000000000000001-0000000000000001-01",
        );
        let batch = consumer.next_batch(100, WAIT).await.unwrap();
        times.push(appended.elapsed());
        assert_eq!(batch.len(), 1);
        consumer.ack_through(batch[0].position).await.unwrap();
    }
    times.sort();
    println!(
        "append to delivery: p50 {:?}, worst {:?}",
        times[25], times[49]
    );
    assert!(times[25] < Duration::from_millis(50), "{times:?}");
    relay.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_opens_a_partition_takes_it_from_the_other() {
    let world = World::on_shared_server().await;
    let relay = world.relay();
    world.log.grow(1_000);
    world.caught_up().await;
    let mut zombie = world.open(Position::ZERO).await;
    let all = world.logged(Position::ZERO).await;
    read(&mut zombie, all.len()).await;
    let mut owner = world.open(Position::ZERO).await;
    assert!(matches!(
        fails(&mut zombie).await,
        ConsumeError::Gone { .. }
    ));
    assert_eq!(read(&mut owner, all.len()).await, all);
    relay.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_made_anew_is_noticed() {
    let world = World::on_shared_server().await;
    let relay = world.relay();
    world.log.grow(1_000);
    world.caught_up().await;
    let mut consumer = world.open(Position::ZERO).await;
    let all = world.logged(Position::ZERO).await;
    read(&mut consumer, all.len()).await;
    world.publish_foreign().await;
    let error = fails(&mut consumer).await;
    assert!(
        matches!(error, ConsumeError::Gone { .. } | ConsumeError::Foreign(_)),
        "{error}"
    );
    world.repaired("foreign").await;
    world.log.grow(100);
    world.caught_up().await;
    let before = consumer.stream_identity();
    let checkpoint = *all.last().unwrap();
    let mut consumer = world.open(checkpoint).await;
    assert_ne!(consumer.stream_identity(), before);
    let rest = world.logged(checkpoint).await;
    assert_eq!(read(&mut consumer, rest.len()).await, rest);
    relay.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_foreign_message_that_a_relay_passed_over_is_reported_and_driven_out() {
    let world = World::on_shared_server().await;
    world.log.grow(3_000);
    let stream = world.names().stream(&world.context);
    let subject = world
        .names()
        .subject(&world.context, partition(), "order.created");
    // Everything as the relay would have it, but for one message long ago.
    let events = world.log.events();
    for event in &events {
        let message = millrace_streaming::wire::encode(world.names(), event);
        let js = &world.nats.jetstream;
        let acknowledged = if event.position == position(1_000) {
            js.publish(subject.clone(), "not an event".into()).await
        } else {
            js.publish_with_headers(message.subject, message.headers, message.body)
                .await
        };
        if event.position.get() % 1_000 == 0 {
            acknowledged.unwrap().await.unwrap();
        }
    }
    let relay = world.relay();
    world.caught_up().await;
    // As a projector would: open, read, fail, open again. Signals may be lost.
    let mut found = None;
    while world.repairs("foreign") == 0 {
        let mut consumer = world.open(Position::ZERO).await;
        loop {
            match consumer.next_batch(100, Duration::from_millis(100)).await {
                Ok(batch) if batch.is_empty() => break,
                Ok(_) => {}
                Err(ConsumeError::Foreign(foreign)) => {
                    found = Some((foreign.stream, foreign.sequence));
                    break;
                }
                Err(_) => break,
            }
        }
    }
    assert_eq!(found, Some((stream, 1_000)));
    world.repaired("foreign").await;
    world.assert_stream_is_log().await;
    relay.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_stream_no_longer_holds_is_said() {
    let world = World::on_shared_server().await;
    let relay = world.relay();
    world.log.grow(1_000);
    world.caught_up().await;
    let stream = world.names().stream(&world.context);
    let stream = world.nats.jetstream.get_stream(&stream).await.unwrap();
    stream.purge().sequence(501).await.unwrap();
    let mut consumer = world.open(position(100)).await;
    assert_eq!(consumer.first_position(), position(501));
    let rest = world.logged(position(500)).await;
    assert_eq!(read(&mut consumer, rest.len()).await, rest);
    relay.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn slow_work_is_not_delivered_again() {
    let world = World::on_shared_server().await;
    let relay = world.relay();
    world.log.grow(1_000);
    world.caught_up().await;
    let options = ConsumerOptions {
        ack_wait: Duration::from_millis(400),
        ..ConsumerOptions::default()
    };
    let mut consumer = world.open_with(Position::ZERO, options).await;
    let all = world.logged(Position::ZERO).await;
    let mut batch = Vec::new();
    while batch.len() < all.len() {
        batch.extend(consumer.next_batch(all.len(), WAIT).await.unwrap());
    }
    consumer
        .while_working(tokio::time::sleep(Duration::from_millis(1_500)))
        .await;
    let server = world.server_consumer().await;
    assert_eq!(server.get_info().await.unwrap().num_redelivered, 0);
    // Without a heartbeat the server delivers again, and that is left out here.
    tokio::time::sleep(Duration::from_millis(1_000)).await;
    let again = consumer
        .next_batch(all.len(), Duration::from_millis(300))
        .await
        .unwrap();
    assert_eq!(again.len(), 0);
    assert!(server.get_info().await.unwrap().num_redelivered > 0);
    consumer.ack_through(*all.last().unwrap()).await.unwrap();
    relay.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_consumer_is_opened_again_after_its_server_was_lost() {
    let mut server = own_nats().await;
    let world = World::on(server.connect().await).await;
    let relay = world.relay();
    world.log.grow(1_000);
    world.caught_up().await;
    let mut consumer = world.open(Position::ZERO).await;
    let all = world.logged(Position::ZERO).await;
    read(&mut consumer, all.len() / 2).await;
    server.kill().await;
    server.restart().await;
    assert!(matches!(
        fails(&mut consumer).await,
        ConsumeError::Gone { .. }
    ));
    world.log.grow(100);
    let checkpoint = all[all.len() / 2];
    let mut consumer = world.open(checkpoint).await;
    let rest = world.logged(checkpoint).await;
    assert_eq!(read(&mut consumer, rest.len()).await, rest);
    relay.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_context_without_a_stream_is_said() {
    let world = World::on_shared_server().await;
    let stream = world.names().stream(&world.context);
    world.nats.jetstream.delete_stream(&stream).await.unwrap();
    let spec = world.spec(partition());
    let opened = PartitionConsumer::open(
        &world.topology,
        spec,
        Position::ZERO,
        ConsumerOptions::default(),
    );
    assert!(matches!(opened.await, Err(ConsumeError::NoStream { .. })));
    PartitionConsumer::delete(&world.topology, &world.spec(partition()))
        .await
        .unwrap();
}
