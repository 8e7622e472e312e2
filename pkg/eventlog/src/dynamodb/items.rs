//! The items of a log's table. A stored format.
//!
//! Everything of one context is in one table, with the key `pk` (text) and `sk` (number):
//!
//! | `pk` | `sk` | holds |
//! |---|---|---|
//! | `stream#<stream id>` | version | an event |
//! | `head` | 0 | where the log ends, its epoch and partitions, why it is halted |
//! | `lease` | 0 | which process leads |
//! | `answer#<key hash>` | 0 | what a request was answered; `expires` |
//! | `name#<scope>#<value>` | 0 | who holds a name |
//! | `snapshot#<stream id>` | 0 | an aggregate's state |
//! | `inline#<table>#<key>` | 0 | a row of the write model |
//! | `shards` | 0 | how far the stream processor has read each shard |
//!
//! The index `by-position` has the events by (`bucket`, `position`). The bucket is the position
//! modulo [`BUCKETS`]: under one key the index would take the writes of one DynamoDB partition only.

use std::{borrow::Cow, sync::Arc};

use aws_sdk_dynamodb::types::AttributeValue;
use millrace_es::{
    Context, Epoch, EventId, Partition, PartitionCount, Position, RecordedEvent, StreamId,
    StreamVersion,
};
use serde_json::value::RawValue;

use super::values::{
    BadItem, Item, PK, SK, get_number, get_parsed, get_text, get_time, number, text,
};
use crate::{Answer, AnswerKey, LogHead, SnapshotRecord, StoredAnswer, lane::plan::Head};

/// Over how many keys of the index the log is spread.
pub const BUCKETS: u64 = 16;
/// The index of the events by (`bucket`, `position`).
pub const BY_POSITION: &str = "by-position";
/// The attribute that says, in seconds since 1970, from when on an item counts as gone. DynamoDB
/// removes it at some time after that.
pub const EXPIRES: &str = "expires";

pub(super) const POSITION: &str = "position";
pub(super) const BUCKET: &str = "bucket";
pub(super) const EPOCH: &str = "epoch";
pub(super) const GUARD: &str = "guard";
pub(super) const HALTED: &str = "halted";
pub(super) const PARTITIONS: &str = "partitions";
pub(super) const PARTITION_POSITIONS: &str = "partition_positions";
pub(super) const RECORDED_AT: &str = "recorded_at";
pub(super) const VERSION: &str = "version";
pub(super) const SNAPSHOT_VERSION: &str = "snapshot_version";
pub(super) const HOLDER: &str = "holder";
pub(super) const ID: &str = "id";

const STREAM_PREFIX: &str = "stream#";

/// The name of a context's table.
#[must_use]
pub fn table_name(namespace: &str, context: &Context) -> String {
    format!("{namespace}-{context}-log")
}

fn key(pk: String, sk: u64) -> Item {
    Item::from([(PK.to_owned(), text(pk)), (SK.to_owned(), number(sk))])
}

pub(super) fn stream_pk(stream: &StreamId) -> String {
    format!("{STREAM_PREFIX}{stream}")
}

pub(super) fn event_key(stream: &StreamId, version: StreamVersion) -> Item {
    key(stream_pk(stream), version.get())
}

pub(super) fn head_key() -> Item {
    key("head".to_owned(), 0)
}

pub(super) fn lease_key() -> Item {
    key("lease".to_owned(), 0)
}

pub(super) fn answer_key(key_hash: &[u8; 32]) -> Item {
    key(format!("answer#{}", hex(key_hash)), 0)
}

pub(super) fn name_key(scope: &str, value: &str) -> Item {
    key(format!("name#{scope}#{value}"), 0)
}

pub(super) fn snapshot_key(stream: &StreamId) -> Item {
    key(format!("snapshot#{stream}"), 0)
}

/// The key of a row of the write model.
#[must_use]
pub fn inline_key(table: &str, row: &str) -> Item {
    key(format!("inline#{table}#{row}"), 0)
}

pub(super) fn bucket(position: Position) -> u64 {
    position.get() % BUCKETS
}

fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write;
    bytes.iter().fold(String::new(), |mut hex, byte| {
        // Writing to a text cannot fail.
        let _ = write!(hex, "{byte:02x}");
        hex
    })
}

fn unhex(item: &Item, name: &'static str) -> Result<[u8; 32], BadItem> {
    let digits = get_text(item, name)?;
    let mut bytes = [0; 32];
    if digits.len() != 64 || !digits.is_ascii() {
        return Err(BadItem::at(item, name));
    }
    for (index, byte) in bytes.iter_mut().enumerate() {
        *byte = u8::from_str_radix(&digits[2 * index..2 * index + 2], 16)
            .map_err(|_| BadItem::at(item, name))?;
    }
    Ok(bytes)
}

