use std::{
    collections::{BTreeMap, HashMap},
    error::Error,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use async_trait::async_trait;
use futures::{StreamExt, future::BoxFuture};
use metrics::{counter, histogram};
use millrace_es::{Position, Reaction, Recorded, StreamId};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::{AsProjection, EffectError, React};
use crate::{
    batch::{Batch, Entry, Move, NewLetter, Parked, Sorting, describe},
    generation::Lane,
    letters::Reason,
};

/// The most streams whose effects are performed side by side.
const MAX_STREAMS_AT_ONCE: usize = 32;

/// The longest that one effect may take, in milliseconds. Below the time that one attempt at a
/// batch has, so that a slow endpoint shows as what it is.
pub const EFFECT_TIMEOUT_MS: u64 = 20_000;

/// How long the effects in hand may still take when the process is told to stop, in milliseconds.
/// It leaves time to write down what was performed.
const LAST_EFFECTS_MS: u64 = 5_000;

/// What became of one event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Outcome {
    Performed,
    /// It never will be; why.
    Refused(String),
}

/// What was performed and is not yet written down with the checkpoints, so that it is not performed
/// again when the rest of its batch has to wait.
#[derive(Default)]
pub(crate) struct Memory(Mutex<BTreeMap<(Lane, Position), Outcome>>);

impl Memory {
    fn known(&self) -> MutexGuard<'_, BTreeMap<(Lane, Position), Outcome>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn outcome(&self, lane: &Lane, position: Position) -> Option<Outcome> {
        self.known().get(&(lane.clone(), position)).cloned()
    }

    fn keep(&self, lane: &Lane, position: Position, outcome: Outcome) {
        self.known().insert((lane.clone(), position), outcome);
    }

    /// What these moves passed is written down.
    pub(crate) fn forget(&self, moves: &[Move]) {
        let passed = |lane: &Lane, position: Position| {
            let mut own = moves.iter().filter(|one| one.lane == *lane);
            own.any(|one| position <= one.to)
        };
        self.known()
            .retain(|(lane, position), _| !passed(lane, *position));
    }

    /// A lane begins anew at its checkpoint.
    pub(crate) fn forget_lane(&self, lane: &Lane) {
        self.known().retain(|(known, _), _| known != lane);
    }
}

/// What became of a batch's effects.
#[derive(Default)]
pub(crate) struct Performance {
    /// The events that became dead letters, by lane and position.
    pub(crate) letters: Vec<NewLetter>,
    /// The lanes in which an effect waits, and how far each is done.
    pub(crate) holds: BTreeMap<Lane, Position>,
    /// How many were performed now; what the memory knew is not counted.
    pub(crate) performed: u64,
    /// Why one waits; none when all that waits was not begun, because of the end.
    pub(crate) error: Option<Box<dyn Error + Send + Sync>>,
}

impl Performance {
    fn take(&mut self, ended: StreamEnd) {
        self.letters.extend(ended.letters);
        self.performed += ended.performed;
        if let Some(waits) = ended.waits {
            let at = self.holds.entry(waits.lane).or_insert(waits.after);
            *at = waits.after.min(*at);
            self.error = self.error.take().or(waits.error);
        }
    }
}

/// A reaction's handler with its types erased.
#[async_trait]
pub(crate) trait Perform: Send + Sync {
    /// Performs the effects of a batch, in order per stream and streams side by side, as far as
    /// that goes now. What the memory knows is not performed again.
    async fn perform(
        &self,
        batch: &Batch,
        parked: &Parked,
        memory: &Memory,
        stop: &CancellationToken,
    ) -> Performance;
}

/// Where the effects of one stream ended.
struct StreamEnd {
    letters: Vec<NewLetter>,
    performed: u64,
    waits: Option<Waits>,
}

/// An effect that waits.
struct Waits {
    lane: Lane,
    /// The position before it in its lane.
    after: Position,
    error: Option<Box<dyn Error + Send + Sync>>,
}

pub(crate) struct Performer<R: Reaction> {
    handler: Arc<dyn React<R>>,
}

impl<R: Reaction> Performer<R> {
    pub(crate) const fn new(handler: Arc<dyn React<R>>) -> Self {
        Self { handler }
    }

