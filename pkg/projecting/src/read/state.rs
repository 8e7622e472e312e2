use std::{
    collections::HashMap,
    sync::{Arc, PoisonError, RwLock},
    time::Duration,
};

use async_trait::async_trait;
use millrace_es::{Context, LogToken, Position};
use millrace_eventlog::{EventLog, LogHead};
use millrace_streaming::{ProgressSignals, Signals};
use tokio::{
    sync::{Mutex, OwnedRwLockReadGuard, RwLock as Gate, Semaphore, watch},
    task::JoinSet,
    time::Instant,
};

use super::{
    AtLeast, Judgement, MAX_WAITING_READS, REPLICA_POLL_MS, ReadError, WAIT_POLL_MS,
    judge::{judge, watermark},
};
use crate::{
    error::StoreError,
    generation::{Checkpoint, Generation, Lane, of_one_life, require_reached},
    view::View,
};

/// How often the active generation and the watermark are read anew, in milliseconds.
const REFRESH_MS: u64 = 1_000;

/// How often at most signals make the watermark be read anew, in milliseconds.
const SIGNALLED_REFRESH_MS: u64 = 100;

/// How often it is looked in a row whether a generation that is to answer is as far as the one
/// before; then what else has to be fresh is looked after.
const MAX_TAKEOVER_LOOKS: u32 = 50;

/// The pause between two such looks, in milliseconds.
const TAKEOVER_POLL_MS: u64 = 20;

/// The longest that readers are held up while one generation takes over from another, in
/// milliseconds; if it does not come to an end by then, it is tried again.
const MAX_TAKEOVER_MS: u64 = 40;

/// How often it is looked meanwhile whether the generation is there, in milliseconds.
const TAKEOVER_STEP_MS: u64 = 3;

/// How long the log may take to say its head before the watermark does without, in milliseconds.
const HEAD_TIMEOUT_MS: u64 = 1_000;

/// Where a read model's generations and checkpoints are.
#[async_trait]
pub(crate) trait Backend: Send + Sync + 'static {
    async fn generations(&self, projection: &str) -> Result<Vec<Generation>, StoreError>;
    async fn checkpoints(&self, generation: &Generation) -> Result<Vec<Checkpoint>, StoreError>;

    /// Does beforehand what the first answers from `next` would have to wait for, as far as that goes.
    async fn make_ready(&self, _before: &Generation, _next: &Generation) {}

    /// Lets go of what is there for other generations; who still reads from one is not disturbed.
    fn keep_only(&self, _answering: Option<&Generation>) {}
}

/// Kept by whoever reads, for as long as it does.
#[derive(Debug, Clone)]
pub(crate) struct Reading {
    _held: Arc<OwnedRwLockReadGuard<()>>,
}

/// What every query of one read model shares, whatever the store.
pub(crate) struct ReadState<B> {
    view: View,
    pub(crate) backend: B,
    logs: Vec<Arc<dyn EventLog>>,
    active: RwLock<Option<Generation>>,
    /// Held by everybody who reads, and by one that nobody else may hold it beside while another
    /// generation takes over.
    gate: Arc<Gate<()>>,
    /// One looks at a time which generation answers, so that the newest look counts.
    looking: Mutex<()>,
    watermarks: RwLock<HashMap<Context, LogToken>>,
    /// Positions as the projector signalled them, for the active generation.
    signalled: watch::Sender<HashMap<Lane, Position>>,
    waiting: Semaphore,
}

impl<B: Backend> ReadState<B> {
    pub(crate) fn new(view: View, backend: B, logs: Vec<Arc<dyn EventLog>>) -> Arc<Self> {
        Arc::new(Self {
            view,
            backend,
            logs,
            active: RwLock::new(None),
            gate: Arc::new(Gate::new(())),
            looking: Mutex::new(()),
            watermarks: RwLock::new(HashMap::new()),
            signalled: watch::Sender::new(HashMap::new()),
            waiting: Semaphore::new(MAX_WAITING_READS),
        })
    }

    /// Keeps the state fresh until the set is dropped.
    pub(crate) fn keep_fresh(self: &Arc<Self>, tasks: &mut JoinSet<()>, signals: Option<Signals>) {
        let state = Arc::clone(self);
        tasks.spawn(async move { state.run(signals).await });
    }

    async fn run(&self, signals: Option<Signals>) {
        let mut progress: Option<ProgressSignals> = None;
        loop {
            if let Err(error) = self.refresh().await {
                tracing::debug!(projection = self.view.name(), %error, "read model not refreshed");
            }
            if let (None, Some(signals)) = (&progress, &signals) {
                progress = signals.on_progress(self.view.name()).await.ok();
            }
            let until = Instant::now() + Duration::from_millis(REFRESH_MS);
            if self.hear(&mut progress, until).await {
                // Signals come with every batch; the watermark need not be read as often.
                let pause = Instant::now() + Duration::from_millis(SIGNALLED_REFRESH_MS);
                while self.hear(&mut progress, pause.min(until)).await {}
            }
        }
    }

