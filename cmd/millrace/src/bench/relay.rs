//! The relay from the log to the stream, and the consumers behind it.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail};
use async_nats::jetstream::{
    self,
    consumer::{AckPolicy, pull},
    context::ContextBuilder,
    stream::{Compression, Config},
};
use futures::StreamExt;
use millrace_es::{
    Context, EventId, Metadata, NewEvent, Partition, PartitionCount, Position, RecordedEvent,
    StreamId,
};
use millrace_eventlog::{
    AppendRequest, EventLog, ExpectedVersion, PgEventLog, PgLogOptions, StreamAppend, events_after,
};
use millrace_streaming::{
    ConsumerOptions, ConsumerSpec, LeaseOptions, Leases, MemberId, Names, PartitionConsumer, Relay,
    RelayOptions, Topology, TopologyOptions, wire,
};
use serde_json::value::RawValue;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::{
    BenchContext, Figure, Target,
    timing::{bounded, per_second},
};

/// Events in the log, in a full run and in a quick one.
const EVENTS: (u64, u64) = (200_000, 4_000);
/// Appends under way while the log is filled, and the events of each.
const FILLERS: u64 = 16;
const FILL_EVENTS: u64 = 250;
/// How often each side is measured; the better of each counts, so that a disturbance does not.
const ROUNDS: (usize, usize) = (3, 1);
/// Messages on their way, for the publisher that expects nothing: as many as for the relay.
const IN_FLIGHT: usize = 1_024;
/// Events per acknowledgement of a consumer.
const ACK_EVERY: usize = 500;
/// How often the stream is asked how far it is.
const LOOK_EVERY: Duration = Duration::from_millis(5);

/// Measures the relay from a PostgreSQL log against a publisher without expectations, and the
/// partitions' consumers against a plain one.
///
/// # Errors
/// When a server fails, or a measurement does not end.
pub async fn run(bench: &BenchContext) -> anyhow::Result<Vec<Figure>> {
    let bed = Bed::make(bench).await?;
    let rounds = bench.size(ROUNDS.0, ROUNDS.1);
    let (mut published, mut relayed) = (0.0_f64, 0.0_f64);
    let (mut pulled, mut consumed) = (0.0_f64, 0.0_f64);
    for round in 1..=rounds {
        bench.say(&format!("round {round} of {rounds}"));
        published = published.max(bed.publish(bench).await?);
        let names = Names::new(&bench.fresh_name("relay"))?;
        relayed = relayed.max(bed.relay(&names).await?);
        pulled = pulled.max(bed.pull(&names).await?);
        consumed = consumed.max(bed.consume(&names).await?);
    }
    Ok(vec![
        Figure::new("relay.publish", relayed, "events/s")
            .over("asynchronous publisher without expectations", published)
            .target(Target::RatioAtLeast(0.6)),
        Figure::new("relay.consume", consumed, "events/s").over(
            "one plain pull consumer, one acknowledgement per 500",
            pulled,
        ),
    ])
}

/// A log full of events, and a connection.
struct Bed {
    log: Arc<PgEventLog>,
    jetstream: jetstream::Context,
    /// The whole log, for the publisher that has nothing to read.
    events: Vec<RecordedEvent>,
}

