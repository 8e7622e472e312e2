//! Taking a lost tail back: each of its events has to continue the log exactly.

use std::{collections::HashMap, sync::Arc};

use millrace_es::{NewEvent, RecordedEvent, StreamId, StreamVersion};

use super::plan::{Probed, Row};
use crate::{AppendRequest, ExpectedVersion, LogError, StreamAppend};

/// A request that names every stream of the events, for reading where they are.
pub(crate) fn streams_of(events: &[RecordedEvent]) -> [AppendRequest; 1] {
    let streams = events
        .iter()
        .map(|event| StreamAppend {
            stream: event.stream.clone(),
            expected: ExpectedVersion::Any,
            events: Vec::new(),
        })
        .collect();
    [AppendRequest {
        streams,
        ..AppendRequest::default()
    }]
}

/// An event as it was before it had its place.
pub(crate) fn as_new(event: &RecordedEvent) -> NewEvent {
    NewEvent {
        id: event.id,
        event_type: event.event_type.clone(),
        schema_version: event.schema_version,
        payload: event.payload.clone(),
        metadata: Arc::clone(&event.metadata),
    }
}

/// Puts one event behind the log as `probed` knows it, or says why it does not belong there.
pub(crate) fn place<'a>(
    probed: &mut Probed,
    event: &'a RecordedEvent,
    new: &'a NewEvent,
) -> Result<Row<'a>, LogError> {
    let head = &mut probed.head;
    let refuse = |what: String| {
        LogError::Corrupt(format!(
            "event {} at position {} does not continue the log: {what}",
            event.id, event.position
        ))
    };
    if event.epoch != head.epoch {
        return Err(refuse(format!(
            "it is of epoch {}, the log is in epoch {}",
            event.epoch, head.epoch
        )));
    }
    if event.position != head.position.next() {
        return Err(refuse(format!("the log is at {}", head.position)));
    }
    let Some(last) = head
        .partitions
        .get_mut(usize::from(event.partition.get()))
        .filter(|last| **last == event.previous)
    else {
        return Err(refuse(format!(
            "partition {} is not at {}",
            event.partition, event.previous
        )));
    };
    let streams: &mut HashMap<StreamId, _> = &mut probed.streams;
    let version = streams
        .get(&event.stream)
        .map_or(StreamVersion::ZERO, |(version, _)| *version);
    if event.version != version.next() {
        return Err(refuse(format!("{} is at version {version}", event.stream)));
    }
    *last = event.position;
    head.position = event.position;
    head.recorded_at = head.recorded_at.max(event.recorded_at);
    streams.insert(event.stream.clone(), (event.version, event.id));
    Ok(Row {
        stream: &event.stream,
        version: event.version,
        position: event.position,
        partition: event.partition,
        previous: event.previous,
        recorded_at: event.recorded_at,
        event: new,
    })
}
