use std::{sync::Arc, time::Duration};

use futures::future::join_all;
use millrace_es::{EventId, Metadata, NewEvent, PartitionCount, Position, RecordedEvent, StreamId};
use millrace_eventlog::{
    AppendRequest, EventLog, ExpectedVersion, StreamAppend,
    dynamodb::{
        DynamoEventLog, DynamoLogOptions, create_log_table,
        streams::{StreamProcessor, StreamsOptions},
        table_name,
    },
};
use millrace_testkit::{Dynamo, eventually, namespace};
use serde_json::value::RawValue;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::{
    scripted_streams::clients,
    world::{BOUND, RelayTask, World, metric, position},
};

const OPTIONS: StreamsOptions = StreamsOptions {
    call_every: Duration::from_millis(20),
    poll_every: Duration::from_millis(100),
    look_every: Duration::from_millis(200),
    // What the log gives is told apart from what the stream gives.
    hole_patience: Duration::from_secs(3_600),
    buffer_events: 10_000,
    buffer_bytes: 10_000_000,
    checkpoint_every: Duration::from_millis(100),
    discover_every: Duration::from_millis(500),
    linger: Duration::from_secs(10),
};

/// A log in the embedded DynamoDB, and the JetStream stream that is made of its table's stream.
struct Bank {
    world: World,
    dynamo: Dynamo,
    log: Arc<DynamoEventLog>,
}

impl Bank {
    async fn open() -> Self {
        let world = World::on_shared_server().await;
        let dynamo = millrace_testkit::dynamodb().await;
        let (client, prefix) = (&dynamo.client, &dynamo.prefix);
        create_log_table(client, prefix, &world.context, PartitionCount::DEFAULT)
            .await
            .unwrap();
        Self {
            log: open_log(&world, &dynamo).await,
            world,
            dynamo,
        }
    }

    /// Appends so many events to as many accounts, at once.
    async fn grow(&self, count: u64) {
        let appends = (0..count).map(|number| async move {
            let append = StreamAppend {
                stream: StreamId::new(&format!("account-{number}")).unwrap(),
                expected: ExpectedVersion::Any,
                events: vec![deposit()],
            };
            let request = AppendRequest {
                streams: vec![append],
                ..AppendRequest::default()
            };
            self.log.append(request).await.unwrap();
        });
        join_all(appends).await;
    }

    /// A process with a processor and a relay that it feeds.
    async fn process(&self, lease_namespace: &str) -> Process {
        let log = open_log(&self.world, &self.dynamo).await as Arc<dyn EventLog>;
        let (tables, streams) = clients(&self.dynamo.endpoint);
        let table = table_name(&self.dynamo.prefix, &self.world.context);
        let processor = StreamProcessor::new(Arc::clone(&log), tables, streams, table, OPTIONS);
        let relay = self
            .world
            .relay_fed_by(processor.feed(), log, lease_namespace);
        let stop = CancellationToken::new();
        Process {
            relay,
            work: tokio::spawn(processor.run(stop.clone())),
            stop,
        }
    }

    fn lease(&self) -> &str {
        &self.world.nats.namespace
    }

    async fn events(&self) -> Vec<RecordedEvent> {
        self.log.read_log(Position::ZERO, 5_000).await.unwrap()
    }

    /// Waits until every event has the sequence of its position.
    async fn is_published(&self, events: u64) {
        let logged = self.events().await;
        assert_eq!(logged.len() as u64, events);
        let stream = self.world.assert_stream_is(|| logged.clone()).await;
        assert_eq!((stream.first, stream.last), (position(1), position(events)));
    }

    fn counted(&self, name: &str) -> u64 {
        let context = &self.world.context;
        metric(&format!(
            "millrace_dynamodb_stream_{name}{{context=\"{context}\"}}"
        ))
    }

    fn gap_events(&self, reason: &str) -> u64 {
        let context = &self.world.context;
        metric(&format!(
            "millrace_dynamodb_stream_gap_events_total{{context=\"{context}\",reason=\"{reason}\"}}"
        ))
    }

