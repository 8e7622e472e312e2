//! The lane: one task that gathers the appends that wait and commits them together.
//!
//! While a batch is being committed the next one queues, so the batch grows with the load and one
//! client alone waits for nobody. Each append gets its own verdict; an append that alone breaks the
//! transaction is found by halving the batch, and its mates are committed.
//!
//! What is the same for every store is here: the queue, the batches, [`plan`] that decides them, the
//! [`limits`] of one append. How a batch becomes durable is the store's matter ([`LaneStore`]).

pub(crate) mod limits;
pub(crate) mod plan;
pub(crate) mod seen;
pub(crate) mod tail;

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use async_trait::async_trait;
use metrics::{Counter, Gauge, Histogram, counter, gauge, histogram};
use millrace_es::{Context, Position};
use tokio::sync::{mpsc, oneshot, watch};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::Instrument;

use crate::{AppendError, AppendRequest, Appended, LogError, halted::halted_gauge};
use plan::Plan;

/// The most appends that wait; the next one is refused.
const MAX_QUEUED_APPENDS: usize = 8_192;
/// The most bytes that wait.
const MAX_QUEUED_BYTES: usize = 64 * 1024 * 1024;
/// The most appends of one batch.
const MAX_BATCH_APPENDS: usize = 2_000;
/// A batch takes no further append once it has this many events.
const MAX_BATCH_EVENTS: usize = 2_000;
/// A batch takes no further append once it has this many bytes.
const MAX_BATCH_BYTES: usize = 4 * 1024 * 1024;
/// How long an append may wait for the store before it is told that the store is not there.
const APPEND_WAIT_MS: u64 = 5_000;
/// After a batch its clients come back one by one. The next batch waits for as many as there were,
/// at most this share of what the last commit took …
const GATHER_SHARE: u32 = 10;
/// … and at most this long.
const MAX_GATHER_US: u64 = 400;
/// Above this many appends a batch is answered by a task of its own, so that the next batch is on
/// its way while their clients are woken.
const ANSWERED_BY_THE_LANE: usize = 32;

/// Where the lane stands in a batch. For tests that kill, pause or cut it there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum LaneStep {
    /// The batch is decided, on what was read or remembered.
    Probed,
    /// The lane is locked, before the log was read. In DynamoDB: this process has the lease.
    Locked,
    /// The lane is locked and the head moved; events and answers are written. In DynamoDB: the
    /// transaction that does it is put together.
    Written,
    /// A write-model table was written. Not in DynamoDB, where it is part of the transaction.
    Inlined,
    /// Everything is written, the commit is sent next. In DynamoDB: the transaction is.
    Committing,
    /// The commit was answered, the appends are not yet.
    Committed,
}

/// Something that happens at a step of the lane. For tests.
#[async_trait]
pub trait Faults: Send + Sync {
    /// The lane is at a step.
    async fn at(&self, step: LaneStep);
}

/// Why a batch, after all attempts, was not committed as a whole.
pub(crate) enum Refused {
    /// Nothing was appended.
    Unavailable(SharedError),
    /// Nothing was appended, and nothing will be until somebody repairs it.
    Broken(LogError),
    /// Not known.
    Open(SharedError),
    /// One of the appends breaks the transaction; nothing was appended.
    Data {
        /// What the store says about the data, without statement or host.
        reason: String,
        /// All it said.
        error: SharedError,
    },
}

/// Makes batches durable.
#[async_trait]
pub(crate) trait LaneStore: Send + 'static {
    /// The log's owner.
    fn context(&self) -> &Context;

    /// Commits what of the batch can be committed, and gives the verdicts in the batch's order: of
    /// all its appends or, where not all go together, of as many from the first on as do.
    async fn commit<'a>(
        &mut self,
        requests: &[&'a AppendRequest],
        deadline: Instant,
    ) -> Result<Plan<'a>, Refused>;

    /// Does what is due while nothing waits, and says when it wants to be asked again.
    async fn rest(&mut self) -> Option<Duration> {
        None
    }

    /// The lane ends.
    async fn end(&mut self) {}
}

