use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use millrace_streaming::RelayOptions;
use millrace_testkit::{eventually, namespace};
use tokio::time::Instant;

use crate::world::{BOUND, LEASE, RELAY, World, metric, position};

/// Only a wake-up can be in time.
const NEVER_POLLS: RelayOptions = RelayOptions {
    poll_every: Duration::from_secs(3_600),
    ..RELAY
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_event_becomes_the_sequence_of_its_position() {
    let world = World::on_shared_server().await;
    world.log.grow(1_500);
    let relay = world.relay();
    for _ in 0..30 {
        world.log.grow(50);
        tokio::task::yield_now().await;
    }
    let stream = world.assert_stream_is_log().await;
    assert_eq!((stream.first, stream.last), (position(1), position(3_000)));
    let published = format!(
        "millrace_relay_published_total{{context=\"{}\"}}",
        world.context
    );
    assert_eq!(metric(&published), 3_000);
    relay.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_append_wakes_the_relay_at_once() {
    let world = World::on_shared_server().await;
    let relay = world.relay_with(&world.log, &world.nats.namespace, NEVER_POLLS);
    world.log.grow(1);
    world.caught_up().await;
    world.log.grow(1);
    world.caught_up().await;
    relay.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_append_elsewhere_wakes_the_relay_by_a_signal() {
    let world = World::on_shared_server().await;
    let relay = world.relay_with(&world.log, &world.nats.namespace, NEVER_POLLS);
    world.log.grow(1);
    world.caught_up().await;
    let elsewhere = world.log.in_another_process();
    let standby = world.relay_with(&elsewhere, &world.nats.namespace, NEVER_POLLS);
    // A signal before the other relay listens is lost, and made good by the next.
    eventually("a signalled append to be published", BOUND, || async {
        elsewhere.grow(1);
        tokio::time::sleep(Duration::from_millis(20)).await;
        let stream = world.stream().await?;
        (stream.last > position(1) && stream.last == world.log.position()).then_some(())
    })
    .await;
    standby.stop().await;
    relay.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn relays_at_work_at_once_do_no_harm() {
    let world = Arc::new(World::on_shared_server().await);
    // Each has a lease of its own, so all of them publish.
    let relays: Vec<_> = (0..4)
        .map(|_| world.relay_with(&world.log.in_another_process(), &namespace(), RELAY))
        .collect();
    let growing = Arc::clone(&world);
    let writer = tokio::spawn(async move {
        for _ in 0..200 {
            growing.log.grow(10);
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    });
    writer.await.unwrap();
    let stream = world.assert_stream_is_log().await;
    assert_eq!(stream.last, position(2_000));
    for kind in [
        "foreign",
        "emptied",
        "missing",
        "epoch",
        "log_behind",
        "tail_lost",
    ] {
        assert_eq!(world.repairs(kind), 0, "{kind}");
    }
    for relay in relays {
        relay.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_relay_takes_over_from_a_killed_one() {
    let world = World::on_shared_server().await;
    let first = world.relay();
    world.log.grow(100);
    world.caught_up().await;
    let standby = world.relay();
    world.log.grow(100);
    world.caught_up().await;
    first.kill().await;
    let killed = Instant::now();
    world.log.grow(100);
    world.assert_stream_is_log().await;
    let slack = Duration::from_secs(2);
    assert!(killed.elapsed() < LEASE.ttl + LEASE.renew_every * 2 + slack);
    standby.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_relay_that_stops_in_order_hands_over_at_once() {
    let world = World::on_shared_server().await;
    let first = world.relay();
    world.log.grow(10);
    world.caught_up().await;
    let standby = world.relay();
    first.stop().await;
    let stopped = Instant::now();
    world.log.grow(10);
    world.caught_up().await;
    assert!(
        stopped.elapsed() < LEASE.ttl,
        "it did not wait for the lease to expire"
    );
    standby.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_paused_relay_that_wakes_up_does_no_harm() {
    let world = World::on_shared_server().await;
    let paused = world.relay();
    world.log.grow(500);
    // In the middle of its work, with messages on their way.
    paused.pause();
    let other = world.relay_with(
        &world.log.in_another_process(),
        &world.nats.namespace,
        RELAY,
    );
    world.log.grow(500);
    world.caught_up().await;
    paused.resume();
    for _ in 0..20 {
        world.log.grow(25);
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let stream = world.assert_stream_is_log().await;
    assert_eq!(stream.last, position(1_500));
    other.stop().await;
    world.log.grow(10);
    world.assert_stream_is_log().await;
    paused.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_sampled_events_get_a_span_of_their_trace() {
    static CONTINUED: Mutex<Vec<String>> = Mutex::new(Vec::new());
    let world = World::on_shared_server().await;
    let parent = |number: u64, flags: &str| format!("00-{number:032x}-{number:016x}-{flags}");
    let options = RelayOptions {
        continue_trace: |_, parent| CONTINUED.lock().unwrap().push(parent.to_owned()),
        ..RELAY
    };
    for number in 1..=3 {
        world.log.grow_traced("order-1", &parent(number, "01"));
        world.log.grow_traced("order-1", &parent(number, "00"));
    }
    world.log.grow_traced("order-1", "nonsense");
    let relay = world.relay_with(&world.log, &world.nats.namespace, options);
    world.caught_up().await;
    relay.stop().await;
    let expected: Vec<_> = (1..=3).map(|number| parent(number, "01")).collect();
    assert_eq!(*CONTINUED.lock().unwrap(), expected);
}
