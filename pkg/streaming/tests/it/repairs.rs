use std::{path::Path, time::Duration};

use millrace_streaming::{RelayOptions, wire};
use millrace_testkit::{eventually, own_nats};

use crate::world::{BOUND, LEASE, RELAY, World, position};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_goes_on_after_nats_was_killed_under_load() {
    let mut server = own_nats().await;
    let world = World::on(server.connect().await).await;
    let relay = world.relay();
    for round in 0..3 {
        for _ in 0..20 {
            world.log.grow(20);
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        server.kill().await;
        world.log.grow(100);
        server.restart().await;
        world.log.grow(100);
        let stream = world.assert_stream_is_log().await;
        assert_eq!(stream.last, position((round + 1) * 600));
    }
    relay.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_goes_on_after_nats_stood_still() {
    let mut server = own_nats().await;
    let world = World::on(server.connect().await).await;
    let relay = world.relay();
    world.log.grow(100);
    world.caught_up().await;
    server.pause();
    world.log.grow(3_000);
    // Longer than the lease lives.
    tokio::time::sleep(LEASE.ttl + LEASE.renew_every).await;
    server.resume();
    world.log.grow(100);
    world.assert_stream_is_log().await;
    relay.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_emptied_with_its_server_is_made_anew() {
    let mut server = own_nats().await;
    let world = World::on(server.connect().await).await;
    let options = RelayOptions {
        refill_events: 40,
        ..RELAY
    };
    let relay = world.relay_with(&world.log, &world.nats.namespace, options);
    world.log.grow(100);
    let before = world.assert_stream_is_log().await;
    server.wipe().await;
    let after = world.assert_stream_is_log().await;
    assert_ne!(before.identity, after.identity);
    assert_eq!(after.first, position(61), "only the newest are filled in");
    assert_eq!(world.repairs("missing"), 1);
    let letters = world.names().dead_letter_stream();
    eventually("the other streams to stand again", BOUND, || async {
        world.nats.jetstream.get_stream(&letters).await.ok()
    })
    .await;
    world.log.grow(10);
    world.assert_stream_is_log().await;
    relay.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_tail_lost_with_its_server_is_published_again() {
    let mut server = own_nats().await;
    let world = World::on(server.connect().await).await;
    let relay = world.relay();
    world.log.grow(100);
    world.assert_stream_is_log().await;
    server.stop().await;
    let copy = server.data().with_extension("copy");
    copy_folder(server.data(), &copy);
    server.restart().await;
    world.log.grow(50);
    world.assert_stream_is_log().await;
    server.kill().await;
    server_data_from(&copy, server.data());
    server.restart().await;
    world.repaired("tail_lost").await;
    let stream = world.assert_stream_is_log().await;
    assert_eq!((stream.first, stream.last), (position(1), position(150)));
    relay.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_foreign_message_at_the_tail_is_found_while_idle() {
    let world = World::on_shared_server().await;
    let relay = world.relay();
    world.log.grow(100);
    let before = world.assert_stream_is_log().await;
    world.publish_foreign().await;
    world.repaired("foreign").await;
    let after = world.assert_stream_is_log().await;
    assert_ne!(before.identity, after.identity);
    assert_eq!(world.log.halted(), None);
    relay.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_forged_copy_in_an_events_own_place_is_driven_out() {
    let world = World::on_shared_server().await;
    let relay = world.relay();
    world.log.grow(10);
    world.assert_stream_is_log().await;
    relay.stop().await;
    world.log.grow(1);
    let event = world.log.events().pop().unwrap();
    let copy = wire::encode(world.names(), &event);
    let publish = world.nats.jetstream.publish_with_headers(
        copy.subject,
        copy.headers,
        "{\"not\":\"yours\"}".into(),
    );
    assert_eq!(publish.await.unwrap().await.unwrap().sequence, 11);

    let relay = world.relay();
    world.repaired("foreign").await;
    world.assert_stream_is_log().await;
    assert_eq!(world.log.halted(), None);
    relay.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn foreign_messages_among_the_relays_own_are_driven_out() {
    let world = World::on_shared_server().await;
    let relay = world.relay();
    for round in 0..60 {
        world.log.grow(20);
        if round % 20 == 10 {
            world.publish_foreign().await;
        }
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    world.repaired("foreign").await;
    world.assert_stream_is_log().await;
    assert_eq!(world.log.halted(), None);
    relay.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_deleted_stream_is_made_anew() {
    let world = World::on_shared_server().await;
    let relay = world.relay();
    world.log.grow(100);
    world.caught_up().await;
    let name = world.names().stream(&world.context);
    world.nats.jetstream.delete_stream(&name).await.unwrap();
    world.repaired("missing").await;
    world.log.grow(10);
    world.assert_stream_is_log().await;
    relay.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_purged_stream_goes_on_where_it_was() {
    let world = World::on_shared_server().await;
    let relay = world.relay();
    world.log.grow(100);
    let before = world.caught_up().await;
    let name = world.names().stream(&world.context);
    let stream = world.nats.jetstream.get_stream(&name).await.unwrap();
    stream.purge().await.unwrap();
    world.log.grow(10);
    let after = world.assert_stream_is_log().await;
    assert_eq!(after.identity, before.identity);
    assert_eq!((after.first, after.events), (position(101), 10));
    relay.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_without_its_log_s_past_is_filled_from_the_newest() {
    let world = World::on_shared_server().await;
    world.log.grow(500);
    let options = RelayOptions {
        refill_events: 100,
        ..RELAY
    };
    // It was made by the topology, before anybody knew how long the log is.
    let relay = world.relay_with(&world.log, &world.nats.namespace, options);
    let stream = world.assert_stream_is_log().await;
    assert_eq!(stream.first, position(401));
    assert_eq!(world.repairs("emptied"), 1);
    relay.stop().await;
}

fn server_data_from(copy: &Path, data: &Path) {
    std::fs::remove_dir_all(data).unwrap();
    copy_folder(copy, data);
}

fn copy_folder(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy_folder(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), target).unwrap();
        }
    }
}
