//! The form of an event on the wire: CloudEvents 1.0 in binary mode over NATS, the attributes as
//! `ce-` headers, the payload as the body, byte for byte as the log holds it.
//!
//! Decoding is strict, because what it refuses is what the relay treats as somebody else's
//! message: every attribute has to be there once, and subject, source and sequence have to agree
//! with what the event says of itself. Headers that are not known are ignored, so that later
//! releases may add some.

use std::{borrow::Cow, sync::Arc};

use async_nats::{
    HeaderMap, HeaderName, HeaderValue, Subject, header::NATS_EXPECTED_LAST_SEQUENCE,
};
use bytes::Bytes;
use millrace_es::{
    Context, Epoch, EventId, Metadata, Partition, Position, RecordedEvent, StreamId, StreamVersion,
};
use millrace_kernel::Timestamp;
use serde_json::value::RawValue;

use crate::names::Names;

const SPEC_VERSION: &str = "1.0";
const CONTENT_TYPE: &str = "application/json";

macro_rules! headers {
    ($($name:ident = $text:literal;)*) => {
        $(const $name: &str = $text;)*
    };
}

headers! {
    CE_SPECVERSION = "ce-specversion";
    CE_ID = "ce-id";
    CE_SOURCE = "ce-source";
    CE_TYPE = "ce-type";
    CE_SUBJECT = "ce-subject";
    CE_TIME = "ce-time";
    CE_CONTENT_TYPE = "content-type";
    CE_POSITION = "ce-position";
    CE_PREVIOUS = "ce-previous";
    CE_EPOCH = "ce-epoch";
    CE_STREAM_VERSION = "ce-streamversion";
    CE_SCHEMA_VERSION = "ce-schemaversion";
    CE_CORRELATION_ID = "ce-correlationid";
    CE_CAUSATION_ID = "ce-causationid";
    CE_TRACEPARENT = "ce-traceparent";
    CE_ACTOR = "ce-actor";
    CE_IDEMPOTENCY_KEY_HASH = "ce-idempotencykeyhash";
}

/// A message that is not an event of the log it stands in for.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("message {sequence} of {stream} is not an event of its log: {reason}")]
pub struct ForeignMessage {
    /// The stream it was found in.
    pub stream: String,
    /// Where it stands there.
    pub sequence: u64,
    /// What gave it away.
    pub reason: String,
}

/// An event ready to be published.
#[derive(Debug, Clone)]
pub struct Encoded {
    /// `<ns>.<context>.<partition>.<type>`.
    pub subject: Subject,
    /// The attributes.
    pub headers: HeaderMap,
    /// The payload.
    pub body: Bytes,
}

/// Puts an event into its form on the wire. The stream takes it only as the one directly after
/// the event before it: position n goes with `Nats-Expected-Last-Sequence: n-1`.
#[must_use]
pub fn encode(names: &Names, event: &RecordedEvent) -> Encoded {
    let mut headers = attributes(names, event);
    headers.insert(
        NATS_EXPECTED_LAST_SEQUENCE,
        HeaderValue::from(event.position.get().saturating_sub(1)),
    );
    Encoded {
        subject: Subject::from(names.subject(&event.context, event.partition, &event.event_type)),
        headers,
        body: body(event),
    }
}

/// The payload as it travels.
pub(crate) fn body(event: &RecordedEvent) -> Bytes {
    Bytes::copy_from_slice(event.payload.get().as_bytes())
}

/// The headers of an event, without the expectation of the relay.
pub(crate) fn attributes(names: &Names, event: &RecordedEvent) -> HeaderMap {
    let mut headers = HeaderMap::new();
    let mut put = |name: &'static str, value: HeaderValue| {
        headers.insert(HeaderName::from_static(name), value);
    };
    put(CE_SPECVERSION, HeaderValue::from(SPEC_VERSION));
    put(CE_ID, HeaderValue::from(event.id.to_string()));
    put(CE_SOURCE, HeaderValue::from(names.source(&event.context)));
    put(CE_TYPE, text(&event.event_type));
    put(CE_SUBJECT, text(event.stream.as_str()));
    put(CE_TIME, HeaderValue::from(event.recorded_at.to_string()));
    put(CE_CONTENT_TYPE, HeaderValue::from(CONTENT_TYPE));
    put(CE_POSITION, HeaderValue::from(event.position.get()));
    put(CE_PREVIOUS, HeaderValue::from(event.previous.get()));
    put(CE_EPOCH, HeaderValue::from(event.epoch.get()));
    put(CE_STREAM_VERSION, HeaderValue::from(event.version.get()));
    put(
        CE_SCHEMA_VERSION,
        HeaderValue::from(u64::from(event.schema_version)),
    );
    let metadata = &event.metadata;
    put(CE_CORRELATION_ID, text(&metadata.correlation_id));
    for (name, value) in [
        (CE_CAUSATION_ID, &metadata.causation_id),
        (CE_TRACEPARENT, &metadata.traceparent),
        (CE_ACTOR, &metadata.actor),
        (CE_IDEMPOTENCY_KEY_HASH, &metadata.idempotency_key_hash),
    ] {
        if let Some(value) = value {
            put(name, text(value));
        }
    }
    headers
}

