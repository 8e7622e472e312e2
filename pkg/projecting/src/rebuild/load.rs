//! The bulk work of a rebuild: the log is read once, its events go to a few writers by lane, and
//! each writer folds what has come and commits it with its lanes' checkpoints.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use metrics::counter;
use millrace_es::Context;
use millrace_eventlog::{EventLog, MAX_PAGE_EVENTS};
use millrace_streaming::DeadLetterPublisher;
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore, mpsc},
    task::JoinSet,
};
use tokio_util::sync::CancellationToken;

use super::{
    lanes::{ContextReader, MAX_EVENTS_IN_HAND, Piece, log_failure},
    pace::{Throttle, rate_of, step_events},
    state::{LaneProgress, LoadEnd, Pace, Share},
    store::RebuildStore,
};
use crate::{
    applying::{attempt, park, publish},
    backoff::Backoff,
    batch::{Batch, MAX_BATCH_LANES, Parked, describe},
    error::StoreError,
    generation::{Generation, GenerationStatus},
    heads::log_of,
    store::GenerationStore,
    view::{StoreKind, View},
};

/// Batches that are folded and written side by side, of different lanes, unless there are so many
/// lanes that one batch could not hold them.
pub(crate) const LOAD_WRITERS: usize = 2;

/// The most events of one batch in PostgreSQL. The larger it is, the more events of one row meet in
/// it, and the row is written once.
const MAX_LOAD_EVENTS_POSTGRES: usize = 10_000;

/// The most events of one batch in DynamoDB.
const MAX_LOAD_EVENTS_DYNAMODB: usize = 2_000;

/// The most payload of one batch, in bytes; the piece that passes it is the last.
const MAX_LOAD_BYTES: usize = 8 * 1024 * 1024;

/// Pieces that wait for a writer; what they hold is bounded by [`MAX_EVENTS_IN_HAND`].
const MAX_PIECES_AHEAD: usize = 256;

/// How often a load looks whether it is still wanted and how fast it may be, in milliseconds.
const LOOK_MS: u64 = 500;

/// Failures without any progress in between after which a load gives up: a minute or two.
const MAX_FAILURES: u32 = 30;

/// A share of a generation's load.
pub(super) struct Load<'a> {
    pub(super) view: View,
    pub(super) logs: Vec<Arc<dyn EventLog>>,
    pub(super) store: &'a dyn RebuildStore,
    pub(super) generation: &'a Generation,
    pub(super) share: Share,
    pub(super) letters: Option<DeadLetterPublisher>,
    pub(super) stop: CancellationToken,
}

/// What there is to do.
enum Looked {
    End(LoadEnd),
    Suspended,
    Work {
        pace: Pace,
        /// Those that are not at their targets.
        lanes: Vec<LaneProgress>,
        /// How far all of the share are, summed up.
        reached: u64,
    },
}

