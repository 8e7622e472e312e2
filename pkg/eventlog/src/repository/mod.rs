//! Aggregates on a log: load, decide, append, and again when somebody was faster.
//!
//! The states of recently used aggregates are kept in memory. A decision is made on the newest
//! state known, the appends that are still under way included, so that many commands to one
//! aggregate ride in one batch instead of conflicting with each other. What keeps that right is the
//! log alone: every append names the event its decision was made on
//! ([`ExpectedVersion::Follows`]), and so does a refusal or an "already so", which asserts without
//! appending. When an append fails, all that was decided on it conflicts and is decided again.
//!
//! A command may be decided on several aggregates at once ([`Repository::execute_across`]): what
//! happens to them is one append, and so is a refusal that was decided on all of them. One over one
//! aggregate ([`Repository::execute`]) is its plain case. What belongs to it in streams of another
//! kind rides in the same append ([`Repository::execute_beside`]).

mod cache;
mod execute;

use std::sync::Arc;

use millrace_es::{
    Aggregate, DecodeError, DomainEvent, LogToken, Metadata, StreamId, StreamVersion,
};
use millrace_kernel::EntityId;
use serde::{Serialize, de::DeserializeOwned};

use crate::{Answer, AnswerKey, AppendError, EventLog, LogError, SnapshotRecord, pages::is_last};
use cache::{Cache, Known};

pub use execute::encode_events;

/// How many aggregates' states are kept in memory unless told otherwise.
pub const DEFAULT_CACHED_AGGREGATES: u64 = 20_000;
/// A snapshot is written every so many events of a stream unless told otherwise.
pub const DEFAULT_SNAPSHOT_EVERY: u64 = 200;
/// How often a command is decided before it is given up as contended.
pub const MAX_EXECUTE_ATTEMPTS: u32 = 16;
/// The events of one read while a stream is loaded.
const LOAD_PAGE_EVENTS: usize = 1_000;

/// How a repository keeps its aggregates.
#[derive(Debug, Clone, Copy)]
pub struct RepositoryOptions {
    /// How many states are kept in memory.
    pub cached_aggregates: u64,
    /// A snapshot is written every so many events of a stream; 0 writes none.
    pub snapshot_every: u64,
}

impl Default for RepositoryOptions {
    fn default() -> Self {
        Self {
            cached_aggregates: DEFAULT_CACHED_AGGREGATES,
            snapshot_every: DEFAULT_SNAPSHOT_EVERY,
        }
    }
}

/// A command and what comes with it.
#[derive(Debug)]
pub struct Execute<'a, A: Aggregate> {
    /// Whom it is for.
    pub id: &'a EntityId,
    /// What is asked.
    pub command: A::Command,
    /// The version the caller saw (`If-Match`). It is held against a stream that has events; on an
    /// empty one the aggregate says that there is nothing.
    pub if_match: Option<StreamVersion>,
    /// What the events carry beside what happened.
    pub metadata: Metadata,
    /// The idempotency key, if the caller gave one.
    pub key: Option<AnswerKey>,
    /// Whether the stream is expected to be empty. Only saves reading it: when it is not, the
    /// command is decided again on what is there.
    pub new: bool,
}

/// What a command came to, for making the answer.
#[derive(Debug)]
pub enum Outcome<'a, A: Aggregate> {
    /// It was done, or was so already when there are no events.
    Done {
        /// The state after it.
        state: &'a A,
        /// The stream's version after it.
        version: StreamVersion,
        /// What happened.
        events: &'a [A::Event],
    },
    /// A rule of the domain said no.
    Refused {
        /// Why.
        refusal: &'a A::Refusal,
        /// The state it was decided on.
        state: &'a A,
        /// The stream's version.
        version: StreamVersion,
    },
}

