use std::{collections::VecDeque, fmt, future::Future, task::Poll, time::Duration};

use async_nats::{
    HeaderName, Message, StatusCode, Subject, Subscriber,
    jetstream::{
        self,
        consumer::{AckPolicy, Consumer, DeliverPolicy, pull},
        stream::ConsumerErrorKind,
    },
};
use bytes::Bytes;
use futures::{StreamExt, TryStreamExt as _};
use millrace_es::{Context, Partition, Position, RecordedEvent};
use tokio::time::Instant;

use crate::{
    client::Lifetime,
    error::{NatsError, Source},
    names::Names,
    signals::Signals,
    topology::{StreamIdentity, StreamState, Topology, is_stream_not_found},
    wire::{self, ForeignMessage},
};

/// How long the server waits for an acknowledgement before it delivers again, in milliseconds. A
/// new owner opens its consumer anew, so this only matters for a live but slow one.
pub const ACK_WAIT_MS: u64 = 30_000;
/// The most events that may be delivered and not yet acknowledged; the server stops there.
pub const MAX_ACK_PENDING_EVENTS: usize = 4_096;
/// How many events one pull asks for. At most two pulls are under way, so that the next events
/// travel while the last ones are worked on.
const PULL_EVENTS: usize = 500;
/// How many bytes one pull asks for; far above the largest message a server takes by default.
const PULL_BYTES: usize = 4 * 1024 * 1024;
/// How long a pull waits on the server, in milliseconds: long, so that idle partitions cost next
/// to nothing.
const PULL_EXPIRES_MS: u64 = 60_000;
/// How often the server says on an idle pull that it is still there, in milliseconds.
const PULL_HEARTBEAT_MS: u64 = 5_000;
/// How long a consumer may be silent before it counts as gone, in milliseconds: two heartbeats
/// and some grace.
const SILENCE_MS: u64 = 2 * PULL_HEARTBEAT_MS + 1_000;
/// After how long without anybody opening or pulling the server forgets a consumer, in hours: it
/// belongs to a projection or generation that is no more.
const INACTIVE_HOURS: u64 = 7 * 24;

/// Where the server says how much of a pull it did not deliver.
const PENDING_MESSAGES: HeaderName = HeaderName::from_static("Nats-Pending-Messages");
const ACK: &[u8] = b"+ACK";
const IN_PROGRESS: &[u8] = b"+WPI";

/// Which part of which log a consumer delivers, and for whom.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConsumerSpec {
    /// The log.
    pub context: Context,
    /// The partition.
    pub partition: Partition,
    /// The projection.
    pub projection: String,
    /// The projection's generation, as a short token.
    pub generation: String,
}

/// Bounds of a consumer; the defaults are the named constants of this module.
#[derive(Debug, Clone, Copy)]
pub struct ConsumerOptions {
    /// How long the server waits for an acknowledgement. Default [`ACK_WAIT_MS`].
    pub ack_wait: Duration,
    /// The most events delivered and not acknowledged. Default [`MAX_ACK_PENDING_EVENTS`].
    pub max_ack_pending: usize,
}

impl Default for ConsumerOptions {
    fn default() -> Self {
        Self {
            ack_wait: Duration::from_millis(ACK_WAIT_MS),
            max_ack_pending: MAX_ACK_PENDING_EVENTS,
        }
    }
}

