use async_trait::async_trait;
use millrace_es::{Context, Partition, Position, RecordedEvent, StreamId, StreamVersion};
use millrace_eventlog::{
    AnswerKey, AppendError, AppendRequest, Appended, EventLog, LogError, LogHead, MAX_PAGE_EVENTS,
    SnapshotRecord, StoredAnswer,
};
use tokio::sync::watch;

use crate::{
    OwnerClient, OwnerError,
    log_routes::{EventPage, LogPage, PartitionPage, StreamPage},
    types,
};

/// The log of a context that another process owns, read through the owner's internal endpoint.
/// Nothing can be written through it, and it knows of no answers and no snapshots: these are the
/// owner's business.
#[derive(Debug)]
pub struct RemoteLog {
    owner: OwnerClient,
    /// This process appends nothing, so it never moves.
    appended: watch::Sender<Position>,
}

impl RemoteLog {
    /// Reads through an owner. It asks nothing of it yet: the owner may come later.
    #[must_use]
    pub fn new(owner: OwnerClient) -> Self {
        Self {
            owner,
            appended: watch::Sender::new(Position::ZERO),
        }
    }

    async fn page(
        &self,
        segments: &[&str],
        query: &impl serde::Serialize,
    ) -> Result<Vec<RecordedEvent>, LogError> {
        let page: EventPage = self.owner.get(segments, query).await?;
        let foreign = |event: &&RecordedEvent| event.context != *self.context();
        match page.events.iter().find(foreign) {
            None => Ok(page.events),
            Some(event) => Err(LogError::Corrupt(format!(
                "the owner of {} gave an event of {}",
                self.context(),
                event.context
            ))),
        }
    }

    fn read_only(&self, what: &str) -> String {
        let context = self.context();
        format!("{what} of {context} is its owner's to do: this process only reads its log")
    }

    fn refused(&self, what: &str) -> LogError {
        LogError::Misconfigured(self.read_only(what))
    }
}

impl From<OwnerError> for LogError {
    fn from(error: OwnerError) -> Self {
        match error {
            OwnerError::Unreachable { .. } => Self::Unreachable(Box::new(error)),
            OwnerError::Misconfigured(reason) => Self::Misconfigured(reason),
            OwnerError::Refused { ref problem, .. } => {
                if problem.slug() == types::LOG_CORRUPT.slug() {
                    Self::Corrupt(error.to_string())
                } else if problem.slug() == types::LOG_NOT_SET_UP.slug() {
                    Self::Missing(error.to_string())
                } else if problem.status >= 500 {
                    Self::Unreachable(Box::new(error))
                } else {
                    Self::Misconfigured(error.to_string())
                }
            }
            OwnerError::Unreadable { .. } => Self::Misconfigured(error.to_string()),
        }
    }
}

/// A page of nothing is asked for by nobody, and one above the bound is cut by every log.
fn limit_of(limit: usize) -> usize {
    limit.clamp(1, MAX_PAGE_EVENTS)
}

#[async_trait]
impl EventLog for RemoteLog {
    fn context(&self) -> &Context {
        self.owner.context()
    }

    async fn append(&self, _: AppendRequest) -> Result<Appended, AppendError> {
        Err(AppendError::Invalid(self.read_only("an append to the log")))
    }

    async fn read_stream(
        &self,
        stream: &StreamId,
        after: StreamVersion,
        limit: usize,
    ) -> Result<Vec<RecordedEvent>, LogError> {
        let limit = limit_of(limit);
        let page = StreamPage {
            stream: stream.clone(),
            after,
            limit,
        };
        self.page(&["streams"], &page).await
    }

    async fn read_log(
        &self,
        after: Position,
        limit: usize,
    ) -> Result<Vec<RecordedEvent>, LogError> {
        let limit = limit_of(limit);
        let events = self.page(&["log"], &LogPage { after, limit }).await?;
        let gap = events
            .iter()
            .zip(1..)
            .find(|(event, offset)| event.position != after.plus(*offset));
        match gap {
            None => Ok(events),
            Some((event, offset)) => Err(LogError::Corrupt(format!(
                "the owner of {} gave position {} where {} should be",
                self.context(),
                event.position,
                after.plus(offset)
            ))),
        }
    }

    async fn read_partition(
        &self,
        partition: Partition,
        after: Position,
        through: Position,
        limit: usize,
    ) -> Result<Vec<RecordedEvent>, LogError> {
        self.read_partitions(&[partition], after, through, limit)
            .await
    }

    async fn read_partitions(
        &self,
        partitions: &[Partition],
        after: Position,
        through: Position,
        limit: usize,
    ) -> Result<Vec<RecordedEvent>, LogError> {
        let numbers: Vec<String> = partitions.iter().map(ToString::to_string).collect();
        if numbers.is_empty() {
            return Ok(Vec::new());
        }
        let limit = limit_of(limit);
        let page = PartitionPage {
            after,
            through,
            limit,
        };
        self.page(&["partitions", &numbers.join(",")], &page).await
    }

    async fn head(&self) -> Result<LogHead, LogError> {
        Ok(self.owner.get(&["log", "head"], &()).await?)
    }

    async fn stored_answer(&self, _: &AnswerKey) -> Result<Option<StoredAnswer>, LogError> {
        Err(self.refused("finding an answer in the log"))
    }

    async fn load_snapshot(&self, _: &StreamId) -> Result<Option<SnapshotRecord>, LogError> {
        Ok(None)
    }

    async fn save_snapshot(&self, _: &StreamId, _: SnapshotRecord) -> Result<(), LogError> {
        Err(self.refused("keeping a snapshot in the log"))
    }

    async fn halt(&self, _: &str) -> Result<(), LogError> {
        Err(self.refused("halting the log"))
    }

    async fn import_tail(&self, _: Vec<RecordedEvent>) -> Result<LogHead, LogError> {
        Err(self.refused("taking back a tail of the log"))
    }

    async fn start_epoch(&self) -> Result<LogHead, LogError> {
        Err(self.refused("a new epoch of the log"))
    }

    async fn resume(&self) -> Result<(), LogError> {
        Err(self.refused("lifting a halt of the log"))
    }

    fn appended(&self) -> watch::Receiver<Position> {
        self.appended.subscribe()
    }
}
