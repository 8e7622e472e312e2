use async_trait::async_trait;
use bytes::Bytes;
use millrace_es::{
    Context, Epoch, EventId, LogToken, NewEvent, Partition, PartitionCount, Position,
    RecordedEvent, Reservation, StreamId, StreamVersion,
};
use millrace_kernel::Timestamp;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

/// What a stream must look like for an append to be taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ExpectedVersion {
    /// Whatever is there.
    Any,
    /// No event yet.
    NoStream,
    /// Exactly this version.
    Exact(StreamVersion),
    /// Exactly this version, and this event is the one there. It is what a decision needs that was
    /// made on an append not yet answered: when that append fails and somebody else's event takes
    /// its version, [`ExpectedVersion::Exact`] would be taken for a state it never saw.
    Follows {
        /// The version the decision was made on.
        version: StreamVersion,
        /// The event that made this version.
        event: EventId,
    },
}

/// The events for one stream, in order. Without events it only asserts the expected version, in the
/// same transaction as everything else in the request: what a refusal or an "already so" that was
/// decided on a cached state needs, so that it is never answered from a stale one.
#[derive(Debug, Clone)]
pub struct StreamAppend {
    /// The stream.
    pub stream: StreamId,
    /// What it must look like.
    pub expected: ExpectedVersion,
    /// What to append.
    pub events: Vec<NewEvent>,
}

/// Names one idempotent request: the scope (method and path) and the caller's key, hashed together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct AnswerKey {
    /// SHA-256 over scope and key.
    pub key_hash: [u8; 32],
    /// SHA-256 over the request's body: the same key with another body is a mistake.
    pub request_hash: [u8; 32],
}

/// What a request was answered, kept with its key in the append's own transaction. `ETag`,
/// `Location` and the body are decided before the append; the position is known after it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// HTTP status.
    pub status: u16,
    /// Headers decided before the append (`etag`, `location`, `content-type`), lower case.
    pub headers: Vec<(String, String)>,
    /// The body, byte for byte.
    pub body: Bytes,
}

/// An answer as it was stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredAnswer {
    /// The request it belongs to.
    pub key: AnswerKey,
    /// What was answered.
    pub answer: Answer,
    /// Where the log stood; see [`Appended::token`].
    pub token: LogToken,
}

/// Everything that is to happen in one transaction, or not at all.
#[derive(Debug, Clone, Default)]
pub struct AppendRequest {
    /// The streams; empty only to store the answer of a refusal. A stream stands here once.
    pub streams: Vec<StreamAppend>,
    /// The idempotency key and the answer to keep under it.
    pub answer: Option<(AnswerKey, Answer)>,
    /// Names to claim or give back, in this order; only together with an event. A name that its
    /// holder claims again stays claimed, a name that somebody else holds is not given back.
    pub reservations: Vec<Reservation>,
}

/// What an append became.
#[derive(Debug, Clone)]
pub struct Appended {
    /// The position of the last event; the head as it was when no event was appended.
    pub position: Position,
    /// The version of each stream after it, in the request's order.
    pub versions: Vec<StreamVersion>,
    /// The token for the answer's `Log-Position`: a read that has it shows what was appended and,
    /// where nothing had to be appended, what the request was decided on.
    pub token: LogToken,
    /// When the log took it.
    pub recorded_at: Timestamp,
}

/// Why an append was not taken. Each has another consequence for the caller.
#[derive(Debug, thiserror::Error)]
pub enum AppendError {
    /// A stream moved on: decide again on its newer state.
    #[error("stream {stream} is at version {actual}, not as expected ({expected:?})")]
    Conflict {
        /// The stream.
        stream: StreamId,
        /// What was expected.
        expected: ExpectedVersion,
        /// What is there.
        actual: StreamVersion,
    },
    /// The idempotency key was used before: give the stored answer, or refuse another body.
    #[error("the idempotency key was used before")]
    DuplicateKey(Box<StoredAnswer>),
    /// A name is held by somebody else.
    #[error("{value:?} is already taken ({scope})")]
    Reserved {
        /// The kind of name.
        scope: &'static str,
        /// The name.
        value: String,
        /// Who holds it.
        holder: String,
    },
    /// The request breaks a limit of the log; it can never be taken.
    #[error("the append is not possible: {0}")]
    Invalid(String),
    /// The log takes no appends until an operator has decided (`millrace log recover`).
    #[error("the log of {context} is halted: {reason}; run `millrace log recover`")]
    Halted {
        /// The log's context.
        context: Context,
        /// Why.
        reason: String,
    },
    /// The store cannot be reached, or the queue is full; nothing was appended.
    #[error("the event log is not available")]
    Unavailable(#[source] LogError),
    /// The commit was sent, and the store went away for longer than the log waits for the answer:
    /// it may have been taken or not. Repeating the request is safe with its idempotency key, or
    /// with an expected version.
    #[error(
        "the event log did not say whether it took the append; repeat it with the same idempotency key"
    )]
    OutcomeUnknown(#[source] LogError),
}

/// Why the log could not be read or reached.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// The store does not answer, or answered with an error that may pass.
    #[error("the store of the event log does not answer: {0}")]
    Unreachable(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// More appends wait than the lane's bound allows.
    #[error("more than {0} appends are waiting; try again")]
    Overloaded(usize),
    /// What the store holds contradicts the log's rules; somebody else wrote into it.
    #[error("the event log is corrupt: {0}")]
    Corrupt(String),
    /// There is no such log in the store: its tables or its head are missing.
    #[error("{0}")]
    Missing(String),
    /// The log is not set up as this process was told, or does not let it in.
    #[error("{0}")]
    Misconfigured(String),
    /// The log was shut down.
    #[error("the event log is shutting down")]
    Closed,
}

