//! The stream against the log: sequence n is position n.

use async_nats::jetstream::{self, consumer};
use futures::StreamExt as _;
use std::time::Duration;

use super::log::LoggedEvent;

/// How long one message of a complete stream may take.
const MESSAGE_WAIT: Duration = Duration::from_secs(10);

/// Compares a stream with the log; says what differs.
///
/// # Errors
/// The first difference.
pub async fn compare(
    jetstream: &jetstream::Context,
    namespace: &str,
    context: &str,
    events: &[LoggedEvent],
) -> Result<(), String> {
    let name = format!("{namespace}-{context}");
    let stream = jetstream
        .get_stream(&name)
        .await
        .map_err(|error| format!("stream {name}: {error}"))?;
    let info = stream
        .get_info()
        .await
        .map_err(|error| format!("stream {name}: {error}"))?;
    let (first, last) = (info.state.first_sequence, info.state.last_sequence);
    if last != events.len() as u64 {
        return Err(format!(
            "the stream ends at {last}, the log at {}",
            events.len()
        ));
    }
    let held = if info.state.messages == 0 {
        0
    } else {
        last + 1 - first
    };
    if held != info.state.messages {
        return Err(format!(
            "the stream holds {} messages from {first} to {last}",
            info.state.messages
        ));
    }
    if info.state.messages == 0 {
        return Ok(());
    }
    let consumer = stream
        .create_consumer(consumer::pull::OrderedConfig {
            deliver_policy: consumer::DeliverPolicy::ByStartSequence {
                start_sequence: first,
            },
            ..Default::default()
        })
        .await
        .map_err(|error| error.to_string())?;
    let mut messages = consumer
        .messages()
        .await
        .map_err(|error| error.to_string())?;
    for sequence in first..=last {
        let message = tokio::time::timeout(MESSAGE_WAIT, messages.next())
            .await
            .map_err(|_| format!("sequence {sequence} did not come"))?
            .ok_or("the consumer ended")?
            .map_err(|error| error.to_string())?;
        let event = &events[usize::try_from(sequence).unwrap() - 1];
        compare_message(namespace, context, sequence, &message, event)?;
    }
    Ok(())
}

fn compare_message(
    namespace: &str,
    context: &str,
    sequence: u64,
    message: &jetstream::Message,
    event: &LoggedEvent,
) -> Result<(), String> {
    let found = message.info().map_err(|error| error.to_string())?;
    let header = |name: &str| {
        message
            .headers
            .as_ref()
            .and_then(|headers| headers.get(name))
            .map(ToString::to_string)
            .unwrap_or_default()
    };
    let subject = format!(
        "{namespace}.{context}.{}.{}",
        event.partition,
        event.event_type.replace('.', "-")
    );
    let pairs = [
        (
            "sequence",
            found.stream_sequence.to_string(),
            sequence.to_string(),
        ),
        (
            "position",
            header("ce-position"),
            event.position.to_string(),
        ),
        (
            "previous",
            header("ce-previous"),
            event.previous.to_string(),
        ),
        ("id", header("ce-id"), event.event_id.to_string()),
        ("type", header("ce-type"), event.event_type.clone()),
        ("stream", header("ce-subject"), event.stream.clone()),
        (
            "version",
            header("ce-streamversion"),
            event.version.to_string(),
        ),
        ("subject", message.subject.to_string(), subject),
        (
            "payload",
            String::from_utf8_lossy(&message.payload).into_owned(),
            event.payload_text.clone(),
        ),
    ];
    for (what, stream, log) in pairs {
        if stream != log {
            return Err(format!(
                "sequence {sequence}: {what} is {stream:?} in the stream and {log:?} in the log"
            ));
        }
    }
    Ok(())
}
