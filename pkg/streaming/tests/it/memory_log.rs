use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
};

use async_trait::async_trait;
use millrace_es::{
    Context, Epoch, EventId, LogToken, Metadata, Partition, PartitionCount, Position,
    RecordedEvent, StreamId, StreamVersion,
};
use millrace_eventlog::{
    AnswerKey, AppendError, AppendRequest, Appended, EventLog, LogError, LogHead, SnapshotRecord,
    StoredAnswer, StreamAppend,
};
use millrace_kernel::Timestamp;
use serde_json::value::RawValue;
use tokio::sync::watch;

/// A fixture, not a backend: a log in memory that keeps the contract as far as the streaming
/// crate relies on it, and can be restored to an earlier point.
pub struct MemoryLog {
    context: Context,
    state: Arc<Mutex<State>>,
    appended: watch::Sender<Position>,
}

#[derive(Default)]
struct State {
    events: Vec<RecordedEvent>,
    epoch: Epoch,
    halted: Option<String>,
}

const PARTITIONS: PartitionCount = PartitionCount::DEFAULT;

impl MemoryLog {
    pub fn new(context: Context) -> Arc<Self> {
        let state = State {
            epoch: Epoch::new(1),
            ..State::default()
        };
        Arc::new(Self {
            context,
            state: Arc::new(Mutex::new(state)),
            appended: watch::Sender::new(Position::ZERO),
        })
    }

    /// The same log as another process sees it.
    pub fn in_another_process(&self) -> Arc<Self> {
        Arc::new(Self {
            context: self.context.clone(),
            state: Arc::clone(&self.state),
            appended: watch::Sender::new(Position::ZERO),
        })
    }

    /// Appends `count` events, spread over the streams `order-0` to `order-99`.
    pub fn grow(&self, count: u64) -> Position {
        let mut state = self.state.lock().unwrap();
        for _ in 0..count {
            let number = state.events.len() % 100;
            state.push(&self.context, &format!("order-{number}"), None);
        }
        let head = state.head();
        drop(state);
        self.appended.send_replace(head);
        head
    }

    pub fn grow_traced(&self, stream: &str, traceparent: &str) -> Position {
        let mut state = self.state.lock().unwrap();
        state.push(&self.context, stream, Some(traceparent.to_owned()));
        let head = state.head();
        drop(state);
        self.appended.send_replace(head);
        head
    }

    /// Loses everything after a position, as a restore from a backup does.
    pub fn restore_to(&self, position: Position) {
        let kept = usize::try_from(position.get()).unwrap();
        self.state.lock().unwrap().events.truncate(kept);
    }

    pub fn events(&self) -> Vec<RecordedEvent> {
        self.state.lock().unwrap().events.clone()
    }

    pub fn ids(&self) -> Vec<EventId> {
        let state = self.state.lock().unwrap();
        state.events.iter().map(|event| event.id).collect()
    }

    pub fn halted(&self) -> Option<String> {
        self.state.lock().unwrap().halted.clone()
    }

    pub fn position(&self) -> Position {
        self.state.lock().unwrap().head()
    }
}

impl State {
    fn head(&self) -> Position {
        Position::new(self.events.len() as u64)
    }

    fn versions(&self) -> HashMap<StreamId, StreamVersion> {
        self.events
            .iter()
            .map(|event| (event.stream.clone(), event.version))
            .collect()
    }

    fn partition_positions(&self) -> Vec<Position> {
        let mut positions = vec![Position::ZERO; usize::from(PARTITIONS.get())];
        for event in &self.events {
            positions[usize::from(event.partition.get())] = event.position;
        }
        positions
    }

    fn log_head(&self) -> LogHead {
        LogHead {
            position: self.head(),
            epoch: self.epoch,
            partitions: PARTITIONS,
            partition_positions: self.partition_positions(),
            halted: self.halted.clone(),
        }
    }