impl Load<'_> {
    pub(super) async fn run(self) -> Result<LoadEnd, StoreError> {
        let folding = self.store.open(self.generation, &self.view)?;
        let throttle = Arc::new(Throttle::new());
        let mut backoff = Backoff::default();
        let mut failures = 0;
        let mut reached = 0;
        loop {
            let Some(looked) = self.stop.run_until_cancelled(self.look()).await else {
                return Ok(LoadEnd::Stopped);
            };
            let worked = match looked {
                Ok(Looked::End(end)) => return Ok(end),
                Ok(Looked::Suspended) => {
                    self.pause(Duration::from_millis(LOOK_MS)).await;
                    continue;
                }
                Ok(Looked::Work {
                    pace,
                    lanes,
                    reached: now,
                }) => {
                    if now > reached {
                        reached = now;
                        failures = 0;
                        backoff = Backoff::default();
                    }
                    self.pass(&folding, &throttle, pace, lanes).await
                }
                Err(error) => Err(error),
            };
            let Err(failed) = worked else { continue };
            failures += 1;
            self.judge(failed, failures)?;
            self.pause(backoff.next()).await;
        }
    }

    /// Waits, unless told to stop.
    async fn pause(&self, pause: Duration) {
        let sleep = tokio::time::sleep(pause);
        self.stop.run_until_cancelled(sleep).await;
    }

    /// What is worth another try is told; what is not is given back.
    fn judge(&self, failed: StoreError, failures: u32) -> Result<(), StoreError> {
        let (projection, generation) = (self.view.name(), self.generation.id);
        match failed {
            StoreError::Fenced { lane, .. } => {
                tracing::info!(projection, %generation, %lane, "another worker moved the checkpoint; beginning again there");
            }
            // Its tables may just have been dropped: the next look tells.
            StoreError::Unusable(_) | StoreError::Unavailable(_) if failures < MAX_FAILURES => {
                if failures == 1 {
                    tracing::warn!(projection, %generation, error = %describe(&failed), "load interrupted; trying again");
                }
            }
            error => return Err(error),
        }
        Ok(())
    }

    async fn look(&self) -> Result<Looked, StoreError> {
        let pace = match self.store.standing(self.generation).await? {
            None | Some((GenerationStatus::Retired, _)) => {
                return Ok(Looked::End(LoadEnd::Gone));
            }
            Some((GenerationStatus::Loading, pace)) => pace,
            Some(_) => return Ok(Looked::End(LoadEnd::Done)),
        };
        let mut lanes = self.store.progress(self.generation.id).await?;
        if lanes.is_empty() {
            return Ok(Looked::End(LoadEnd::Gone));
        }
        lanes.retain(|one| self.share.has(&one.lane));
        let reached = lanes.iter().map(|one| one.position.get()).sum();
        lanes.retain(|one| !one.is_done());
        if lanes.is_empty() {
            return Ok(Looked::End(LoadEnd::Done));
        }
        if pace.suspended {
            return Ok(Looked::Suspended);
        }
        Ok(Looked::Work {
            pace,
            lanes,
            reached,
        })
    }

    /// Folds until the lanes are at their targets, or something ends it: a failure, a change of
    /// pace, the end of the process. What was read and not written is read again by the next pass.
    async fn pass(
        &self,
        folding: &Arc<dyn GenerationStore>,
        throttle: &Arc<Throttle>,
        pace: Pace,
        lanes: Vec<LaneProgress>,
    ) -> Result<(), StoreError> {
        let halt = self.stop.child_token();
        let mut tasks = self.start(folding, throttle, pace, lanes, &halt).await?;
        let changed = self.until_changed(pace);
        let mut changed = std::pin::pin!(changed);
        let mut ended = Ok(());
        loop {
            tokio::select! {
                done = tasks.join_next() => {
                    let failed = match done {
                        None => return ended,
                        Some(Ok(Ok(()))) => continue,
                        Some(Ok(Err(error))) => error,
                        Some(Err(error)) => StoreError::Unavailable(Box::new(error)),
                    };
                    halt.cancel();
                    ended = ended.and(Err(failed));
                }
                () = &mut changed, if !halt.is_cancelled() => halt.cancel(),
            }
        }
    }

    /// Readers and writers of a pass.
    async fn start(
        &self,
        folding: &Arc<dyn GenerationStore>,
        throttle: &Arc<Throttle>,
        pace: Pace,
        lanes: Vec<LaneProgress>,
        halt: &CancellationToken,
    ) -> Result<JoinSet<Result<(), StoreError>>, StoreError> {
        let rate = rate_of(pace, self.share);
        let room = Arc::new(Semaphore::new(MAX_EVENTS_IN_HAND));
        let most = match self.view.store() {
            StoreKind::Postgres => MAX_LOAD_EVENTS_POSTGRES,
            StoreKind::DynamoDb => MAX_LOAD_EVENTS_DYNAMODB,
        };
        let count = LOAD_WRITERS
            .max(lanes.len().div_ceil(MAX_BATCH_LANES))
            .min(lanes.len());
        let mut feeds = Vec::with_capacity(count);
        let mut writers = Vec::with_capacity(count);
        for _ in 0..count {
            let (to, feed) = mpsc::channel(MAX_PIECES_AHEAD);
            feeds.push(to);
            writers.push(Writer {
                projection: self.view.name(),
                folding: Arc::clone(folding),
                feed,
                parked: Parked::default(),
                throttle: Arc::clone(throttle),
                rate,
                max_events: step_events(rate, most),
                letters: self.letters.clone(),
                halt: halt.clone(),
                stop: self.stop.clone(),
            });
        }
        let mut readers: BTreeMap<Context, ContextReader> = BTreeMap::new();
        for (number, lane) in lanes.iter().enumerate() {
            let context = &lane.lane.context;
            if !readers.contains_key(context) {
                let log = log_of(&self.logs, context)?;
                self.check_life(&*log, lane).await?;
                let page = step_events(rate, MAX_PAGE_EVENTS);
                let is_whole = self.share.of == 1;
                let reader = ContextReader::new(log, Arc::clone(&room), page, is_whole);
                readers.insert(context.clone(), reader);
            }
            let parked = folding.parked(&lane.lane).await?;
            if let (Some(reader), Some(writer), Some(to)) = (
                readers.get_mut(context),
                writers.get_mut(number % count),
                feeds.get(number % count),
            ) {
                writer.parked.set(&lane.lane, parked);
                reader.add(lane, to.clone());
            }
        }
        let mut tasks = JoinSet::new();
        for reader in readers.into_values() {
            let halt = halt.clone();
            tasks.spawn(async move {
                let reading = halt.run_until_cancelled(reader.run());
                reading.await.unwrap_or(Ok(()))
            });
        }
        for writer in writers {
            tasks.spawn(writer.run());
        }
        Ok(tasks)
    }

    /// What a rebuild loads belongs to the life of the log in which it began.
    async fn check_life(&self, log: &dyn EventLog, lane: &LaneProgress) -> Result<(), StoreError> {
        let head = log.head().await.map_err(log_failure)?;
        if head.epoch == lane.epoch {
            return Ok(());
        }
        Err(StoreError::Invalid(format!(
            "the log of {} began a new life (epoch {}) since generation {} began in epoch {}: \
             this rebuild cannot go on. Discard it and begin another one",
            log.context(),
            head.epoch,
            self.generation.id,
            lane.epoch
        )))
    }

    /// Until the generation is no longer to be loaded, or at another pace.
    async fn until_changed(&self, pace: Pace) {
        loop {
            tokio::time::sleep(Duration::from_millis(LOOK_MS)).await;
            // A store that does not answer stops the writers by itself.
            if let Ok(found) = self.store.standing(self.generation).await
                && found != Some((GenerationStatus::Loading, pace))
            {
                return;
            }
        }
    }
}