/// Why a consumer gives no events. Whatever it is, the answer is the same: pause a little, then
/// open the consumer again at the checkpoint.
#[derive(Debug, thiserror::Error)]
pub enum ConsumeError {
    /// The consumer is no longer what it was: its stream was made anew, another owner opened it,
    /// or the connection was lost in between.
    #[error("the consumer {consumer} has to be opened again: {why}")]
    Gone {
        /// The durable consumer's name.
        consumer: String,
        /// What happened.
        why: String,
    },
    /// Somebody else's message stands in the stream; the relay will make the stream anew.
    #[error(transparent)]
    Foreign(#[from] ForeignMessage),
    /// The context has no stream at present; the relay will make one.
    #[error("the stream {stream} does not exist; its relay makes it")]
    NoStream {
        /// The stream's name.
        stream: String,
    },
    /// The projection's or the generation's name cannot stand in a consumer's name.
    #[error(transparent)]
    Name(#[from] crate::names::InvalidToken),
    /// NATS does not answer, or said no.
    #[error(transparent)]
    Nats(#[from] NatsError),
}

/// The events of one partition, in order, from a durable pull consumer.
///
/// The consumer's place on the server is a hint. Whoever owns the partition opens it at the
/// checkpoint, checks the chain of previous positions, and acknowledges what is committed. After
/// any error the consumer is opened again.
pub struct PartitionConsumer {
    jetstream: jetstream::Context,
    names: Names,
    spec: ConsumerSpec,
    options: ConsumerOptions,
    consumer: Consumer<pull::Config>,
    name: String,
    inbox: Subject,
    subscriber: Subscriber,
    identity: StreamIdentity,
    first: Position,
    /// Events that pulls under way may still deliver.
    credit: usize,
    /// The last position handed out or known before.
    delivered: Position,
    /// Where to acknowledge what was handed out, oldest first.
    unacknowledged: VecDeque<(Position, Subject)>,
    /// The connection that this was opened on.
    lifetime: Lifetime,
    /// When the server was last heard on this consumer.
    heard: Instant,
    /// Events taken and not yet handed out.
    ready: Vec<RecordedEvent>,
    /// A message that ended the batch before it.
    refused: Option<ConsumeError>,
}

impl fmt::Debug for PartitionConsumer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PartitionConsumer")
            .field("name", &self.name)
            .field("delivered", &self.delivered)
            .field("unacknowledged", &self.unacknowledged.len())
            .finish_non_exhaustive()
    }
}

impl PartitionConsumer {
    /// Opens the partition's durable consumer so that it delivers what comes after a position:
    /// whatever stood on the server under its name before is replaced, and another process that
    /// still reads from it gets [`ConsumeError::Gone`].
    ///
    /// Events that the stream no longer holds are not delivered and not reported: what lies
    /// between `after` and [`PartitionConsumer::first_position`] has to be read from the log.
    ///
    /// # Errors
    /// See [`ConsumeError`].
    pub async fn open(
        topology: &Topology,
        spec: ConsumerSpec,
        after: Position,
        options: ConsumerOptions,
    ) -> Result<Self, ConsumeError> {
        let (jetstream, names) = (topology.jetstream().clone(), topology.names().clone());
        let name = names.consumer(&spec.projection, &spec.generation, spec.partition)?;
        let client = jetstream.client();
        let lifetime = Lifetime::of(client.clone());
        let reset = reset(topology, &spec, &name, after, options);
        let (state, consumer) = lifetime.bound(Box::pin(reset)).await??;
        let inbox = Subject::from(client.new_inbox());
        let subscriber = client
            .subscribe(inbox.clone())
            .await
            .map_err(|error| NatsError::new("subscribe to an inbox", error))?;
        let mut opened = Self {
            jetstream,
            names,
            spec,
            options,
            consumer,
            name,
            inbox,
            subscriber,
            identity: state.identity,
            first: state.first,
            credit: 0,
            delivered: after,
            unacknowledged: VecDeque::new(),
            lifetime,
            heard: Instant::now(),
            ready: Vec::new(),
            refused: None,
        };
        opened.pull().await?;
        Ok(opened)
    }

    /// Removes the durable consumer of a projection or generation that is no more.
    ///
    /// # Errors
    /// See [`ConsumeError`]; a consumer that is not there is no error.
    pub async fn delete(topology: &Topology, spec: &ConsumerSpec) -> Result<(), ConsumeError> {
        let names = topology.names();
        let name = names.consumer(&spec.projection, &spec.generation, spec.partition)?;
        delete(topology.jetstream(), &names.stream(&spec.context), &name).await?;
        Ok(())
    }

