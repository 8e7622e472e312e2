//! Reads a context's stream in order, whoever put the messages there.

use async_nats::jetstream::consumer::{DeliverPolicy, pull};
use futures::StreamExt as _;
use millrace_es::{Context, Position, RecordedEvent};
use millrace_streaming::{
    Names, Topology,
    wire::{self, ForeignMessage},
};

use crate::failure::Failure;

/// A message of a context's stream.
#[derive(Debug)]
pub enum Found {
    /// An event as the relay published it.
    Event(Box<RecordedEvent>),
    /// Something else.
    Foreign(ForeignMessage),
}

impl Found {
    /// Where it stands.
    pub fn sequence(&self) -> Position {
        match self {
            Self::Event(event) => event.position,
            Self::Foreign(message) => Position::new(message.sequence),
        }
    }
}

/// Reads on from a position; it waits at the end for more.
pub struct StreamReader {
    names: Names,
    context: Context,
    messages: pull::Ordered,
}

impl StreamReader {
    /// Begins after a position.
    ///
    /// # Errors
    /// [`Failure::Unavailable`] when NATS does not answer or the stream is not there.
    pub async fn open(
        topology: &Topology,
        context: &Context,
        after: Position,
    ) -> Result<Self, Failure> {
        let names = topology.names().clone();
        let name = names.stream(context);
        let failed = |error: anyhow::Error| {
            Failure::unavailable(format!("the stream {name} cannot be read"), error)
        };
        let stream = topology.jetstream().get_stream(&name).await;
        let consumer = stream
            .map_err(|error| failed(error.into()))?
            .create_consumer(pull::OrderedConfig {
                deliver_policy: DeliverPolicy::ByStartSequence {
                    start_sequence: after.next().get(),
                },
                ..Default::default()
            })
            .await
            .map_err(|error| failed(error.into()))?;
        let messages = consumer.messages().await;
        Ok(Self {
            messages: messages.map_err(|error| failed(error.into()))?,
            names,
            context: context.clone(),
        })
    }

    /// The next message.
    ///
    /// # Errors
    /// [`Failure::Unavailable`] when NATS does not answer any more.
    pub async fn next(&mut self) -> Result<Found, Failure> {
        let failed = |error: anyhow::Error| {
            Failure::unavailable("the stream cannot be read any further", error)
        };
        let message = self
            .messages
            .next()
            .await
            .ok_or_else(|| failed(anyhow::anyhow!("NATS ended the reading")))?
            .map_err(|error| failed(error.into()))?;
        let sequence = message
            .info()
            .map_err(|error| failed(anyhow::anyhow!(error)))?
            .stream_sequence;
        let decoded = wire::decode(
            &self.names,
            &self.context,
            sequence,
            &message.subject,
            message.headers.as_ref(),
            &message.payload,
        );
        Ok(match decoded {
            Ok(event) => Found::Event(Box::new(event)),
            Err(foreign) => Found::Foreign(foreign),
        })
    }
}
