use async_nats::jetstream::{
    AckKind,
    consumer::{AckPolicy, pull},
};
use futures::StreamExt;
use millrace_es::Partition;
use millrace_kernel::Timestamp;
use millrace_streaming::{
    AdvisoryCounter, DeadLetter, DeadLetterPublisher, Progress, Signals, TopologyOptions,
};
use millrace_testkit::eventually;
use tokio_util::sync::CancellationToken;

use crate::world::{BOUND, World, metric, position};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn dead_letters_are_published_with_what_went_wrong() {
    let world = World::on_shared_server().await;
    world.log.grow(1);
    let event = &world.log.events()[0];
    let publisher = DeadLetterPublisher::new(world.nats.jetstream.clone(), world.names().clone());
    let (first, last) = (Timestamp::now(), Timestamp::now());
    let letter = DeadLetter {
        event,
        projection: "orders-by-user",
        reason_class: "malformed",
        error: "amount is \"é\"",
        attempts: 3,
        first_failed_at: first,
        last_failed_at: last,
    };
    publisher.publish(&letter).await.unwrap();
    publisher.publish(&letter).await.unwrap();

    let stream = world.names().dead_letter_stream();
    let stream = world.nats.jetstream.get_stream(&stream).await.unwrap();
    assert_eq!(
        stream.cached_info().state.messages,
        2,
        "a second copy does no harm"
    );
    let message = stream.get_raw_message(1).await.unwrap();
    let subject = format!(
        "{}.dead.{}.orders-by-user.malformed",
        world.nats.namespace, world.context
    );
    assert_eq!(message.subject.as_str(), subject);
    assert_eq!(&*message.payload, event.payload.get().as_bytes());
    for (name, value) in [
        ("ce-id", event.id.to_string()),
        ("ce-position", "1".to_owned()),
        ("millrace-projection", "orders-by-user".to_owned()),
        ("millrace-reason", "malformed".to_owned()),
        ("millrace-error", "amount%20is%20%22%C3%A9%22".to_owned()),
        ("millrace-attempts", "3".to_owned()),
        ("millrace-first-failure", first.to_string()),
        ("millrace-last-failure", last.to_string()),
        ("millrace-position", "1".to_owned()),
    ] {
        let found = message.headers.get(name).map(|value| value.as_str());
        assert_eq!(found, Some(value.as_str()), "{name}");
    }
    let expectation = message.headers.get("Nats-Expected-Last-Sequence");
    assert_eq!(expectation, None, "it is no part of the event");
    let odd = DeadLetter {
        reason_class: "a.b",
        ..letter
    };
    assert!(publisher.publish(&odd).await.is_err());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn deliveries_given_up_are_counted() {
    let world = World::on_shared_server().await;
    world.log.grow(4);
    let relay = world.relay();
    world.caught_up().await;
    let stop = CancellationToken::new();
    let counter = AdvisoryCounter::new(world.topology.clone());
    let counting = tokio::spawn(counter.run(stop.clone()));
    let series = |kind| format!("millrace_jetstream_advisories_total{{kind=\"{kind}\"}}");
    let before = [
        metric(&series("max_deliveries")),
        metric(&series("msg_terminated")),
    ];

    // A consumer of somebody else's on our stream, which gives up.
    let stream = world.names().stream(&world.context);
    let stream = world.nats.jetstream.get_stream(&stream).await.unwrap();
    let config = pull::Config {
        durable_name: Some("somebody".to_owned()),
        ack_policy: AckPolicy::Explicit,
        ack_wait: std::time::Duration::from_millis(50),
        max_deliver: 1,
        ..pull::Config::default()
    };
    let consumer = stream.create_consumer(config).await.unwrap();
    let mut messages = consumer.fetch().max_messages(4).messages().await.unwrap();
    for _ in 0..2 {
        let message = messages.next().await.unwrap().unwrap();
        message.ack_with(AckKind::Term).await.unwrap();
    }
    eventually("both kinds to be counted", BOUND, || async {
        // Asking makes the server look at what was not acknowledged in time.
        let mut asked = consumer.fetch().max_messages(1).messages().await.ok()?;
        while asked.next().await.is_some() {}
        let now = [
            metric(&series("max_deliveries")),
            metric(&series("msg_terminated")),
        ];
        (now[0] >= before[0] + 2 && now[1] >= before[1] + 2).then_some(())
    })
    .await;
    stop.cancel();
    counting.await.unwrap();
    relay.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn signals_reach_who_listens() {
    let world = World::on_shared_server().await;
    let signals = Signals::new(world.nats.client.clone(), world.names().clone());
    let mut appended = signals.on_appended(&world.context).await.unwrap();
    let mut progress = signals.on_progress("orders-by-user").await.unwrap();
    for number in 1..=5 {
        signals
            .appended(&world.context, position(number))
            .await
            .unwrap();
    }
    let step = Progress {
        context: world.context.clone(),
        generation: "1".to_owned(),
        partition: Partition::new(3),
        position: position(5),
    };
    signals.progress("orders-by-user", &step).await.unwrap();
    assert_eq!(progress.next().await, Some(step));
    let mut highest = position(0);
    while highest < position(5) {
        highest = appended.next().await.unwrap();
    }
    assert!(signals.on_progress("a.b").await.is_err());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_topology_stands_however_often_and_keeps_an_operators_limits() {
    let world = World::on_shared_server().await;
    let jetstream = &world.nats.jetstream;
    let name = world.names().stream(&world.context);
    let mut limited = jetstream
        .get_stream(&name)
        .await
        .unwrap()
        .cached_info()
        .config
        .clone();
    assert!(limited.deny_delete && limited.allow_direct);
    limited.max_bytes = 1_000_000;
    limited.allow_direct = false;
    jetstream.update_stream(&limited).await.unwrap();

    let contexts = [world.context.clone()];
    let again = (0..4).map(|_| world.topology.ensure(&contexts));
    for ensured in futures::future::join_all(again).await {
        ensured.unwrap();
    }
    let config = jetstream
        .get_stream(&name)
        .await
        .unwrap()
        .cached_info()
        .config
        .clone();
    assert_eq!(config.max_bytes, 1_000_000, "the operator's");
    assert!(config.allow_direct, "ours");

    // A newer release was here: its settings are left alone.
    let mut newer = config.clone();
    newer
        .metadata
        .insert("millrace-topology".to_owned(), "1000".to_owned());
    newer.allow_direct = false;
    jetstream.update_stream(&newer).await.unwrap();
    world.topology.ensure(&contexts).await.unwrap();
    let config = jetstream
        .get_stream(&name)
        .await
        .unwrap()
        .cached_info()
        .config
        .clone();
    assert!(!config.allow_direct);
    assert_eq!(TopologyOptions::default().replicas, 1);
}