    /// The names of all durable consumers of a context's stream, those of others included; none when
    /// there is no stream.
    ///
    /// # Errors
    /// [`NatsError`] when the server does not answer.
    pub async fn names(topology: &Topology, context: &Context) -> Result<Vec<String>, NatsError> {
        let stream = topology.names().stream(context);
        let failed =
            |error: Source| NatsError::new(format_args!("list consumers of {stream}"), error);
        let found = match topology.jetstream().get_stream(&stream).await {
            Ok(found) => found,
            Err(error) if is_stream_not_found(&error.kind()) => return Ok(Vec::new()),
            Err(error) => return Err(failed(error.into())),
        };
        let names = found.consumer_names().try_collect().await;
        names.map_err(|error| failed(error.into()))
    }

    /// The position of the first event that the stream held when this was opened.
    #[must_use]
    pub const fn first_position(&self) -> Position {
        self.first
    }

    /// The life of the stream that this reads from.
    #[must_use]
    pub const fn stream_identity(&self) -> StreamIdentity {
        self.identity
    }

    /// The next events of the partition in rising order: at least one as soon as there is one, at
    /// most `max_events`, without waiting for more than are already here; none when `max_wait`
    /// passes first. Events delivered again are left out.
    ///
    /// # Errors
    /// See [`ConsumeError`]. Cancelling the future loses nothing that was not handed out.
    pub async fn next_batch(
        &mut self,
        max_events: usize,
        max_wait: Duration,
    ) -> Result<Vec<RecordedEvent>, ConsumeError> {
        let batch = self.receive(max_events, max_wait).await;
        if let Err(ConsumeError::Foreign(foreign)) = &batch {
            // The relay compares only what is new to it; this makes it look here.
            let signals = Signals::new(self.jetstream.client(), self.names.clone());
            let position = Position::new(foreign.sequence);
            if let Err(error) = signals.foreign(&self.spec.context, position).await {
                tracing::debug!(consumer = self.name, %error, "foreign message not reported");
            }
        }
        batch
    }

    async fn receive(
        &mut self,
        max_events: usize,
        max_wait: Duration,
    ) -> Result<Vec<RecordedEvent>, ConsumeError> {
        if let Some(error) = self.refused.take() {
            return Err(error);
        }
        self.check_connection()?;
        let deadline = Instant::now() + max_wait;
        while self.ready.is_empty() {
            self.top_up().await?;
            // What came while the caller was busy waits in the subscription and is taken first,
            // so only the server's own silence counts.
            let until = deadline.min(self.heard + Duration::from_millis(SILENCE_MS));
            match tokio::time::timeout_at(until, self.subscriber.next()).await {
                Ok(Some(message)) => self.accept(&message)?,
                Ok(None) => return Err(self.gone("the connection was closed")),
                Err(_) if until == deadline => return Ok(Vec::new()),
                Err(_) => return Err(self.gone("the server is silent")),
            }
        }
        while self.ready.len() < max_events && self.refused.is_none() {
            let Poll::Ready(Some(message)) = futures::poll!(self.subscriber.next()) else {
                break;
            };
            self.refused = self.accept(&message).err();
        }
        // The next events travel while these are worked on.
        self.top_up().await?;
        Ok(std::mem::take(&mut self.ready))
    }

    /// Acknowledges everything up to a position, after it was committed. It is a hint to the
    /// server, not waited for.
    ///
    /// # Errors
    /// [`ConsumeError::Nats`] when the connection is closed for good.
    pub async fn ack_through(&mut self, position: Position) -> Result<(), ConsumeError> {
        let mut last = None;
        while let Some((_, reply)) = self.unacknowledged.pop_front_if(|(at, _)| *at <= position) {
            last = Some(reply);
        }
        match last {
            Some(reply) => self.reply(reply, ACK).await,
            None => Ok(()),
        }
    }

    /// Does some work with what was handed out, telling the server meanwhile that it is still
    /// being worked on, so that it does not deliver it again.
    pub async fn while_working<F: Future>(&self, work: F) -> F::Output {
        tokio::pin!(work);
        loop {
            match tokio::time::timeout(self.options.ack_wait / 3, &mut work).await {
                Ok(done) => return done,
                Err(_) => self.keep_alive().await,
            }
        }
    }

