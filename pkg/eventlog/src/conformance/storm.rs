//! Writers that are cut while they write, and a reader that looks all the time.

use std::{
    collections::HashSet,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use futures::future::join_all;
use millrace_es::{EventId, Position, RecordedEvent, StreamVersion};
use tokio::sync::{Mutex, mpsc, oneshot};

use super::{Backend, append, audit, to};
use crate::{
    Answer, AnswerKey, AppendError, AppendRequest, EventLog, ExpectedVersion, Faults, LaneStep,
};

/// The steps at which a writer is cut.
const STEPS: [LaneStep; 5] = [
    LaneStep::Probed,
    LaneStep::Locked,
    LaneStep::Written,
    LaneStep::Committing,
    LaneStep::Committed,
];
/// How often a cut append is repeated before the check gives up.
const MAX_REPEATS: usize = 50;
/// How long the reader waits when it is at the head.
const READER_PAUSE_MS: u64 = 2;

/// Cuts the store's connections the next times the lane is at a step.
struct CutAt<'b, B> {
    backend: &'b B,
    step: LaneStep,
    armed: AtomicBool,
}

/// What became of an operation: the ids of each try, and whether one of them must be there.
struct Entry {
    tries: Vec<Vec<EventId>>,
    taken: bool,
}

#[derive(Default)]
struct Ledger {
    entries: Mutex<Vec<Entry>>,
}

impl Ledger {
    /// Every operation that was acknowledged is there once, whole, and in its order; what was
    /// refused is not there, and nothing else is.
    async fn check(&self, events: &[RecordedEvent]) {
        let entries = self.entries.lock().await;
        let there: HashSet<EventId> = events.iter().map(|event| event.id).collect();
        let mut expected = 0;
        for entry in entries.iter() {
            let found: Vec<&Vec<EventId>> = entry
                .tries
                .iter()
                .filter(|ids| ids.iter().any(|id| there.contains(id)))
                .collect();
            assert_eq!(
                found.len(),
                usize::from(entry.taken),
                "an operation of {} tries is there {} times",
                entry.tries.len(),
                found.len()
            );
            for ids in found {
                assert!(ids.iter().all(|id| there.contains(id)), "half an append");
                expected += ids.len();
            }
        }
        assert_eq!(expected, events.len(), "nobody appended the others");
    }
}

fn ids(request: &AppendRequest) -> Vec<EventId> {
    let events = request.streams.iter().flat_map(|s| &s.events);
    events.map(|event| event.id).collect()
}

fn keyed(mut request: AppendRequest, number: u64) -> AppendRequest {
    let mut key_hash = [0; 32];
    key_hash[..8].copy_from_slice(&number.to_be_bytes());
    request.answer = Some((
        AnswerKey {
            key_hash,
            request_hash: key_hash,
        },
        Answer {
            status: 201,
            headers: Vec::new(),
            body: number.to_string().into(),
        },
    ));
    request
}

/// Does an operation as a client with an idempotency key does: repeats it, with new event ids, until
/// it has an answer.
async fn persist(log: &dyn EventLog, ledger: &Ledger, make: impl Fn() -> AppendRequest) {
    let mut tries = Vec::new();
    for _ in 0..MAX_REPEATS {
        let request = make();
        tries.push(ids(&request));
        let taken = match log.append(request).await {
            Ok(_) | Err(AppendError::DuplicateKey(_)) => true,
            Err(AppendError::Conflict { .. }) => false,
            Err(AppendError::Unavailable(_)) => {
                // Certain: nothing of this try is there.
                ledger.entries.lock().await.push(Entry {
                    tries: tries.split_off(tries.len() - 1),
                    taken: false,
                });
                continue;
            }
            Err(AppendError::OutcomeUnknown(_)) => continue,
            Err(other) => panic!("{other:?}"),
        };
        ledger.entries.lock().await.push(Entry { tries, taken });
        return;
    }
    panic!("an operation was not answered in {MAX_REPEATS} tries");
}

/// Reads the log from the first event on until told to stop: each read goes on exactly where the
/// last one ended. Returns the ids in the order seen.
async fn tail(log: &dyn EventLog, stop: &AtomicBool) -> Vec<EventId> {
    let mut seen = Vec::new();
    let mut after = Position::ZERO;
    loop {
        let last_round = stop.load(Ordering::Acquire);
        let Ok(page) = log.read_log(after, 100).await else {
            continue;
        };
        for event in &page {
            after = after.next();
            assert_eq!(event.position, after, "the reader sees a gap");
            seen.push(event.id);
        }
        if page.is_empty() {
            if last_round {
                return seen;
            }
            tokio::time::sleep(Duration::from_millis(READER_PAUSE_MS)).await;
        }
    }
}

