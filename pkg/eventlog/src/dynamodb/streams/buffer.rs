//! Puts events back in order: what the shards give comes in here as it comes, and goes out by
//! position, each once.

use std::{collections::BTreeMap, time::Duration};

use millrace_es::{Position, RecordedEvent};
use tokio::time::Instant;

use crate::{Backoff, MAX_PAGE_BYTES};

/// The shortest and the longest pause before the log is asked again for a gap that it did not give
/// yet, in milliseconds. Its index by position follows the events by a moment.
const GAP_PAUSE_MIN_MS: u64 = 50;
const GAP_PAUSE_MAX_MS: u64 = 1_000;

/// How much is kept, and how long a hole may stay.
#[derive(Debug, Clone, Copy)]
pub(super) struct Bounds {
    pub(super) events: usize,
    pub(super) bytes: usize,
    pub(super) hole_patience: Duration,
}

/// What became of an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Put {
    Kept,
    /// It was handed out, or waits already.
    Duplicate,
    /// There is no room: an event, this one or another, will be read from the log.
    Overflow,
}

/// Why events are read from the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Gap {
    /// They lie before what the shards are read from.
    Past,
    /// The shards did not give them in time.
    Hole,
    /// There was no room for them.
    Overflow,
}

impl Gap {
    /// The label in metrics.
    pub(super) const fn reason(self) -> &'static str {
        match self {
            Self::Past => "past",
            Self::Hole => "hole",
            Self::Overflow => "overflow",
        }
    }
}

/// What can be handed out.
#[derive(Debug)]
pub(super) enum Taken {
    Events(Vec<RecordedEvent>),
    /// What comes next has to be read from the log, up to this position.
    Gap(Position, Gap),
    Nothing,
}

/// The reorder buffer.
#[derive(Debug)]
pub(super) struct Buffer {
    bounds: Bounds,
    /// What waits, all of it after `fed`.
    events: BTreeMap<Position, RecordedEvent>,
    bytes: usize,
    /// The last position handed out.
    fed: Position,
    /// The highest position known to be in the log.
    known: Position,
    /// What is missing up to here is not waited for, and why.
    given_up: Position,
    why: Gap,
    /// Since when the position after `fed` is missing while the log is known to have it.
    hole_since: Option<Instant>,
    /// When the log may be asked for a gap again.
    ask_log_at: Option<Instant>,
    pauses: Backoff,
}

impl Buffer {
    pub(super) const fn new(bounds: Bounds) -> Self {
        Self {
            bounds,
            events: BTreeMap::new(),
            bytes: 0,
            fed: Position::ZERO,
            known: Position::ZERO,
            given_up: Position::ZERO,
            why: Gap::Past,
            hole_since: None,
            ask_log_at: None,
            pauses: Backoff::new(
                Duration::from_millis(GAP_PAUSE_MIN_MS),
                Duration::from_millis(GAP_PAUSE_MAX_MS),
            ),
        }
    }

    /// Takes an event that a shard gave. Where there is no room the highest position goes: it is
    /// needed last.
    pub(super) fn put(&mut self, event: RecordedEvent, now: Instant) -> Put {
        let at = event.position;
        self.known = self.known.max(at);
        if at <= self.fed || self.events.contains_key(&at) {
            return Put::Duplicate;
        }
        self.bytes += size(&event);
        self.events.insert(at, event);
        let mut put = Put::Kept;
        while self.events.len() > self.bounds.events || self.bytes > self.bounds.bytes {
            let Some((dropped, event)) = self.events.pop_last() else {
                break;
            };
            self.bytes -= size(&event);
            self.give_up(dropped, Gap::Overflow);
            put = Put::Overflow;
        }
        self.note_hole(now);
        put
    }

    /// Notes that the log has a position; `true` when that is news.
    pub(super) fn know(&mut self, position: Position, now: Instant) -> bool {
        let news = position > self.known;
        self.known = self.known.max(position);
        self.note_hole(now);
        news
    }