/// An error of a store that everybody in a batch is told.
#[derive(Debug, Clone)]
pub(crate) struct SharedError(Arc<dyn std::error::Error + Send + Sync>);

impl SharedError {
    pub(crate) fn new(error: impl std::error::Error + Send + Sync + 'static) -> Self {
        Self(Arc::new(error))
    }
}

impl std::fmt::Display for SharedError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

impl std::error::Error for SharedError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.0.source()
    }
}

impl LogError {
    /// The same error for every append of a batch.
    fn shared(error: &SharedError) -> Self {
        Self::Unreachable(Box::new(error.clone()))
    }
}

struct Pending {
    request: AppendRequest,
    bytes: usize,
    events: usize,
    since: Instant,
    span: tracing::Span,
    verdict: oneshot::Sender<Result<Appended, AppendError>>,
}

/// The way into the lane.
pub(crate) struct Lane {
    queue: mpsc::Sender<Pending>,
    queued_bytes: Arc<AtomicUsize>,
    appended: Arc<watch::Sender<Position>>,
    stop: CancellationToken,
}

impl Lane {
    pub(crate) fn start(
        store: impl LaneStore,
        position: Position,
        stop: &CancellationToken,
        tasks: &TaskTracker,
    ) -> Self {
        let (queue, waiting) = mpsc::channel(MAX_QUEUED_APPENDS);
        let queued_bytes = Arc::new(AtomicUsize::new(0));
        let appended = Arc::new(watch::Sender::new(position));
        let meters = Meters::new(store.context());
        meters.head.set(as_f64(position.get()));
        let task = Task {
            store,
            waiting,
            queued_bytes: Arc::clone(&queued_bytes),
            appended: Arc::clone(&appended),
            stop: stop.clone(),
            meters,
            last_appends: 1,
            last_commit: Duration::ZERO,
            tasks: tasks.clone(),
        };
        tasks.spawn(task.run());
        Self {
            queue,
            queued_bytes,
            appended,
            stop: stop.clone(),
        }
    }

    /// Queues an append, in the order of the calls' first polls, and waits for its verdict.
    pub(crate) async fn append(&self, request: AppendRequest) -> Result<Appended, AppendError> {
        let bytes = limits::check(&request)?;
        let events = request.streams.iter().map(|s| s.events.len()).sum();
        if self.stop.is_cancelled() {
            return Err(AppendError::Unavailable(LogError::Closed));
        }
        let overloaded = || AppendError::Unavailable(LogError::Overloaded(MAX_QUEUED_APPENDS));
        let before = self.queued_bytes.fetch_add(bytes, Ordering::Relaxed);
        let (verdict, answered) = oneshot::channel();
        let pending = Pending {
            request,
            bytes,
            events,
            since: Instant::now(),
            span: tracing::Span::current(),
            verdict,
        };
        let queued = if before + bytes > MAX_QUEUED_BYTES {
            Err(overloaded())
        } else {
            self.queue.try_send(pending).map_err(|error| match error {
                mpsc::error::TrySendError::Full(_) => overloaded(),
                mpsc::error::TrySendError::Closed(_) => AppendError::Unavailable(LogError::Closed),
            })
        };
        if let Err(error) = queued {
            self.queued_bytes.fetch_sub(bytes, Ordering::Relaxed);
            return Err(error);
        }
        // The lane answers everything it took; a lane that ended without is a defect of ours.
        answered
            .await
            .unwrap_or(Err(AppendError::OutcomeUnknown(LogError::Closed)))
    }

    pub(crate) fn appended(&self) -> watch::Receiver<Position> {
        self.appended.subscribe()
    }

    /// Says that events up to a position came by another way.
    pub(crate) fn announce(&self, position: Position) {
        announce(&self.appended, position);
    }
}

