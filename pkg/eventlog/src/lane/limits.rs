//! What one append may hold. Checked before it is queued, so that one cannot spoil a batch.

use millrace_es::{Context, PartitionCount};

use crate::{AppendError, AppendRequest, ExpectedVersion, LogError};

/// The most events of one append.
pub const MAX_APPEND_EVENTS: usize = 1_000;
/// The most streams of one append.
pub const MAX_APPEND_STREAMS: usize = 100;
/// The largest payload of an event. Well below what a JetStream message may hold (1 MiB).
pub const MAX_PAYLOAD_BYTES: usize = 512 * 1024;
/// The most bytes of one append: payloads, metadata and answer.
pub const MAX_APPEND_BYTES: usize = 4 * 1024 * 1024;
/// The largest metadata of an event; it travels in message headers.
const MAX_METADATA_BYTES: usize = 4 * 1024;
/// The longest event type.
const MAX_TYPE_BYTES: usize = 128;
/// The most reservations of one append.
const MAX_RESERVATIONS: usize = 100;
/// The longest reserved name, and its holder.
const MAX_NAME_BYTES: usize = 512;
/// What an event costs beside its texts.
const EVENT_BYTES: usize = 128;

/// Checks a request and gives its size in bytes.
pub(crate) fn check(request: &AppendRequest) -> Result<usize, AppendError> {
    let events: usize = request.streams.iter().map(|s| s.events.len()).sum();
    if request.streams.is_empty() && request.answer.is_none() {
        return refuse("it has neither streams nor an answer".to_owned());
    }
    if request.streams.len() > MAX_APPEND_STREAMS {
        return refuse(format!(
            "it has {} streams, at most {MAX_APPEND_STREAMS} go together",
            request.streams.len()
        ));
    }
    if events > MAX_APPEND_EVENTS {
        return refuse(format!(
            "it has {events} events, at most {MAX_APPEND_EVENTS} go together"
        ));
    }
    if !request.reservations.is_empty() && events == 0 {
        return refuse("it reserves names without an event".to_owned());
    }
    let bytes = check_streams(request)? + check_answer(request) + check_names(request)?;
    if bytes > MAX_APPEND_BYTES {
        return refuse(format!(
            "it has {bytes} bytes, at most {MAX_APPEND_BYTES} go together"
        ));
    }
    Ok(bytes)
}

fn refuse<T>(reason: String) -> Result<T, AppendError> {
    Err(AppendError::Invalid(reason))
}

fn check_streams(request: &AppendRequest) -> Result<usize, AppendError> {
    let mut bytes = 0;
    for (index, append) in request.streams.iter().enumerate() {
        let twice = request.streams[..index]
            .iter()
            .any(|before| before.stream == append.stream);
        if twice {
            return refuse(format!("stream {} stands in it twice", append.stream));
        }
        let empty = match append.expected {
            ExpectedVersion::Follows { version, .. } => version.get() == 0,
            _ => false,
        };
        if empty {
            return refuse(format!("nothing follows version 0 of {}", append.stream));
        }
        for event in &append.events {
            let payload = event.payload.get().len();
            if payload > MAX_PAYLOAD_BYTES {
                return refuse(format!(
                    "the payload of a {} has {payload} bytes, at most {MAX_PAYLOAD_BYTES} are possible",
                    event.event_type
                ));
            }
            if event.event_type.is_empty()
                || event.event_type.len() > MAX_TYPE_BYTES
                || event.event_type.contains(char::is_control)
            {
                return refuse(format!("{:?} is no event type", event.event_type));
            }
            if i16::try_from(event.schema_version).is_err() {
                return refuse(format!(
                    "schema version {} of {} is too high",
                    event.schema_version, event.event_type
                ));
            }
            let metadata = metadata_bytes(&event.metadata);
            if metadata > MAX_METADATA_BYTES {
                return refuse(format!(
                    "the metadata of a {} has {metadata} bytes, at most {MAX_METADATA_BYTES} are possible",
                    event.event_type
                ));
            }
            bytes += payload + metadata + EVENT_BYTES;
        }
    }
    Ok(bytes)
}

fn metadata_bytes(metadata: &millrace_es::Metadata) -> usize {
    let optional = [
        &metadata.causation_id,
        &metadata.traceparent,
        &metadata.actor,
        &metadata.idempotency_key_hash,
    ];
    metadata.correlation_id.len()
        + optional
            .into_iter()
            .flatten()
            .map(String::len)
            .sum::<usize>()
}

fn check_answer(request: &AppendRequest) -> usize {
    request.answer.as_ref().map_or(0, |(_, answer)| {
        let headers: usize = answer.headers.iter().map(|(k, v)| k.len() + v.len()).sum();
        answer.body.len() + headers
    })
}

fn check_names(request: &AppendRequest) -> Result<usize, AppendError> {
    if request.reservations.len() > MAX_RESERVATIONS {
        return refuse(format!(
            "it has {} reservations, at most {MAX_RESERVATIONS} go together",
            request.reservations.len()
        ));
    }
    let mut bytes = 0;
    for reservation in &request.reservations {
        for text in [&reservation.value, &reservation.holder] {
            if text.is_empty() || text.len() > MAX_NAME_BYTES || text.contains('\0') {
                return refuse(format!(
                    "a reservation of {} needs names of 1 to {MAX_NAME_BYTES} bytes without NUL",
                    reservation.scope
                ));
            }
            bytes += text.len();
        }
    }
    Ok(bytes)
}

/// Refuses a partition count that differs from the stored one.
pub(crate) fn check_partitions(
    context: &Context,
    stored: usize,
    wanted: PartitionCount,
) -> Result<(), LogError> {
    if stored == usize::from(wanted.get()) {
        return Ok(());
    }
    Err(LogError::Misconfigured(format!(
        "the log of {context} has {stored} partitions and the setting says {}; the count of a log never changes, set it back to {stored}",
        wanted.get()
    )))
}