    /// Takes the log's head as it was read when `known` was the highest position known. A head
    /// below that means that the log lost its end: what waits beyond it is no longer true.
    pub(super) fn look(&mut self, known: Position, head: Position, now: Instant) {
        if head < known && self.known == known {
            self.known = head;
            for event in self.events.split_off(&head.next()).values() {
                self.bytes -= size(event);
            }
        }
        self.known = self.known.max(head);
        self.note_hole(now);
    }

    /// What is missing up to a position does not come out of the shards, or not soon.
    pub(super) fn give_up(&mut self, through: Position, why: Gap) {
        if through > self.given_up {
            self.given_up = through;
            self.why = why;
        }
    }

    /// What comes after a position, as far as it is there or has to be read from the log.
    pub(super) fn take(&mut self, after: Position, limit: usize, now: Instant) -> Taken {
        self.stand_at(after);
        let mut run = Vec::new();
        let mut bytes = 0;
        while run.len() < limit
            && bytes <= MAX_PAGE_BYTES
            && let Some(entry) = self.events.first_entry()
            && *entry.key() == self.fed.next()
        {
            let event = entry.remove();
            self.fed = event.position;
            self.bytes -= size(&event);
            bytes += size(&event);
            run.push(event);
        }
        if !run.is_empty() {
            self.hole_since = None;
            self.note_hole(now);
            return Taken::Events(run);
        }
        self.note_hole(now);
        if self.gap_due_at().is_none_or(|due| due > now) {
            return Taken::Nothing;
        }
        let through = self.hole_ends();
        if self.fed.next() > self.given_up {
            // A hole larger than a page is waited for once.
            self.give_up(through, Gap::Hole);
        }
        Taken::Gap(through, self.why)
    }

    /// Notes that the log was read for a gap and how many events it gave.
    pub(super) fn asked_log(&mut self, events: usize, now: Instant) {
        if events > 0 {
            self.pauses.reset();
        }
        self.ask_log_at = (events == 0).then(|| now + self.pauses.pause());
    }

    /// When [`Buffer::take`] gives something, as far as that is known.
    pub(super) fn due_at(&self, now: Instant) -> Option<Instant> {
        if self.events.contains_key(&self.fed.next()) {
            return Some(now);
        }
        self.gap_due_at()
    }

    /// Whether the shards are waited for: the log is known to have what comes next, and it is not
    /// here.
    pub(super) fn has_hole(&self) -> bool {
        self.known > self.fed && !self.events.contains_key(&self.fed.next())
    }

    /// Forgets what waits; it will be read from the log.
    pub(super) fn clear(&mut self) {
        self.events.clear();
        self.bytes = 0;
        self.hole_since = None;
        self.give_up(self.known, Gap::Past);
    }

    pub(super) fn fed(&self) -> Position {
        self.fed
    }

    pub(super) fn known(&self) -> Position {
        self.known
    }

    pub(super) fn len(&self) -> usize {
        self.events.len()
    }

    pub(super) const fn bytes(&self) -> usize {
        self.bytes
    }

    /// Whoever is fed says where it stands. That is where it was left, unless its stream lost
    /// something or somebody else went on for it.
    fn stand_at(&mut self, after: Position) {
        if after == self.fed {
            return;
        }
        // What was handed out before does not come again.
        self.give_up(self.fed, Gap::Past);
        self.fed = after;
        self.known = self.known.max(after);
        self.hole_since = None;
        self.ask_log_at = None;
        while let Some(entry) = self.events.first_entry()
            && *entry.key() <= after
        {
            self.bytes -= size(entry.get());
            entry.remove();
        }
    }

    fn note_hole(&mut self, now: Instant) {
        if self.has_hole() {
            self.hole_since.get_or_insert(now);
        } else {
            self.hole_since = None;
        }
    }

