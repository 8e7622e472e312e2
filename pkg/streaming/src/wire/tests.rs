use std::{borrow::Cow, sync::Arc};

use async_nats::HeaderMap;
use millrace_es::{
    Context, Epoch, EventId, Metadata, Partition, Position, RecordedEvent, StreamId, StreamVersion,
};
use serde_json::value::RawValue;

use super::*;

fn names() -> Names {
    Names::new("millrace").unwrap()
}

fn ordering() -> Context {
    Context::new("ordering").unwrap()
}

fn event() -> RecordedEvent {
    RecordedEvent {
        id: EventId::new("0197f3a0-0000-7000-8000-000000000001".parse().unwrap()),
        context: ordering(),
        epoch: Epoch::new(1),
        position: Position::new(42),
        partition: Partition::new(7),
        previous: Position::new(40),
        stream: StreamId::new("order-é 50%\"x\"").unwrap(),
        version: StreamVersion::new(3),
        event_type: Cow::Borrowed("order.status_updated"),
        schema_version: 2,
        payload: RawValue::from_string(r#"{"status": "SHIPPED",  "n":1.50}"#.to_owned()).unwrap(),
        metadata: Arc::new(Metadata {
            correlation_id: "c 1".to_owned(),
            causation_id: Some("request\nx".to_owned()),
            traceparent: Some("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01".to_owned()),
            actor: None,
            idempotency_key_hash: Some("ab".repeat(32)),
        }),
        recorded_at: "2026-01-31T12:00:00.123456Z".parse().unwrap(),
    }
}

fn read(message: &Encoded, sequence: u64) -> Result<RecordedEvent, ForeignMessage> {
    decode(
        &names(),
        &ordering(),
        sequence,
        &message.subject,
        Some(&message.headers),
        &message.body,
    )
}

fn header<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name).map(|value| value.as_str())
}

#[test]
fn an_event_comes_back_as_it_went() {
    let sent = event();
    let message = encode(&names(), &sent);
    assert_eq!(
        message.subject.as_str(),
        "millrace.ordering.7.order-status_updated"
    );
    let got = read(&message, 42).unwrap();
    assert_eq!(
        serde_json::to_value(&got).unwrap(),
        serde_json::to_value(&sent).unwrap()
    );
    assert_eq!(got.payload.get(), sent.payload.get(), "byte for byte");
}

/// Locks the wire format: other tools read these headers.
#[test]
fn headers_are_cloud_events_in_binary_mode() {
    let message = encode(&names(), &event());
    let expected = [
        ("ce-specversion", "1.0"),
        ("ce-id", "0197f3a0-0000-7000-8000-000000000001"),
        ("ce-source", "/millrace/ordering"),
        ("ce-type", "order.status_updated"),
        ("ce-subject", "order-%C3%A9%2050%25%22x%22"),
        ("ce-time", "2026-01-31T12:00:00.123456Z"),
        ("content-type", "application/json"),
        ("ce-position", "42"),
        ("ce-previous", "40"),
        ("ce-epoch", "1"),
        ("ce-streamversion", "3"),
        ("ce-schemaversion", "2"),
        ("ce-correlationid", "c%201"),
        ("ce-causationid", "request%0Ax"),
        (
            "ce-traceparent",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
        ),
        ("Nats-Expected-Last-Sequence", "41"),
    ];
    for (name, value) in expected {
        assert_eq!(header(&message.headers, name), Some(value), "{name}");
    }
    assert_eq!(header(&message.headers, "ce-actor"), None);
    assert_eq!(header(&message.headers, "Nats-Msg-Id"), None);
    assert_eq!(
        message.headers.len(),
        expected.len() + 1,
        "and the key hash"
    );
}

#[test]
fn foreign_messages_are_told_apart() {
    let reason = |change: &dyn Fn(&mut Encoded)| {
        let mut message = encode(&names(), &event());
        change(&mut message);
        read(&message, 42).unwrap_err().reason
    };
    for name in [
        "ce-specversion",
        "ce-id",
        "ce-source",
        "ce-type",
        "ce-subject",
        "ce-time",
        "content-type",
        "ce-position",
        "ce-previous",
        "ce-epoch",
        "ce-streamversion",
        "ce-schemaversion",
        "ce-correlationid",
    ] {
        let missing = reason(&|message| {
            message.headers = message
                .headers
                .iter()
                .filter(|(key, _)| AsRef::<str>::as_ref(*key) != name)
                .map(|(key, values)| (key.clone(), values[0].clone()))
                .collect();
        });
        assert!(
            missing.contains(name) || missing.contains("content type"),
            "{missing}"
        );
        let twice = reason(&|message| {
            let value = message.headers.get(name).unwrap().clone();
            message.headers.append(name, value);
        });
        assert!(twice.contains("more than once"), "{twice}");
    }
    for (name, value) in [
        ("ce-specversion", "0.3"),
        ("ce-source", "/millrace/banking"),
        ("ce-id", "x"),
        ("ce-position", "43"),
        ("ce-position", "042"),
        ("ce-position", "+42"),
        ("ce-previous", "42"),
        ("ce-streamversion", "0"),
        ("ce-schemaversion", "0"),
        ("ce-schemaversion", "70000"),
        ("ce-subject", ""),
        ("ce-subject", "a%zz"),
        ("ce-subject", "%ff"),
        ("ce-time", "yesterday"),
        ("ce-type", "order.created"),
        ("content-type", "text/plain"),
    ] {
        reason(&|message| message.headers.insert(name, value));
    }
    reason(&|message| message.body = "{".into());
    reason(&|message| message.body = vec![b'"', 0xff, b'"'].into());
    reason(&|message| message.subject = "millrace.ordering.8.other".into());
    reason(&|message| message.subject = "millrace.banking.7.order-status_updated".into());
    let message = encode(&names(), &event());
    assert!(read(&message, 41).is_err(), "another place in the stream");
    assert!(decode(&names(), &ordering(), 42, &message.subject, None, b"{}").is_err());
}

#[test]
fn unknown_headers_are_ignored() {
    let mut message = encode(&names(), &event());
    message.headers.insert("ce-added", "later");
    message.headers.insert("Nats-Time-Stamp", "x");
    assert!(read(&message, 42).is_ok());
}