/// What comes with a command that is decided on several aggregates of a kind.
#[derive(Debug)]
pub struct ExecuteAcross<'a, const N: usize> {
    /// Whom it is for, each once. Everything that comes as an array is in this order.
    pub ids: [&'a EntityId; N],
    /// The versions the caller saw, as [`Execute::if_match`] says.
    pub if_match: [Option<StreamVersion>; N],
    /// What the events carry beside what happened.
    pub metadata: Metadata,
    /// The idempotency key, if the caller gave one.
    pub key: Option<AnswerKey>,
    /// Whether the streams are expected to be empty, as [`Execute::new`] says.
    pub new: [bool; N],
}

/// What a command over several aggregates came to, for making the answer.
#[derive(Debug)]
pub enum OutcomeAcross<'a, A: Aggregate, R, const N: usize> {
    /// It was done, or was so already when there are no events.
    Done {
        /// The states after it.
        states: [&'a A; N],
        /// The streams' versions after it.
        versions: [StreamVersion; N],
        /// What happened to each.
        events: &'a [Vec<A::Event>; N],
    },
    /// A rule of the domain said no.
    Refused {
        /// Why.
        refusal: &'a R,
        /// The states it was decided on.
        states: [&'a A; N],
        /// The streams' versions.
        versions: [StreamVersion; N],
    },
}

// References only, whatever the aggregate: a derive would ask it to be `Copy` too.
impl<A: Aggregate> Clone for Outcome<'_, A> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<A: Aggregate> Copy for Outcome<'_, A> {}

impl<A: Aggregate, R, const N: usize> Clone for OutcomeAcross<'_, A, R, N> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<A: Aggregate, R, const N: usize> Copy for OutcomeAcross<'_, A, R, N> {}

/// What a command is answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Executed {
    /// The answer: made now, or the one kept under the key.
    pub answer: Answer,
    /// Where the log stood; see [`Appended::token`](crate::Appended::token).
    pub token: LogToken,
    /// Whether it is the answer to an earlier request with the same key.
    pub replayed: bool,
}

