//! A batch: what was read of some lanes, and what becomes of each event in it. Pure, and the same
//! for every store.

use std::{
    any::Any,
    collections::{BTreeSet, HashMap, HashSet},
    ops::Range,
};

use millrace_es::{
    DecodeError, Epoch, Position, Projection, Recorded, RecordedEvent, RowProjection, StreamId,
};

use crate::{generation::Lane, letters::Reason};

/// The payloads of a chunk as their projection reads them, its type erased.
pub(crate) type DecodedChunk = Box<dyn Any + Send + Sync>;
type Decoded<P> = Vec<Result<Option<<P as Projection>::Event>, DecodeError>>;

/// Consecutive events of one lane: the first one's previous position is `previous`, and each
/// names the one before it.
pub(crate) struct Chunk {
    pub(crate) lane: Lane,
    pub(crate) epoch: Epoch,
    pub(crate) previous: Position,
    pub(crate) events: Vec<RecordedEvent>,
    decoded: DecodedChunk,
}

impl Chunk {
    /// The checkpoint after it.
    pub(crate) fn through(&self) -> Position {
        self.events
            .last()
            .map_or(self.previous, |event| event.position)
    }

    fn payload_bytes(&self) -> usize {
        self.events
            .iter()
            .map(|event| event.payload.get().len())
            .sum()
    }

    /// Decodes the events up to the first that needs a newer release; that one's error comes
    /// beside. `None` when nothing is left.
    pub(crate) fn decode<P: Projection>(
        lane: Lane,
        epoch: Epoch,
        previous: Position,
        mut events: Vec<RecordedEvent>,
    ) -> (Option<Self>, Option<DecodeError>) {
        let mut decoded: Decoded<P> = Vec::with_capacity(events.len());
        let mut too_new = None;
        for event in &events {
            match P::decode(event) {
                Err(error) if error.needs_newer_release() => {
                    too_new = Some(error);
                    break;
                }
                other => decoded.push(other),
            }
        }
        events.truncate(decoded.len());
        let chunk = (!events.is_empty()).then(|| Self {
            lane,
            epoch,
            previous,
            events,
            decoded: Box::new(decoded),
        });
        (chunk, too_new)
    }
}

/// The most lanes of one batch: their checkpoints fit one transaction, in every store.
pub(crate) const MAX_BATCH_LANES: usize = 64;

/// Chunks of several lanes that are applied together. Chunks of one lane follow each other.
#[derive(Default)]
pub(crate) struct Batch {
    chunks: Vec<Chunk>,
    events: usize,
    bytes: usize,
}

/// A checkpoint's way through a batch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Move {
    pub(crate) lane: Lane,
    pub(crate) epoch: Epoch,
    pub(crate) from: Position,
    pub(crate) to: Position,
    /// How many events lie on the way.
    pub(crate) events: u64,
}

impl Batch {
    pub(crate) fn push(&mut self, chunk: Chunk) {
        self.events += chunk.events.len();
        self.bytes += chunk.payload_bytes();
        self.chunks.push(chunk);
    }

    /// How many events it holds.
    pub(crate) const fn len(&self) -> usize {
        self.events
    }

    /// How long its payloads are.
    pub(crate) const fn bytes(&self) -> usize {
        self.bytes
    }

    pub(crate) const fn is_empty(&self) -> bool {
        self.events == 0
    }

    pub(crate) fn events(&self) -> impl Iterator<Item = &RecordedEvent> {
        self.chunks.iter().flat_map(|chunk| &chunk.events)
    }

    /// The newest event of each chunk, with its lane.
    pub(crate) fn last_events(&self) -> impl Iterator<Item = (&Lane, &RecordedEvent)> {
        self.chunks
            .iter()
            .filter_map(|chunk| Some((&chunk.lane, chunk.events.last()?)))
    }

    /// Its lanes, each once.
    pub(crate) fn lanes(&self) -> BTreeSet<Lane> {
        self.chunks.iter().map(|chunk| chunk.lane.clone()).collect()
    }

    /// Takes out what a lane has beyond a position, in order. A chunk that lies on both sides is
    /// cut; `decode` makes a chunk of its further part.
    pub(crate) fn cut(
        &mut self,
        lane: &Lane,
        at: Position,
        decode: impl Fn(Lane, Epoch, Position, Vec<RecordedEvent>) -> Option<Chunk>,
    ) -> Vec<Chunk> {
        let mut kept = Vec::with_capacity(self.chunks.len());
        let mut beyond = Vec::new();
        for mut chunk in std::mem::take(&mut self.chunks) {
            if chunk.lane != *lane || chunk.through() <= at {
                kept.push(chunk);
                continue;
            }
            let fits = chunk.events.partition_point(|event| event.position <= at);
            if fits == 0 {
                beyond.push(chunk);
                continue;
            }
            // The decoded payloads stay whole: entries end with the events.
            let rest = chunk.events.split_off(fits);
            let through = chunk.through();
            beyond.extend(decode(lane.clone(), chunk.epoch, through, rest));
            kept.push(chunk);
        }
        self.chunks = kept;
        self.count();
        beyond
    }

