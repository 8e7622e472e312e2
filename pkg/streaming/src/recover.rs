//! What an operator decides about a log that lacks what its stream has: take the tail back, or
//! give it up and begin a new epoch.

use std::collections::HashMap;

use futures::{StreamExt, TryStreamExt};
use millrace_es::{Position, RecordedEvent, StreamId, StreamVersion};
use millrace_eventlog::{EventLog, LogError, LogHead};

use crate::{
    error::NatsError,
    relay::{
        REFILL_EVENTS,
        inspect::{
            CONCURRENT_READS, Depth, InspectError, Verdict, continues, fits_head, inspect,
            message_at, same_at,
        },
    },
    topology::Topology,
    wire,
};

/// The most events that are taken back at once; they are held in memory and imported in one
/// transaction, so that no append comes in between.
pub const MAX_TAIL_EVENTS: u64 = 250_000;

/// Why a recovery could not be done. Nothing was changed.
#[derive(Debug, thiserror::Error)]
pub enum RecoverError {
    /// NATS does not answer, or said no.
    #[error(transparent)]
    Nats(#[from] NatsError),
    /// The log does not answer, or does not take it.
    #[error(transparent)]
    Log(#[from] LogError),
    /// There is no stream to take events from.
    #[error("{0} has no stream; begin a new epoch instead")]
    NoStream(String),
    /// The stream has nothing that the log lacks.
    #[error("the stream ends at {last}, the log at {head}: there is nothing to take back")]
    NothingToImport {
        /// The log's last position.
        head: Position,
        /// The stream's last sequence.
        last: Position,
    },
    /// The tail is longer than what is taken back at once.
    #[error(
        "the stream has {events} events that the log lacks, more than the {MAX_TAIL_EVENTS} that \
         can be taken back; begin a new epoch instead"
    )]
    TailTooLong {
        /// How many there are.
        events: u64,
    },
    /// The stream does not continue this log.
    #[error("the stream does not continue the log: {0}; begin a new epoch instead")]
    DoesNotContinue(String),
}

impl From<InspectError> for RecoverError {
    fn from(error: InspectError) -> Self {
        match error {
            InspectError::Nats(error) => Self::Nats(error),
            InspectError::Log(error) => Self::Log(error),
        }
    }
}

/// How a log stands to its stream before a command process serves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LogCheck {
    /// The log has all that its stream has, or the stream is none of this log's.
    Fit,
    /// The log lacks events that its stream has. It was halted: appends are refused until
    /// `millrace log recover` has decided.
    Behind {
        /// What was found.
        reason: String,
    },
}

/// Compares a log with its stream before a process appends to it, and halts the log when it is
/// behind: an append to a restored log would take a position that readers have seen used.
///
/// # Errors
/// See [`RecoverError`]. When NATS cannot be asked the caller decides whether to serve; the relay
/// compares again before it publishes.
pub async fn check_log_against_stream(
    log: &dyn EventLog,
    topology: &Topology,
) -> Result<LogCheck, RecoverError> {
    let found = inspect(log, topology, REFILL_EVENTS, Depth::LastFlight).await?;
    let Verdict::LogBehind(reason) = found.verdict else {
        return Ok(LogCheck::Fit);
    };
    if found.head.halted.is_none() {
        log.halt(&reason).await?;
    }
    Ok(LogCheck::Behind { reason })
}

/// What was taken back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImportedTail {
    /// The first position taken back.
    pub first: Position,
    /// The log's head now.
    pub head: Position,
    /// Where the stream ended; messages between `head` and it were not events of this log, and
    /// the relay will make the stream anew.
    pub stream_last: Position,
}

