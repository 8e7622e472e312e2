//! Compares a stream with the log it is made from, and says what to do about it.

use std::fmt;

use super::flight::MAX_IN_FLIGHT_EVENTS;
use async_nats::jetstream::{ErrorCode, message::StreamMessage, stream::RawMessageErrorKind};
use futures::future::try_join_all;
use millrace_es::{Epoch, Position, RecordedEvent, StreamVersion};
use millrace_eventlog::{EventLog, LogError, LogHead};

use crate::{
    error::NatsError,
    topology::{StreamState, Topology},
    wire,
};

/// How many messages of a stream are asked for at the same time.
pub(crate) const CONCURRENT_READS: usize = 64;

/// What a comparison could not be made for.
#[derive(Debug, thiserror::Error)]
pub(crate) enum InspectError {
    #[error(transparent)]
    Nats(#[from] NatsError),
    #[error(transparent)]
    Log(#[from] LogError),
}

/// Why a stream has to be made from the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    /// There is no stream.
    Missing,
    /// It holds nothing, and so much is lacking that filling it from the start would keep the
    /// newest events waiting.
    Emptied,
    /// Somebody else's message stands in it.
    Foreign,
    /// It was made from an earlier life of the log.
    OtherEpoch,
}

impl Fault {
    /// The label in metrics.
    pub(crate) const fn kind(self) -> &'static str {
        match self {
            Self::Missing => "missing",
            Self::Emptied => "emptied",
            Self::Foreign => "foreign",
            Self::OtherEpoch => "epoch",
        }
    }
}

/// What to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// The stream holds what the log says; publish what comes after its last event.
    GoOn(StreamState),
    /// The stream has to be made from the log.
    Rebuild(Fault, String),
    /// The log lacks what its stream has: it was restored to an earlier point, or lost its tail
    /// in a failover. Nothing may be appended or published before somebody has decided.
    LogBehind(String),
}

/// The verdict and the head it was found at.
#[derive(Debug, Clone)]
pub(crate) struct Inspection {
    pub(crate) verdict: Verdict,
    pub(crate) head: LogHead,
}

/// How much of a stream is compared with the log beside its last event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Depth {
    /// Nothing: whoever published what is there saw it arrive.
    Newest,
    /// As much as one relay can have had on its way when it ended.
    LastFlight,
    /// As much as one relay can have on its way, from a position on.
    FlightFrom(Position),
}

/// Compares a context's stream with its log. The stream is read before the log, so that a healthy
/// stream is never ahead.
pub(crate) async fn inspect(
    log: &dyn EventLog,
    topology: &Topology,
    refill_events: u64,
    depth: Depth,
) -> Result<Inspection, InspectError> {
    let state = topology.state(log.context()).await?;
    let head = log.head().await?;
    let verdict = match state {
        None => {
            let why = "the stream is not there".to_owned();
            Verdict::Rebuild(Fault::Missing, why)
        }
        Some(stream) => {
            let comparison = Comparison {
                log,
                topology,
                stream,
                head: &head,
            };
            comparison.verdict(refill_events, depth).await?
        }
    };
    Ok(Inspection { verdict, head })
}

/// Whether log and stream have the same event at a position; the error says what is there instead.
pub(crate) async fn same_at(
    log: &dyn EventLog,
    topology: &Topology,
    stream: StreamState,
    head: &LogHead,
    at: Position,
) -> Result<Result<(), String>, InspectError> {
    let comparison = Comparison {
        log,
        topology,
        stream,
        head,
    };
    Ok(match comparison.compare_at(at).await? {
        None => Ok(()),
        Some(Verdict::Rebuild(_, why) | Verdict::LogBehind(why)) => Err(why),
        Some(Verdict::GoOn(_)) => Ok(()),
    })
}

/// A stream and the log it is made from, at one moment.
struct Comparison<'a> {
    log: &'a dyn EventLog,
    topology: &'a Topology,
    stream: StreamState,
    head: &'a LogHead,
}

