use millrace_es::{Epoch, StreamId};
use millrace_eventlog::{AppendError, AppendRequest, EventLog as _, ExpectedVersion, StreamAppend};
use millrace_streaming::{
    LogCheck, RecoverError, check_log_against_stream, import_tail_from_stream, new_epoch,
};
use millrace_testkit::eventually;

use crate::world::{BOUND, World, position};

async fn halted(world: &World) -> String {
    eventually("the log to be halted", BOUND, || async {
        world.log.halted()
    })
    .await
}

async fn append(world: &World) -> Result<(), AppendError> {
    let request = AppendRequest {
        streams: vec![StreamAppend {
            stream: StreamId::new("order-1").unwrap(),
            expected: ExpectedVersion::Any,
            events: Vec::new(),
        }],
        ..AppendRequest::default()
    };
    world.log.append(request).await.map(|_| ())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restored_log_is_halted_and_takes_its_tail_back() {
    let world = World::on_shared_server().await;
    let relay = world.relay();
    world.log.grow(300);
    world.assert_stream_is_log().await;
    let all = world.log.ids();
    world.log.restore_to(position(200));
    let reason = halted(&world).await;
    assert!(reason.contains("200") && reason.contains("300"), "{reason}");
    assert!(matches!(
        append(&world).await,
        Err(AppendError::Halted { .. })
    ));
    assert_eq!(
        world.stream().await.unwrap().last,
        position(300),
        "nothing was touched"
    );

    let imported = import_tail_from_stream(&*world.log, &world.topology)
        .await
        .unwrap();
    assert_eq!(
        (imported.first, imported.head),
        (position(201), position(300))
    );
    assert_eq!(world.log.ids(), all);
    world.repaired("recovered").await;
    append(&world).await.unwrap();
    world.log.grow(100);
    world.assert_stream_is_log().await;
    assert_eq!(world.repairs("log_behind"), 1);
    relay.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restored_log_can_begin_a_new_epoch() {
    let world = World::on_shared_server().await;
    let relay = world.relay();
    world.log.grow(300);
    let before = world.assert_stream_is_log().await;
    world.log.restore_to(position(200));
    halted(&world).await;

    let head = new_epoch(&*world.log, &world.topology).await.unwrap();
    assert_eq!((head.epoch, head.position), (Epoch::new(2), position(200)));
    world.log.grow(50);
    let after = world.assert_stream_is_log().await;
    assert_ne!(before.identity, after.identity);
    assert_eq!(
        (after.epoch, after.last),
        (Some(Epoch::new(2)), position(250))
    );
    assert_eq!(world.log.halted(), None);
    relay.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_epoch_that_began_while_nats_was_away_reaches_the_stream() {
    let world = World::on_shared_server().await;
    let relay = world.relay();
    world.log.grow(100);
    world.caught_up().await;
    relay.stop().await;
    world.log.restore_to(position(50));
    world.log.start_epoch().await.unwrap();
    world.log.grow(100);
    let relay = world.relay();
    let stream = world.assert_stream_is_log().await;
    assert_eq!(stream.epoch, Some(Epoch::new(2)));
    assert_eq!(world.repairs("epoch"), 1);
    relay.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restored_log_that_went_on_is_halted_and_cannot_take_its_tail_back() {
    let world = World::on_shared_server().await;
    let relay = world.relay();
    world.log.grow(300);
    world.caught_up().await;
    relay.stop().await;
    world.log.restore_to(position(200));
    world.log.grow(50);
    let relay = world.relay();
    halted(&world).await;
    let refused = import_tail_from_stream(&*world.log, &world.topology).await;
    assert!(
        matches!(refused, Err(RecoverError::DoesNotContinue(_))),
        "{refused:?}"
    );
    assert_eq!(world.log.position(), position(250), "nothing was taken");

    new_epoch(&*world.log, &world.topology).await.unwrap();
    world.log.grow(100);
    world.assert_stream_is_log().await;
    relay.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_log_that_overtook_its_stream_after_a_restore_is_halted_too() {
    let world = World::on_shared_server().await;
    let relay = world.relay();
    world.log.grow(300);
    world.caught_up().await;
    relay.stop().await;
    world.log.restore_to(position(200));
    world.log.grow(500);
    let relay = world.relay();
    let reason = halted(&world).await;
    assert!(reason.contains("at 300"), "{reason}");
    relay.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_halt_that_is_lifted_without_a_cure_comes_back() {
    let world = World::on_shared_server().await;
    let relay = world.relay();
    world.log.grow(100);
    world.caught_up().await;
    world.log.restore_to(position(40));
    halted(&world).await;
    world.log.resume().await.unwrap();
    halted(&world).await;
    relay.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_process_finds_the_restored_log_before_it_serves() {
    let world = World::on_shared_server().await;
    let check = || check_log_against_stream(&*world.log, &world.topology);
    assert_eq!(check().await.unwrap(), LogCheck::Fit, "nothing there yet");
    let relay = world.relay();
    world.log.grow(100);
    world.caught_up().await;
    relay.stop().await;
    assert_eq!(check().await.unwrap(), LogCheck::Fit);
    world.log.restore_to(position(99));
    assert!(matches!(check().await.unwrap(), LogCheck::Behind { .. }));
    assert!(world.log.halted().is_some());
    import_tail_from_stream(&*world.log, &world.topology)
        .await
        .unwrap();
    assert_eq!(check().await.unwrap(), LogCheck::Fit);
    let refused = import_tail_from_stream(&*world.log, &world.topology).await;
    assert!(
        matches!(refused, Err(RecoverError::NothingToImport { .. })),
        "{refused:?}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_tail_is_taken_back_as_far_as_it_is_the_logs_own() {
    let world = World::on_shared_server().await;
    let relay = world.relay();
    world.log.grow(100);
    world.caught_up().await;
    relay.stop().await;
    world.publish_foreign().await;
    world.log.restore_to(position(60));
    let imported = import_tail_from_stream(&*world.log, &world.topology)
        .await
        .unwrap();
    assert_eq!(imported.head, position(100));
    assert_eq!(imported.stream_last, position(101));
    let relay = world.relay();
    world.repaired("foreign").await;
    world.assert_stream_is_log().await;
    relay.stop().await;
}