/// Reads a message of a context's stream as the event it carries.
///
/// # Errors
/// [`ForeignMessage`] when it is not an event that the relay of this context published as this
/// sequence.
pub fn decode(
    names: &Names,
    context: &Context,
    sequence: u64,
    subject: &str,
    headers: Option<&HeaderMap>,
    body: &[u8],
) -> Result<RecordedEvent, ForeignMessage> {
    parse(names, context, sequence, subject, headers, body).map_err(|reason| ForeignMessage {
        stream: names.stream(context),
        sequence,
        reason: reason.into_owned(),
    })
}

type Reason = Cow<'static, str>;

fn parse(
    names: &Names,
    context: &Context,
    sequence: u64,
    subject: &str,
    headers: Option<&HeaderMap>,
    body: &[u8],
) -> Result<RecordedEvent, Reason> {
    let found = Attributes::collect(headers.ok_or("it has no headers")?)?;
    let partition = names
        .partition_of(context, subject)
        .ok_or("its subject is not one of the context's")?;
    if required(found.specversion, CE_SPECVERSION)? != SPEC_VERSION {
        return Err("ce-specversion is not 1.0".into());
    }
    if required(found.source, CE_SOURCE)? != names.source(context) {
        return Err("ce-source names another log".into());
    }
    if required(found.content_type, CE_CONTENT_TYPE)? != CONTENT_TYPE {
        return Err("its content type is not application/json".into());
    }
    let position = number(found.position, CE_POSITION)?;
    if position != sequence {
        return Err(format!("ce-position is {position}").into());
    }
    let event_type = decoded(required(found.event_type, CE_TYPE)?, CE_TYPE)?;
    let payload: Box<RawValue> =
        serde_json::from_slice(body).map_err(|_| "its body is not JSON")?;
    let event = RecordedEvent {
        id: EventId::new(parsed(found.id, CE_ID)?),
        context: context.clone(),
        epoch: Epoch::new(number(found.epoch, CE_EPOCH)?),
        position: Position::new(position),
        partition,
        previous: Position::new(number(found.previous, CE_PREVIOUS)?),
        stream: stream_id(found.subject)?,
        version: StreamVersion::new(number(found.stream_version, CE_STREAM_VERSION)?),
        event_type: Cow::Owned(event_type.into_owned()),
        schema_version: parsed(found.schema_version, CE_SCHEMA_VERSION)?,
        payload,
        metadata: Arc::new(found.metadata()?),
        recorded_at: parsed::<Timestamp>(found.time, CE_TIME)?,
    };
    agrees(names, &event, subject)?;
    Ok(event)
}

/// What has to hold inside one event.
fn agrees(names: &Names, event: &RecordedEvent, subject: &str) -> Result<(), Reason> {
    if names.subject(&event.context, event.partition, &event.event_type) != subject {
        return Err("its subject and its type disagree".into());
    }
    if event.previous >= event.position {
        return Err("ce-previous is not before ce-position".into());
    }
    if event.version == StreamVersion::ZERO || event.schema_version == 0 {
        return Err("a version in it is 0".into());
    }
    Ok(())
}

/// The headers of one message, each at most once.
#[derive(Default)]
struct Attributes<'a> {
    specversion: Option<&'a str>,
    id: Option<&'a str>,
    source: Option<&'a str>,
    event_type: Option<&'a str>,
    subject: Option<&'a str>,
    time: Option<&'a str>,
    content_type: Option<&'a str>,
    position: Option<&'a str>,
    previous: Option<&'a str>,
    epoch: Option<&'a str>,
    stream_version: Option<&'a str>,
    schema_version: Option<&'a str>,
    correlation_id: Option<&'a str>,
    causation_id: Option<&'a str>,
    traceparent: Option<&'a str>,
    actor: Option<&'a str>,
    idempotency_key_hash: Option<&'a str>,
}

impl<'a> Attributes<'a> {
    /// One walk over the map: a look-up per attribute costs an allocation each.
    fn collect(headers: &'a HeaderMap) -> Result<Self, Reason> {
        let mut found = Self::default();
        for (name, values) in headers.iter() {
            let name: &str = name.as_ref();
            let Some(slot) = found.slot(name) else {
                continue;
            };
            let [value] = values.as_slice() else {
                return Err(format!("{name} is there more than once").into());
            };
            *slot = Some(value.as_str());
        }
        Ok(found)
    }

