//! Messages on their way into a stream: published one after the other without waiting, each with
//! the sequence it must become, and acknowledged in bulk.

use std::{collections::VecDeque, task::Poll, time::Duration};

use async_nats::{Client, Message, StatusCode, Subject, Subscriber};
use futures::StreamExt;
use millrace_es::{Position, RecordedEvent};
use serde::Deserialize;
use tokio::time::Instant;

use crate::{error::NatsError, names::Names, wire};

/// The most messages on their way at once.
pub(super) const MAX_IN_FLIGHT_EVENTS: usize = 1_024;
/// The most bytes on their way at once, headers not counted.
const MAX_IN_FLIGHT_BYTES: usize = 8 * 1024 * 1024;
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
    #[error(transparent)]
    Nats(#[from] NatsError),
}

/// One run of publishing, from a position on. Acknowledgements of an earlier run cannot reach it.
pub(super) struct Flight {
    client: Client,
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
}

struct Sent {
    position: Position,
    size: usize,
    acknowledged: bool,
}

impl Flight {
    pub(super) async fn begin(client: Client, names: Names) -> Result<Self, NatsError> {
        let inbox = client.new_inbox();
        let acks = client
            .subscribe(format!("{inbox}.*"))
            .await
            .map_err(|error| NatsError::new("subscribe to acknowledgements", error))?;
        Ok(Self {
            client,
            names,
            inbox,
            acks,
            on_way: VecDeque::new(),
            bytes: 0,
            unanswered: 0,
            progress: Instant::now(),
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
        let first = match tokio::time::timeout_at(deadline, self.acks.next()).await {
            Ok(Some(message)) => message,
            Ok(None) => return Err(FlightError::Closed),
            Err(_) => return Err(FlightError::Silent),
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
        while self.unanswered > 0 {
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
            last = Some(sent.position);
        }
        Ok(last)
    }

    fn position_of(&self, message: &Message) -> Option<Position> {
        let token = message
            .subject
            .strip_prefix(&self.inbox)?
            .strip_prefix('.')?;
        token.parse().ok()
    }
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