/// The head of a log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogHead {
    /// The position of the newest event.
    pub position: Position,
    /// The log's life.
    pub epoch: Epoch,
    /// How many partitions its events are spread over.
    pub partitions: PartitionCount,
    /// The newest position in each partition, by number; 0 where a partition has no event. Read
    /// in one piece with `position`, so that a partition whose entry is not above a checkpoint has
    /// nothing to give up to `position`.
    pub partition_positions: Vec<Position>,
    /// Why appends are stopped, if they are.
    pub halted: Option<String>,
}

/// An aggregate's state as it was kept beside its stream; never needed for correctness.
#[derive(Debug, Clone)]
pub struct SnapshotRecord {
    /// The version of the stream it stands for.
    pub version: StreamVersion,
    /// The version of its form; a reader that knows another one discards it.
    pub snapshot_version: u16,
    /// The state as JSON.
    pub state: Box<serde_json::value::RawValue>,
}

/// One context's event log.
///
/// Whatever the backend: positions are gapless from 1 and in commit order; an append is durable
/// when it is answered, whole or not at all; a reader that has seen position n has seen all below.
#[async_trait]
pub trait EventLog: Send + Sync {
    /// The owner.
    fn context(&self) -> &Context;

    /// Appends to several streams at once, atomically. Requests that wait together are committed
    /// together, each with its own verdict.
    ///
    /// # Errors
    /// See [`AppendError`]. After `Unavailable` nothing was appended: an unknown outcome is settled
    /// before it is answered, and only where the store stays away it is `OutcomeUnknown`.
    async fn append(&self, request: AppendRequest) -> Result<Appended, AppendError>;

    /// Reads a stream's events after a version, oldest first, at most `limit`. [`is_last`](crate::is_last)
    /// says whether a page reached the end.
    ///
    /// # Errors
    /// See [`LogError`].
    async fn read_stream(
        &self,
        stream: &StreamId,
        after: StreamVersion,
        limit: usize,
    ) -> Result<Vec<RecordedEvent>, LogError>;

    /// Reads the log after a position, oldest first, at most `limit`, without a gap. [`is_last`](crate::is_last)
    /// says whether a page reached the end.
    ///
    /// # Errors
    /// See [`LogError`].
    async fn read_log(&self, after: Position, limit: usize)
    -> Result<Vec<RecordedEvent>, LogError>;

    /// Reads one partition's events after a position and up to another, oldest first, at most
    /// `limit`. [`is_last`](crate::is_last) says whether a page reached the end.
    ///
    /// # Errors
    /// See [`LogError`].
    async fn read_partition(
        &self,
        partition: Partition,
        after: Position,
        through: Position,
        limit: usize,
    ) -> Result<Vec<RecordedEvent>, LogError>;

    /// Reads the events of some partitions after a position and up to another, oldest first, at
    /// most `limit`; only the end of what there is gives an empty page.
    ///
    /// # Errors
    /// See [`LogError`].
    async fn read_partitions(
        &self,
        partitions: &[Partition],
        after: Position,
        through: Position,
        limit: usize,
    ) -> Result<Vec<RecordedEvent>, LogError> {
        let mut after = after;
        loop {
            let mut page = self.read_log(after, limit).await?;
            let last = page.last().map(|event| event.position);
            page.retain(|event| event.position <= through && partitions.contains(&event.partition));
            match last {
                Some(last) if page.is_empty() && last < through => after = last,
                _ => return Ok(page),
            }
        }
    }

    /// Reads the head.
    ///
    /// # Errors
    /// See [`LogError`].
    async fn head(&self) -> Result<LogHead, LogError>;

    /// Finds the answer kept under a key, if the key lives.
    ///
    /// # Errors
    /// See [`LogError`].
    async fn stored_answer(&self, key: &AnswerKey) -> Result<Option<StoredAnswer>, LogError>;

    /// Finds the newest snapshot of a stream.
    ///
    /// # Errors
    /// See [`LogError`].
    async fn load_snapshot(&self, stream: &StreamId) -> Result<Option<SnapshotRecord>, LogError>;

    /// Keeps a snapshot unless a newer one is there.
    ///
    /// # Errors
    /// See [`LogError`].
    async fn save_snapshot(
        &self,
        stream: &StreamId,
        snapshot: SnapshotRecord,
    ) -> Result<(), LogError>;

    /// Stops appends in every process until [`EventLog::resume`], and says why. A log that is
    /// already halted keeps its first reason.
    ///
    /// # Errors
    /// See [`LogError`].
    async fn halt(&self, reason: &str) -> Result<(), LogError>;

    /// Takes back into the log a tail that it lost and its stream kept: the events come with the
    /// positions, versions and ids they had, directly after the head. Lifts a halt. Write-model
    /// rows follow.
    ///
    /// # Errors
    /// [`LogError::Corrupt`] when they do not continue the log; else see [`LogError`].
    async fn import_tail(&self, events: Vec<RecordedEvent>) -> Result<LogHead, LogError>;

    /// Starts the next epoch at the present head and lifts a halt: what readers saw beyond the
    /// head is given up, and every projection is rebuilt.
    ///
    /// # Errors
    /// See [`LogError`].
    async fn start_epoch(&self) -> Result<LogHead, LogError>;

    /// Lifts a halt without changing anything else.
    ///
    /// # Errors
    /// See [`LogError`].
    async fn resume(&self) -> Result<(), LogError>;

    /// The last position this process appended; changes wake the relay at once.
    fn appended(&self) -> watch::Receiver<Position>;

    /// Takes no more appends, finishes those that wait, and ends what the log does beside.
    async fn close(&self) {}
}