    /// Performs the effects of one stream, one after the other, up to the first that has to wait.
    async fn perform_stream<'a>(
        &'a self,
        entries: Vec<Entry<'a, R::Event>>,
        parked: &'a Parked,
        memory: &'a Memory,
        stop: &'a CancellationToken,
    ) -> StreamEnd {
        let mut sorting = Sorting::new(parked);
        let mut performed = 0;
        let mut waits = None;
        for entry in &entries {
            let Some(recorded) = sorting.admit(entry) else {
                continue;
            };
            let position = entry.event.position;
            let outcome = match memory.outcome(entry.lane, position) {
                Some(known) => known,
                None => match self.perform_one(recorded, stop).await {
                    Ok(outcome) => {
                        performed += u64::from(outcome == Outcome::Performed);
                        memory.keep(entry.lane, position, outcome.clone());
                        outcome
                    }
                    Err(error) => {
                        waits = Some(Waits {
                            lane: entry.lane.clone(),
                            after: entry.event.previous,
                            error,
                        });
                        break;
                    }
                },
            };
            if let Outcome::Refused(why) = outcome {
                sorting.refuse(entry, Reason::Refused, &Refusal(why));
            }
        }
        StreamEnd {
            letters: sorting.letters,
            performed,
            waits,
        }
    }

    /// Performs one effect, unless it has to wait; why, where there is more to say than that the
    /// process is to stop.
    async fn perform_one(
        &self,
        event: Recorded<'_, R::Event>,
        stop: &CancellationToken,
    ) -> Result<Outcome, Option<Box<dyn Error + Send + Sync>>> {
        if stop.is_cancelled() {
            return Err(None);
        }
        let last_call = async {
            stop.cancelled().await;
            tokio::time::sleep(Duration::from_millis(LAST_EFFECTS_MS)).await;
        };
        let limit = Duration::from_millis(EFFECT_TIMEOUT_MS);
        let started = Instant::now();
        let done = tokio::select! {
            done = tokio::time::timeout(limit, self.handler.react(event)) => done,
            () = last_call => return Err(None),
        };
        histogram!("millrace_effect_seconds", "reaction" => R::NAME).record(started.elapsed());
        let done = done.unwrap_or_else(|_| Err(EffectError::unavailable(TookTooLong)));
        let (counted, outcome) = match done {
            Ok(()) => ("performed", Ok(Outcome::Performed)),
            Err(EffectError::Refused(error)) => {
                ("refused", Ok(Outcome::Refused(describe(&*error))))
            }
            Err(EffectError::Unavailable(error)) => ("unavailable", Err(Some(error))),
        };
        counter!("millrace_effects_total", "reaction" => R::NAME, "outcome" => counted)
            .increment(1);
        outcome
    }
}

#[async_trait]
impl<R: Reaction> Perform for Performer<R> {
    async fn perform(
        &self,
        batch: &Batch,
        parked: &Parked,
        memory: &Memory,
        stop: &CancellationToken,
    ) -> Performance {
        let entries = batch.entries::<AsProjection<R>>(0..batch.len());
        let mut nth: HashMap<(&Lane, &StreamId), usize> = HashMap::new();
        let mut streams: Vec<Vec<Entry<'_, R::Event>>> = Vec::new();
        for entry in entries {
            let known = *nth
                .entry((entry.lane, &entry.event.stream))
                .or_insert_with(|| {
                    streams.push(Vec::new());
                    streams.len() - 1
                });
            streams[known].push(entry);
        }
        let mut effects: Vec<BoxFuture<'_, StreamEnd>> = Vec::with_capacity(streams.len());
        for stream in streams {
            effects.push(Box::pin(self.perform_stream(stream, parked, memory, stop)));
        }
        let mut effects = futures::stream::iter(effects).buffer_unordered(MAX_STREAMS_AT_ONCE);
        let mut performance = Performance::default();
        while let Some(ended) = effects.next().await {
            performance.take(ended);
        }
        performance
            .letters
            .sort_by(|a, b| (&a.lane, a.event.position).cmp(&(&b.lane, b.event.position)));
        performance
    }
}

#[derive(Debug, thiserror::Error)]
#[error("the effect took longer than {EFFECT_TIMEOUT_MS} ms")]
struct TookTooLong;

/// Why an effect was refused, as it is remembered.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct Refusal(String);