    async fn keep_alive(&self) {
        for (_, reply) in &self.unacknowledged {
            // A lost heartbeat costs a second delivery, which is left out.
            if let Err(error) = self.reply(reply.clone(), IN_PROGRESS).await {
                tracing::debug!(consumer = self.name, %error, "heartbeat not sent");
                return;
            }
        }
    }

    async fn reply(&self, reply: Subject, body: &'static [u8]) -> Result<(), ConsumeError> {
        self.jetstream
            .client()
            .publish(reply, Bytes::from_static(body))
            .await
            .map_err(|error| {
                NatsError::new(format_args!("take an answer for {}", self.name), error).into()
            })
    }

    fn gone(&self, why: impl fmt::Display) -> ConsumeError {
        ConsumeError::Gone {
            consumer: self.name.clone(),
            why: why.to_string(),
        }
    }

    /// A connection that was lost may have lost deliveries, and its server its memory.
    fn check_connection(&self) -> Result<(), ConsumeError> {
        if self.lifetime.is_over() {
            return Err(self.gone("the connection was lost in between"));
        }
        Ok(())
    }

    async fn top_up(&mut self) -> Result<(), ConsumeError> {
        if self.credit < PULL_EVENTS {
            self.pull().await?;
        }
        Ok(())
    }

    async fn pull(&mut self) -> Result<(), ConsumeError> {
        let request = pull::BatchConfig {
            batch: PULL_EVENTS,
            expires: Some(Duration::from_millis(PULL_EXPIRES_MS)),
            max_bytes: PULL_BYTES,
            idle_heartbeat: Duration::from_millis(PULL_HEARTBEAT_MS),
            ..pull::BatchConfig::default()
        };
        self.consumer
            .request_batch(request, self.inbox.clone())
            .await
            .map_err(|error| NatsError::new(format_args!("pull from {}", self.name), error))?;
        self.credit += PULL_EVENTS;
        Ok(())
    }

    /// Takes what the server sent: an event, a heartbeat, or the end of a pull.
    fn accept(&mut self, message: &Message) -> Result<(), ConsumeError> {
        self.heard = Instant::now();
        match message.status.unwrap_or(StatusCode::OK) {
            StatusCode::OK => self.accept_event(message),
            StatusCode::IDLE_HEARTBEAT => Ok(()),
            StatusCode::NO_RESPONDERS => Err(self.gone("the server does not know it")),
            StatusCode::TIMEOUT | StatusCode::REQUEST_TERMINATED => self.end_of_pull(message),
            status => Err(self.gone(format_args!(
                "the server answered {status} {}",
                message.description.as_deref().unwrap_or_default()
            ))),
        }
    }

    fn accept_event(&mut self, message: &Message) -> Result<(), ConsumeError> {
        self.credit = self.credit.saturating_sub(1);
        let Some((reply, sequence)) = message
            .reply
            .as_ref()
            .and_then(|reply| Some((reply, stream_sequence(reply)?)))
        else {
            return Err(self.gone("a delivery does not say where it stands"));
        };
        let position = Position::new(sequence);
        if position <= self.delivered {
            // Delivered a second time; the first one is in somebody's hands.
            return Ok(());
        }
        let event = wire::decode(
            &self.names,
            &self.spec.context,
            sequence,
            &message.subject,
            message.headers.as_ref(),
            &message.payload,
        )?;
        self.delivered = position;
        self.unacknowledged.push_back((position, reply.clone()));
        self.ready.push(event);
        Ok(())
    }

