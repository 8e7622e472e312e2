//! The states in memory.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use millrace_es::{Aggregate, DecodeError, EventId, RecordedEvent, StreamId, StreamVersion};

use super::evolve;
use crate::ExpectedVersion;

/// A state, the version it stands for, and the event that made it, where that is known.
#[derive(Debug, Clone)]
pub(super) struct Known<A> {
    pub state: A,
    pub version: StreamVersion,
    pub last: Option<EventId>,
}

impl<A: Default> Default for Known<A> {
    fn default() -> Self {
        Self {
            state: A::default(),
            version: StreamVersion::ZERO,
            last: None,
        }
    }
}

impl<A: Aggregate> Known<A> {
    /// The state after a stored event.
    pub(super) fn after(self, event: &RecordedEvent) -> Result<Self, DecodeError> {
        Ok(Self {
            state: evolve(self.state, event)?,
            version: event.version,
            last: Some(event.id),
        })
    }

    /// What a decision on this state expects of the stream.
    pub(super) fn expected(&self) -> ExpectedVersion {
        match self.last {
            Some(event) => ExpectedVersion::Follows {
                version: self.version,
                event,
            },
            None if self.version == StreamVersion::ZERO => ExpectedVersion::NoStream,
            None => ExpectedVersion::Exact(self.version),
        }
    }
}

/// A known state in the cache.
#[derive(Debug)]
pub(super) struct Entry<A> {
    pub known: Known<A>,
    /// Appends that `known` includes and that are not answered yet.
    pub pending: usize,
    /// Which filling of the slot this is: an append that fails empties the slot it was decided on,
    /// not one filled anew since.
    pub filling: u64,
}

/// An aggregate's place in the cache.
#[derive(Debug)]
pub(super) struct Slot<A> {
    entry: Mutex<(u64, Option<Entry<A>>)>,
    /// Held while the stream is read, so that many commands read it once.
    pub loading: tokio::sync::Mutex<()>,
}

impl<A> Slot<A> {
    fn new() -> Self {
        Self {
            entry: Mutex::new((0, None)),
            loading: tokio::sync::Mutex::new(()),
        }
    }

    /// Locks the entry. Never held across an await, and never while another slot is locked but
    /// by [`with_all`].
    fn lock(&self) -> MutexGuard<'_, (u64, Option<Entry<A>>)> {
        // Deciding may panic, which is a defect of the aggregate; the entry it left is unchanged.
        self.entry.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Runs something on the entry, if there is one.
    pub(super) fn with<T>(&self, run: impl FnOnce(&mut Entry<A>) -> T) -> Option<T> {
        self.lock().1.as_mut().map(run)
    }

    /// Puts a state there unless there is one.
    pub(super) fn fill(&self, known: Known<A>) {
        let (fillings, entry) = &mut *self.lock();
        if entry.is_none() {
            *fillings += 1;
            *entry = Some(Entry {
                known,
                pending: 0,
                filling: *fillings,
            });
        }
    }

    /// An append decided on this filling is durable.
    pub(super) fn settled(&self, filling: u64) {
        if let Some(entry) = &mut self.lock().1
            && entry.filling == filling
        {
            entry.pending = entry.pending.saturating_sub(1);
        }
    }

    /// What was decided on this filling does not hold: empty the slot.
    pub(super) fn discard(&self, filling: u64) {
        let entry = &mut self.lock().1;
        if entry.as_ref().is_some_and(|entry| entry.filling == filling) {
            *entry = None;
        }
    }
}

/// Runs something on the entries of several slots, if each has one; they are locked in the given
/// order, which has to be the same for whoever locks the same slots.
pub(super) fn with_all<A, T, const N: usize>(
    slots: [&Slot<A>; N],
    order: [usize; N],
    run: impl FnOnce([&mut Entry<A>; N]) -> T,
) -> Option<T> {
    let mut guards = [const { None }; N];
    for place in order {
        guards[place] = Some(slots[place].lock());
    }
    let entries: Vec<&mut Entry<A>> = guards
        .iter_mut()
        .filter_map(|guard| guard.as_mut()?.1.as_mut())
        .collect();
    entries.try_into().ok().map(run)
}

/// The slots of the aggregates used last.
pub(super) struct Cache<A> {
    slots: moka::sync::Cache<StreamId, Arc<Slot<A>>>,
}

impl<A: Clone + Send + Sync + 'static> Cache<A> {
    pub(super) fn new(capacity: u64) -> Self {
        Self {
            slots: moka::sync::Cache::new(capacity),
        }
    }

    pub(super) fn slot(&self, stream: &StreamId) -> Arc<Slot<A>> {
        self.slots.get_with_by_ref(stream, || Arc::new(Slot::new()))
    }

    /// The state in memory, if all of it is durable.
    pub(super) fn durable(&self, stream: &StreamId) -> Option<Known<A>> {
        let slot = self.slots.get(stream)?;
        slot.with(|entry| (entry.pending == 0).then(|| entry.known.clone()))?
    }
}
