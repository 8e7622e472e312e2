//! The log's own promises, read from its tables.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;
use sqlx::{PgPool, Row as _};
use uuid::Uuid;

/// A row of `events`, without the types of the code that wrote it.
#[derive(Debug, Clone, PartialEq)]
pub struct LoggedEvent {
    /// The place in the log.
    pub position: i64,
    /// The place in the stream.
    pub version: i64,
    /// The position before it in its partition.
    pub previous: i64,
    /// When the log took it, in microseconds since 1970.
    pub recorded_at: i64,
    /// The event's id.
    pub event_id: Uuid,
    /// The partition.
    pub partition: i16,
    /// The stream.
    pub stream: String,
    /// The type.
    pub event_type: String,
    /// The payload, byte for byte.
    pub payload_text: String,
    /// The payload.
    pub payload: Value,
    /// SHA-256 of the idempotency key it was appended under.
    pub key_hash: Option<String>,
}

/// The row of `log_head`.
#[derive(Debug, Clone, PartialEq)]
pub struct Head {
    /// The newest position.
    pub position: i64,
    /// The newest position of each partition.
    pub partition_positions: Vec<i64>,
    /// The log's life.
    pub epoch: i64,
    /// Why appends are stopped, if they are.
    pub halted: Option<String>,
}

/// Reads head and events at one point in time.
///
/// # Panics
/// When the database cannot be read.
pub async fn read(pool: &PgPool, context: &str) -> (Head, Vec<LoggedEvent>) {
    let mut transaction = pool.begin().await.unwrap();
    sqlx::query("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        .execute(&mut *transaction)
        .await
        .unwrap();
    let head =
        format!("SELECT position, partition_positions, epoch, halted FROM {context}.log_head");
    let head = sqlx::query(sqlx::AssertSqlSafe(head))
        .fetch_one(&mut *transaction)
        .await
        .unwrap();
    let head = Head {
        position: head.get("position"),
        partition_positions: head.get("partition_positions"),
        epoch: head.get("epoch"),
        halted: head.get("halted"),
    };
    let rows = format!(
        "SELECT position, version, previous, event_id, partition, stream,
                (extract(epoch FROM recorded_at) * 1000000)::bigint AS recorded_at,
                event_type, payload::text AS payload,
                metadata->>'idempotency_key_hash' AS key_hash
         FROM {context}.events ORDER BY position",
    );
    let rows = sqlx::query(sqlx::AssertSqlSafe(rows))
        .fetch_all(&mut *transaction)
        .await
        .unwrap();
    let events = rows
        .iter()
        .map(|row| {
            let payload_text: String = row.get("payload");
            LoggedEvent {
                position: row.get("position"),
                version: row.get("version"),
                previous: row.get("previous"),
                recorded_at: row.get("recorded_at"),
                event_id: row.get("event_id"),
                partition: row.get("partition"),
                stream: row.get("stream"),
                event_type: row.get("event_type"),
                payload: serde_json::from_str(&payload_text).unwrap_or(Value::Null),
                payload_text,
                key_hash: row.get("key_hash"),
            }
        })
        .collect();
    transaction.rollback().await.unwrap();
    (head, events)
}

/// The partition of a stream: FNV-1a over the count, the high half folded in. Written down a
/// second time here, since it is a stored format.
#[must_use]
pub fn partition_of(stream: &str, count: usize) -> i16 {
    let hash = stream.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, b| {
        (hash ^ u64::from(b)).wrapping_mul(0x0100_0000_01b3)
    });
    i16::try_from((hash ^ (hash >> 32)) % count as u64).unwrap()
}

/// Proves what the log promises of itself: gapless positions and versions, the chain of each
/// partition, ids and idempotency keys that stand for one append only, times that never fall. An
/// append makes at most `per_key` events of a key, one right after the other.
///
/// # Panics
/// Naming the event that breaks a promise.
pub fn prove(head: &Head, events: &[LoggedEvent], per_key: usize) {
    let count = head.partition_positions.len();
    let mut newest = vec![0_i64; count];
    let mut versions = BTreeMap::<&str, i64>::new();
    let (mut ids, mut keys) = (BTreeSet::new(), BTreeMap::<&str, Vec<i64>>::new());
    let mut time = 0;
    for (index, event) in events.iter().enumerate() {
        let position = i64::try_from(index).unwrap() + 1;
        assert_eq!(event.position, position, "a gap in the log");
        let version = versions.entry(&event.stream).or_default();
        assert_eq!(event.version, *version + 1, "a gap in a stream: {event:?}");
        *version = event.version;
        assert_eq!(
            event.partition,
            partition_of(&event.stream, count),
            "the wrong partition: {event:?}"
        );
        let previous = &mut newest[usize::try_from(event.partition).unwrap()];
        assert_eq!(event.previous, *previous, "the chain is torn: {event:?}");
        *previous = position;
        assert!(ids.insert(event.event_id), "an id twice: {event:?}");
        if let Some(key) = &event.key_hash {
            let of_key = keys.entry(key).or_default();
            let follows = of_key.last().is_none_or(|last| *last == position - 1);
            of_key.push(position);
            assert!(
                follows && of_key.len() <= per_key,
                "a request took effect twice: {event:?}"
            );
        }
        assert!(event.recorded_at >= time, "time fell: {event:?}");
        time = event.recorded_at;
    }
    assert_eq!(head.position, i64::try_from(events.len()).unwrap(), "head");
    assert_eq!(head.partition_positions, newest, "head of the partitions");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn partitions_are_as_the_log_has_them() {
        let of = |text: &str| partition_of(text, 16);
        assert_eq!(
            ["order-1", "order-2", "order-3", "account-shivam_99"].map(of),
            [2, 11, 8, 8]
        );
    }

    fn two() -> (Head, Vec<LoggedEvent>) {
        let event = |position: i64, stream: &str| LoggedEvent {
            position,
            version: 1,
            previous: 0,
            recorded_at: position,
            event_id: Uuid::from_u128(position.unsigned_abs().into()),
            partition: partition_of(stream, 16),
            stream: stream.to_owned(),
            event_type: "order.created".to_owned(),
            payload_text: String::new(),
            payload: Value::Null,
            key_hash: Some(position.to_string()),
        };
        let events = vec![event(1, "order-1"), event(2, "order-2")];
        let mut partition_positions = vec![0; 16];
        partition_positions[2] = 1;
        partition_positions[11] = 2;
        let head = Head {
            position: 2,
            partition_positions,
            epoch: 1,
            halted: None,
        };
        (head, events)
    }

    #[test]
    fn a_sound_log_passes() {
        let (head, events) = two();
        prove(&head, &events, 1);
    }

    #[test]
    fn every_broken_promise_is_noticed() {
        let breakings: [fn(&mut Head, &mut Vec<LoggedEvent>); 8] = [
            |_, events| events[1].position = 3,
            |_, events| events[1].version = 2,
            |_, events| events[1].previous = 1,
            |_, events| events[1].partition = 3,
            |_, events| events[1].event_id = events[0].event_id,
            |_, events| events[1].key_hash = events[0].key_hash.clone(),
            |_, events| events[1].recorded_at = 0,
            |head, _| head.position = 3,
        ];
        for (index, breaking) in breakings.into_iter().enumerate() {
            let (mut head, mut events) = two();
            breaking(&mut head, &mut events);
            let proof = std::panic::catch_unwind(|| prove(&head, &events, 1));
            assert!(proof.is_err(), "breaking {index} was not noticed");
        }
    }
}