    /// The server ended a pull: its time or its bytes are over, or the consumer is.
    fn end_of_pull(&mut self, message: &Message) -> Result<(), ConsumeError> {
        let why = message.description.as_deref().unwrap_or_default();
        let lower = why.to_ascii_lowercase();
        if lower.contains("deleted") || lower.contains("push based") {
            return Err(self.gone(why));
        }
        let undelivered = message
            .headers
            .as_ref()
            .and_then(|headers| headers.get(PENDING_MESSAGES))
            .and_then(|value| value.as_str().parse::<usize>().ok());
        // A server that does not say how much of the pull is left is asked anew: too many pulls
        // are bounded by what may be unacknowledged, too few would be silence.
        self.credit = self
            .credit
            .saturating_sub(undelivered.unwrap_or(PULL_EVENTS));
        Ok(())
    }
}

/// The stream sequence in a delivery's reply subject:
/// `$JS.ACK.<stream>.<consumer>.<delivered>.<stream seq>.<consumer seq>.<time>.<pending>`, from
/// some servers with domain and account before the stream.
fn stream_sequence(reply: &str) -> Option<u64> {
    let tokens = reply.split('.').count();
    let index = match tokens {
        9 => 5,
        11.. => 7,
        _ => return None,
    };
    let mut parts = reply.split('.');
    if (parts.next()?, parts.next()?) != ("$JS", "ACK") {
        return None;
    }
    reply.split('.').nth(index)?.parse().ok()
}

/// Replaces whatever stands on the server under a consumer's name.
async fn reset(
    topology: &Topology,
    spec: &ConsumerSpec,
    name: &str,
    after: Position,
    options: ConsumerOptions,
) -> Result<(StreamState, Consumer<pull::Config>), ConsumeError> {
    let (jetstream, names) = (topology.jetstream(), topology.names());
    let stream = names.stream(&spec.context);
    let Some(state) = topology.state(&spec.context).await? else {
        return Err(ConsumeError::NoStream { stream });
    };
    delete(jetstream, &stream, name).await?;
    let consumer = create(jetstream, names, spec, name, after, options).await?;
    Ok((state, consumer))
}

async fn delete(jetstream: &jetstream::Context, stream: &str, name: &str) -> Result<(), NatsError> {
    use async_nats::jetstream::ErrorCode;
    match jetstream.delete_consumer_from_stream(name, stream).await {
        Ok(_) => Ok(()),
        Err(error)
            if matches!(error.kind(), ConsumerErrorKind::JetStream(ref e) if matches!(
                e.error_code(),
                ErrorCode::CONSUMER_NOT_FOUND | ErrorCode::STREAM_NOT_FOUND
            )) =>
        {
            Ok(())
        }
        Err(error) => Err(NatsError::new(
            format_args!("delete the consumer {name}"),
            error,
        )),
    }
}

async fn create(
    jetstream: &jetstream::Context,
    names: &Names,
    spec: &ConsumerSpec,
    name: &str,
    after: Position,
    options: ConsumerOptions,
) -> Result<Consumer<pull::Config>, ConsumeError> {
    use async_nats::jetstream::ErrorCode;
    let stream = names.stream(&spec.context);
    let config = pull::Config {
        durable_name: Some(name.to_owned()),
        deliver_policy: DeliverPolicy::ByStartSequence {
            start_sequence: after.next().get(),
        },
        ack_policy: AckPolicy::All,
        ack_wait: options.ack_wait,
        max_ack_pending: i64::try_from(options.max_ack_pending).unwrap_or(i64::MAX),
        filter_subject: names.partition_subjects(&spec.context, spec.partition),
        inactive_threshold: Duration::from_hours(INACTIVE_HOURS),
        ..pull::Config::default()
    };
    match jetstream.create_consumer_on_stream(config, &*stream).await {
        Ok(consumer) => Ok(consumer),
        Err(error)
            if matches!(error.kind(), ConsumerErrorKind::JetStream(ref e)
                if e.error_code() == ErrorCode::STREAM_NOT_FOUND) =>
        {
            Err(ConsumeError::NoStream { stream })
        }
        Err(error) => Err(NatsError::new(format_args!("make the consumer {name}"), error).into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_forms_of_a_reply_subject_give_the_sequence() {
        let plain = "$JS.ACK.s-ordering.c.1.42.7.1700000000000000000.3";
        assert_eq!(stream_sequence(plain), Some(42));
        let long = "$JS.ACK.hub.ABC.s-ordering.c.1.42.7.1700000000000000000.3.tok";
        assert_eq!(stream_sequence(long), Some(42));
        for other in [
            "",
            "$JS.ACK.a.b",
            "_INBOX.a.b.c.d.5.e.f.g",
            "$JS.ACK.s.c.1.x.7.1.3",
        ] {
            assert_eq!(stream_sequence(other), None, "{other:?}");
        }
    }
}
