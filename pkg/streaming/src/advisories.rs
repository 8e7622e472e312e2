use std::time::Duration;

use async_nats::jetstream::{
    Message,
    consumer::{AckPolicy, Consumer, pull},
};
use futures::StreamExt;
use millrace_eventlog::Backoff;
use serde::Deserialize;
use tokio_util::sync::CancellationToken;

use crate::{
    error::{NatsError, chain},
    topology::Topology,
};

/// The durable consumer that all processes share, so that each advisory is counted once.
const CONSUMER: &str = "advisory-counter";
/// The shortest and the longest pause after a failure, in milliseconds.
const BACKOFF_MIN_MS: u64 = 100;
const BACKOFF_MAX_MS: u64 = 5_000;

/// A safety net: our consumers never give up on a message, so when the server says that one did,
/// or that somebody terminated one, an operator should look. Both are counted in
/// `millrace_jetstream_advisories_total{kind}` and logged.
#[derive(Debug)]
pub struct AdvisoryCounter {
    topology: Topology,
}

/// What the log line takes from an advisory.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Advisory {
    stream: String,
    consumer: String,
    stream_seq: u64,
    deliveries: u64,
    reason: String,
}

impl AdvisoryCounter {
    /// Counts the advisories about a namespace's consumers.
    #[must_use]
    pub fn new(topology: Topology) -> Self {
        metrics::describe_counter!(
            "millrace_jetstream_advisories_total",
            "Messages that a JetStream consumer gave up or somebody terminated, by kind"
        );
        Self { topology }
    }

    /// Counts until told to stop. Whatever goes wrong is tried again.
    pub async fn run(self, stop: CancellationToken) {
        let mut backoff = Backoff::new(
            Duration::from_millis(BACKOFF_MIN_MS),
            Duration::from_millis(BACKOFF_MAX_MS),
        );
        loop {
            let counting = Box::pin(self.count(&mut backoff));
            let Some(ended) = stop.run_until_cancelled(counting).await else {
                return;
            };
            if let Err(error) = ended {
                tracing::debug!(error = chain(&error), "advisories not read");
            }
            let pause = tokio::time::sleep(backoff.pause());
            if stop.run_until_cancelled(pause).await.is_none() {
                return;
            }
        }
    }

    async fn count(&self, backoff: &mut Backoff) -> Result<(), NatsError> {
        let failed = |error: async_nats::Error| NatsError::new("give advisories", error);
        let consumer = self.consumer().await?;
        let mut messages = consumer.messages().await.map_err(|e| failed(e.into()))?;
        while let Some(message) = messages.next().await {
            let message = message.map_err(|e| failed(e.into()))?;
            backoff.reset();
            count(&message);
            message.ack().await.map_err(failed)?;
        }
        Ok(())
    }

    async fn consumer(&self) -> Result<Consumer<pull::Config>, NatsError> {
        let stream = self.topology.names().advisory_stream();
        let config = pull::Config {
            durable_name: Some(CONSUMER.to_owned()),
            ack_policy: AckPolicy::Explicit,
            ..pull::Config::default()
        };
        self.topology
            .jetstream()
            .create_consumer_on_stream(config, &*stream)
            .await
            .map_err(|error| NatsError::new(format_args!("open {stream}"), error))
    }
}

fn count(message: &Message) {
    let kind = match message.subject.split('.').nth(4) {
        Some("MAX_DELIVERIES") => "max_deliveries",
        Some("MSG_TERMINATED") => "msg_terminated",
        _ => return,
    };
    metrics::counter!("millrace_jetstream_advisories_total", "kind" => kind).increment(1);
    let advisory: Advisory = serde_json::from_slice(&message.payload).unwrap_or_default();
    tracing::warn!(
        kind,
        stream = advisory.stream,
        consumer = advisory.consumer,
        sequence = advisory.stream_seq,
        deliveries = advisory.deliveries,
        reason = advisory.reason,
        "a delivery was given up"
    );
}