    /// Appends until an event comes out of the table's stream: how many that took.
    async fn is_read(&self) -> u64 {
        let before = self.counted("events_total");
        let appended = std::cell::Cell::new(0);
        eventually("an event to come out of the shard", BOUND, || async {
            self.grow(1).await;
            appended.set(appended.get() + 1);
            tokio::time::sleep(Duration::from_millis(200)).await;
            (self.counted("events_total") > before).then_some(())
        })
        .await;
        appended.get()
    }

    fn assert_no_repairs(&self) {
        for kind in [
            "foreign",
            "emptied",
            "missing",
            "epoch",
            "log_behind",
            "tail_lost",
        ] {
            assert_eq!(self.world.repairs(kind), 0, "{kind}");
        }
    }
}

async fn open_log(world: &World, dynamo: &Dynamo) -> Arc<DynamoEventLog> {
    let options = DynamoLogOptions::new(dynamo.prefix.clone(), world.context.clone());
    let log = DynamoEventLog::open(dynamo.client.clone(), options).await;
    Arc::new(log.unwrap())
}

fn deposit() -> NewEvent {
    NewEvent {
        id: EventId::generate(),
        event_type: "money.deposited".into(),
        schema_version: 1,
        payload: RawValue::from_string(r#"{"amount": "1.10"}"#.to_owned()).unwrap(),
        metadata: Arc::new(Metadata {
            correlation_id: "test".to_owned(),
            ..Metadata::default()
        }),
    }
}

struct Process {
    relay: RelayTask,
    work: JoinHandle<()>,
    stop: CancellationToken,
}

impl Process {
    /// Without a word, as SIGKILL does.
    async fn kill(self) {
        self.work.abort();
        let _ended = self.work.await;
        self.relay.kill().await;
    }

    async fn stop(self) {
        self.stop.cancel();
        self.relay.stop().await;
        tokio::time::timeout(BOUND, self.work)
            .await
            .unwrap()
            .unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_tables_stream_becomes_the_jetstream_stream() {
    let bank = Bank::open().await;
    bank.grow(20).await;
    let process = bank.process(bank.lease()).await;
    let before = 20 + bank.is_read().await;
    let (read, past) = (bank.counted("events_total"), bank.gap_events("past"));
    bank.grow(100).await;
    bank.is_published(before + 100).await;
    assert_eq!(bank.counted("events_total"), read + 100);
    assert_eq!(
        (bank.gap_events("past"), bank.gap_events("hole")),
        (past, 0)
    );
    assert!(past >= 20, "appended before anybody listened");
    process.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_processor_that_is_killed_in_the_middle_is_followed_by_another() {
    let bank = Arc::new(Bank::open().await);
    let mut process = bank.process(bank.lease()).await;
    let before = bank.is_read().await;
    let growing = Arc::clone(&bank);
    let writer = tokio::spawn(async move {
        for _ in 0..60 {
            growing.grow(5).await;
        }
    });
    for killed in 1..=3_u64 {
        let at = position(killed * 60);
        eventually("the stream to get on", BOUND, || async {
            (bank.world.stream().await?.last >= at).then_some(())
        })
        .await;
        process.kill().await;
        process = bank.process(bank.lease()).await;
    }
    writer.await.unwrap();
    bank.is_published(before + 300).await;
    bank.assert_no_repairs();
    process.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_processors_at_once_do_no_harm() {
    let bank = Bank::open().await;
    // Each relay has a lease of its own, so both publish.
    let first = bank.process(&namespace()).await;
    let second = bank.process(&namespace()).await;
    let before = bank.is_read().await;
    for _ in 0..40 {
        bank.grow(5).await;
    }
    bank.is_published(before + 200).await;
    bank.assert_no_repairs();
    first.stop().await;
    bank.grow(20).await;
    bank.is_published(before + 220).await;
    second.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_that_was_lost_is_made_anew_from_the_log() {
    let bank = Bank::open().await;
    let process = bank.process(bank.lease()).await;
    let before = bank.is_read().await;
    bank.grow(80).await;
    bank.is_published(before + 80).await;
    // The processor has handed out everything, and is asked for all of it again.
    let stream = bank.world.names().stream(&bank.world.context);
    bank.world
        .nats
        .jetstream
        .delete_stream(stream)
        .await
        .unwrap();
    bank.grow(10).await;
    bank.world.repaired("missing").await;
    bank.is_published(before + 90).await;
    process.stop().await;
}