    fn push(&mut self, context: &Context, stream: &str, traceparent: Option<String>) {
        let stream = StreamId::new(stream).unwrap();
        let partition = stream.partition(PARTITIONS);
        let of_stream = |event: &&RecordedEvent| event.stream == stream;
        let version = self.events.iter().rev().find(of_stream);
        let version = version.map_or(StreamVersion::ZERO, |event| event.version);
        let of_partition = |event: &&RecordedEvent| event.partition == partition;
        let previous = self.events.iter().rev().find(of_partition);
        let payload = format!(
            r#"{{"number": {}, "padding": "{}"}}"#,
            self.events.len(),
            "x".repeat(200)
        );
        self.events.push(RecordedEvent {
            id: EventId::generate(),
            context: context.clone(),
            epoch: self.epoch,
            position: self.head().next(),
            partition,
            previous: previous.map_or(Position::ZERO, |event| event.position),
            stream,
            version: version.next(),
            event_type: "order.created".into(),
            schema_version: 1,
            payload: RawValue::from_string(payload).unwrap(),
            metadata: Arc::new(Metadata {
                correlation_id: "test".to_owned(),
                traceparent,
                ..Metadata::default()
            }),
            recorded_at: Timestamp::now(),
        });
    }
}

#[async_trait]
impl EventLog for MemoryLog {
    fn context(&self) -> &Context {
        &self.context
    }

    async fn append(&self, request: AppendRequest) -> Result<Appended, AppendError> {
        let mut state = self.state.lock().unwrap();
        if let Some(reason) = state.halted.clone() {
            return Err(AppendError::Halted {
                context: self.context.clone(),
                reason,
            });
        }
        for StreamAppend { stream, events, .. } in &request.streams {
            for _ in events {
                state.push(&self.context, stream.as_str(), None);
            }
        }
        let position = state.head();
        drop(state);
        self.appended.send_replace(position);
        Ok(Appended {
            position,
            versions: Vec::new(),
            token: LogToken {
                context: self.context.clone(),
                position,
                epoch: None,
                partitions: Vec::new(),
            },
            recorded_at: Timestamp::now(),
        })
    }

    async fn read_stream(
        &self,
        stream: &StreamId,
        after: StreamVersion,
        limit: usize,
    ) -> Result<Vec<RecordedEvent>, LogError> {
        let state = self.state.lock().unwrap();
        let of_stream = state
            .events
            .iter()
            .filter(|event| event.stream == *stream && event.version > after);
        Ok(of_stream.take(limit).cloned().collect())
    }

    async fn read_log(
        &self,
        after: Position,
        limit: usize,
    ) -> Result<Vec<RecordedEvent>, LogError> {
        let state = self.state.lock().unwrap();
        let after = usize::try_from(after.get()).unwrap();
        Ok(state
            .events
            .iter()
            .skip(after)
            .take(limit)
            .cloned()
            .collect())
    }

    async fn read_partition(
        &self,
        partition: Partition,
        after: Position,
        through: Position,
        limit: usize,
    ) -> Result<Vec<RecordedEvent>, LogError> {
        let state = self.state.lock().unwrap();
        let found = state.events.iter().filter(|event| {
            event.partition == partition && event.position > after && event.position <= through
        });
        Ok(found.take(limit).cloned().collect())
    }

    async fn head(&self) -> Result<LogHead, LogError> {
        Ok(self.state.lock().unwrap().log_head())
    }

    async fn stored_answer(&self, _key: &AnswerKey) -> Result<Option<StoredAnswer>, LogError> {
        Ok(None)
    }

    async fn load_snapshot(&self, _stream: &StreamId) -> Result<Option<SnapshotRecord>, LogError> {
        Ok(None)
    }

    async fn save_snapshot(
        &self,
        _stream: &StreamId,
        _snapshot: SnapshotRecord,
    ) -> Result<(), LogError> {
        Ok(())
    }

    async fn halt(&self, reason: &str) -> Result<(), LogError> {
        self.state.lock().unwrap().halted = Some(reason.to_owned());
        Ok(())
    }

    async fn import_tail(&self, events: Vec<RecordedEvent>) -> Result<LogHead, LogError> {
        let mut state = self.state.lock().unwrap();
        for event in events {
            let version = state.versions().get(&event.stream).copied();
            if event.position != state.head().next()
                || event.version != version.unwrap_or_default().next()
                || event.epoch != state.epoch
            {
                return Err(LogError::Corrupt(format!(
                    "{} does not fit",
                    event.position
                )));
            }
            state.events.push(event);
        }
        state.halted = None;
        Ok(state.log_head())
    }

    async fn start_epoch(&self) -> Result<LogHead, LogError> {
        let mut state = self.state.lock().unwrap();
        state.epoch = state.epoch.next();
        state.halted = None;
        Ok(state.log_head())
    }

    async fn resume(&self) -> Result<(), LogError> {
        self.state.lock().unwrap().halted = None;
        Ok(())
    }

    fn appended(&self) -> watch::Receiver<Position> {
        self.appended.subscribe()
    }
}