    fn count(&mut self) {
        self.events = self.chunks.iter().map(|chunk| chunk.events.len()).sum();
        self.bytes = self.chunks.iter().map(Chunk::payload_bytes).sum();
    }

    /// Takes a lane's events out.
    pub(crate) fn remove(&mut self, lane: &Lane) {
        self.chunks.retain(|chunk| chunk.lane != *lane);
        self.count();
    }

    /// One move per lane, sorted by lane: the order in which checkpoints are locked.
    pub(crate) fn moves(&self) -> Vec<Move> {
        let mut moves: Vec<Move> = Vec::new();
        for chunk in &self.chunks {
            let events = u64::try_from(chunk.events.len()).unwrap_or(u64::MAX);
            match moves.iter_mut().find(|one| one.lane == chunk.lane) {
                Some(one) => {
                    one.to = chunk.through();
                    one.events += events;
                }
                None => moves.push(Move {
                    lane: chunk.lane.clone(),
                    epoch: chunk.epoch,
                    from: chunk.previous,
                    to: chunk.through(),
                    events,
                }),
            }
        }
        moves.sort_by(|a, b| a.lane.cmp(&b.lane));
        moves
    }

    /// The entries of a range of events, in order, as projection `P` reads them.
    pub(crate) fn entries<P: Projection>(&self, range: Range<usize>) -> Vec<Entry<'_, P::Event>> {
        self.chunks
            .iter()
            .flat_map(|chunk| {
                // A chunk is decoded by the view that applies it; another type cannot stand here.
                let decoded = chunk.decoded.downcast_ref::<Decoded<P>>();
                debug_assert!(decoded.is_some(), "a chunk of another projection");
                let decoded = decoded.map(Vec::as_slice).unwrap_or_default();
                chunk
                    .events
                    .iter()
                    .zip(decoded)
                    .map(|(event, decoded)| Entry {
                        lane: &chunk.lane,
                        event,
                        decoded,
                    })
            })
            .skip(range.start)
            .take(range.len())
            .collect()
    }

    /// The event at an index, with its lane.
    pub(crate) fn event(&self, mut index: usize) -> Option<(&Lane, &RecordedEvent)> {
        for chunk in &self.chunks {
            match chunk.events.get(index) {
                Some(event) => return Some((&chunk.lane, event)),
                None => index -= chunk.events.len(),
            }
        }
        None
    }
}

/// One event of a batch.
pub(crate) struct Entry<'a, E> {
    pub(crate) lane: &'a Lane,
    pub(crate) event: &'a RecordedEvent,
    pub(crate) decoded: &'a Result<Option<E>, DecodeError>,
}

/// The streams whose events go to the dead letters, by lane.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Parked(HashMap<Lane, HashSet<StreamId>>);

impl Parked {
    pub(crate) fn contains(&self, lane: &Lane, stream: &StreamId) -> bool {
        self.0
            .get(lane)
            .is_some_and(|streams| streams.contains(stream))
    }

    pub(crate) fn insert(&mut self, lane: &Lane, stream: &StreamId) {
        self.0
            .entry(lane.clone())
            .or_default()
            .insert(stream.clone());
    }

    pub(crate) fn remove(&mut self, lane: &Lane, stream: &StreamId) {
        if let Some(streams) = self.0.get_mut(lane) {
            streams.remove(stream);
        }
    }

    pub(crate) fn set(&mut self, lane: &Lane, streams: HashSet<StreamId>) {
        self.0.insert(lane.clone(), streams);
    }

    pub(crate) fn forget(&mut self, lane: &Lane) {
        self.0.remove(lane);
    }
}

/// An event on its way to the dead letters. Its stream is parked from here on.
#[derive(Debug, Clone)]
pub(crate) struct NewLetter {
    pub(crate) lane: Lane,
    pub(crate) event: RecordedEvent,
    pub(crate) reason: Reason,
    pub(crate) error: String,
}

/// The longest error text that a letter keeps, in characters.
const MAX_ERROR_CHARS: usize = 2_000;

impl NewLetter {
    pub(crate) fn new(
        lane: &Lane,
        event: &RecordedEvent,
        reason: Reason,
        error: &(dyn std::error::Error + 'static),
    ) -> Self {
        Self {
            lane: lane.clone(),
            event: event.clone(),
            reason,
            error: describe(error),
        }
    }

    fn follower(lane: &Lane, event: &RecordedEvent) -> Self {
        Self {
            lane: lane.clone(),
            event: event.clone(),
            reason: Reason::Follows,
            error: format!("an earlier event of {} is a dead letter", event.stream),
        }
    }
}

/// An error with its sources in one line, bounded, and without what a text column refuses.
pub(crate) fn describe(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(inner) = source {
        text.push_str(": ");
        text.push_str(&inner.to_string());
        source = inner.source();
    }
    text.chars()
        .filter(|c| *c != '\0')
        .take(MAX_ERROR_CHARS)
        .collect()
}

/// Sorts entries into those that can be folded and those that become letters: payloads that do
/// not decode, and what follows on a parked stream. What a fold refuses later joins them.
pub(crate) struct Sorting<'a> {
    parked: &'a Parked,
    newly: HashSet<(&'a Lane, &'a StreamId)>,
    pub(crate) letters: Vec<NewLetter>,
}

