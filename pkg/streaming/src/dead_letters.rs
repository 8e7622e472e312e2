use async_nats::{HeaderName, HeaderValue, jetstream};
use millrace_es::{Position, RecordedEvent};
use millrace_kernel::Timestamp;

use crate::{
    error::NatsError,
    names::Names,
    wire::{self, percent_encoded},
};

/// The longest error text that travels with a dead letter, in bytes before encoding. The full one
/// is in the read model's own table.
const MAX_ERROR_BYTES: usize = 1_024;

/// An event that a projection could not fold, as it is published for tools and alerts.
#[derive(Debug, Clone, Copy)]
pub struct DeadLetter<'a> {
    /// The event.
    pub event: &'a RecordedEvent,
    /// The projection that gave up on it.
    pub projection: &'a str,
    /// The class of the reason, a short token (`malformed`, `refused`, `parked`).
    pub reason_class: &'a str,
    /// What went wrong, for people.
    pub error: &'a str,
    /// How often it was tried.
    pub attempts: u32,
    /// When it failed first.
    pub first_failed_at: Timestamp,
    /// When it failed last.
    pub last_failed_at: Timestamp,
}

/// Publishes the copies of dead letters. The letters themselves are rows of the generation; a copy
/// published twice, or lost with its server, changes nothing.
#[derive(Debug, Clone)]
pub struct DeadLetterPublisher {
    jetstream: jetstream::Context,
    names: Names,
}

impl DeadLetterPublisher {
    /// Publishes over a connection. The stream is made by [`crate::Topology::ensure`].
    #[must_use]
    pub const fn new(jetstream: jetstream::Context, names: Names) -> Self {
        Self { jetstream, names }
    }

    /// Publishes one letter with the event's own headers and body, and what went wrong beside
    /// (`millrace-…` headers). Returns when the stream has it.
    ///
    /// # Errors
    /// [`NatsError`] when a name cannot stand in a subject, or the stream did not take it.
    pub async fn publish(&self, letter: &DeadLetter<'_>) -> Result<(), NatsError> {
        let event = letter.event;
        let subject = self
            .names
            .dead_letter_subject(&event.context, letter.projection, letter.reason_class)
            .map_err(|error| NatsError::new("take a dead letter", error))?;
        let doing = format!("take a dead letter on {subject}");
        self.jetstream
            .publish_with_headers(subject, self.headers(letter), wire::body(event))
            .await
            .map_err(|error| NatsError::new(&doing, error))?
            .await
            .map_err(|error| NatsError::new(&doing, error))?;
        Ok(())
    }

    fn headers(&self, letter: &DeadLetter<'_>) -> async_nats::HeaderMap {
        let mut headers = wire::attributes(&self.names, letter.event);
        let mut put = |name: &'static str, value: &str| {
            headers.insert(
                HeaderName::from_static(name),
                HeaderValue::from(percent_encoded(value).as_ref()),
            );
        };
        put("millrace-projection", letter.projection);
        put("millrace-reason", letter.reason_class);
        put("millrace-error", cut(letter.error));
        put("millrace-attempts", &letter.attempts.to_string());
        put(
            "millrace-first-failure",
            &letter.first_failed_at.to_string(),
        );
        put("millrace-last-failure", &letter.last_failed_at.to_string());
        put("millrace-position", &position(letter.event.position));
        headers
    }
}

fn position(position: Position) -> String {
    position.to_string()
}

/// The beginning of a text, at most [`MAX_ERROR_BYTES`], cut between characters.
fn cut(text: &str) -> &str {
    &text[..text.floor_char_boundary(MAX_ERROR_BYTES)]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_errors_are_cut_between_characters() {
        let long = "é".repeat(MAX_ERROR_BYTES);
        assert!(cut(&long).len() <= MAX_ERROR_BYTES);
        assert_eq!(cut("short"), "short");
    }
}