impl Comparison<'_> {
    async fn verdict(&self, refill_events: u64, depth: Depth) -> Result<Verdict, InspectError> {
        let (stream, head) = (self.stream, self.head);
        if let Some(verdict) = compare_epochs(stream.epoch, head.epoch) {
            return Ok(verdict);
        }
        if stream.events == 0 {
            return Ok(self.empty(refill_events));
        }
        let common = stream.last.min(head.position);
        if common >= stream.first
            && let Some(verdict) = self.compare_at(common).await?
        {
            return Ok(verdict);
        }
        if let Some(verdict) = self.compare_flight(depth, common).await? {
            return Ok(verdict);
        }
        if stream.last <= head.position {
            return Ok(Verdict::GoOn(stream));
        }
        // The stream goes on where the log ends; by whose word?
        self.beyond(head.position.next().max(stream.first)).await
    }

    fn empty(&self, refill_events: u64) -> Verdict {
        let (last, head) = (self.stream.last, self.head.position);
        if last > head {
            return Verdict::LogBehind(format!(
                "the log ends at {head}, its stream has counted to {last} and holds nothing any more"
            ));
        }
        let lacking = head.get() - last.get();
        if lacking > refill_events {
            let why = format!("the stream is empty and {lacking} events behind");
            return Verdict::Rebuild(Fault::Emptied, why);
        }
        Verdict::GoOn(self.stream)
    }

    /// Compares ids at a position that both should have.
    async fn compare_at(&self, at: Position) -> Result<Option<Verdict>, InspectError> {
        let before = Position::new(at.get().saturating_sub(1));
        let logged = self.log.read_log(before, 1).await?;
        let Some(logged) = logged.first().filter(|event| event.position == at) else {
            return Err(LogError::Corrupt(format!("position {at} is not there")).into());
        };
        self.compare_with(logged, at).await
    }

    /// Compares what was on its way when a flight ended. A message of somebody else's among it
    /// took the place of one event, and the events after it were taken as if nothing had been.
    async fn compare_flight(
        &self,
        depth: Depth,
        common: Position,
    ) -> Result<Option<Verdict>, InspectError> {
        let flight = MAX_IN_FLIGHT_EVENTS as u64;
        let from = match depth {
            Depth::Newest => return Ok(None),
            Depth::LastFlight => Position::new(common.get().saturating_sub(flight)).next(),
            Depth::FlightFrom(position) => position,
        };
        let from = from.max(self.stream.first);
        let to = from.plus(flight).min(common);
        if from > to {
            return Ok(None);
        }
        let mut after = Position::new(from.get() - 1);
        while after < to {
            let logged = self.log.read_log(after, CONCURRENT_READS).await?;
            let looks: Vec<_> = logged
                .iter()
                .map(|event| self.compare_with(event, to))
                .collect();
            for verdict in try_join_all(looks).await? {
                if verdict.is_some() {
                    return Ok(verdict);
                }
            }
            match logged.last() {
                Some(event) => after = event.position,
                None => return Err(LogError::Corrupt(format!("{after} is the end")).into()),
            }
        }
        Ok(None)
    }

    async fn compare_with(
        &self,
        logged: &RecordedEvent,
        to: Position,
    ) -> Result<Option<Verdict>, InspectError> {
        if logged.position > to {
            return Ok(None);
        }
        Ok(match self.event_at(logged.position).await? {
            Ok(streamed) => compare_events(logged, &streamed),
            Err(why) => Some(Verdict::Rebuild(Fault::Foreign, why)),
        })
    }

    /// Looks at the first message that the stream has beyond the log's head.
    async fn beyond(&self, at: Position) -> Result<Verdict, InspectError> {
        let event = match self.event_at(at).await? {
            Ok(event) => event,
            Err(why) => return Ok(Verdict::Rebuild(Fault::Foreign, why)),
        };
        if let Err(why) = continues(self.log, self.head, &event).await? {
            let why = format!("message {at} does not continue the log: {why}");
            return Ok(Verdict::Rebuild(Fault::Foreign, why));
        }
        Ok(Verdict::LogBehind(format!(
            "the log ends at {}, its stream goes on to {}: the log was restored to an earlier \
             point or lost its end",
            self.head.position, self.stream.last
        )))
    }

    /// The event at a sequence, or why it is none.
    async fn event_at(&self, at: Position) -> Result<Result<RecordedEvent, String>, InspectError> {
        let Some(message) = message_at(self.topology, self.log, at).await? else {
            return Ok(Err(format!("message {at} is missing in the stream")));
        };
        Ok(wire::decode(
            self.topology.names(),
            self.log.context(),
            message.sequence,
            &message.subject,
            Some(&message.headers),
            &message.payload,
        )
        .map_err(|foreign| foreign.to_string()))
    }
}