fn announce(appended: &watch::Sender<Position>, position: Position) {
    appended.send_if_modified(|at| {
        let newer = position > *at;
        *at = position.max(*at);
        newer
    });
}

struct Task<S> {
    store: S,
    waiting: mpsc::Receiver<Pending>,
    queued_bytes: Arc<AtomicUsize>,
    appended: Arc<watch::Sender<Position>>,
    stop: CancellationToken,
    meters: Meters,
    last_appends: usize,
    last_commit: Duration,
    tasks: TaskTracker,
}

impl<S: LaneStore> Task<S> {
    async fn run(mut self) {
        while let Some(first) = self.next().await {
            let batch = self.gather(first).await;
            let bytes: usize = batch.iter().map(|pending| pending.bytes).sum();
            let started = Instant::now();
            self.last_appends = batch.len();
            self.commit(batch).await;
            self.last_commit = started.elapsed();
            self.queued_bytes.fetch_sub(bytes, Ordering::Relaxed);
        }
        self.store.end().await;
    }

    /// Waits for an append; `None` at the end.
    async fn next(&mut self) -> Option<Pending> {
        if let Ok(pending) = self.waiting.try_recv() {
            return Some(pending);
        }
        loop {
            let again = self.store.rest().await;
            tokio::select! {
                first = self.waiting.recv() => return first,
                () = self.stop.cancelled() => {
                    // What was queued before the stop is still answered.
                    self.waiting.close();
                    return self.waiting.recv().await;
                }
                () = tokio::time::sleep(again.unwrap_or_default()), if again.is_some() => {}
            }
        }
    }

    /// Takes what waits, up to the bounds.
    async fn gather(&mut self, first: Pending) -> Vec<Pending> {
        let mut batch = Batch::default();
        batch.push(first);
        let wait = (self.last_commit / GATHER_SHARE).min(Duration::from_micros(MAX_GATHER_US));
        let since = Instant::now();
        loop {
            while !batch.is_full() {
                match self.waiting.try_recv() {
                    Ok(pending) => batch.push(pending),
                    Err(_) => break,
                }
            }
            // The timer is too coarse for a wait this short, and the runtime has others to run.
            if batch.is_full()
                || batch.pending.len() >= self.last_appends
                || since.elapsed() >= wait
            {
                return batch.pending;
            }
            tokio::task::yield_now().await;
        }
    }

    /// Commits a batch, in parts where not all of it goes together, in halves where one of its
    /// appends breaks it, and answers everybody.
    async fn commit(&mut self, batch: Vec<Pending>) {
        let mut parts = vec![batch];
        while let Some(mut batch) = parts.pop() {
            let span = tracing::info_span!(
                "append batch",
                context = %self.store.context(),
                appends = batch.len(),
            );
            for pending in &batch {
                span.follows_from(&pending.span);
            }
            let committed = self.commit_whole(&batch).instrument(span).await;
            if let Ok(verdicts) = &committed
                && verdicts.len() < batch.len()
                && !verdicts.is_empty()
            {
                parts.push(batch.split_off(verdicts.len()));
            }
            match committed {
                Ok(verdicts) if batch.len() <= ANSWERED_BY_THE_LANE => answer(batch, verdicts),
                Ok(verdicts) => drop(self.tasks.spawn(async move { answer(batch, verdicts) })),
                Err(Refused::Data { reason, error }) if batch.len() == 1 => {
                    tracing::warn!(context = %self.store.context(), %error, "an append's data is not possible");
                    refuse(batch, || AppendError::Invalid(reason.clone()));
                }
                Err(Refused::Data { .. }) => {
                    let second = batch.split_off(batch.len() / 2);
                    parts.push(second);
                    parts.push(batch);
                }
                Err(Refused::Unavailable(error)) => {
                    refuse(batch, || AppendError::Unavailable(LogError::shared(&error)));
                }
                Err(Refused::Open(error)) => {
                    refuse(batch, || {
                        AppendError::OutcomeUnknown(LogError::shared(&error))
                    });
                }
                Err(Refused::Broken(error)) => {
                    tracing::error!(context = %self.store.context(), %error, "the log takes no appends");
                    refuse(batch, || AppendError::Unavailable(same(&error)));
                }
            }
        }
    }

