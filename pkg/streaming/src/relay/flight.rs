//! Messages on their way into a stream: published one after the other without waiting, each with
//! the sequence it must become, and acknowledged in bulk.

use std::{collections::VecDeque, task::Poll, time::Duration};

use async_nats::{Client, Message, StatusCode, Subject, Subscriber};
use futures::StreamExt;
use millrace_es::{Position, RecordedEvent};
use serde::Deserialize;
use tokio::time::Instant;
use tracing::Span;

use crate::{
    client::{LIFETIME_LOOK_MS, Lifetime},
    error::NatsError,
    names::Names,
    wire,
};

/// The most messages on their way at once.
pub(super) const MAX_IN_FLIGHT_EVENTS: usize = 1_024;
/// The most bytes on their way at once, headers not counted.
const MAX_IN_FLIGHT_BYTES: usize = 8 * 1024 * 1024;
/// The most spans open at once; a backlog of sampled events is not worth more.
const MAX_OPEN_SPANS: usize = 64;
/// How long messages may be on their way without any being acknowledged, in milliseconds.
const ACK_TIMEOUT_MS: u64 = 5_000;

/// Why publishing stopped. What the stream holds then is found out by looking.
#[derive(Debug, thiserror::Error)]
pub(super) enum FlightError {
    #[error("the stream refused position {position}: {why}")]
    Refused { position: Position, why: String },
    #[error("nothing was acknowledged for {ACK_TIMEOUT_MS} ms")]
    Silent,
    #[error("the connection was closed")]
    Closed,
    #[error("the connection was lost while messages were on their way")]
    ConnectionLost,
    #[error(transparent)]
    Nats(#[from] NatsError),
}

/// One run of publishing, from a position on. Acknowledgements of an earlier run cannot reach it.
pub(super) struct Flight {
    client: Client,
    lifetime: Lifetime,
    names: Names,
    /// Acknowledgements come to `<inbox>.<position>`.
    inbox: String,
    acks: Subscriber,
    /// What was sent and not acknowledged with everything before it, oldest first.
    on_way: VecDeque<Sent>,
    bytes: usize,
    /// Messages that were not answered yet, one way or the other.
    unanswered: usize,
    progress: Instant,
    open_spans: usize,
    continue_trace: ContinueTrace,
}

/// Makes a span the child of the one that a `traceparent` names.
pub type ContinueTrace = fn(&Span, &str);

struct Sent {
    position: Position,
    size: usize,
    acknowledged: bool,
    /// Ends with the acknowledgement.
    span: Option<Span>,
}

impl Flight {
    pub(super) async fn begin(
        client: Client,
        names: Names,
        continue_trace: ContinueTrace,
    ) -> Result<Self, NatsError> {
        let inbox = client.new_inbox();
        let lifetime = Lifetime::of(client.clone());
        let acks = client
            .subscribe(format!("{inbox}.*"))
            .await
            .map_err(|error| NatsError::new("subscribe to acknowledgements", error))?;
        Ok(Self {
            client,
            lifetime,
            names,
            inbox,
            acks,
            on_way: VecDeque::new(),
            bytes: 0,
            unanswered: 0,
            progress: Instant::now(),
            open_spans: 0,
            continue_trace,
        })
    }

    pub(super) fn is_empty(&self) -> bool {
        self.on_way.is_empty()
    }

    pub(super) fn has_room(&self) -> bool {
        self.on_way.len() < MAX_IN_FLIGHT_EVENTS && self.bytes < MAX_IN_FLIGHT_BYTES
    }

    /// Sends an event on its way.
    pub(super) async fn publish(&mut self, event: &RecordedEvent) -> Result<(), FlightError> {
        let span = self.span(event);
        let message = wire::encode(&self.names, event);
        let size = message.body.len();
        let reply = Subject::from(format!("{}.{}", self.inbox, event.position));
        if self.on_way.is_empty() {
            self.progress = Instant::now();
        }
        let sent = self.client.publish_with_reply_and_headers(
            message.subject,
            reply,
            message.headers,
            message.body,
        );
        // Waits only while the connection is down and its queue is full.
        match tokio::time::timeout(Duration::from_millis(ACK_TIMEOUT_MS), sent).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => {
                let doing = format!("take the event at {}", event.position);
                return Err(NatsError::new(doing, error).into());
            }
            Err(_) => return Err(FlightError::Silent),
        }
        self.on_way.push_back(Sent {
            position: event.position,
            size,
            acknowledged: false,
            span,
        });
        self.unanswered += 1;
        self.bytes += size;
        Ok(())
    }

    /// The first position that is not known to be in the stream with everything before it.
    pub(super) fn first_open(&self) -> Option<Position> {
        self.on_way.front().map(|sent| sent.position)
    }

