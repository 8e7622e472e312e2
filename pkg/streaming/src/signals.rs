use std::task::Poll;

use async_nats::{Client, Subscriber};
use futures::{Stream, StreamExt};
use millrace_es::{Context, Partition, Position};
use serde::{Deserialize, Serialize};

use crate::{error::NatsError, names::Names};

/// The most messages that are heard as one hint.
const MAX_HINTS_AT_ONCE: usize = 1024;

/// Hints over core NATS that wake whoever waits: the relay of another process after an append, a
/// reader after a commit, a saga's timer after the event that it begins with. They may be lost; every waiter has a timer besides.
#[derive(Debug, Clone)]
pub struct Signals {
    client: Client,
    names: Names,
}

/// How far a projection is in one partition of a context.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Progress {
    /// The log it reads.
    pub context: Context,
    /// The generation that moved.
    pub generation: String,
    /// The partition.
    pub partition: Partition,
    /// Everything up to here is in the read model.
    pub position: Position,
}

impl Signals {
    /// Sends and hears signals over a connection.
    #[must_use]
    pub const fn new(client: Client, names: Names) -> Self {
        Self { client, names }
    }

    /// Says that a log has grown up to a position.
    ///
    /// # Errors
    /// [`NatsError`] when the connection is closed for good; a connection that is only down keeps
    /// the signal or loses it.
    pub async fn appended(&self, context: &Context, position: Position) -> Result<(), NatsError> {
        self.send(
            self.names.appended_signal(context),
            position.to_string().into_bytes(),
        )
        .await
    }

    /// Hears of a log's growth in other processes.
    ///
    /// # Errors
    /// [`NatsError`] when the connection is closed for good.
    pub async fn on_appended(&self, context: &Context) -> Result<PositionSignals, NatsError> {
        let subscriber = self.subscribe(self.names.appended_signal(context)).await?;
        Ok(PositionSignals { subscriber })
    }

    /// Hears that events of a type are published, once for all that wait to be heard. The messages
    /// of the context's stream are the signal: nobody sends another.
    ///
    /// # Errors
    /// [`NatsError`] when the connection is closed for good.
    pub async fn on_events(
        &self,
        context: &Context,
        event_type: &str,
    ) -> Result<impl Stream<Item = ()> + Send + use<>, NatsError> {
        let subjects = self.names.type_subjects(context, event_type);
        let subscriber = self.subscribe(subjects).await?;
        Ok(subscriber.ready_chunks(MAX_HINTS_AT_ONCE).map(drop))
    }

    /// Tells the relay that a consumer met a message that is not the log's.
    pub(crate) async fn foreign(
        &self,
        context: &Context,
        position: Position,
    ) -> Result<(), NatsError> {
        self.send(
            self.names.foreign_signal(context),
            position.to_string().into_bytes(),
        )
        .await
    }

    pub(crate) async fn on_foreign(&self, context: &Context) -> Result<PositionSignals, NatsError> {
        let subscriber = self.subscribe(self.names.foreign_signal(context)).await?;
        Ok(PositionSignals { subscriber })
    }

    /// Says how far a projection is.
    ///
    /// # Errors
    /// [`NatsError`] when the projection's name cannot stand in a subject, or the connection is
    /// closed for good.
    pub async fn progress(&self, projection: &str, progress: &Progress) -> Result<(), NatsError> {
        let subject = self
            .names
            .progress_signal(projection)
            .map_err(|error| NatsError::new("signal progress", error))?;
        let body = serde_json::to_vec(progress)
            .map_err(|error| NatsError::new("signal progress", error))?;
        self.send(subject, body).await
    }

    /// Hears how far a projection is.
    ///
    /// # Errors
    /// [`NatsError`] when the projection's name cannot stand in a subject, or the connection is
    /// closed for good.
    pub async fn on_progress(&self, projection: &str) -> Result<ProgressSignals, NatsError> {
        let subject = self
            .names
            .progress_signal(projection)
            .map_err(|error| NatsError::new("hear of progress", error))?;
        let subscriber = self.subscribe(subject).await?;
        Ok(ProgressSignals { subscriber })
    }

    async fn send(&self, subject: String, body: Vec<u8>) -> Result<(), NatsError> {
        let doing = format!("take a signal on {subject}");
        self.client
            .publish(subject, body.into())
            .await
            .map_err(|error| NatsError::new(doing, error))
    }

    pub(crate) async fn subscribe(&self, subject: String) -> Result<Subscriber, NatsError> {
        let doing = format!("subscribe to {subject}");
        self.client
            .subscribe(subject)
            .await
            .map_err(|error| NatsError::new(doing, error))
    }
}

/// Positions of one log, as other processes signal them.
#[derive(Debug)]
pub struct PositionSignals {
    subscriber: Subscriber,
}

impl PositionSignals {
    /// The highest position of the signals that wait, once there is one. `None` when the connection is
    /// closed for good.
    pub async fn next(&mut self) -> Option<Position> {
        loop {
            let mut newest = position(&self.subscriber.next().await?.payload);
            // Signals come one per append; of those that wait only the highest matters.
            while let Poll::Ready(Some(message)) = futures::poll!(self.subscriber.next()) {
                newest = newest.max(position(&message.payload));
            }
            if newest.is_some() {
                return newest;
            }
        }
    }
}

fn position(body: &[u8]) -> Option<Position> {
    std::str::from_utf8(body).ok()?.parse().ok()
}

/// The progress of one projection, as projectors signal it.
#[derive(Debug)]
pub struct ProgressSignals {
    subscriber: Subscriber,
}

impl ProgressSignals {
    /// The next step; steps that cannot be read are left out. `None` when the connection is
    /// closed for good.
    pub async fn next(&mut self) -> Option<Progress> {
        loop {
            let message = self.subscriber.next().await?;
            if let Ok(progress) = serde_json::from_slice(&message.payload) {
                return Some(progress);
            }
        }
    }

    /// The same as a stream.
    pub fn into_stream(self) -> impl Stream<Item = Progress> + Send {
        self.subscriber
            .filter_map(|message| std::future::ready(serde_json::from_slice(&message.payload).ok()))
    }
}