    /// When the hole after `fed` is read from the log, if there is one.
    fn gap_due_at(&self) -> Option<Instant> {
        let since = self.hole_since?;
        let due = if self.fed < self.given_up {
            since
        } else {
            since + self.bounds.hole_patience
        };
        Some(self.ask_log_at.map_or(due, |at| due.max(at)))
    }

    fn hole_ends(&self) -> Position {
        match self.events.first_key_value() {
            Some((first, _)) => Position::new(first.get().saturating_sub(1)),
            None => self.known,
        }
    }
}

/// What an event counts against the bound: its texts, and a little for the rest.
fn size(event: &RecordedEvent) -> usize {
    const ENVELOPE_BYTES: usize = 256;
    ENVELOPE_BYTES + event.payload.get().len()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use millrace_es::{Context, Epoch, EventId, Metadata, Partition, StreamId, StreamVersion};
    use millrace_kernel::Timestamp;
    use serde_json::value::RawValue;

    use super::*;

    const PATIENCE: Duration = Duration::from_millis(1_000);

    fn event(number: u64) -> RecordedEvent {
        RecordedEvent {
            id: EventId::generate(),
            context: Context::new("banking").unwrap(),
            epoch: Epoch::new(1),
            position: position(number),
            partition: Partition::new(0),
            previous: position(number - 1),
            stream: StreamId::new("account-1").unwrap(),
            version: StreamVersion::new(number),
            event_type: "money.deposited".into(),
            schema_version: 1,
            payload: RawValue::from_string("{}".to_owned()).unwrap(),
            metadata: Arc::new(Metadata::default()),
            recorded_at: Timestamp::now(),
        }
    }

    fn position(number: u64) -> Position {
        Position::new(number)
    }

    fn buffer(events: usize) -> Buffer {
        Buffer::new(Bounds {
            events,
            bytes: 1_000_000,
            hole_patience: PATIENCE,
        })
    }

    /// What is given after a position: the positions, or the gap to be read.
    fn taken(buffer: &mut Buffer, after: u64, now: Instant) -> Result<Vec<u64>, (u64, Gap)> {
        match buffer.take(position(after), 1_000, now) {
            Taken::Events(events) => Ok(events.iter().map(|event| event.position.get()).collect()),
            Taken::Nothing => Ok(Vec::new()),
            Taken::Gap(through, why) => Err((through.get(), why)),
        }
    }

    #[test]
    fn events_go_out_by_position_and_once() {
        let (mut buffer, now) = (buffer(100), Instant::now());
        for number in [3, 1, 2, 2, 5, 3] {
            buffer.put(event(number), now);
        }
        assert_eq!(taken(&mut buffer, 0, now), Ok(vec![1, 2, 3]));
        assert_eq!(buffer.put(event(2), now), Put::Duplicate);
        assert_eq!(buffer.put(event(5), now), Put::Duplicate);
        assert_eq!(taken(&mut buffer, 3, now), Ok(vec![]));
        assert_eq!(buffer.put(event(4), now), Put::Kept);
        assert_eq!(taken(&mut buffer, 3, now), Ok(vec![4, 5]));
        assert_eq!((buffer.len(), buffer.bytes()), (0, 0));
        assert!(!buffer.has_hole());
    }

    #[test]
    fn a_hole_is_waited_for_and_then_read() {
        let (mut buffer, now) = (buffer(100), Instant::now());
        buffer.put(event(3), now);
        assert_eq!(taken(&mut buffer, 0, now), Ok(vec![]));
        assert_eq!(buffer.due_at(now), Some(now + PATIENCE));
        let later = now + PATIENCE;
        assert_eq!(taken(&mut buffer, 0, later), Err((2, Gap::Hole)));
        // A page of the log gave one of two: the other is not waited for again.
        buffer.asked_log(1, later);
        assert_eq!(taken(&mut buffer, 1, later), Err((2, Gap::Hole)));
        // The log does not have it either yet.
        buffer.asked_log(0, later);
        assert_eq!(taken(&mut buffer, 1, later), Ok(vec![]));
        assert!(buffer.due_at(later).unwrap() > later);
        buffer.put(event(2), later);
        assert_eq!(taken(&mut buffer, 1, later), Ok(vec![2, 3]));
    }

    #[test]
    fn the_end_of_the_log_is_a_hole_too() {
        let (mut buffer, now) = (buffer(100), Instant::now());
        buffer.put(event(1), now);
        assert!(buffer.know(position(2), now));
        assert!(!buffer.know(position(2), now));
        assert_eq!(taken(&mut buffer, 0, now), Ok(vec![1]));
        assert_eq!(taken(&mut buffer, 1, now), Ok(vec![]));
        let later = now + PATIENCE;
        assert_eq!(taken(&mut buffer, 1, later), Err((2, Gap::Hole)));
    }

    #[test]
    fn what_has_no_room_is_read_at_once() {
        let (mut buffer, now) = (buffer(3), Instant::now());
        for number in [2, 4, 6] {
            assert_eq!(buffer.put(event(number), now), Put::Kept);
        }
        assert_eq!(buffer.put(event(3), now), Put::Overflow);
        assert_eq!(buffer.put(event(7), now), Put::Overflow);
        assert_eq!(buffer.len(), 3);
        assert_eq!(taken(&mut buffer, 0, now), Err((1, Gap::Overflow)));
        buffer.asked_log(1, now);
        assert_eq!(taken(&mut buffer, 1, now), Ok(vec![2, 3, 4]));
        assert_eq!(taken(&mut buffer, 4, now), Err((7, Gap::Overflow)));
    }

    #[test]
    fn whoever_goes_back_is_fed_from_the_log() {
        let (mut buffer, now) = (buffer(100), Instant::now());
        for number in 1..=6 {
            buffer.put(event(number), now);
        }
        assert_eq!(taken(&mut buffer, 0, now), Ok(vec![1, 2, 3, 4, 5, 6]));
        buffer.put(event(7), now);
        assert_eq!(taken(&mut buffer, 2, now), Err((6, Gap::Past)));
        assert_eq!(taken(&mut buffer, 6, now), Ok(vec![7]));
        // Somebody else went on for it.
        buffer.put(event(8), now);
        buffer.put(event(10), now);
        assert_eq!(taken(&mut buffer, 9, now), Ok(vec![10]));
    }

    #[test]
    fn what_is_cleared_is_read_from_the_log() {
        let (mut buffer, now) = (buffer(100), Instant::now());
        buffer.put(event(1), now);
        buffer.put(event(2), now);
        buffer.clear();
        assert_eq!(buffer.bytes(), 0);
        assert_eq!(
            buffer.due_at(now),
            None,
            "nothing is a hole before it is asked for"
        );
        assert_eq!(taken(&mut buffer, 0, now), Err((2, Gap::Past)));
    }

    #[test]
    fn a_log_that_lost_its_end_takes_its_events_along() {
        let (mut buffer, now) = (buffer(100), Instant::now());
        for number in [1, 2, 4, 5] {
            buffer.put(event(number), now);
        }
        // A head that was read before the shards gave more says nothing.
        buffer.look(position(4), position(3), now);
        assert_eq!((buffer.len(), buffer.known()), (4, position(5)));
        buffer.look(position(5), position(3), now);
        assert_eq!((buffer.len(), buffer.known()), (2, position(3)));
        assert_eq!(taken(&mut buffer, 0, now), Ok(vec![1, 2]));
        assert_eq!(buffer.bytes(), 0);
    }

    #[test]
    fn large_events_count() {
        let bounds = Bounds {
            events: 100,
            bytes: 2 * size(&event(1)),
            hole_patience: PATIENCE,
        };
        let (mut buffer, now) = (Buffer::new(bounds), Instant::now());
        assert_eq!(buffer.put(event(1), now), Put::Kept);
        assert_eq!(buffer.put(event(2), now), Put::Kept);
        assert_eq!(buffer.put(event(3), now), Put::Overflow);
    }
}
