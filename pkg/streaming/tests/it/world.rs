use std::{
    future::Future,
    pin::Pin,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
    task::{Context as TaskContext, Poll},
    time::Duration,
};

use async_nats::jetstream::consumer::{DeliverPolicy, pull::OrderedConfig};
use futures::{StreamExt, task::AtomicWaker};
use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle};
use millrace_es::{Context, Position, RecordedEvent};
use millrace_eventlog::{EventFeed, EventLog};
use millrace_streaming::{
    LeaseOptions, Leases, MemberId, Names, Relay, RelayOptions, StreamState, Topology,
    TopologyOptions, wire,
};
use millrace_testkit::{Nats, eventually};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::memory_log::MemoryLog;

pub const BOUND: Duration = Duration::from_secs(30);
/// How long one message of a stream that is read from its start may take.
const READ_BOUND: Duration = Duration::from_secs(5);

/// Short enough for tests, long enough for a loaded machine.
pub const LEASE: LeaseOptions = LeaseOptions {
    ttl: Duration::from_millis(3_000),
    renew_every: Duration::from_millis(250),
    handover: Duration::from_secs(5),
};

pub const RELAY: RelayOptions = RelayOptions {
    poll_every: Duration::from_millis(100),
    audit_every: Duration::from_millis(200),
    refill_events: 100_000,
    continue_trace: |_, _| {},
};

fn recorder() -> &'static PrometheusHandle {
    static RECORDER: OnceLock<PrometheusHandle> = OnceLock::new();
    RECORDER.get_or_init(|| {
        // Without a subscriber every span is disabled.
        tracing::subscriber::set_global_default(tracing_subscriber::registry()).unwrap();
        PrometheusBuilder::new().install_recorder().unwrap()
    })
}

/// One context's log and its stream on some server. Namespace and context are the test's own, so
/// that its metrics are too.
pub struct World {
    pub nats: Nats,
    pub log: Arc<MemoryLog>,
    pub topology: Topology,
    pub context: Context,
}

impl World {
    pub async fn on_shared_server() -> Self {
        Self::on(millrace_testkit::nats().await).await
    }

    pub async fn on(nats: Nats) -> Self {
        recorder();
        let context = Context::new(&nats.namespace).unwrap();
        let world = Self {
            topology: topology(&nats, &nats.namespace),
            log: MemoryLog::new(context.clone()),
            context,
            nats,
        };
        let made = || async {
            world
                .topology
                .ensure(std::slice::from_ref(&world.context))
                .await
                .ok()
        };
        eventually("the topology to stand", BOUND, made).await;
        world
    }

    pub fn names(&self) -> &Names {
        self.topology.names()
    }

    pub fn relay(&self) -> RelayTask {
        self.relay_with(&self.log, &self.nats.namespace, RELAY)
    }

    /// A relay on some view of the log that takes its lease in some namespace: relays that do
    /// not share it work at the same time.
    pub fn relay_with(
        &self,
        log: &Arc<MemoryLog>,
        lease_namespace: &str,
        options: RelayOptions,
    ) -> RelayTask {
        let log: Arc<dyn EventLog> = Arc::clone(log) as Arc<dyn EventLog>;
        RelayTask::start(self.unstarted(log, lease_namespace, options))
    }

    /// A relay on a log of any kind, whose events come from a feed.
    pub fn relay_fed_by(
        &self,
        feed: Arc<dyn EventFeed>,
        log: Arc<dyn EventLog>,
        lease_namespace: &str,
    ) -> RelayTask {
        RelayTask::start(self.unstarted(log, lease_namespace, RELAY).fed_by(feed))
    }

    fn unstarted(
        &self,
        log: Arc<dyn EventLog>,
        lease_namespace: &str,
        options: RelayOptions,
    ) -> Relay {
        let leases = Leases::new(topology(&self.nats, lease_namespace), member(), LEASE);
        Relay::new(log, self.topology.clone(), leases, options)
    }

    pub async fn stream(&self) -> Option<StreamState> {
        self.topology.state(&self.context).await.ok().flatten()
    }

    /// Waits until the stream has counted to the log's head.
    pub async fn caught_up(&self) -> StreamState {
        eventually("the stream to have the whole log", BOUND, || async {
            let stream = self.stream().await?;
            (stream.last == self.log.position()).then_some(stream)
        })
        .await
    }

    /// Waits until the stream is the log, message by message, from its first sequence on. A
    /// repair may still be under way; what is wrong for good fails.
    pub async fn assert_stream_is_log(&self) -> StreamState {
        self.assert_stream_is(|| self.log.events()).await
    }

