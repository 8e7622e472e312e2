use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    sync::Arc,
    time::Duration,
};

use millrace_es::{Context, Epoch, Position};
use millrace_streaming::{LeaseEvent, Leases, PartitionLeases};
use tokio::{
    sync::{Notify, mpsc, watch},
    task::{Id, JoinError, JoinSet},
    time::Instant,
};
use tokio_util::sync::CancellationToken;

use super::{
    Shared,
    lane::{Feed, LaneEnd, LaneReader, MAX_CHUNKS_AHEAD},
    lease_group,
    meter::Meter,
    owned::{LaneState, Owned, Reading, Wait, resting},
};
use crate::{
    applying::{attempt, park, publish},
    backoff::Backoff,
    batch::{Batch, MAX_BATCH_LANES, NewLetter, Parked, describe},
    chain::Chain,
    error::StoreError,
    generation::{Generation, GenerationStatus, Lane},
    store::GenerationStore,
};

/// The most payload of one batch, in bytes; the chunk that passes it is the last.
const MAX_BATCH_BYTES: usize = 16 * 1024 * 1024;

/// The most events that all lanes of a generation together hold ready, unless there are so many
/// lanes that each has the least.
const MAX_READ_AHEAD_EVENTS: usize = 16_000;

/// The least events of one chunk of a view, however many lanes there are.
const MIN_CHUNK_EVENTS: usize = 50;

/// How often requests about dead letters are looked for and lags are measured, in milliseconds.
const TICK_MS: u64 = 1_000;

/// How long a lane that ended rests before it is tried again, in milliseconds: an event that needs
/// a newer release, a log that is behind.
const REST_MS: u64 = 5_000;

/// How long a lane rests whose checkpoint was moved by somebody else, in milliseconds.
pub(super) const FENCED_REST_MS: u64 = 200;

/// Works on one generation: takes lanes by lease, and applies what they read batch by batch.
///
/// There is one batch at a time, of whatever is ready in all lanes: while it is written, lanes
/// fetch and decode the next. So a busy generation commits large batches and an idle one small
/// ones, without a setting.
pub(super) struct Worker {
    pub(super) shared: Arc<Shared>,
    generation: Generation,
    pub(super) status: watch::Receiver<GenerationStatus>,
    pub(super) store: Arc<dyn GenerationStore>,
    pub(super) owned: BTreeMap<Lane, Owned>,
    pub(super) parked: Parked,
    ready: Arc<Notify>,
    readers: JoinSet<(Lane, LaneEnd)>,
    reader_lanes: HashMap<Id, Lane>,
    pub(super) meter: Meter,
    stop: CancellationToken,
    /// Rotates which lane is asked first.
    turn: usize,
    chores: JoinSet<()>,
    /// When to look whether a hold has moved, while there is one.
    pub(super) hold_look: Option<Instant>,
}

impl Worker {
    pub(super) fn new(
        shared: Arc<Shared>,
        generation: Generation,
        status: watch::Receiver<GenerationStatus>,
        store: Arc<dyn GenerationStore>,
        stop: CancellationToken,
    ) -> Self {
        let meter = Meter::new(shared.view.name());
        Self {
            shared,
            generation,
            status,
            store,
            owned: BTreeMap::new(),
            parked: Parked::default(),
            ready: Arc::new(Notify::new()),
            readers: JoinSet::new(),
            reader_lanes: HashMap::new(),
            meter,
            stop,
            turn: 0,
            chores: JoinSet::new(),
            hold_look: None,
        }
    }

    /// Works until told to stop; then finishes the batch in hand, gives every lane back and leaves
    /// the leases.
    pub(super) async fn run(mut self) {
        let mut leases = JoinSet::new();
        let (events, mut gained) = mpsc::channel(64);
        for context in self.shared.view.contexts().to_vec() {
            let Some(joined) = self.join(&context).await else {
                return;
            };
            let (group, mut own) = joined;
            leases.spawn(group.run(self.stop.clone()));
            let events = events.clone();
            leases.spawn(async move {
                while let Some(event) = own.recv().await {
                    if events.send((context.clone(), event)).await.is_err() {
                        return;
                    }
                }
            });
        }
        drop(events);
        self.work(&mut gained).await;
        self.owned.clear();
        self.meter.hide();
        self.readers.shutdown().await;
        // The leases end once nothing is owned any more.
        drop(gained);
        while leases.join_next().await.is_some() {}
        while self.chores.join_next().await.is_some() {}
        self.forget_leases_if_gone().await;
        tracing::info!(projection = self.shared.view.name(), generation = %self.generation.id, "stopped");
    }