/// Runs a relay until the stream has a log through its last position; how long that took.
///
/// # Errors
/// When a server fails, or it does not end.
pub async fn relayed(
    log: Arc<dyn EventLog>,
    topology: &Topology,
    leases: Leases,
    last: Position,
) -> anyhow::Result<Duration> {
    let context = log.context().clone();
    let options = RelayOptions {
        refill_events: last.get(),
        ..RelayOptions::default()
    };
    let relay = Relay::new(log, topology.clone(), leases, options);
    let stop = CancellationToken::new();
    let mut tasks = JoinSet::new();
    let started = Instant::now();
    tasks.spawn(relay.run(stop.clone()));
    let whole = async {
        loop {
            let state = topology.state(&context).await?;
            if state.is_some_and(|state| state.last == last) {
                return anyhow::Ok(());
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    };
    bounded("the relay", whole).await??;
    let took = started.elapsed();
    stop.cancel();
    while let Some(ended) = tasks.join_next().await {
        ended??;
    }
    Ok(took)
}

impl Bed {
    async fn make(bench: &BenchContext) -> anyhow::Result<Self> {
        let count = bench.size(EVENTS.0, EVENTS.1);
        bench.say(&format!("filling a log with {count} events"));
        let database = bench.database("relay").await?;
        let context = Context::new("ordering")?;
        let partitions = PartitionCount::DEFAULT;
        millrace_eventlog::migrate(&database.pool, &context, partitions, &[]).await?;
        let log = PgEventLog::open(database.pool.clone(), PgLogOptions::new(context)).await?;
        let log = Arc::new(log);
        fill(&log, count).await?;
        let mut events = Vec::new();
        let mut read = Box::pin(events_after(
            &*log,
            Position::ZERO,
            Position::new(count),
            1_000,
        ));
        while let Some(event) = read.next().await {
            events.push(event?);
        }
        drop(read);
        let client = millrace_streaming::connect(&bench.nats_url, None, "millrace-bench").await?;
        let jetstream = ContextBuilder::new()
            .max_ack_inflight(IN_FLIGHT)
            .build(client);
        Ok(Self {
            log,
            jetstream,
            events,
        })
    }

    fn count(&self) -> u64 {
        self.events.len() as u64
    }

    fn last(&self) -> Position {
        Position::new(self.count())
    }

    fn topology(&self, names: &Names) -> Topology {
        Topology::new(
            self.jetstream.clone(),
            names.clone(),
            TopologyOptions::default(),
        )
    }

    /// The same messages into a stream like the relay's, by the client's own pipelined publisher.
    async fn publish(&self, bench: &BenchContext) -> anyhow::Result<f64> {
        let names = Names::new(&bench.fresh_name("plain"))?;
        let stream = names.stream(self.log.context());
        let config = Config {
            name: stream.clone(),
            subjects: vec![names.subjects(self.log.context())],
            compression: Some(Compression::S2),
            duplicate_window: Duration::from_millis(100),
            allow_direct: true,
            ..Config::default()
        };
        self.jetstream.create_stream(config).await?;
        let messages: Vec<_> = self
            .events
            .iter()
            .map(|event| {
                let mut message = wire::encode(&names, event);
                let kept = message.headers.iter().map(|(name, values)| {
                    let value = values.first().cloned().unwrap_or_default();
                    (name.clone(), value)
                });
                let expectation = async_nats::header::NATS_EXPECTED_LAST_SEQUENCE;
                message.headers = kept.filter(|(name, _)| *name != expectation).collect();
                message
            })
            .collect();
        let started = Instant::now();
        for message in messages {
            // The client itself waits for the acknowledgements behind.
            let _acknowledged = self
                .jetstream
                .publish_with_headers(message.subject, message.headers, message.body)
                .await?;
        }
        self.jetstream.wait_for_acks().await;
        let took = started.elapsed();
        let info = self.jetstream.get_stream(&stream).await?;
        if info.cached_info().state.messages != self.count() {
            bail!("the plain publisher lost messages");
        }
        self.jetstream.delete_stream(&stream).await?;
        Ok(per_second(self.count(), took))
    }

    /// A relay from its start, lease included, until the stream has the whole log.
    async fn relay(&self, names: &Names) -> anyhow::Result<f64> {
        let topology = self.topology(names);
        let contexts = [self.log.context().clone()];
        topology.ensure(&contexts).await?;
        let member = MemberId::new("bench")?;
        let leases = Leases::new(topology.clone(), member, LeaseOptions::default());
        let log = Arc::clone(&self.log) as Arc<dyn EventLog>;
        let took = relayed(log, &topology, leases, self.last()).await?;
        Ok(per_second(self.count(), took))
    }

    /// A plain consumer of the whole stream, which does not look into the messages.
    async fn pull(&self, names: &Names) -> anyhow::Result<f64> {
        let stream = names.stream(self.log.context());
        let config = pull::Config {
            durable_name: Some("plain".to_owned()),
            ack_policy: AckPolicy::All,
            max_ack_pending: 10_000,
            ..pull::Config::default()
        };
        let consumer = self
            .jetstream
            .create_consumer_on_stream(config, stream)
            .await?;
        let started = Instant::now();
        let read = async {
            let mut messages = consumer
                .stream()
                .max_messages_per_batch(ACK_EVERY)
                .messages()
                .await?;
            for number in 1..=self.events.len() {
                let message = messages.next().await.context("the consumer ended")??;
                if number % ACK_EVERY == 0 {
                    message.ack().await.map_err(anyhow::Error::from_boxed)?;
                }
            }
            anyhow::Ok(())
        };
        bounded("the plain consumer", read).await??;
        Ok(per_second(self.count(), started.elapsed()))
    }

    /// Every partition's consumer at once, each event decoded.
    async fn consume(&self, names: &Names) -> anyhow::Result<f64> {
        let topology = self.topology(names);
        let started = Instant::now();
        let mut tasks = JoinSet::new();
        for partition in PartitionCount::DEFAULT.all() {
            let last = self
                .events
                .iter()
                .rfind(|event| event.partition == partition);
            let Some(last) = last else { continue };
            tasks.spawn(consume_partition(
                topology.clone(),
                self.log.context().clone(),
                partition,
                last.position,
            ));
        }
        let mut count = 0;
        while let Some(read) = bounded("the consumers", tasks.join_next()).await? {
            count += read??;
        }
        if count != self.count() {
            bail!("{count} of {} events were delivered", self.count());
        }
        Ok(per_second(count, started.elapsed()))
    }
}

async fn consume_partition(
    topology: Topology,
    context: Context,
    partition: Partition,
    last: Position,
) -> anyhow::Result<u64> {
    let spec = ConsumerSpec {
        context,
        partition,
        projection: "bench".to_owned(),
        generation: "1".to_owned(),
    };
    let options = ConsumerOptions::default();
    let mut consumer = PartitionConsumer::open(&topology, spec, Position::ZERO, options).await?;
    let (mut count, mut unacknowledged) = (0, 0);
    loop {
        let batch = consumer
            .next_batch(ACK_EVERY, Duration::from_secs(10))
            .await?;
        let at = batch.last().context("no event came for 10 s")?.position;
        count += batch.len() as u64;
        unacknowledged += batch.len();
        if unacknowledged >= ACK_EVERY || at == last {
            consumer.ack_through(at).await?;
            unacknowledged = 0;
        }
        if at == last {
            return Ok(count);
        }
    }
}

/// Appends events of about the size of an order's.
async fn fill(log: &Arc<PgEventLog>, count: u64) -> anyhow::Result<()> {
    let mut tasks = JoinSet::new();
    for filler in 0..FILLERS {
        let log = Arc::clone(log);
        tasks.spawn(async move {
            let mut number = filler;
            while number * FILL_EVENTS < count {
                log.append(request(
                    number,
                    FILL_EVENTS.min(count - number * FILL_EVENTS),
                )?)
                .await?;
                number += FILLERS;
            }
            anyhow::Ok(())
        });
    }
    while let Some(filled) = tasks.join_next().await {
        filled??;
    }
    Ok(())
}

/// One append of `count` events over ten streams of its own.
fn request(number: u64, count: u64) -> anyhow::Result<AppendRequest> {
    let streams = (0..10.min(count))
        .map(|stream| {
            let events = (stream..count).step_by(10).map(event);
            Ok(StreamAppend {
                stream: StreamId::new(&format!("order-{number}-{stream}"))?,
                expected: ExpectedVersion::NoStream,
                events: events.collect::<anyhow::Result<_>>()?,
            })
        })
        .collect::<anyhow::Result<_>>()?;
    Ok(AppendRequest {
        streams,
        ..AppendRequest::default()
    })
}

fn event(number: u64) -> anyhow::Result<NewEvent> {
    let payload = serde_json::json!({
        "orderId": format!("0197f3a0-0000-7000-8000-{number:012}"),
        "userId": format!("user_{}", number % 1_000),
        "amount": "499.50",
        "status": "CREATED",
        "items": [{"sku": "A-1000", "quantity": 2}, {"sku": "B-2000", "quantity": 1}],
    });
    Ok(NewEvent {
        id: EventId::generate(),
        event_type: "order.created".into(),
        schema_version: 1,
        payload: RawValue::from_string(payload.to_string())?,
        metadata: Arc::new(Metadata {
            correlation_id: format!("0197f3a0-0000-7000-8000-{number:012}"),
            ..Metadata::default()
        }),
    })
}