    /// Waits for acknowledgements and takes all that are there: the last position that is in the
    /// stream with everything of this flight before it, if that moved.
    pub(super) async fn acknowledged(&mut self) -> Result<Option<Position>, FlightError> {
        let deadline = self.progress + Duration::from_millis(ACK_TIMEOUT_MS);
        let first = loop {
            let look = Instant::now() + Duration::from_millis(LIFETIME_LOOK_MS);
            match tokio::time::timeout_at(deadline.min(look), self.acks.next()).await {
                Ok(Some(message)) => break message,
                Ok(None) => return Err(FlightError::Closed),
                Err(_) if self.lifetime.is_over() => return Err(FlightError::ConnectionLost),
                Err(_) if Instant::now() >= deadline => return Err(FlightError::Silent),
                Err(_) => {}
            }
        };
        let mut last = self.accept(&first)?;
        while let Poll::Ready(Some(message)) = futures::poll!(self.acks.next()) {
            last = self.accept(&message)?.or(last);
        }
        Ok(last)
    }

    /// Lets what is on its way arrive, for a bounded time, so that the stream is at rest when it
    /// is looked at.
    pub(super) async fn drain(mut self, bound: Duration) {
        let deadline = Instant::now() + bound;
        while self.unanswered > 0 && !self.lifetime.is_over() {
            match tokio::time::timeout_at(deadline, self.acks.next()).await {
                Ok(Some(_)) => self.unanswered -= 1,
                Ok(None) | Err(_) => return,
            }
        }
    }

    /// Takes one answer. An acknowledgement does not vouch for what was sent before it: behind
    /// somebody else's message the stream refuses one position and takes the next.
    fn accept(&mut self, message: &Message) -> Result<Option<Position>, FlightError> {
        self.unanswered = self.unanswered.saturating_sub(1);
        let position = self.position_of(message).ok_or_else(|| {
            NatsError::new("acknowledge", format!("odd inbox {}", message.subject))
        })?;
        let refused = |why: String| FlightError::Refused { position, why };
        if message.status == Some(StatusCode::NO_RESPONDERS) {
            return Err(refused("no stream takes it".to_owned()));
        }
        let ack: Ack = serde_json::from_slice(&message.payload)
            .map_err(|error| refused(format!("the answer cannot be read: {error}")))?;
        if let Some(error) = ack.error {
            return Err(refused(error.description));
        }
        if ack.seq != position.get() {
            return Err(refused(format!("it became sequence {}", ack.seq)));
        }
        self.progress = Instant::now();
        if let Ok(index) = self
            .on_way
            .binary_search_by_key(&position, |sent| sent.position)
        {
            self.on_way[index].acknowledged = true;
        }
        let mut last = None;
        while let Some(sent) = self.on_way.pop_front_if(|sent| sent.acknowledged) {
            self.bytes -= sent.size;
            self.open_spans -= usize::from(sent.span.is_some());
            last = Some(sent.position);
        }
        Ok(last)
    }

    /// A span for an event whose trace is sampled, and only for that: the others cost a look at
    /// one byte.
    fn span(&mut self, event: &RecordedEvent) -> Option<Span> {
        let parent = event.metadata.traceparent.as_deref()?;
        if !is_sampled(parent) || self.open_spans >= MAX_OPEN_SPANS {
            return None;
        }
        let span = tracing::info_span!(
            "relay",
            otel.kind = "producer",
            context = %event.context,
            position = %event.position,
            event_type = %event.event_type,
        );
        if span.is_disabled() {
            return None;
        }
        (self.continue_trace)(&span, parent);
        self.open_spans += 1;
        Some(span)
    }

    fn position_of(&self, message: &Message) -> Option<Position> {
        let token = message
            .subject
            .strip_prefix(&self.inbox)?
            .strip_prefix('.')?;
        token.parse().ok()
    }
}

/// Whether the flags of a `traceparent` (`00-<trace>-<span>-<flags>`) say that it is sampled.
fn is_sampled(traceparent: &str) -> bool {
    let flags = traceparent.split('-').nth(3);
    flags
        .and_then(|flags| u8::from_str_radix(flags, 16).ok())
        .is_some_and(|flags| flags & 1 == 1)
}

#[derive(Deserialize)]
struct Ack {
    #[serde(default)]
    seq: u64,
    error: Option<AckError>,
}

#[derive(Deserialize)]
struct AckError {
    #[serde(default)]
    description: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_sampled_traces_get_spans() {
        let with = |flags: &str| {
            is_sampled(&format!(
                "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-{flags}"
            ))
        };
        assert!(with("01") && with("03"));
        assert!(!with("00") && !with("zz") && !with(""));
        assert!(!is_sampled("") && !is_sampled("00-1"));
    }
}