    /// Removes what stands in the leases about a generation that is gone: leaving them, this worker
    /// wrote there once more. The last one to leave removes it for good.
    async fn forget_leases_if_gone(&self) {
        if !matches!(self.store.checkpoints().await, Err(StoreError::Gone(_))) {
            return;
        }
        let view = &self.shared.view;
        for context in view.contexts() {
            let group = lease_group(view.name(), self.generation.id, context);
            if let Err(error) = Leases::forget_group(&self.shared.topology, &group).await {
                tracing::debug!(group, error = %describe(&error), "leases not removed");
            }
        }
    }

    /// Takes part in the leases of one context, whose log says how many partitions there are.
    async fn join(
        &self,
        context: &Context,
    ) -> Option<(PartitionLeases, mpsc::Receiver<LeaseEvent>)> {
        let mut heads = self.shared.heads(context)?.clone();
        let known = async {
            let head = heads.wait_for(Option::is_some).await.ok()?;
            head.as_ref().map(|head| head.partitions)
        };
        let count = self.stop.run_until_cancelled(known).await??;
        let group = lease_group(self.shared.view.name(), self.generation.id, context);
        match PartitionLeases::new(&self.shared.leases, &group, count) {
            Ok(joined) => Some(joined),
            Err(error) => {
                tracing::error!(group, %error, "not a name for leases");
                None
            }
        }
    }

    async fn work(&mut self, gained: &mut mpsc::Receiver<(Context, LeaseEvent)>) {
        let mut next_tick = Instant::now();
        loop {
            while let Ok((context, event)) = gained.try_recv() {
                self.take_lease_event(&context, event);
            }
            while let Some(ended) = self.readers.try_join_next_with_id() {
                self.take_reader_end(ended);
            }
            if self.stop.is_cancelled() {
                return;
            }
            // Under load too: there is then always another batch.
            if Instant::now() >= next_tick {
                self.tick().await;
                next_tick = Instant::now() + Duration::from_millis(TICK_MS);
            }
            if self.hold_look.is_some_and(|at| Instant::now() >= at) {
                self.look_at_holds().await;
            }
            let batch = self.gather();
            let idle = batch.is_empty();
            if !idle {
                self.apply(batch).await;
            }
            self.settle_ended();
            if !idle {
                continue;
            }
            let ready = Arc::clone(&self.ready);
            let next = self.next_look(next_tick);
            tokio::select! {
                () = self.stop.cancelled() => return,
                event = gained.recv() => match event {
                    Some((context, event)) => self.take_lease_event(&context, event),
                    None => return,
                },
                Some(ended) = self.readers.join_next_with_id() => self.take_reader_end(ended),
                Some(_) = self.chores.join_next() => {}
                () = tokio::time::sleep_until(next) => {}
                () = ready.notified() => {}
            }
        }
    }

    fn take_lease_event(&mut self, context: &Context, event: LeaseEvent) {
        match event {
            LeaseEvent::Gained(ownership) => {
                let lane = Lane::new(context.clone(), ownership.partition());
                tracing::debug!(projection = self.shared.view.name(), %lane, "lane gained");
                let state = self.start_reader(&lane);
                self.owned.insert(lane, Owned { ownership, state });
            }
            LeaseEvent::Lost(partition) => {
                // What was read and not applied is dropped; the next owner begins at the
                // checkpoint.
                let lane = Lane::new(context.clone(), partition);
                // A lane lost and gained again in between is a new one.
                if self
                    .owned
                    .get(&lane)
                    .is_some_and(|o| !o.ownership.is_held())
                {
                    tracing::debug!(projection = self.shared.view.name(), %lane, "lane given up");
                    self.forget(&lane);
                }
            }
        }
    }

    fn forget(&mut self, lane: &Lane) {
        self.owned.remove(lane);
        self.parked.forget(lane);
        self.meter.forget(lane);
    }