impl<'a> Sorting<'a> {
    pub(crate) fn new(parked: &'a Parked) -> Self {
        Self {
            parked,
            newly: HashSet::new(),
            letters: Vec::new(),
        }
    }

    /// What the projection reads in this entry, if it is to be folded now.
    pub(crate) fn admit<E>(&mut self, entry: &Entry<'a, E>) -> Option<Recorded<'a, E>> {
        let Entry {
            lane,
            event,
            decoded,
        } = *entry;
        if matches!(decoded, Ok(None)) {
            return None;
        }
        let follows = self.parked.contains(lane, &event.stream)
            || (!self.newly.is_empty() && self.newly.contains(&(lane, &event.stream)));
        if follows {
            self.letters.push(NewLetter::follower(lane, event));
            return None;
        }
        match decoded {
            Ok(Some(decoded)) => Some(Recorded {
                event: decoded,
                envelope: event,
            }),
            Ok(None) => None,
            Err(error) => {
                self.refuse(entry, Reason::Malformed, error);
                None
            }
        }
    }

    /// Makes an entry a letter and parks its stream.
    pub(crate) fn refuse<E>(
        &mut self,
        entry: &Entry<'a, E>,
        reason: Reason,
        error: &(dyn std::error::Error + 'static),
    ) {
        self.newly.insert((entry.lane, &entry.event.stream));
        let letter = NewLetter::new(entry.lane, entry.event, reason, error);
        self.letters.push(letter);
    }
}

/// A row during a fold.
pub(crate) struct Slot<R> {
    pub(crate) row: Option<R>,
    /// The position the row has seen: older events are in it already.
    pub(crate) seen: Position,
    pub(crate) dirty: bool,
}

impl<R> Slot<R> {
    pub(crate) const fn loaded(row: Option<R>, seen: Position) -> Self {
        Self {
            row,
            seen,
            dirty: false,
        }
    }
}

/// The rows of a batch, by key.
pub(crate) type Slots<P> = HashMap<<P as RowProjection>::Key, Slot<<P as RowProjection>::Row>>;

/// The keys that have to be loaded before a fold, sorted: all but those whose first event here
/// starts its row.
pub(crate) fn keys_to_load<P: RowProjection>(
    entries: &[Entry<'_, P::Event>],
    parked: &Parked,
) -> Vec<P::Key> {
    let mut met: HashMap<P::Key, bool> = HashMap::with_capacity(entries.len());
    let mut sorting = Sorting::new(parked);
    for entry in entries {
        if let Some(recorded) = sorting.admit(entry) {
            met.entry(P::key(recorded))
                .or_insert_with(|| !P::starts(recorded.event));
        }
    }
    let mut keys: Vec<_> = met
        .into_iter()
        .filter_map(|(key, load)| load.then_some(key))
        .collect();
    keys.sort_unstable();
    keys
}

/// A fold refused an event while rows were folded in place: load them again and fold with care.
#[derive(Debug)]
pub(crate) struct NeedsCare;

/// Folds entries into rows. Folding consumes a row, so a refusal would lose it: the fast way gives
/// up at the first refusal, the careful way keeps a copy of each row before each event.
pub(crate) fn fold_rows<'a, P: RowProjection>(
    entries: &[Entry<'a, P::Event>],
    parked: &'a Parked,
    rows: &mut Slots<P>,
    careful: bool,
) -> Result<Vec<NewLetter>, NeedsCare> {
    let mut sorting = Sorting::new(parked);
    for entry in entries {
        let Some(recorded) = sorting.admit(entry) else {
            continue;
        };
        let slot = rows
            .entry(P::key(recorded))
            .or_insert_with(|| Slot::loaded(None, Position::ZERO));
        // In a shared row the positions of different lanes say nothing about each other.
        if !P::SHARED && entry.event.position <= slot.seen {
            continue;
        }
        let before = careful.then(|| slot.row.clone());
        match P::fold(slot.row.take(), recorded) {
            Ok(row) => {
                slot.row = row;
                slot.seen = entry.event.position;
                slot.dirty = true;
            }
            Err(error) => {
                let Some(before) = before else {
                    return Err(NeedsCare);
                };
                slot.row = before;
                sorting.refuse(entry, Reason::Fold, &error);
            }
        }
    }
    Ok(sorting.letters)
}