/// Takes back into the log what it lost and its stream kept, and lifts the halt. The events are
/// taken as far as they continue the log: position by position, partition by partition, version
/// by version.
///
/// # Errors
/// See [`RecoverError`].
pub async fn import_tail_from_stream(
    log: &dyn EventLog,
    topology: &Topology,
) -> Result<ImportedTail, RecoverError> {
    let context = log.context();
    let Some(stream) = topology.state(context).await? else {
        return Err(RecoverError::NoStream(context.to_string()));
    };
    let head = log.head().await?;
    if stream.last <= head.position {
        return Err(RecoverError::NothingToImport {
            head: head.position,
            last: stream.last,
        });
    }
    let events = stream.last.get() - head.position.get();
    if events > MAX_TAIL_EVENTS {
        return Err(RecoverError::TailTooLong { events });
    }
    if head.position >= stream.first {
        same_at(log, topology, stream, &head, head.position)
            .await?
            .map_err(RecoverError::DoesNotContinue)?;
    }
    let first = head.position.next();
    let tail = Tail::read(log, topology, head, stream.last).await?;
    let imported = log.import_tail(tail).await?;
    Ok(ImportedTail {
        first,
        head: imported.position,
        stream_last: stream.last,
    })
}

/// Gives up what the log lost: begins the next epoch at its present head, lifts the halt, and
/// makes the stream anew. Projections are rebuilt, because they may have seen what is given up.
///
/// # Errors
/// [`RecoverError::Log`]. A NATS server that is away is no error: the relay sees the epoch and
/// makes the stream when it is back.
pub async fn new_epoch(log: &dyn EventLog, topology: &Topology) -> Result<LogHead, RecoverError> {
    let head = log.start_epoch().await?;
    if let Err(error) = remake(log, topology, &head).await {
        tracing::warn!(
            context = %log.context(), error = crate::error::chain(&error),
            "the stream was not made anew; its relay will do it"
        );
    }
    Ok(head)
}

async fn remake(log: &dyn EventLog, topology: &Topology, head: &LogHead) -> Result<(), NatsError> {
    let kept = head.position.get().min(REFILL_EVENTS);
    let first = Position::new(head.position.get() - kept).next();
    topology.delete(log.context()).await?;
    topology.create(log.context(), first, head.epoch).await?;
    Ok(())
}

/// The events that follow a log's head in its stream, each checked against those before it.
struct Tail {
    /// The head as it will be after what was taken so far.
    head: LogHead,
    /// The versions of the streams touched so far.
    versions: HashMap<StreamId, StreamVersion>,
    events: Vec<RecordedEvent>,
}

impl Tail {
    async fn read(
        log: &dyn EventLog,
        topology: &Topology,
        head: LogHead,
        last: Position,
    ) -> Result<Vec<RecordedEvent>, RecoverError> {
        let mut tail = Self {
            versions: HashMap::new(),
            events: Vec::new(),
            head: head.clone(),
        };
        let positions = (head.position.get() + 1..=last.get()).map(Position::new);
        let mut messages = futures::stream::iter(positions)
            .map(|at| async move { Ok::<_, NatsError>((at, message_at(topology, log, at).await?)) })
            .buffered(CONCURRENT_READS);
        while let Some((at, message)) = messages.try_next().await? {
            let taken = match message {
                None => Err(format!("message {at} is missing")),
                Some(message) => {
                    let event = wire::decode(
                        topology.names(),
                        log.context(),
                        message.sequence,
                        &message.subject,
                        Some(&message.headers),
                        &message.payload,
                    );
                    match event {
                        Ok(event) => tail.take(log, event).await?,
                        Err(foreign) => Err(foreign.to_string()),
                    }
                }
            };
            match taken {
                Ok(()) => {}
                Err(why) if tail.events.is_empty() => {
                    return Err(RecoverError::DoesNotContinue(why));
                }
                Err(why) => {
                    tracing::warn!(context = %log.context(), %at, why, "the rest of the stream is not this log's");
                    break;
                }
            }
        }
        Ok(tail.events)
    }

    /// Takes one event, if it continues the log and what was taken before.
    async fn take(
        &mut self,
        log: &dyn EventLog,
        event: RecordedEvent,
    ) -> Result<Result<(), String>, LogError> {
        let fits = match self.versions.get(&event.stream) {
            None => continues(log, &self.head, &event).await?,
            Some(version) if version.next() != event.version => {
                Err(format!("{} is at version {version}", event.stream))
            }
            Some(_) => fits_head(&self.head, &event),
        };
        if fits.is_ok() {
            self.head.position = event.position;
            let partition = usize::from(event.partition.get());
            if let Some(newest) = self.head.partition_positions.get_mut(partition) {
                *newest = event.position;
            }
            self.versions.insert(event.stream.clone(), event.version);
            self.events.push(event);
        }
        Ok(fits)
    }
}
