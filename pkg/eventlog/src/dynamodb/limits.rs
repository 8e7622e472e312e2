//! What DynamoDB takes in one item and one transaction, and what of it an append may use.

use crate::{AppendError, AppendRequest};

/// The most items of one transaction, by DynamoDB's own limit.
pub(super) const MAX_TRANSACTION_ITEMS: usize = 100;
/// The most bytes of one transaction: DynamoDB's 4 MB, less a little for what it counts and this
/// code does not.
pub(super) const MAX_TRANSACTION_BYTES: usize = 4 * 1024 * 1024 - 64 * 1024;
/// The largest item: DynamoDB's 400 KB, less a little likewise.
pub(super) const MAX_ITEM_BYTES: usize = 400 * 1024 - 1024;
/// The most events of one append to a log in DynamoDB: a transaction's items without the head.
pub const MAX_DYNAMO_APPEND_EVENTS: usize = MAX_TRANSACTION_ITEMS - 1;
/// How long answers are kept: 24 hours.
pub(super) const ANSWER_SECONDS: i64 = 24 * 60 * 60;

/// What an event's item has beside payload, type, metadata and stream.
const EVENT_BYTES: usize = 512;
/// What other items have beside their texts.
const OTHER_BYTES: usize = 256;
/// What the metadata's field names take in JSON.
const METADATA_BYTES: usize = 160;

/// How much of a transaction something takes, at most.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Share {
    pub items: usize,
    pub bytes: usize,
}

impl Share {
    /// The head's, which is in every transaction. Its list has up to 256 numbers.
    pub(super) const HEAD: Self = Self {
        items: 1,
        bytes: 4 * 1024,
    };

    pub(super) fn plus(self, other: Self) -> Self {
        Self {
            items: self.items + other.items,
            bytes: self.bytes + other.bytes,
        }
    }

    pub(super) fn fits(self) -> bool {
        self.items <= MAX_TRANSACTION_ITEMS && self.bytes <= MAX_TRANSACTION_BYTES
    }

    /// What a request takes when it is taken, without the rows of the write model.
    pub(super) fn of(request: &AppendRequest) -> Self {
        let mut share = Self::default();
        for append in &request.streams {
            // One that only asserts takes a check.
            share.items += append.events.len().max(1);
            share.bytes += OTHER_BYTES;
            for event in &append.events {
                share.bytes += event_bytes(append.stream.as_str(), event);
            }
        }
        if let Some((_, answer)) = &request.answer {
            share.items += 1;
            share.bytes += answer_bytes(answer);
        }
        for reservation in &request.reservations {
            share.items += 1;
            share.bytes += OTHER_BYTES + reservation.value.len() + reservation.holder.len();
        }
        share
    }
}

/// The bytes of a text inside JSON, where a control character becomes six.
fn quoted(text: &str) -> usize {
    text.bytes()
        .map(|byte| match byte {
            0..=0x1f => 6,
            b'"' | b'\\' => 2,
            _ => 1,
        })
        .sum()
}

fn event_bytes(stream: &str, event: &millrace_es::NewEvent) -> usize {
    let metadata = &event.metadata;
    let optional = [
        &metadata.causation_id,
        &metadata.traceparent,
        &metadata.actor,
        &metadata.idempotency_key_hash,
    ];
    let metadata = quoted(&metadata.correlation_id)
        + optional
            .into_iter()
            .flatten()
            .map(|text| quoted(text))
            .sum::<usize>();
    EVENT_BYTES
        + METADATA_BYTES
        + stream.len()
        + event.event_type.len()
        + event.payload.get().len()
        + metadata
}

fn answer_bytes(answer: &crate::Answer) -> usize {
    let headers: usize = answer
        .headers
        .iter()
        .map(|(name, value)| quoted(name) + quoted(value) + 8)
        .sum();
    // The token names up to 16 partitions.
    OTHER_BYTES + 512 + answer.body.len() + headers
}

/// Refuses what can never be taken, before anything is asked of the store.
pub(super) fn check(request: &AppendRequest) -> Result<(), AppendError> {
    for append in &request.streams {
        for event in &append.events {
            let bytes = event_bytes(append.stream.as_str(), event);
            if bytes > MAX_ITEM_BYTES {
                return Err(AppendError::Invalid(format!(
                    "a {} has {bytes} bytes with what is known beside it; DynamoDB takes items of \
                     at most {MAX_ITEM_BYTES}",
                    event.event_type
                )));
            }
        }
    }
    if let Some((_, answer)) = &request.answer {
        let bytes = answer_bytes(answer);
        if bytes > MAX_ITEM_BYTES {
            return Err(AppendError::Invalid(format!(
                "its answer has {bytes} bytes; DynamoDB takes items of at most {MAX_ITEM_BYTES}"
            )));
        }
    }
    let share = Share::of(request).plus(Share::HEAD);
    if !share.fits() {
        return Err(AppendError::Invalid(format!(
            "it changes {} items of {} bytes with the head; a transaction of DynamoDB takes \
             {MAX_TRANSACTION_ITEMS} items and {MAX_TRANSACTION_BYTES} bytes",
            share.items, share.bytes
        )));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use millrace_es::{EventId, Metadata, NewEvent, StreamId};

    use super::*;
    use crate::{Answer, AnswerKey, ExpectedVersion, StreamAppend};

    fn request(events: usize, payload: usize) -> AppendRequest {
        let event = || NewEvent {
            id: EventId::generate(),
            event_type: "thing.happened".into(),
            schema_version: 1,
            payload: serde_json::value::to_raw_value(&"x".repeat(payload)).unwrap(),
            metadata: Arc::new(Metadata::default()),
        };
        AppendRequest {
            streams: vec![StreamAppend {
                stream: StreamId::new("a").unwrap(),
                expected: ExpectedVersion::Any,
                events: (0..events).map(|_| event()).collect(),
            }],
            ..AppendRequest::default()
        }
    }

    fn keyed(mut request: AppendRequest) -> AppendRequest {
        let key = AnswerKey {
            key_hash: [1; 32],
            request_hash: [1; 32],
        };
        let answer = Answer {
            status: 201,
            headers: Vec::new(),
            body: bytes::Bytes::new(),
        };
        request.answer = Some((key, answer));
        request
    }

    #[test]
    fn the_head_counts_against_the_items() {
        assert!(check(&request(MAX_DYNAMO_APPEND_EVENTS, 1)).is_ok());
        let error = check(&request(MAX_DYNAMO_APPEND_EVENTS + 1, 1)).unwrap_err();
        assert!(error.to_string().contains("101 items"), "{error}");
        assert!(check(&keyed(request(MAX_DYNAMO_APPEND_EVENTS - 1, 1))).is_ok());
        assert!(check(&keyed(request(MAX_DYNAMO_APPEND_EVENTS, 1))).is_err());
    }

    #[test]
    fn items_and_transactions_have_their_size() {
        assert!(check(&request(1, MAX_ITEM_BYTES - 1_000)).is_ok());
        let error = check(&request(1, MAX_ITEM_BYTES)).unwrap_err();
        assert!(
            error.to_string().contains("DynamoDB takes items"),
            "{error}"
        );
        assert!(check(&request(10, 390 * 1024)).is_ok());
        let error = check(&request(11, 390 * 1024)).unwrap_err();
        assert!(
            error.to_string().contains("a transaction of DynamoDB"),
            "{error}"
        );
    }
}