    fn slot(&mut self, name: &str) -> Option<&mut Option<&'a str>> {
        Some(match name {
            CE_SPECVERSION => &mut self.specversion,
            CE_ID => &mut self.id,
            CE_SOURCE => &mut self.source,
            CE_TYPE => &mut self.event_type,
            CE_SUBJECT => &mut self.subject,
            CE_TIME => &mut self.time,
            CE_CONTENT_TYPE => &mut self.content_type,
            CE_POSITION => &mut self.position,
            CE_PREVIOUS => &mut self.previous,
            CE_EPOCH => &mut self.epoch,
            CE_STREAM_VERSION => &mut self.stream_version,
            CE_SCHEMA_VERSION => &mut self.schema_version,
            CE_CORRELATION_ID => &mut self.correlation_id,
            CE_CAUSATION_ID => &mut self.causation_id,
            CE_TRACEPARENT => &mut self.traceparent,
            CE_ACTOR => &mut self.actor,
            CE_IDEMPOTENCY_KEY_HASH => &mut self.idempotency_key_hash,
            _ => return None,
        })
    }

    fn metadata(&self) -> Result<Metadata, Reason> {
        let optional = |value: Option<&str>, name| {
            value
                .map(|value| decoded(value, name).map(Cow::into_owned))
                .transpose()
        };
        let correlation_id = required(self.correlation_id, CE_CORRELATION_ID)?;
        Ok(Metadata {
            correlation_id: decoded(correlation_id, CE_CORRELATION_ID)?.into_owned(),
            causation_id: optional(self.causation_id, CE_CAUSATION_ID)?,
            traceparent: optional(self.traceparent, CE_TRACEPARENT)?,
            actor: optional(self.actor, CE_ACTOR)?,
            idempotency_key_hash: optional(self.idempotency_key_hash, CE_IDEMPOTENCY_KEY_HASH)?,
        })
    }
}

fn required<'a>(value: Option<&'a str>, name: &'static str) -> Result<&'a str, Reason> {
    value.ok_or_else(|| format!("{name} is missing").into())
}

fn parsed<T: std::str::FromStr>(value: Option<&str>, name: &'static str) -> Result<T, Reason> {
    let value = required(value, name)?;
    value
        .parse()
        .map_err(|_| format!("{name} is not what it should be").into())
}

/// A number of plain digits, as the relay writes it: no sign, no leading zeros.
fn number(value: Option<&str>, name: &'static str) -> Result<u64, Reason> {
    let text = required(value, name)?;
    let plain = text.bytes().all(|b| b.is_ascii_digit()) && (text == "0" || !text.starts_with('0'));
    text.parse()
        .ok()
        .filter(|_| plain)
        .ok_or_else(|| format!("{name} is not a number").into())
}

fn stream_id(value: Option<&str>) -> Result<StreamId, Reason> {
    let text = decoded(required(value, CE_SUBJECT)?, CE_SUBJECT)?;
    StreamId::new(&text).map_err(|error| error.to_string().into())
}

fn text(value: &str) -> HeaderValue {
    HeaderValue::from(percent_encoded(value).as_ref())
}

fn decoded<'a>(value: &'a str, name: &'static str) -> Result<Cow<'a, str>, Reason> {
    percent_decoded(value).ok_or_else(|| format!("{name} is not percent-encoded UTF-8").into())
}

/// Whether the CloudEvents bindings want a byte of a header encoded: everything outside the
/// visible ASCII characters, the double quote and the percent sign.
const fn needs_encoding(byte: u8) -> bool {
    !matches!(byte, 0x21..=0x7e) || matches!(byte, b'"' | b'%')
}

/// A text as a CloudEvents header value.
pub(crate) fn percent_encoded(text: &str) -> Cow<'_, str> {
    if !text.bytes().any(needs_encoding) {
        return Cow::Borrowed(text);
    }
    let mut encoded = String::with_capacity(text.len() + 16);
    for byte in text.bytes() {
        if needs_encoding(byte) {
            let digit = |nibble: u8| char::from(b"0123456789ABCDEF"[usize::from(nibble)]);
            encoded.push('%');
            encoded.push(digit(byte >> 4));
            encoded.push(digit(byte & 0x0f));
        } else {
            encoded.push(char::from(byte));
        }
    }
    Cow::Owned(encoded)
}

/// The text of a CloudEvents header value; `None` when it is not one.
fn percent_decoded(value: &str) -> Option<Cow<'_, str>> {
    if !value.contains('%') {
        return Some(Cow::Borrowed(value));
    }
    let mut bytes = Vec::with_capacity(value.len());
    let mut rest = value.bytes();
    while let Some(byte) = rest.next() {
        if byte == b'%' {
            let mut nibble = || char::from(rest.next()?).to_digit(16);
            let (high, low) = (nibble()?, nibble()?);
            bytes.push(u8::try_from(high << 4 | low).ok()?);
        } else {
            bytes.push(byte);
        }
    }
    String::from_utf8(bytes).ok().map(Cow::Owned)
}

/// The partition that the subject of a message names, when it is one of a context's.
#[must_use]
pub fn partition(names: &Names, context: &Context, subject: &str) -> Option<Partition> {
    names.partition_of(context, subject)
}

#[cfg(test)]
mod tests;