/// An event as its item. The context is the table's and not in it.
///
/// # Errors
/// When the metadata has no JSON form, which no metadata of ours lacks.
pub fn event_item(event: &RecordedEvent) -> Result<Item, serde_json::Error> {
    let mut item = event_key(&event.stream, event.version);
    let attributes = [
        (BUCKET, number(bucket(event.position))),
        (POSITION, number(event.position)),
        (ID, text(event.id.to_string())),
        ("type", text(event.event_type.as_ref())),
        ("schema", number(event.schema_version)),
        ("partition", number(event.partition)),
        ("previous", number(event.previous)),
        (EPOCH, number(event.epoch)),
        ("payload", text(event.payload.get())),
        ("metadata", text(serde_json::to_string(&event.metadata)?)),
        (RECORDED_AT, text(event.recorded_at.to_string())),
    ];
    item.extend(attributes.map(|(name, value)| (name.to_owned(), value)));
    Ok(item)
}

/// Whether an item is an event. Everything else of the table is the log's own.
#[must_use]
pub fn is_event(item: &Item) -> bool {
    matches!(item.get(PK), Some(AttributeValue::S(pk)) if pk.starts_with(STREAM_PREFIX))
}

/// An item as the event it holds. Its epoch is the one it was appended in; a log that began a new
/// one says so in its head.
///
/// # Errors
/// [`BadItem`] when it is no event, or none that this code writes.
pub fn event_from(context: &Context, item: &Item) -> Result<RecordedEvent, BadItem> {
    let stream = get_text(item, PK)?
        .strip_prefix(STREAM_PREFIX)
        .and_then(|stream| StreamId::new(stream).ok())
        .ok_or_else(|| BadItem::at(item, PK))?;
    let payload = RawValue::from_string(get_text(item, "payload")?.to_owned())
        .map_err(|_| BadItem::at(item, "payload"))?;
    let metadata = serde_json::from_str(get_text(item, "metadata")?)
        .map_err(|_| BadItem::at(item, "metadata"))?;
    Ok(RecordedEvent {
        id: event_id(item)?,
        context: context.clone(),
        epoch: Epoch::new(get_number(item, EPOCH)?),
        position: Position::new(get_number(item, POSITION)?),
        partition: Partition::new(get_number(item, "partition")?),
        previous: Position::new(get_number(item, "previous")?),
        stream,
        version: StreamVersion::new(get_number(item, SK)?),
        event_type: Cow::Owned(get_text(item, "type")?.to_owned()),
        schema_version: get_number(item, "schema")?,
        payload,
        metadata: Arc::new(metadata),
        recorded_at: get_time(item, RECORDED_AT)?,
    })
}

pub(super) fn event_id(item: &Item) -> Result<EventId, BadItem> {
    get_parsed(item, ID).map(EventId::new)
}

pub(super) fn positions(partitions: &[Position]) -> AttributeValue {
    AttributeValue::L(partitions.iter().map(number).collect())
}

/// The head of a log, also of one without events.
pub(super) fn head_item(head: &Head) -> Item {
    let mut item = head_key();
    let attributes = [
        (POSITION, number(head.position)),
        (EPOCH, number(head.epoch)),
        (GUARD, number(head.guard)),
        (PARTITIONS, number(head.partitions.len())),
        (PARTITION_POSITIONS, positions(&head.partitions)),
        (RECORDED_AT, text(head.recorded_at.to_string())),
    ];
    item.extend(attributes.map(|(name, value)| (name.to_owned(), value)));
    if let Some(reason) = &head.halted {
        item.insert(HALTED.to_owned(), text(reason.as_str()));
    }
    item
}

/// Reads a head. `now` is the clock of whoever reads it: DynamoDB does not say its own.
pub(super) fn head_from(item: &Item, now: millrace_kernel::Timestamp) -> Result<Head, BadItem> {
    let bad = || BadItem::at(item, PARTITION_POSITIONS);
    let Some(AttributeValue::L(list)) = item.get(PARTITION_POSITIONS) else {
        return Err(bad());
    };
    let partitions = list
        .iter()
        .map(|one| {
            let digits = one.as_n().map_err(|_| bad())?;
            digits.parse().map_err(|_| bad())
        })
        .collect::<Result<Vec<Position>, _>>()?;
    let count: usize = get_number(item, PARTITIONS)?;
    if count != partitions.len() {
        return Err(bad());
    }
    Ok(Head {
        position: Position::new(get_number(item, POSITION)?),
        epoch: Epoch::new(get_number(item, EPOCH)?),
        guard: get_number(item, GUARD)?,
        halted: match item.get(HALTED) {
            Some(_) => Some(get_text(item, HALTED)?.to_owned()),
            None => None,
        },
        partitions,
        recorded_at: get_time(item, RECORDED_AT)?,
        now,
    })
}