    fn start_reader(&mut self, lane: &Lane) -> LaneState {
        let (Some(log), Some(heads)) = (
            self.shared.log(&lane.context),
            self.shared.heads(&lane.context),
        ) else {
            return resting(REST_MS);
        };
        let (feed, receiver) = mpsc::channel(MAX_CHUNKS_AHEAD);
        let lanes = heads
            .borrow()
            .as_ref()
            .map_or(1, |head| usize::from(head.partitions.get()));
        let max_chunk_events = (MAX_READ_AHEAD_EVENTS / (MAX_CHUNKS_AHEAD * lanes))
            .max(MIN_CHUNK_EVENTS)
            .min(self.shared.max_chunk_events);
        let (committed, watched) = watch::channel(Position::ZERO);
        let reader = LaneReader {
            lane: lane.clone(),
            generation: self.generation.id,
            projection: self.shared.view.name(),
            store: Arc::clone(&self.store),
            log,
            heads: heads.clone(),
            topology: self.shared.topology.clone(),
            feed,
            ready: Arc::clone(&self.ready),
            max_chunk_events,
            committed: watched,
            chain: Chain {
                at: Position::ZERO,
                epoch: Epoch::ZERO,
            },
        };
        let own = lane.clone();
        let handle = self.readers.spawn(async move { (own, reader.run().await) });
        self.reader_lanes.insert(handle.id(), lane.clone());
        LaneState::Reading(Reading {
            feed: receiver,
            committed,
            at: None,
            reader: handle,
            end: None,
            kept: VecDeque::new(),
            held: false,
            wait: Wait::default(),
        })
    }

    fn take_reader_end(&mut self, ended: Result<(Id, (Lane, LaneEnd)), JoinError>) {
        let (id, end) = match ended {
            Ok((id, (_, end))) => (id, end),
            Err(error) if error.is_cancelled() => {
                self.reader_lanes.remove(&error.id());
                return;
            }
            Err(error) => {
                let lane = self.reader_lanes.remove(&error.id());
                tracing::error!(projection = self.shared.view.name(), ?lane, %error, "a lane's reader failed");
                if let Some(lane) = lane {
                    self.rest(&lane, REST_MS);
                }
                return;
            }
        };
        let Some(lane) = self.reader_lanes.remove(&id) else {
            return;
        };
        if let Some(Owned {
            state: LaneState::Reading(reading),
            ..
        }) = self.owned.get_mut(&lane)
            && reading.reader.id() == id
        {
            reading.end = Some(end);
        }
    }

    pub(super) fn rest(&mut self, lane: &Lane, rest_ms: u64) {
        if let Some(owned) = self.owned.get_mut(lane) {
            owned.state = resting(rest_ms);
        }
    }

    /// What is ready in all lanes, up to the bounds, a lane at a time and each time another first.
    fn gather(&mut self) -> Batch {
        let mut batch = Batch::default();
        self.turn = self.turn.wrapping_add(1);
        let count = self.owned.len().max(1);
        let order: Vec<Lane> = self
            .owned
            .keys()
            .cycle()
            .skip(self.turn % count)
            .take(self.owned.len())
            .cloned()
            .collect();
        let max_events = self.shared.max_batch_events;
        let is_full = |batch: &Batch| batch.len() >= max_events || batch.bytes() >= MAX_BATCH_BYTES;
        let now = Instant::now();
        let mut lanes = 0;
        for lane in order {
            let Some(Owned {
                state: LaneState::Reading(reading),
                ..
            }) = self.owned.get_mut(&lane)
            else {
                continue;
            };
            let before = batch.len();
            while !is_full(&batch) && !reading.is_kept_back(now) {
                if let Some(chunk) = reading.kept.pop_front() {
                    batch.push(chunk);
                    continue;
                }
                match reading.feed.try_recv() {
                    Ok(Feed::Opened { checkpoint, parked }) => {
                        reading.at = Some((checkpoint.position, checkpoint.epoch));
                        self.parked.set(&lane, parked);
                    }
                    Ok(Feed::Chunk(chunk)) => batch.push(chunk),
                    Err(_) => break,
                }
            }
            lanes += usize::from(batch.len() > before);
            if lanes == MAX_BATCH_LANES || is_full(&batch) {
                break;
            }
        }
        batch
    }