/// Why an aggregate could not be loaded.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The log could not be read.
    #[error("the stream could not be read")]
    Log(#[from] LogError),
    /// An event of the stream cannot be read by this release.
    #[error("the stream has an event that does not decode")]
    Decode(#[from] DecodeError),
}

/// Why a command got no answer.
#[derive(Debug, thiserror::Error)]
pub enum ExecuteError {
    /// The entity is not at the version of `If-Match`.
    #[error("it is at version {actual} by now")]
    VersionMismatch {
        /// The version it is at.
        actual: StreamVersion,
    },
    /// The idempotency key was used for another request.
    #[error("the idempotency key was used for another request")]
    KeyReused,
    /// Others were faster every time.
    #[error("others changed it {attempts} times in a row; try again")]
    Contended {
        /// How often it was tried.
        attempts: u32,
    },
    /// The log did not take the append.
    #[error("the event could not be appended")]
    Append(#[source] AppendError),
    /// The stream could not be read.
    #[error("the stream could not be read")]
    Log(#[source] LogError),
    /// The stream has an event that this release cannot read.
    #[error("the stream has an event that does not decode")]
    Decode(#[source] DecodeError),
    /// An event has no JSON form, which is a defect of its type.
    #[error("an event of type {event_type} could not be written as JSON")]
    Encode {
        /// The event's type.
        event_type: &'static str,
        /// What the encoder said.
        #[source]
        source: serde_json::Error,
    },
}

impl From<LoadError> for ExecuteError {
    fn from(error: LoadError) -> Self {
        match error {
            LoadError::Log(error) => Self::Log(error),
            LoadError::Decode(error) => Self::Decode(error),
        }
    }
}

/// The aggregates of one kind on one log. Share it: its cache is what makes a hot aggregate cheap.
pub struct Repository<A: Aggregate> {
    log: Arc<dyn EventLog>,
    cache: Cache<A>,
    options: RepositoryOptions,
}

impl<A: Aggregate> std::fmt::Debug for Repository<A> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Repository")
            .field("category", &A::CATEGORY)
            .field("context", self.log.context())
            .field("options", &self.options)
            .finish_non_exhaustive()
    }
}

impl<A: Aggregate + Serialize + DeserializeOwned> Repository<A> {
    /// Aggregates on a log.
    #[must_use]
    pub fn new(log: Arc<dyn EventLog>, options: RepositoryOptions) -> Self {
        Self {
            log,
            cache: Cache::new(options.cached_aggregates),
            options,
        }
    }

    /// The state as the log has it at this moment: nothing older, and nothing that is not durable.
    /// Version 0 is an aggregate without events.
    ///
    /// # Errors
    /// See [`LoadError`].
    pub async fn load(&self, id: &EntityId) -> Result<(A, StreamVersion), LoadError> {
        let known = self.read(&StreamId::of(A::CATEGORY, id)).await?;
        Ok((known.state, known.version))
    }

    /// Reads a stream: from the state in memory, if that is of this log, else from its snapshot.
    async fn read(&self, stream: &StreamId) -> Result<Known<A>, LoadError> {
        if let Some(known) = self.cache.durable(stream)
            && let Some(known) = self.read_on(stream, known).await?
        {
            return Ok(known);
        }
        let start = self.snapshot_of(stream).await?;
        self.fold(stream, start).await
    }

    /// Brings a state in memory up to date; `None` when its last event is not in the stream, as
    /// after a restore of the log.
    async fn read_on(
        &self,
        stream: &StreamId,
        known: Known<A>,
    ) -> Result<Option<Known<A>>, LoadError> {
        let (Some(last), Some(before)) = (known.last, known.version.get().checked_sub(1)) else {
            return Ok(None);
        };
        let before = StreamVersion::new(before);
        let page = self
            .log
            .read_stream(stream, before, LOAD_PAGE_EVENTS)
            .await?;
        if page.first().map(|event| event.id) != Some(last) {
            return Ok(None);
        }
        let more = !is_last(&page, LOAD_PAGE_EVENTS);
        let mut known = known;
        for event in &page[1..] {
            known = known.after(event)?;
        }
        if more {
            known = self.fold(stream, known).await?;
        }
        Ok(Some(known))
    }

    async fn fold(&self, stream: &StreamId, start: Known<A>) -> Result<Known<A>, LoadError> {
        let mut known = start;
        loop {
            let page = self
                .log
                .read_stream(stream, known.version, LOAD_PAGE_EVENTS)
                .await?;
            for event in &page {
                known = known.after(event)?;
            }
            if is_last(&page, LOAD_PAGE_EVENTS) {
                return Ok(known);
            }
        }
    }

    async fn snapshot_of(&self, stream: &StreamId) -> Result<Known<A>, LoadError> {
        let Some(snapshot) = self.log.load_snapshot(stream).await? else {
            return Ok(Known::default());
        };
        if snapshot.snapshot_version != A::SNAPSHOT_VERSION {
            return Ok(Known::default());
        }
        match serde_json::from_str(snapshot.state.get()) {
            Ok(state) => Ok(Known {
                state,
                version: snapshot.version,
                last: None,
            }),
            Err(error) => {
                tracing::warn!(%stream, %error, "a snapshot does not decode and is not used");
                Ok(Known::default())
            }
        }
    }

    /// Keeps a snapshot. One that cannot be kept costs reading more events later, nothing else.
    async fn keep_snapshot(&self, stream: &StreamId, version: StreamVersion, state: &A) {
        let state = match serde_json::value::to_raw_value(state) {
            Ok(state) => state,
            Err(error) => {
                tracing::warn!(%stream, %error, "a state has no JSON form and gets no snapshot");
                return;
            }
        };
        let snapshot = SnapshotRecord {
            version,
            snapshot_version: A::SNAPSHOT_VERSION,
            state,
        };
        if let Err(error) = self.log.save_snapshot(stream, snapshot).await {
            tracing::warn!(%stream, %error, "a snapshot was not kept");
        }
    }
}

/// Decodes and folds one stored event.
fn evolve<A: Aggregate>(state: A, event: &millrace_es::RecordedEvent) -> Result<A, DecodeError> {
    let event = A::Event::decode(&event.event_type, event.schema_version, &event.payload)?;
    Ok(state.evolve(&event))
}