    /// Takes the next signal; false when there is none until then.
    async fn hear(&self, progress: &mut Option<ProgressSignals>, until: Instant) -> bool {
        let Some(signals) = progress.as_mut() else {
            tokio::time::sleep_until(until).await;
            return false;
        };
        match tokio::time::timeout_at(until, signals.next()).await {
            Err(_) => false,
            Ok(None) => {
                *progress = None;
                tokio::time::sleep_until(until).await;
                false
            }
            Ok(Some(step)) => {
                let active = self.cached_generation();
                if active.is_some_and(|active| active.id.to_string() == step.generation) {
                    let lane = Lane::new(step.context, step.partition);
                    self.signalled.send_modify(|positions| {
                        let position = positions.entry(lane).or_default();
                        *position = step.position.max(*position);
                    });
                }
                true
            }
        }
    }

    /// Reads the active generation and the watermark anew.
    pub(crate) async fn refresh(&self) -> Result<(), StoreError> {
        let turn = self.looking.lock().await;
        let known = self.backend.generations(self.view.name()).await?;
        let version = self.view.version();
        let active = Generation::answering(&known, version).cloned();
        let before = self.cached_generation();
        if active.as_ref().map(|one| one.id) != before.as_ref().map(|one| one.id) {
            // One that is gone, or that nobody keeps current any more, gives way at once.
            let before = before.filter(|before| {
                let now = known.iter().find(|one| one.id == before.id);
                now.is_some_and(|now| now.status.is_worked_on())
            });
            self.take_over(before.as_ref(), active.as_ref()).await?;
        }
        drop(turn);
        let Some(active) = self.cached_generation() else {
            return Ok(());
        };
        // The checkpoints are read before the head: an idle partition is then idle at the head.
        let checkpoints = self.backend.checkpoints(&active).await?;
        for context in self.view.contexts() {
            let head = self.head(context).await;
            if let Some(token) = watermark(context, &checkpoints, head.as_ref()) {
                let mut all = self
                    .watermarks
                    .write()
                    .unwrap_or_else(PoisonError::into_inner);
                all.insert(context.clone(), token);
            }
        }
        Ok(())
    }

    /// Makes another generation the one that answers here, in a moment in which nobody reads and
    /// it is nowhere behind the one before. It was so when it was switched to, but the one before is
    /// kept current as well, and may be ahead of it when somebody here reads last. Where no such
    /// moment comes the one before goes on answering, and the next look tries again; only one that
    /// was gone back to by force takes over wherever it is.
    async fn take_over(
        &self,
        before: Option<&Generation>,
        active: Option<&Generation>,
    ) -> Result<(), StoreError> {
        if let (Some(before), Some(active)) = (before, active.filter(|one| !one.forced)) {
            let mut ready = false;
            for _ in 0..MAX_TAKEOVER_LOOKS {
                let passed = self.backend.checkpoints(before).await?;
                tokio::time::sleep(Duration::from_millis(TAKEOVER_POLL_MS)).await;
                // One that is far behind holds nobody up.
                if !self.has_reached(active, &passed).await? {
                    continue;
                }
                if !ready {
                    self.backend.make_ready(before, active).await;
                    ready = true;
                }
                let limit = Duration::from_millis(MAX_TAKEOVER_MS);
                let taken = tokio::time::timeout(limit, self.take_over_alone(before, active));
                if let Ok(done) = taken.await {
                    return done;
                }
            }
            tracing::debug!(
                projection = self.view.name(),
                from = %before.id,
                to = %active.id,
                "the generation that is to answer is not there yet"
            );
            return Ok(());
        }
        self.set_active(active);
        Ok(())
    }

    /// Waits until nobody reads, and then until the generation has all that was read.
    async fn take_over_alone(
        &self,
        before: &Generation,
        active: &Generation,
    ) -> Result<(), StoreError> {
        let _alone = self.gate.write().await;
        let read = self.backend.checkpoints(before).await?;
        while !self.has_reached(active, &read).await? {
            tokio::time::sleep(Duration::from_millis(TAKEOVER_STEP_MS)).await;
        }
        self.set_active(Some(active));
        Ok(())
    }

    async fn has_reached(
        &self,
        active: &Generation,
        theirs: &[Checkpoint],
    ) -> Result<bool, StoreError> {
        let own = self.backend.checkpoints(active).await?;
        let needed = theirs.iter().map(|one| (one.lane.clone(), one.position));
        let reached = require_reached(active.id, &own, needed).is_ok();
        Ok(reached || !of_one_life(&own, theirs))
    }

    fn set_active(&self, active: Option<&Generation>) {
        self.signalled.send_modify(HashMap::clear);
        *self.active.write().unwrap_or_else(PoisonError::into_inner) = active.cloned();
        self.backend.keep_only(active);
    }