    /// Applies a batch, again and again while the store is away: nothing is skipped. What belongs
    /// to lanes that were lost meanwhile is dropped.
    async fn apply(&mut self, mut batch: Batch) {
        let mut backoff = Backoff::default();
        loop {
            let started = Instant::now();
            let _spans = self.shared.trace(&batch, self.generation.id);
            let failed = match attempt(&*self.store, &batch, &self.parked, &self.stop).await {
                None => return,
                Some(Ok(letters)) => {
                    self.committed(&batch, letters, started).await;
                    return;
                }
                Some(Err(failed)) => failed,
            };
            if let StoreError::Held { holds, .. } = &failed {
                self.hold_back(&mut batch, holds);
            } else if let StoreError::Waiting { holds, .. } = &failed {
                self.meter.retry();
                self.wait_for_effects(&mut batch, holds);
                // What was performed is written down, although the leases end meanwhile: the
                // checkpoints are the fence.
                if self.stop.is_cancelled() && !batch.is_empty() {
                    continue;
                }
            } else if let StoreError::Fenced { lane, .. } = &failed {
                tracing::info!(projection = self.shared.view.name(), %lane, "another process moved the checkpoint, or the store was restored; beginning again there");
                batch.remove(lane);
                self.rest(lane, FENCED_REST_MS);
            } else {
                self.meter.retry();
                if backoff.is_first() {
                    tracing::warn!(projection = self.shared.view.name(), events = batch.len(), error = %describe(&failed), "batch not applied; trying again");
                }
                let pause = backoff.next();
                if self
                    .stop
                    .run_until_cancelled(tokio::time::sleep(pause))
                    .await
                    .is_none()
                {
                    return;
                }
            }
            for lane in batch.lanes() {
                let held = self.owned.get(&lane).map(|one| one.ownership.is_held());
                if held != Some(true) {
                    batch.remove(&lane);
                    self.forget(&lane);
                }
            }
            if batch.is_empty() {
                return;
            }
        }
    }

    /// Everything that follows a commit: acknowledgements, signals, figures, copies of letters.
    async fn committed(&mut self, batch: &Batch, letters: Vec<NewLetter>, started: Instant) {
        for one in batch.moves() {
            if let Some(Owned {
                state: LaneState::Reading(reading),
                ..
            }) = self.owned.get_mut(&one.lane)
            {
                reading.at = Some((one.to, one.epoch));
                reading.wait = Wait::default();
                reading.committed.send_replace(one.to);
            }
            self.shared.signal(self.generation.id, &one).await;
        }
        self.meter
            .applied(batch, started.elapsed(), *self.status.borrow());
        park(self.shared.view.name(), &letters, &mut self.parked);
        if !letters.is_empty() {
            let shared = Arc::clone(&self.shared);
            self.chores.spawn(async move {
                publish(&shared.letters, shared.view.name(), &letters).await;
            });
        }
    }

    /// Lanes whose reader ended and whose last events are applied.
    fn settle_ended(&mut self) {
        let now = Instant::now();
        let lanes: Vec<Lane> = self.owned.keys().cloned().collect();
        for lane in lanes {
            let Some(owned) = self.owned.get_mut(&lane) else {
                continue;
            };
            match &mut owned.state {
                LaneState::Resting { until, give_back } if now >= *until => {
                    if *give_back || !owned.ownership.is_held() {
                        self.forget(&lane);
                    } else {
                        let state = self.start_reader(&lane);
                        if let Some(owned) = self.owned.get_mut(&lane) {
                            owned.state = state;
                        }
                    }
                }
                LaneState::Reading(reading)
                    if reading.feed.is_empty() && reading.kept.is_empty() =>
                {
                    if let Some(end) = reading.end.take() {
                        self.end(&lane, &end);
                    }
                }
                _ => {}
            }
        }
    }

    fn end(&mut self, lane: &Lane, end: &LaneEnd) {
        let projection = self.shared.view.name();
        let give_back = matches!(end, LaneEnd::TooNew(_));
        match end {
            LaneEnd::TooNew(error) => {
                self.meter.alert("needs_newer_release");
                tracing::error!(projection, %lane, %error, "an event needs a newer release; giving the partition back");
            }
            // The supervisor lets it go on.
            LaneEnd::Frozen { .. } if self.shared.view.is_reaction() => {}
            LaneEnd::Frozen { epoch } => {
                tracing::info!(projection, %lane, %epoch, generation = %self.generation.id, "the log began a new life; this generation stays where it is");
            }
            LaneEnd::LogBehind { checkpoint, head } => {
                self.meter.alert("log_behind");
                tracing::error!(projection, %lane, %checkpoint, %head, "the log is behind this checkpoint; halting it. Run `millrace log recover`");
                let reason = format!(
                    "the log's newest event of {lane} is {head}, but {projection} has seen {checkpoint}"
                );
                if let Some(log) = self.shared.log(&lane.context) {
                    self.chores.spawn(async move {
                        if let Err(error) = log.halt(&reason).await {
                            tracing::error!(%error, "the log was not halted");
                        }
                    });
                }
            }
            LaneEnd::Gone(error) => {
                tracing::warn!(projection, %lane, %error, "the lane has no checkpoint");
            }
            LaneEnd::Unheard => {}
        }
        if let Some(owned) = self.owned.get_mut(lane) {
            owned.state = LaneState::Resting {
                until: Instant::now() + Duration::from_millis(REST_MS),
                give_back,
            };
        }
    }
}