    async fn commit_whole(
        &mut self,
        batch: &[Pending],
    ) -> Result<Vec<Result<Appended, AppendError>>, Refused> {
        let started = Instant::now();
        let requests: Vec<&AppendRequest> = batch.iter().map(|pending| &pending.request).collect();
        // An append that waited too long already gets its one attempt.
        let deadline = batch.first().map_or(started, |pending| pending.since)
            + Duration::from_millis(APPEND_WAIT_MS);
        let plan = self.store.commit(&requests, deadline).await?;
        self.meters.batch(&plan, started.elapsed());
        announce(&self.appended, plan.position);
        Ok(plan.verdicts)
    }
}

#[derive(Default)]
struct Batch {
    pending: Vec<Pending>,
    events: usize,
    bytes: usize,
}

impl Batch {
    fn push(&mut self, pending: Pending) {
        self.events += pending.events;
        self.bytes += pending.bytes;
        self.pending.push(pending);
    }

    fn is_full(&self) -> bool {
        self.pending.len() >= MAX_BATCH_APPENDS
            || self.events >= MAX_BATCH_EVENTS
            || self.bytes >= MAX_BATCH_BYTES
    }
}

fn answer(batch: Vec<Pending>, verdicts: Vec<Result<Appended, AppendError>>) {
    for (pending, verdict) in batch.into_iter().zip(verdicts) {
        // Whoever asked may have gone; the append stands.
        let _ = pending.verdict.send(verdict);
    }
}

fn refuse(batch: Vec<Pending>, error: impl Fn() -> AppendError) {
    for pending in batch {
        let _ = pending.verdict.send(Err(error()));
    }
}

fn same(error: &LogError) -> LogError {
    match error {
        LogError::Corrupt(text) => LogError::Corrupt(text.clone()),
        LogError::Missing(text) => LogError::Missing(text.clone()),
        LogError::Misconfigured(text) => LogError::Misconfigured(text.clone()),
        other => LogError::Misconfigured(other.to_string()),
    }
}

struct Meters {
    batch: Histogram,
    seconds: Histogram,
    events: Counter,
    conflicts: Counter,
    head: Gauge,
    halted: Gauge,
}

impl Meters {
    fn new(context: &Context) -> Self {
        let halted = halted_gauge(context);
        let context = context.to_string();
        Self {
            batch: histogram!("millrace_append_batch_events", "context" => context.clone()),
            seconds: histogram!("millrace_append_seconds", "context" => context.clone()),
            events: counter!("millrace_appended_events_total", "context" => context.clone()),
            conflicts: counter!("millrace_append_conflicts_total", "context" => context.clone()),
            head: gauge!("millrace_log_head", "context" => context),
            halted,
        }
    }

    fn batch(&self, plan: &Plan<'_>, took: Duration) {
        if !plan.is_empty() {
            self.batch.record(as_f64(plan.rows.len() as u64));
            self.seconds.record(took.as_secs_f64());
        }
        self.events.increment(plan.rows.len() as u64);
        let conflicts = plan
            .verdicts
            .iter()
            .filter(|verdict| matches!(verdict, Err(AppendError::Conflict { .. })))
            .count();
        self.conflicts.increment(conflicts as u64);
        self.head.set(as_f64(plan.position.get()));
        self.halted.set(u8::from(plan.before.halted.is_some()));
    }
}

/// Metrics are floats; a count above 2^53 loses its last digits there and nowhere else.
#[expect(clippy::cast_precision_loss, reason = "see above")]
fn as_f64(number: u64) -> f64 {
    number as f64
}
