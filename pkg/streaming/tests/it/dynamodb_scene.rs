use std::{
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use millrace_es::{Context, EventId, Position};
use millrace_eventlog::{
    EventFeed, EventLog,
    dynamodb::streams::{StreamProcessor, StreamsOptions},
};
use millrace_testkit::{eventually, namespace};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::{
    memory_log::MemoryLog,
    scripted_streams::{Script, ScriptedStreams, clients},
    world::{BOUND, metric, position},
};

/// The shards alone are in time: holes are not read from the log while a test lasts.
pub const SHARDS_ONLY: StreamsOptions = StreamsOptions {
    call_every: Duration::from_millis(10),
    poll_every: Duration::from_millis(50),
    look_every: Duration::from_millis(100),
    hole_patience: Duration::from_secs(3_600),
    buffer_events: 10_000,
    buffer_bytes: 10_000_000,
    checkpoint_every: Duration::from_millis(50),
    discover_every: Duration::from_millis(100),
    linger: Duration::from_secs(10),
};

/// Holes are soon read from the log.
pub const PATIENT: StreamsOptions = StreamsOptions {
    hole_patience: Duration::from_millis(200),
    ..SHARDS_ONLY
};

/// How many events are asked for at once.
const PAGE: usize = 100;

/// A log whose events come out of scripted shards.
pub struct Scene {
    pub endpoint: ScriptedStreams,
    pub log: Arc<MemoryLog>,
}

impl Scene {
    pub async fn with(shards: &[&str]) -> Self {
        // Installs the recorder before anything is counted.
        metric("");
        Self {
            endpoint: ScriptedStreams::start(shards).await,
            log: MemoryLog::new(Context::new(&namespace()).unwrap()),
        }
    }

    pub fn processor(&self, options: StreamsOptions) -> Running {
        self.processor_after(Position::ZERO, options)
    }

    /// A processor, and somebody who is fed from a position on.
    pub fn processor_after(&self, after: Position, options: StreamsOptions) -> Running {
        let (tables, streams) = clients(&self.endpoint.url);
        let log = Arc::clone(&self.log) as Arc<dyn EventLog>;
        let processor = StreamProcessor::new(log, tables, streams, "log".to_owned(), options);
        let fed = Arc::new(Mutex::new(Vec::new()));
        let (feed, stop) = (processor.feed(), CancellationToken::new());
        Running {
            eater: tokio::spawn(eat(Arc::clone(&feed), after, Arc::clone(&fed))),
            feed,
            work: tokio::spawn(processor.run(stop.clone())),
            stop,
            fed,
        }
    }

    pub fn script(&self) -> MutexGuard<'_, Script> {
        self.endpoint.script()
    }

    /// Waits until a shard is read at its end, so that what comes from now on comes out of it.
    pub async fn read_by_now(&self, shards: &[&str]) {
        for shard in shards {
            let before = self.script().calls("GetRecords", shard).len();
            eventually("a shard to be read", BOUND, || async {
                (self.script().calls("GetRecords", shard).len() > before + 1).then_some(())
            })
            .await;
        }
    }

    /// Appends so many events and spreads them over shards.
    pub fn grow_into(&self, count: u64, shards: &[&str]) {
        let before = self.log.events().len();
        let mut script = self.endpoint.script();
        self.log.grow(count);
        for (number, event) in self.log.events()[before..].iter().enumerate() {
            script.put(shards[number % shards.len()], event);
        }
    }

    /// A metric of the processor, by the end of its name.
    pub fn counted(&self, name: &str) -> u64 {
        let context = self.log.context();
        metric(&format!(
            "millrace_dynamodb_stream_{name}{{context=\"{context}\"}}"
        ))
    }

    /// How many events were read from the log for a reason.
    pub fn gap_events(&self, reason: &str) -> u64 {
        let context = self.log.context();
        metric(&format!(
            "millrace_dynamodb_stream_gap_events_total{{context=\"{context}\",reason=\"{reason}\"}}"
        ))
    }

    /// Nothing was read from the log.
    pub fn only_from_shards(&self) {
        for reason in ["past", "hole", "overflow"] {
            assert_eq!(self.gap_events(reason), 0, "{reason}");
        }
    }
}

/// A processor at work, and what somebody was fed by it.
pub struct Running {
    stop: CancellationToken,
    work: JoinHandle<()>,
    feed: Arc<dyn EventFeed>,
    eater: JoinHandle<()>,
    fed: Arc<Mutex<Vec<EventId>>>,
}

impl Running {
    /// Waits until everything after a position was fed, in order and once.
    pub async fn fed_after(&self, after: usize, log: &MemoryLog) {
        eventually("every event to be fed", BOUND, || async {
            let (fed, ids) = (self.fed.lock().unwrap(), log.ids());
            (*fed == ids[after..]).then_some(())
        })
        .await;
    }

    pub async fn fed_all(&self, log: &MemoryLog) {
        self.fed_after(0, log).await;
    }

    /// From now on it is fed after a position, wherever it was.
    pub async fn go_to(&mut self, after: u64) {
        self.eater.abort();
        let _ended = (&mut self.eater).await;
        self.fed.lock().unwrap().clear();
        let (feed, fed) = (Arc::clone(&self.feed), Arc::clone(&self.fed));
        self.eater = tokio::spawn(eat(feed, position(after), fed));
    }

    pub async fn stop(self) {
        self.stop.cancel();
        tokio::time::timeout(BOUND, self.work)
            .await
            .unwrap()
            .unwrap();
        self.eater.abort();
    }

    /// Without a word, as SIGKILL does.
    pub async fn kill(self) {
        self.work.abort();
        self.eater.abort();
        let _ended = tokio::join!(self.work, self.eater);
    }
}

/// Asks as the relay does, and has no timer: only what it is woken for is found.
pub async fn eat(feed: Arc<dyn EventFeed>, mut after: Position, fed: Arc<Mutex<Vec<EventId>>>) {
    let mut grown = feed.grown();
    loop {
        grown.borrow_and_update();
        let page = feed.next(after, PAGE).await.unwrap();
        for event in &page {
            assert_eq!(event.position, after.next(), "in order, without a gap");
            after = event.position;
            fed.lock().unwrap().push(event.id);
        }
        if millrace_eventlog::is_last(&page, PAGE) && grown.changed().await.is_err() {
            return;
        }
    }
}