/// A batch on its way.
#[derive(Default)]
struct Gathered {
    batch: Batch,
    /// Held until it is written.
    rooms: Vec<OwnedSemaphorePermit>,
    /// Why a lane goes no further, if one does not.
    too_new: Option<StoreError>,
}

/// Folds and writes the lanes that are handed to it.
struct Writer {
    projection: &'static str,
    folding: Arc<dyn GenerationStore>,
    feed: mpsc::Receiver<Piece>,
    parked: Parked,
    throttle: Arc<Throttle>,
    rate: Option<f64>,
    max_events: usize,
    letters: Option<DeadLetterPublisher>,
    halt: CancellationToken,
    stop: CancellationToken,
}

impl Writer {
    /// Writes until its readers are through, or it is told to halt: then the batch in hand is the
    /// last.
    async fn run(mut self) -> Result<(), StoreError> {
        let halt = self.halt.clone();
        loop {
            let next = halt.run_until_cancelled(self.feed.recv()).await;
            let Some(Some(first)) = next else {
                return Ok(());
            };
            let gathered = self.gather(first);
            if !gathered.batch.is_empty() && !self.write(&gathered.batch).await? {
                return Ok(());
            }
            if let Some(error) = gathered.too_new {
                return Err(error);
            }
        }
    }

    /// What has come by now, decoded, up to the bounds.
    fn gather(&mut self, first: Piece) -> Gathered {
        let mut gathered = Gathered::default();
        let batch = &mut gathered.batch;
        let mut next = Some(first);
        while let Some(piece) = next {
            let lane = piece.lane.clone();
            gathered.rooms.push(piece.room);
            let (chunk, too_new) =
                self.folding
                    .decode(piece.lane, piece.epoch, piece.previous, piece.events);
            if let Some(chunk) = chunk {
                batch.push(chunk);
            }
            if let Some(error) = too_new {
                let error = StoreError::Invalid(format!(
                    "{lane} has an event that needs a newer release: {}. Load with that release",
                    describe(&error)
                ));
                gathered.too_new = Some(error);
                break;
            }
            if batch.len() >= self.max_events || batch.bytes() >= MAX_LOAD_BYTES {
                break;
            }
            next = self.feed.try_recv().ok();
        }
        gathered
    }

    /// Writes a batch when its turn has come; false when there is no time left for it.
    async fn write(&mut self, batch: &Batch) -> Result<bool, StoreError> {
        let turn = self.throttle.take(batch.len(), self.rate);
        if self.halt.run_until_cancelled(turn).await.is_none() {
            return Ok(false);
        }
        let Some(done) = attempt(&*self.folding, batch, &self.parked, &self.stop).await else {
            return Ok(false);
        };
        let letters = done?;
        let events = u64::try_from(batch.len()).unwrap_or(u64::MAX);
        counter!("millrace_rebuild_events_total", "projection" => self.projection)
            .increment(events);
        park(self.projection, &letters, &mut self.parked);
        if let Some(publisher) = &self.letters {
            publish(publisher, self.projection, &letters).await;
        }
        Ok(true)
    }
}