/// A head as the contract has it.
pub(super) fn log_head(head: Head, item: &Item) -> Result<LogHead, BadItem> {
    let partitions = u16::try_from(head.partitions.len())
        .ok()
        .and_then(|count| PartitionCount::new(count).ok())
        .ok_or_else(|| BadItem::at(item, PARTITIONS))?;
    Ok(LogHead {
        position: head.position,
        epoch: head.epoch,
        partitions,
        partition_positions: head.partitions,
        halted: head.halted,
    })
}

/// An answer with its key; it counts as gone from `expires` on.
pub(super) fn answer_item(stored: &StoredAnswer, expires: i64) -> Result<Item, serde_json::Error> {
    let mut item = answer_key(&stored.key.key_hash);
    let answer = &stored.answer;
    let body = aws_sdk_dynamodb::primitives::Blob::new(answer.body.as_ref());
    let attributes = [
        ("key", text(hex(&stored.key.key_hash))),
        ("request", text(hex(&stored.key.request_hash))),
        ("status", number(answer.status)),
        ("headers", text(serde_json::to_string(&answer.headers)?)),
        ("body", AttributeValue::B(body)),
        ("token", text(stored.token.to_string())),
        (EXPIRES, number(expires)),
    ];
    item.extend(attributes.map(|(name, value)| (name.to_owned(), value)));
    Ok(item)
}

/// Reads an answer, and from when on it counts as gone.
pub(super) fn answer_from(item: &Item) -> Result<(StoredAnswer, i64), BadItem> {
    let bad = |name| move |_| BadItem::at(item, name);
    let Some(AttributeValue::B(body)) = item.get("body") else {
        return Err(BadItem::at(item, "body"));
    };
    let stored = StoredAnswer {
        key: AnswerKey {
            key_hash: unhex(item, "key")?,
            request_hash: unhex(item, "request")?,
        },
        answer: Answer {
            status: get_number(item, "status")?,
            headers: serde_json::from_str(get_text(item, "headers")?).map_err(bad("headers"))?,
            body: body.as_ref().to_vec().into(),
        },
        token: get_parsed(item, "token")?,
    };
    Ok((stored, get_number(item, EXPIRES)?))
}

/// A snapshot as its item.
pub(super) fn snapshot_item(stream: &StreamId, snapshot: &SnapshotRecord) -> Item {
    let mut item = snapshot_key(stream);
    let attributes = [
        (VERSION, number(snapshot.version)),
        (SNAPSHOT_VERSION, number(snapshot.snapshot_version)),
        ("state", text(snapshot.state.get())),
    ];
    item.extend(attributes.map(|(name, value)| (name.to_owned(), value)));
    item
}