    /// The same with the events of another log.
    pub async fn assert_stream_is(&self, logged: impl Fn() -> Vec<RecordedEvent>) -> StreamState {
        eventually("the stream to be the log", BOUND, || async {
            let stream = self.stream().await?;
            let logged = logged();
            let expected: Vec<_> = logged
                .iter()
                .filter(|event| event.position >= stream.first)
                .map(|event| (event.position, event.id))
                .collect();
            let whole = stream.last == logged.last().map_or(Position::ZERO, |event| event.position);
            if !whole || stream.events != expected.len() as u64 {
                return None;
            }
            let found = self.messages(expected.len()).await?;
            let found = found.iter().map(|event| (event.position, event.id));
            found.eq(expected).then_some(stream)
        })
        .await
    }

    /// The first messages of the stream; `None` when one is not the event it has to be.
    async fn messages(&self, count: usize) -> Option<Vec<RecordedEvent>> {
        if count == 0 {
            return Some(Vec::new());
        }
        let stream = self.names().stream(&self.context);
        let stream = self.nats.jetstream.get_stream(stream).await.ok()?;
        let config = OrderedConfig {
            deliver_policy: DeliverPolicy::All,
            ..OrderedConfig::default()
        };
        let consumer = stream.create_consumer(config).await.ok()?;
        let mut messages = consumer.messages().await.ok()?;
        let mut events = Vec::new();
        while events.len() < count {
            let next = tokio::time::timeout(READ_BOUND, messages.next()).await;
            let message = next.ok()??.ok()?;
            let sequence = message.info().ok()?.stream_sequence;
            let event = wire::decode(
                self.names(),
                &self.context,
                sequence,
                &message.subject,
                message.headers.as_ref(),
                &message.payload,
            );
            events.push(event.ok()?);
        }
        Some(events)
    }

    /// Publishes something into the stream that is no event; while the stream is being made anew,
    /// when it is there again.
    pub async fn publish_foreign(&self) {
        let subject = format!("{}.{}.3.order-created", self.nats.namespace, self.context);
        eventually("a foreign message to be taken", BOUND, || async {
            let published = self.nats.jetstream.publish(subject.clone(), "hello".into());
            published.await.ok()?.await.ok()
        })
        .await;
    }

    pub fn repairs(&self, kind: &str) -> u64 {
        metric(&format!(
            "millrace_relay_repairs_total{{context=\"{}\",kind=\"{kind}\"}}",
            self.context
        ))
    }

    pub async fn repaired(&self, kind: &str) {
        let what = format!("a repair of kind {kind}");
        eventually(&what, BOUND, || async {
            (self.repairs(kind) > 0).then_some(())
        })
        .await;
    }
}

pub fn topology(nats: &Nats, namespace: &str) -> Topology {
    let names = Names::new(namespace).unwrap();
    Topology::new(nats.jetstream.clone(), names, TopologyOptions::default())
}

pub fn member() -> MemberId {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    MemberId::new(&format!("member-{}", NEXT.fetch_add(1, Ordering::Relaxed))).unwrap()
}

/// The value of a counter or gauge, cut to a whole number, 0 when it is not there.
pub fn metric(series: &str) -> u64 {
    recorder().run_upkeep();
    let text = recorder().render();
    text.lines()
        .find_map(|line| {
            let value = line.strip_prefix(series)?.trim();
            value.split('.').next()?.parse().ok()
        })
        .unwrap_or_default()
}

/// A relay that runs until it is stopped, killed or paused.
pub struct RelayTask {
    stop: CancellationToken,
    paused: Arc<Pause>,
    task: JoinHandle<()>,
}

impl RelayTask {
    fn start(relay: Relay) -> Self {
        let (stop, paused) = (CancellationToken::new(), Arc::new(Pause::default()));
        let run = relay.run(stop.clone());
        let work = Box::pin(async move { run.await.unwrap() });
        let task = tokio::spawn(Pausable {
            work,
            pause: Arc::clone(&paused),
        });
        Self { stop, paused, task }
    }

    /// In good order.
    pub async fn stop(self) {
        self.stop.cancel();
        tokio::time::timeout(BOUND, self.task)
            .await
            .unwrap()
            .unwrap();
    }

    /// Without a word, as SIGKILL does.
    pub async fn kill(self) {
        self.task.abort();
        let _ended = self.task.await;
    }

    /// It does nothing until it is resumed, as after SIGSTOP.
    pub fn pause(&self) {
        self.paused.paused.store(true, Ordering::SeqCst);
    }

    pub fn resume(&self) {
        self.paused.paused.store(false, Ordering::SeqCst);
        self.paused.waker.wake();
    }
}

#[derive(Default)]
struct Pause {
    paused: AtomicBool,
    waker: AtomicWaker,
}

struct Pausable {
    work: Pin<Box<dyn Future<Output = ()> + Send>>,
    pause: Arc<Pause>,
}

impl Future for Pausable {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut TaskContext<'_>) -> Poll<()> {
        self.pause.waker.register(cx.waker());
        if self.pause.paused.load(Ordering::SeqCst) {
            return Poll::Pending;
        }
        self.work.as_mut().poll(cx)
    }
}

pub fn position(number: u64) -> Position {
    Position::new(number)
}
