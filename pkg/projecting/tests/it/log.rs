//! An event log in memory that tests can bend: restored to an earlier point, given a new life,
//! filled with events no command would write.

use std::{
    borrow::Cow,
    sync::{Arc, Mutex},
};

use async_trait::async_trait;
use millrace_es::{
    Context, Epoch, EventId, Metadata, Partition, PartitionCount, Position, RecordedEvent,
    StreamId, StreamVersion,
};
use millrace_eventlog::{
    AnswerKey, AppendError, AppendRequest, Appended, EventLog, LogError, LogHead, SnapshotRecord,
    StoredAnswer,
};
use millrace_kernel::Timestamp;
use millrace_projecting::{ContextHead, Lane};
use serde_json::value::RawValue;
use tokio::sync::watch;

pub const PARTITIONS: u16 = 4;

/// The most events of one page of the log.
const PAGE_EVENTS: usize = 300;

pub fn ordering() -> Context {
    Context::new("ordering").unwrap()
}

#[derive(Default)]
struct Inner {
    events: Vec<RecordedEvent>,
    epoch: u64,
    halted: Option<String>,
}

pub struct MemoryLog {
    context: Context,
    inner: Mutex<Inner>,
    appended: watch::Sender<Position>,
}

impl MemoryLog {
    pub fn new() -> Arc<Self> {
        Arc::new(Self {
            context: ordering(),
            inner: Mutex::new(Inner {
                epoch: 1,
                ..Inner::default()
            }),
            appended: watch::Sender::new(Position::ZERO),
        })
    }

    /// Appends one event and gives it as recorded.
    pub fn push(&self, stream: &str, event_type: &str, payload: &str) -> RecordedEvent {
        let mut inner = self.inner.lock().unwrap();
        let stream = StreamId::new(stream).unwrap();
        let partition = stream.partition(PartitionCount::new(PARTITIONS).unwrap());
        let newest = |events: &[RecordedEvent], partition| {
            let mut own = events.iter().rev().filter(|one| one.partition == partition);
            own.next().map_or(Position::ZERO, |one| one.position)
        };
        let position = u64::try_from(inner.events.len()).unwrap() + 1;
        let version = inner.events.iter().filter(|e| e.stream == stream).count() + 1;
        let event = RecordedEvent {
            id: EventId::generate(),
            context: self.context.clone(),
            epoch: Epoch::new(inner.epoch),
            position: Position::new(position),
            partition,
            previous: newest(&inner.events, partition),
            stream,
            version: StreamVersion::new(u64::try_from(version).unwrap()),
            event_type: Cow::Owned(event_type.to_owned()),
            schema_version: 1,
            payload: RawValue::from_string(payload.to_owned()).unwrap(),
            metadata: Arc::new(Metadata::default()),
            recorded_at: Timestamp::now(),
        };
        inner.events.push(event.clone());
        drop(inner);
        self.appended.send_replace(Position::new(position));
        event
    }

    /// `count` additions of 1 over `streams` streams.
    pub fn fill(&self, streams: usize, count: usize) -> Vec<RecordedEvent> {
        (0..count)
            .map(|n| self.push(&format!("item-{}", n % streams), "item.added", r#"{"n":1}"#))
            .collect()
    }

    pub fn events(&self) -> Vec<RecordedEvent> {
        self.inner.lock().unwrap().events.clone()
    }

    /// Loses everything after a position, as a restore of an older copy does.
    pub fn truncate(&self, keep: usize) {
        self.inner.lock().unwrap().events.truncate(keep);
    }

    pub fn halted(&self) -> Option<String> {
        self.inner.lock().unwrap().halted.clone()
    }

    pub fn heads(&self) -> Vec<ContextHead> {
        let head = self.head_now();
        vec![ContextHead {
            context: self.context.clone(),
            epoch: head.epoch,
            partition_positions: head.partition_positions,
        }]
    }

    pub fn head_now(&self) -> LogHead {
        let inner = self.inner.lock().unwrap();
        let mut partition_positions = vec![Position::ZERO; usize::from(PARTITIONS)];
        for event in &inner.events {
            partition_positions[usize::from(event.partition.get())] = event.position;
        }
        LogHead {
            position: Position::new(u64::try_from(inner.events.len()).unwrap()),
            epoch: Epoch::new(inner.epoch),
            partitions: PartitionCount::new(PARTITIONS).unwrap(),
            partition_positions,
            halted: inner.halted.clone(),
        }
    }

    pub fn lane_of(event: &RecordedEvent) -> Lane {
        Lane::new(event.context.clone(), event.partition)
    }
}

#[async_trait]
impl EventLog for MemoryLog {
    fn context(&self) -> &Context {
        &self.context
    }

    async fn append(&self, _: AppendRequest) -> Result<Appended, AppendError> {
        Err(AppendError::Invalid("a log for tests of readers".into()))
    }

    async fn read_stream(
        &self,
        stream: &StreamId,
        after: StreamVersion,
        limit: usize,
    ) -> Result<Vec<RecordedEvent>, LogError> {
        let events = self.events().into_iter();
        let own = events.filter(|one| one.stream == *stream && one.version > after);
        Ok(own.take(limit).collect())
    }

    async fn read_log(
        &self,
        after: Position,
        limit: usize,
    ) -> Result<Vec<RecordedEvent>, LogError> {
        let events = self.events().into_iter();
        Ok(events
            .filter(|one| one.position > after)
            .take(limit.min(PAGE_EVENTS))
            .collect())
    }

    async fn read_partition(
        &self,
        partition: Partition,
        after: Position,
        through: Position,
        limit: usize,
    ) -> Result<Vec<RecordedEvent>, LogError> {
        let events = self.events().into_iter();
        Ok(events
            .filter(|one| one.partition == partition)
            .filter(|one| one.position > after && one.position <= through)
            .take(limit)
            .collect())
    }

    async fn head(&self) -> Result<LogHead, LogError> {
        Ok(self.head_now())
    }

    async fn stored_answer(&self, _: &AnswerKey) -> Result<Option<StoredAnswer>, LogError> {
        Ok(None)
    }

    async fn load_snapshot(&self, _: &StreamId) -> Result<Option<SnapshotRecord>, LogError> {
        Ok(None)
    }

    async fn save_snapshot(&self, _: &StreamId, _: SnapshotRecord) -> Result<(), LogError> {
        Ok(())
    }

    async fn halt(&self, reason: &str) -> Result<(), LogError> {
        self.inner.lock().unwrap().halted = Some(reason.to_owned());
        Ok(())
    }

    async fn import_tail(&self, events: Vec<RecordedEvent>) -> Result<LogHead, LogError> {
        let mut inner = self.inner.lock().unwrap();
        inner.events.extend(events);
        inner.halted = None;
        drop(inner);
        Ok(self.head_now())
    }

    async fn start_epoch(&self) -> Result<LogHead, LogError> {
        let mut inner = self.inner.lock().unwrap();
        inner.epoch += 1;
        inner.halted = None;
        drop(inner);
        Ok(self.head_now())
    }

    async fn resume(&self) -> Result<(), LogError> {
        self.inner.lock().unwrap().halted = None;
        Ok(())
    }

    fn appended(&self) -> watch::Receiver<Position> {
        self.appended.subscribe()
    }
}
