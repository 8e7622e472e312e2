use std::collections::HashMap;

use futures::TryStreamExt;
use millrace_es::{EventId, Partition, Position, RecordedEvent, StreamId, StreamVersion};

use crate::{EventLog, LogHead, events_after};

/// Reads a whole log and proves its rules: positions gapless from 1, versions gapless in every
/// stream, each partition's events a chain, no event twice, times that never fall, and a head that
/// says the same. Returns the events.
///
/// # Panics
/// When a rule is broken.
pub async fn audit(log: &dyn EventLog) -> Vec<RecordedEvent> {
    let head = log.head().await.expect("the head is read");
    let events: Vec<RecordedEvent> = events_after(log, Position::ZERO, head.position, 500)
        .try_collect()
        .await
        .expect("the log is read");
    assert_eq!(
        events.len() as u64,
        head.position.get(),
        "the log has as many events as its head says"
    );
    let mut versions: HashMap<StreamId, StreamVersion> = HashMap::new();
    let mut partitions = vec![Position::ZERO; usize::from(head.partitions.get())];
    let mut ids: HashMap<EventId, Position> = HashMap::new();
    let mut position = Position::ZERO;
    let mut at = None;
    for event in &events {
        position = position.next();
        assert_eq!(event.position, position, "positions are gapless");
        let version = versions.entry(event.stream.clone()).or_default();
        *version = version.next();
        assert_eq!(event.version, *version, "versions of {}", event.stream);
        assert_eq!(
            event.partition,
            event.stream.partition(head.partitions),
            "the partition of {}",
            event.stream
        );
        let last = &mut partitions[usize::from(event.partition.get())];
        assert_eq!(event.previous, *last, "the chain of {}", event.partition);
        *last = event.position;
        if let Some(first) = ids.insert(event.id, event.position) {
            panic!("event {} is at {first} and at {position}", event.id);
        }
        assert!(Some(event.recorded_at) >= at, "times fall at {position}");
        at = Some(event.recorded_at);
    }
    assert_eq!(
        head.partition_positions, partitions,
        "the head's partitions"
    );
    audit_partitions(log, &head, &events).await;
    events
}

/// The odd partitions, read together page by page, are what they are in the whole log.
async fn audit_partitions(log: &dyn EventLog, head: &LogHead, events: &[RecordedEvent]) {
    let odd: Vec<Partition> = (0..head.partitions.get())
        .filter(|number| number % 2 == 1)
        .map(Partition::new)
        .collect();
    let mut read: Vec<Position> = Vec::new();
    loop {
        let after = read.last().copied().unwrap_or_default();
        let page = log.read_partitions(&odd, after, head.position, 100).await;
        let page = page.expect("the partitions are read");
        if page.is_empty() {
            break;
        }
        read.extend(page.iter().map(|event| event.position));
    }
    let expected: Vec<Position> = events
        .iter()
        .filter(|event| odd.contains(&event.partition))
        .map(|event| event.position)
        .collect();
    assert_eq!(read, expected, "the odd partitions");
}