    async fn head(&self, context: &Context) -> Option<LogHead> {
        let log = self.logs.iter().find(|log| log.context() == context)?;
        let limit = Duration::from_millis(HEAD_TIMEOUT_MS);
        tokio::time::timeout(limit, log.head()).await.ok()?.ok()
    }

    fn cached_generation(&self) -> Option<Generation> {
        self.active
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// The generation that answers.
    pub(crate) async fn generation(&self) -> Result<Generation, ReadError> {
        if let Some(active) = self.cached_generation() {
            return Ok(active);
        }
        self.refresh().await?;
        self.cached_generation().ok_or(ReadError::NotReady {
            projection: self.view.name(),
        })
    }

    /// Whether a generation answers, and its store can be reached. Another one that is to take over
    /// is not waited for: meanwhile this one answers.
    pub(crate) async fn check(&self) -> Result<(), ReadError> {
        if self.cached_generation().is_none() {
            return self.generation().await.map(|_| ());
        }
        self.backend.generations(self.view.name()).await?;
        Ok(())
    }

    /// The generation that answers, and what keeps it the one until it has.
    pub(crate) async fn enter(&self) -> Result<(Generation, Reading), ReadError> {
        let held = Arc::clone(&self.gate).read_owned().await;
        let generation = self.generation().await?;
        Ok((
            generation,
            Reading {
                _held: Arc::new(held),
            },
        ))
    }

    /// A lower bound of what every read sees of a context, without asking the store.
    pub(crate) fn current(&self, context: &Context) -> Option<LogToken> {
        let all = self
            .watermarks
            .read()
            .unwrap_or_else(PoisonError::into_inner);
        all.get(context).cloned()
    }

    /// Waits until `look` finds the token reached: it opens something to answer from and reads
    /// the checkpoints through it, so that the answer comes from what was judged.
    pub(crate) async fn wait<T, F, Fut>(&self, at_least: &AtLeast, look: F) -> Result<T, ReadError>
    where
        F: Fn(Generation, Reading) -> Fut + Send,
        Fut: Future<Output = Result<(T, Vec<Checkpoint>), ReadError>> + Send,
        T: Send,
    {
        let token = &at_least.token;
        if !self.view.contexts().contains(&token.context) {
            return Err(ReadError::ForeignContext {
                projection: self.view.name(),
                context: token.context.clone(),
            });
        }
        let busy = |_| ReadError::Busy {
            projection: self.view.name(),
        };
        let _turn = self.waiting.try_acquire().map_err(busy)?;
        let deadline = Instant::now() + at_least.wait;
        let mut head: Option<LogHead> = None;
        let mut pause = Duration::from_millis(REPLICA_POLL_MS);
        loop {
            let (generation, reading) = self.enter().await?;
            let (found, checkpoints) = look(generation, reading).await?;
            let mut judged = judge(token, &checkpoints, head.as_ref());
            if matches!(judged, Judgement::NeedsHead { .. }) {
                head = self.head(&token.context).await;
                judged = judge(token, &checkpoints, head.as_ref());
            }
            let (targets, reached) = match judged {
                Judgement::Reached => return Ok(found),
                Judgement::EpochOver(current) => {
                    return Err(ReadError::EpochOver {
                        wanted: token.clone(),
                        current,
                    });
                }
                Judgement::Foreign => (Vec::new(), Position::ZERO),
                Judgement::NeedsHead { reached } => {
                    // A position that the log has not given out: how far the whole context is.
                    let all = watermark(&token.context, &checkpoints, head.as_ref());
                    (Vec::new(), all.map_or(reached, |all| all.position))
                }
                Judgement::Behind { targets, reached } => (targets, reached),
            };
            drop(found);
            if Instant::now() >= deadline {
                return Err(ReadError::Behind {
                    wanted: token.clone(),
                    reached,
                });
            }
            self.pause(&targets, &mut pause, deadline).await;
        }
    }

    /// Until the projector signals the targets, or it is time to look again.
    async fn pause(&self, targets: &[(Lane, Position)], replica: &mut Duration, until: Instant) {
        let longest = Duration::from_millis(WAIT_POLL_MS);
        let is_signalled = |positions: &HashMap<Lane, Position>| {
            !targets.is_empty()
                && targets
                    .iter()
                    .all(|(lane, wanted)| positions.get(lane).is_some_and(|at| at >= wanted))
        };
        let mut signalled = self.signalled.subscribe();
        if is_signalled(&signalled.borrow()) {
            // The store that answers is behind the one that was written.
            tokio::time::sleep_until(until.min(Instant::now() + *replica)).await;
            *replica = longest.min(*replica * 2);
            return;
        }
        let until = until.min(Instant::now() + longest);
        let heard = signalled.wait_for(is_signalled);
        let _heard = tokio::time::timeout_at(until, heard).await;
    }
}