/// A writer whose connections are cut once at every step of a batch, small and large, alone and
/// while another process writes: every append gets its answer, and is there once.
pub async fn a_writer_cut_at_any_step_loses_and_doubles_nothing<B: Backend>(backend: &B) {
    let ledger = Ledger::default();
    let mut number = 0;
    for step in STEPS {
        let cut = Arc::new(Cutting::default());
        let log = backend
            .open(Some(Arc::clone(&cut) as Arc<dyn Faults>))
            .await;
        let other = backend.open(None).await;
        for (events, contended) in [(1, false), (60, false), (1, true), (60, true)] {
            let cutter = CutAt {
                backend,
                step,
                armed: AtomicBool::new(true),
            };
            if contended {
                number += 1;
                persist(other.as_ref(), &ledger, || {
                    keyed(append("mate", ExpectedVersion::Any, 1), number)
                })
                .await;
            }
            number += 1;
            let name = format!("cut-{step:?}-{events}-{contended}");
            let operation = persist(log.as_ref(), &ledger, || {
                keyed(append(&name, ExpectedVersion::NoStream, events), number)
            });
            tokio::select! {
                () = operation => {}
                () = cut.serve(&cutter) => {}
            }
            *cut.steps.lock().await = None;
            // Small batches, and those without a rival, take shorter ways.
            assert!(
                events == 1 || !contended || !cutter.armed.load(Ordering::Acquire),
                "the writer never came to {step:?}"
            );
        }
    }
    ledger
        .check(&audit(backend.open(None).await.as_ref()).await)
        .await;
}

/// A step, and the way to let the lane go on.
type Reached = (LaneStep, oneshot::Sender<()>);

/// Hands the lane's steps over to the check, which may cut while the lane waits. (The faults given
/// to a log outlive the check, and the backend does not.)
#[derive(Default)]
struct Cutting {
    steps: Mutex<Option<mpsc::Sender<Reached>>>,
}

#[async_trait]
impl Faults for Cutting {
    async fn at(&self, step: LaneStep) {
        let Some(steps) = self.steps.lock().await.clone() else {
            return;
        };
        let (done, waiting) = oneshot::channel();
        if steps.send((step, done)).await.is_ok() {
            let _ = waiting.await;
        }
    }
}

impl Cutting {
    /// Cuts at the first time the step comes, and lets the lane go on each time; until dropped.
    async fn serve<B: Backend>(&self, cutter: &CutAt<'_, B>) {
        let (sender, mut steps) = mpsc::channel(1);
        *self.steps.lock().await = Some(sender);
        while let Some((step, done)) = steps.recv().await {
            if step == cutter.step && cutter.armed.swap(false, Ordering::AcqRel) {
                cutter.backend.cut().await;
            }
            let _ = done.send(());
        }
    }
}

/// Three processes with many writers each, on few streams, with keys, several streams at once and
/// conflicts; their connections cut again and again; something long open elsewhere; and a reader
/// all the time. Then nothing is lost, doubled, or was ever seen out of order.
pub async fn a_storm_of_writers_and_cuts_loses_and_doubles_nothing(backend: &impl Backend) {
    const INSTANCES: u64 = 3;
    const WRITERS: u64 = 8;
    const OPERATIONS: u64 = 25;
    const CUTS: u64 = 6;
    const CUT_EVERY_MS: u64 = 60;

    let logs = join_all((0..INSTANCES).map(|_| backend.open(None))).await;
    let reader = backend.open(None).await;
    let ledger = Ledger::default();
    let stop = AtomicBool::new(false);
    let held = backend.hold().await;
    let writers = (0..INSTANCES * WRITERS).map(|writer| {
        let log = &logs[usize::try_from(writer % INSTANCES).unwrap_or(0)];
        let ledger = &ledger;
        async move {
            let mut dice = Dice(writer + 1);
            for operation in 0..OPERATIONS {
                let number = writer * OPERATIONS + operation;
                let (kind, one, two) = (dice.roll(6), dice.roll(8), dice.roll(8));
                let events = usize::try_from(1 + dice.roll(3)).unwrap_or(1);
                let make = || operation_of(kind, one, two, number, events);
                persist(log.as_ref(), ledger, || keyed(make(), number)).await;
            }
        }
    });
    let cuts = async {
        for _ in 0..CUTS {
            tokio::time::sleep(Duration::from_millis(CUT_EVERY_MS)).await;
            backend.cut().await;
        }
    };
    let writing = async {
        tokio::join!(join_all(writers), cuts);
        stop.store(true, Ordering::Release);
    };
    let (seen, ()) = tokio::join!(tail(reader.as_ref(), &stop), writing);
    drop(held);
    let events = audit(reader.as_ref()).await;
    let order: Vec<EventId> = events.iter().map(|event| event.id).collect();
    assert_eq!(
        seen, order,
        "the reader saw what the log holds, in its order"
    );
    ledger.check(&events).await;
}

fn operation_of(kind: u64, one: u64, two: u64, number: u64, events: usize) -> AppendRequest {
    let hot = format!("hot-{one}");
    match kind {
        0 => append(&format!("new-{number}"), ExpectedVersion::NoStream, events),
        // Right by chance only: most of these conflict.
        1 => append(
            &hot,
            ExpectedVersion::Exact(StreamVersion::new(two)),
            events,
        ),
        2 if one != two => AppendRequest {
            streams: vec![
                to(&hot, ExpectedVersion::Any, events),
                to(&format!("hot-{two}"), ExpectedVersion::Any, 1),
            ],
            ..AppendRequest::default()
        },
        3 => append(&hot, ExpectedVersion::Any, 40),
        _ => append(&hot, ExpectedVersion::Any, events),
    }
}

/// Numbers that look random and are the same in every run.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % sides
    }
}