pub(super) fn snapshot_from(item: &Item) -> Result<SnapshotRecord, BadItem> {
    Ok(SnapshotRecord {
        version: StreamVersion::new(get_number(item, VERSION)?),
        snapshot_version: get_number(item, SNAPSHOT_VERSION)?,
        state: RawValue::from_string(get_text(item, "state")?.to_owned())
            .map_err(|_| BadItem::at(item, "state"))?,
    })
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use millrace_es::Metadata;
    use serde_json::json;

    use super::*;

    fn context() -> Context {
        Context::new("banking").unwrap()
    }

    fn event() -> RecordedEvent {
        RecordedEvent {
            id: EventId::new("0190d2b0-0000-7000-8000-000000000001".parse().unwrap()),
            context: context(),
            epoch: Epoch::new(2),
            position: Position::new(35),
            partition: Partition::new(7),
            previous: Position::new(19),
            stream: StreamId::new("account-1#é").unwrap(),
            version: StreamVersion::new(4),
            event_type: "money.deposited".into(),
            schema_version: 2,
            payload: RawValue::from_string(r#"{"amount": 1.10, "b":[]}"#.to_owned()).unwrap(),
            metadata: Arc::new(Metadata {
                correlation_id: "c".to_owned(),
                actor: Some("a".to_owned()),
                ..Metadata::default()
            }),
            recorded_at: "2026-01-31T12:00:00.123456Z".parse().unwrap(),
        }
    }

    /// The item in JSON, to compare it with the format that is stored.
    fn plain(item: &Item) -> serde_json::Value {
        let of = |value: &AttributeValue| match value {
            AttributeValue::S(text) => json!({ "S": text }),
            AttributeValue::N(digits) => json!({ "N": digits }),
            AttributeValue::L(list) => json!({ "L": list.len() }),
            other => json!(format!("{other:?}")),
        };
        item.iter()
            .map(|(name, value)| (name.clone(), of(value)))
            .collect()
    }

    #[test]
    fn an_event_is_stored_as_ever() {
        assert_eq!(
            plain(&event_item(&event()).unwrap()),
            json!({
                "pk": { "S": "stream#account-1#é" }, "sk": { "N": "4" },
                "bucket": { "N": "3" }, "position": { "N": "35" },
                "id": { "S": "0190d2b0-0000-7000-8000-000000000001" },
                "type": { "S": "money.deposited" }, "schema": { "N": "2" },
                "partition": { "N": "7" }, "previous": { "N": "19" }, "epoch": { "N": "2" },
                "payload": { "S": r#"{"amount": 1.10, "b":[]}"# },
                "metadata": { "S": r#"{"correlation_id":"c","actor":"a"}"# },
                "recorded_at": { "S": "2026-01-31T12:00:00.123456Z" },
            })
        );
    }

    #[test]
    fn an_event_comes_back_as_it_was() {
        let event = event();
        let item = event_item(&event).unwrap();
        assert!(is_event(&item));
        let back = event_from(&context(), &item).unwrap();
        assert_eq!(
            serde_json::to_string(&back).unwrap(),
            serde_json::to_string(&event).unwrap()
        );
        assert_eq!(back.payload.get(), event.payload.get());
    }

    #[test]
    fn an_item_that_lacks_something_is_named() {
        let whole = event_item(&event()).unwrap();
        for name in whole.keys().filter(|name| *name != BUCKET) {
            let mut item = whole.clone();
            item.remove(name);
            let bad = event_from(&context(), &item).unwrap_err();
            assert_eq!(bad.attribute, name);
        }
        let mut item = whole;
        item.insert("position".to_owned(), number("-1"));
        let bad = event_from(&context(), &item).unwrap_err();
        assert_eq!(
            bad.to_string(),
            "the item stream#account-1#é/4 has no position, or none that can be read"
        );
        assert!(event_from(&context(), &head_key()).is_err());
        assert!(!is_event(&head_key()));
        assert!(!is_event(&HashMap::new()));
    }

    #[test]
    fn a_head_comes_back_as_it_was() {
        let at: millrace_kernel::Timestamp = "2026-01-31T12:00:00.5Z".parse().unwrap();
        for halted in [None, Some("lost".to_owned())] {
            let head = Head {
                position: Position::new(9),
                epoch: Epoch::new(3),
                guard: 4,
                halted,
                partitions: vec![Position::new(9), Position::ZERO],
                recorded_at: at,
                now: at,
            };
            let item = head_item(&head);
            assert_eq!(head_from(&item, at).unwrap(), head);
            let stored = log_head(head.clone(), &item).unwrap();
            assert_eq!(stored.partitions.get(), 2);
            let mut torn = item;
            torn.insert(PARTITIONS.to_owned(), number(3));
            assert!(head_from(&torn, at).is_err());
        }
    }

    #[test]
    fn an_answer_comes_back_as_it_was() {
        let stored = StoredAnswer {
            key: AnswerKey {
                key_hash: [0xab; 32],
                request_hash: [1; 32],
            },
            answer: Answer {
                status: 201,
                headers: vec![("etag".to_owned(), "\"1\"".to_owned())],
                body: vec![0, 255, b'{'].into(),
            },
            token: "banking/5~1~2_5".parse().unwrap(),
        };
        let item = answer_item(&stored, 1_700_000_000).unwrap();
        assert_eq!(answer_from(&item).unwrap(), (stored, 1_700_000_000));
        assert_eq!(item[PK], text(format!("answer#{}", "ab".repeat(32))));
    }

    #[test]
    fn a_snapshot_comes_back_as_it_was() {
        let stream = StreamId::new("account-1").unwrap();
        let snapshot = SnapshotRecord {
            version: StreamVersion::new(50),
            snapshot_version: 3,
            state: RawValue::from_string("{\"a\": 1}".to_owned()).unwrap(),
        };
        let back = snapshot_from(&snapshot_item(&stream, &snapshot)).unwrap();
        assert_eq!(back.version, snapshot.version);
        assert_eq!(back.snapshot_version, 3);
        assert_eq!(back.state.get(), snapshot.state.get());
    }
}