/// Reads a message from the stream's leader; a replica may lag.
pub(crate) async fn message_at(
    topology: &Topology,
    log: &dyn EventLog,
    at: Position,
) -> Result<Option<StreamMessage>, NatsError> {
    let name = topology.names().stream(log.context());
    let failed = |error: Box<dyn std::error::Error + Send + Sync>| {
        NatsError::new(format_args!("give message {at} of {name}"), error)
    };
    let stream = topology
        .jetstream()
        .get_stream_no_info(&name)
        .await
        .map_err(|error| failed(error.into()))?;
    match stream.get_raw_message(at.get()).await {
        Ok(message) => Ok(Some(message)),
        Err(error) => match error.kind() {
            RawMessageErrorKind::NoMessageFound => Ok(None),
            RawMessageErrorKind::JetStream(ref e)
                if e.error_code() == ErrorCode::NO_MESSAGE_FOUND =>
            {
                Ok(None)
            }
            _ => Err(failed(error.into())),
        },
    }
}

fn compare_epochs(stream: Option<Epoch>, log: Epoch) -> Option<Verdict> {
    let stream = stream?;
    if stream < log {
        let why = format!("the stream holds epoch {stream}, the log is in epoch {log}");
        return Some(Verdict::Rebuild(Fault::OtherEpoch, why));
    }
    (stream > log).then(|| {
        Verdict::LogBehind(format!(
            "the log is in epoch {log}, its stream in epoch {stream}: the log was restored to an \
             earlier point"
        ))
    })
}

/// Compares what log and stream have at one position; `None` when it is the same event.
fn compare_events(logged: &RecordedEvent, streamed: &RecordedEvent) -> Option<Verdict> {
    let at = logged.position;
    if logged.id == streamed.id {
        let same = logged.payload.get() == streamed.payload.get()
            && logged.stream == streamed.stream
            && logged.event_type == streamed.event_type
            && logged.version == streamed.version;
        return (!same).then(|| {
            let why = format!("message {at} has the id of the log's event and is not it");
            Verdict::Rebuild(Fault::Foreign, why)
        });
    }
    if streamed.epoch < logged.epoch {
        let why = format!("message {at} is of an earlier epoch");
        return Some(Verdict::Rebuild(Fault::Foreign, why));
    }
    // An event of this very log that the log no longer has, and another in its place: readers
    // have seen what is gone, so making the stream anew would leave them wrong without a word.
    Some(Verdict::LogBehind(format!(
        "at {at} the log has event {}, its stream {}: the log was restored to an earlier point \
         and went on from there",
        logged.id, streamed.id
    )))
}

/// Whether an event could be the next one of a log with this head; the error says why not.
pub(crate) async fn continues(
    log: &dyn EventLog,
    head: &LogHead,
    event: &RecordedEvent,
) -> Result<Result<(), String>, LogError> {
    if let Err(why) = fits_head(head, event) {
        return Ok(Err(why));
    }
    // The stream of the event ends exactly one version before it.
    let version = event.version.get();
    let before = StreamVersion::new(version.saturating_sub(2));
    let newest = log.read_stream(&event.stream, before, 2).await?;
    let last = newest.last().map_or(0, |event| event.version.get());
    let ends = if newest.is_empty() {
        version == 1
    } else {
        last + 1 == version
    };
    Ok(if ends {
        Ok(())
    } else {
        Err(format!(
            "{} is not at version {}",
            event.stream,
            version - 1
        ))
    })
}

/// The part of [`continues`] that needs no look at the log.
pub(crate) fn fits_head(head: &LogHead, event: &RecordedEvent) -> Result<(), String> {
    let expect = |what: &str, found: &dyn fmt::Display, wanted: &dyn fmt::Display, ok: bool| {
        if ok {
            Ok(())
        } else {
            Err(format!("its {what} is {found}, not {wanted}"))
        }
    };
    let position = head.position.next();
    expect(
        "position",
        &event.position,
        &position,
        event.position == position,
    )?;
    expect(
        "epoch",
        &event.epoch,
        &head.epoch,
        event.epoch == head.epoch,
    )?;
    let partition = event.stream.partition(head.partitions);
    expect(
        "partition",
        &event.partition,
        &partition,
        event.partition == partition,
    )?;
    let previous = head
        .partition_positions
        .get(usize::from(partition.get()))
        .copied()
        .unwrap_or_default();
    expect(
        "previous",
        &event.previous,
        &previous,
        event.previous == previous,
    )
}
