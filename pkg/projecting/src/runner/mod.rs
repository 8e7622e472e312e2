//! The projector process: keeps every generation of every view current, and performs reactions.

mod held;
mod lane;
mod meter;
mod owned;
mod sweeping;
mod upkeep;
mod worker;

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
    time::Duration,
};

use millrace_es::Context;
use millrace_eventlog::{EventLog, LogHead};
use millrace_streaming::{DeadLetterPublisher, Leases, Progress, Signals, Topology};
use tokio::{sync::watch, task::JoinSet};
use tokio_util::sync::CancellationToken;

use self::{sweeping::sweep_streams, worker::Worker};
use crate::{
    backoff::Backoff,
    batch::{Batch, Move, describe},
    dynamodb::DynamoStore,
    error::StoreError,
    generation::{ContextHead, Generation, GenerationId, GenerationStatus, Lane, Switched},
    heads::{context_heads, log_of},
    postgres::PgStore,
    reacting::{MAX_BATCH_EFFECTS, MAX_CHUNK_EFFECTS, lanes_that_go_on},
    store::GenerationStore,
    view::{StoreKind, View},
};

/// The most events of one batch in PostgreSQL.
pub const MAX_BATCH_EVENTS_POSTGRES: usize = 4_000;

/// The most events of one batch in DynamoDB, whose requests are smaller and slower.
pub const MAX_BATCH_EVENTS_DYNAMODB: usize = 1_000;

/// The most events of one chunk of a view: what a lane reads, decodes and hands over at once.
const MAX_CHUNK_EVENTS: usize = 1_000;

/// The most events of one batch whose traces are continued.
const MAX_TRACED_EVENTS: usize = 16;

/// How often the log's head is read, for lags and for lanes that the stream does not serve, in
/// milliseconds.
const HEAD_MS: u64 = 1_000;

/// How often the generations of a view are looked at, in milliseconds.
const GENERATIONS_MS: u64 = 2_000;

/// What a projector works with.
#[derive(Clone)]
pub struct RunnerParts {
    /// The event logs of all contexts that the views read.
    pub logs: Vec<Arc<dyn EventLog>>,
    /// Streams and consumers.
    pub topology: Topology,
    /// Who works on which partition.
    pub leases: Leases,
    /// How waiting readers are woken.
    pub signals: Signals,
    /// Where copies of dead letters go.
    pub letters: DeadLetterPublisher,
    /// Where views in PostgreSQL are kept; needed if there are any.
    pub postgres: Option<PgStore>,
    /// Where views in DynamoDB are kept; needed if there are any.
    pub dynamodb: Option<DynamoStore>,
    /// Continues the trace of an event (`traceparent`) in a span.
    pub link: Option<fn(&tracing::Span, &str)>,
}

/// Runs views: one worker per generation, over the partitions that this process holds.
pub struct Runner {
    views: Vec<View>,
    parts: RunnerParts,
}

impl Runner {
    /// Prepares to run views.
    ///
    /// # Errors
    /// [`StoreError::Invalid`] when a view's store or log is not given.
    pub fn new(views: Vec<View>, parts: RunnerParts) -> Result<Self, StoreError> {
        for view in &views {
            let missing = |what: &str| {
                StoreError::Invalid(format!("{} needs {what}, which is not set", view.name()))
            };
            match view.store() {
                StoreKind::Postgres if parts.postgres.is_none() => {
                    return Err(missing("a read database"));
                }
                StoreKind::DynamoDb if parts.dynamodb.is_none() => {
                    return Err(missing("DynamoDB"));
                }
                StoreKind::Postgres if view.is_reaction() => drop(view.performed()?),
                StoreKind::Postgres => drop(view.postgres()?),
                StoreKind::DynamoDb => drop(view.dynamodb()?),
            }
            if view.contexts().is_empty() {
                return Err(missing("a context to read from"));
            }
            for context in view.contexts() {
                if !parts.logs.iter().any(|log| log.context() == context) {
                    return Err(missing(&format!("the event log of {context}")));
                }
            }
        }
        Ok(Self { views, parts })
    }

    /// Runs until told to stop. Batches in hand are finished, partitions and leases given back.
    pub async fn run(self, stop: CancellationToken) {
        let mut tasks = JoinSet::new();
        let mut heads = HashMap::new();
        for log in &self.parts.logs {
            let (sender, receiver) = watch::channel(None);
            heads.insert(log.context().clone(), receiver);
            tasks.spawn(watch_head(Arc::clone(log), sender, stop.clone()));
        }
        for view in self.views {
            let (max_batch_events, max_chunk_events) = match view.store() {
                _ if view.is_reaction() => (MAX_BATCH_EFFECTS, MAX_CHUNK_EFFECTS),
                StoreKind::Postgres => (MAX_BATCH_EVENTS_POSTGRES, MAX_CHUNK_EVENTS),
                StoreKind::DynamoDb => (MAX_BATCH_EVENTS_DYNAMODB, MAX_CHUNK_EVENTS),
            };
            let postgres = self.parts.postgres.as_ref();
            let postgres = postgres.map(|store| store.of(view.name()).clone());
            let shared = Arc::new(Shared {
                view,
                logs: self.parts.logs.clone(),
                heads: heads.clone(),
                topology: self.parts.topology.clone(),
                leases: self.parts.leases.clone(),
                signals: self.parts.signals.clone(),
                letters: self.parts.letters.clone(),
                postgres,
                dynamodb: self.parts.dynamodb.clone(),
                link: self.parts.link,
                max_batch_events,
                max_chunk_events,
            });
            tasks.spawn(sweep_streams(shared.clone(), stop.clone()));
            tasks.spawn(supervise(shared, stop.clone()));
        }
        while let Some(ended) = tasks.join_next().await {
            if let Err(error) = ended {
                tracing::error!(%error, "a projector task failed");
            }
        }
    }
}

/// What the workers of one view share.
pub(crate) struct Shared {
    view: View,
    logs: Vec<Arc<dyn EventLog>>,
    heads: HashMap<Context, watch::Receiver<Option<LogHead>>>,
    topology: Topology,
    leases: Leases,
    signals: Signals,
    letters: DeadLetterPublisher,
    postgres: Option<PgStore>,
    dynamodb: Option<DynamoStore>,
    link: Option<fn(&tracing::Span, &str)>,
    max_batch_events: usize,
    max_chunk_events: usize,
}

impl Shared {
    fn log(&self, context: &Context) -> Option<Arc<dyn EventLog>> {
        log_of(&self.logs, context).ok()
    }

    fn heads(&self, context: &Context) -> Option<&watch::Receiver<Option<LogHead>>> {
        self.heads.get(context)
    }

    /// The heads of all logs that the view reads, fresh.
    async fn context_heads(&self) -> Result<Vec<ContextHead>, StoreError> {
        context_heads(&self.logs, self.view.contexts()).await
    }

    async fn ensure_generation(&self, heads: &[ContextHead]) -> Result<Generation, StoreError> {
        match (&self.postgres, &self.dynamodb, self.view.store()) {
            (Some(store), _, StoreKind::Postgres) => {
                store.ensure_generation(&self.view, heads).await
            }
            (_, Some(store), StoreKind::DynamoDb) => {
                store.ensure_generation(&self.view, heads).await
            }
            _ => Err(self.view.no_store()),
        }
    }

    /// The generations of the view, whatever is done with them.
    async fn all_generations(&self) -> Result<Vec<Generation>, StoreError> {
        let name = self.view.name();
        match (&self.postgres, &self.dynamodb, self.view.store()) {
            (Some(store), _, StoreKind::Postgres) => store.generations(name).await,
            (_, Some(store), StoreKind::DynamoDb) => store.generations(name).await,
            _ => Err(self.view.no_store()),
        }
    }

    /// The generations that this code folds.
    async fn generations(&self) -> Result<Vec<Generation>, StoreError> {
        let mut found = self.all_generations().await?;
        found.retain(|one| one.version == self.view.version() && one.status.is_worked_on());
        Ok(found)
    }

    /// Lets a reaction go on where its log began a new life.
    async fn go_on(
        &self,
        generation: &Generation,
        heads: &[ContextHead],
    ) -> Result<(), StoreError> {
        let Some(store) = self.postgres.as_ref().filter(|_| self.view.is_reaction()) else {
            return Ok(());
        };
        let moved = store.moved(generation.id).await?;
        let log_of = |lane: &Lane| log_of(&self.logs, &lane.context);
        for lane in lanes_that_go_on(&moved, heads, log_of).await? {
            if store.go_on(generation.id, &lane).await? {
                tracing::warn!(
                    reaction = self.view.name(),
                    lane = %lane.lane,
                    from = %lane.from.0,
                    to = %lane.to.0,
                    epoch = %lane.to.1,
                    "the log began a new life; the reaction goes on in it, and repeats the effects of its last minute"
                );
            }
        }
        Ok(())
    }

    async fn switch(&self, to: &Generation, heads: &[ContextHead]) -> Result<Switched, StoreError> {
        match (&self.postgres, &self.dynamodb, self.view.store()) {
            (Some(store), _, StoreKind::Postgres) => store.switch(to, heads).await,
            (_, Some(store), StoreKind::DynamoDb) => store.switch(to, heads).await,
            _ => Err(self.view.no_store()),
        }
    }

    /// Opens a generation to be worked on until told to stop.
    fn open(
        &self,
        generation: &Generation,
        stop: CancellationToken,
    ) -> Result<Arc<dyn GenerationStore>, StoreError> {
        match (&self.postgres, &self.dynamodb, self.view.store()) {
            (Some(store), _, StoreKind::Postgres) if self.view.is_reaction() => {
                Ok(Arc::new(store.reaction(generation, &self.view, stop)?))
            }
            (Some(store), _, StoreKind::Postgres) => {
                let view = Arc::clone(self.view.postgres()?);
                Ok(Arc::new(store.generation(generation, view)))
            }
            (_, Some(store), StoreKind::DynamoDb) => {
                let view = Arc::clone(self.view.dynamodb()?);
                Ok(Arc::new(store.generation(generation, view)))
            }
            _ => Err(self.view.no_store()),
        }
    }

    /// Wakes the readers that wait for a lane.
    async fn signal(&self, generation: GenerationId, moved: &Move) {
        let progress = Progress {
            context: moved.lane.context.clone(),
            generation: generation.to_string(),
            partition: moved.lane.partition,
            position: moved.to,
        };
        // Readers look by themselves too, only later.
        if let Err(error) = self.signals.progress(self.view.name(), &progress).await {
            tracing::debug!(%error, "progress not signalled");
        }
    }

    /// Spans that continue the traces of a batch's first events; they end with the batch.
    fn trace(&self, batch: &Batch, generation: GenerationId) -> Vec<tracing::Span> {
        let Some(link) = self.link else {
            return Vec::new();
        };
        batch
            .events()
            .filter_map(|event| {
                let parent = event.metadata.traceparent.as_deref()?;
                // Unsampled traces end in flags 00.
                parent.ends_with("-01").then_some((event, parent))
            })
            .take(MAX_TRACED_EVENTS)
            .map(|(event, parent)| {
                let span = tracing::info_span!(
                    "fold",
                    projection = self.view.name(),
                    %generation,
                    position = %event.position,
                    event_type = %event.event_type,
                    batch_events = batch.len(),
                );
                link(&span, parent);
                span
            })
            .collect()
    }
}

/// Under which name the partitions of a context are shared out among the workers of a generation.
pub(crate) fn lease_group(projection: &str, generation: GenerationId, context: &Context) -> String {
    format!("{projection}-{generation}-{context}")
}

/// Keeps a log's head at hand.
async fn watch_head(
    log: Arc<dyn EventLog>,
    heads: watch::Sender<Option<LogHead>>,
    stop: CancellationToken,
) {
    let reading = async {
        let mut backoff = Backoff::default();
        loop {
            match log.head().await {
                Ok(head) => {
                    backoff = Backoff::default();
                    heads.send_replace(Some(head));
                    tokio::time::sleep(Duration::from_millis(HEAD_MS)).await;
                }
                Err(error) => {
                    if backoff.is_first() {
                        tracing::warn!(context = %log.context(), error = %describe(&error), "head of the log not read");
                    }
                    backoff.pause().await;
                }
            }
        }
    };
    stop.run_until_cancelled(reading).await;
}

/// A worker of a generation, as its supervisor holds it.
struct Employed {
    stop: CancellationToken,
    status: watch::Sender<GenerationStatus>,
    task: tokio::task::Id,
}

/// Keeps a worker at every generation of a view, makes the first and the next ones, and switches
/// to a candidate that has caught up.
async fn supervise(shared: Arc<Shared>, stop: CancellationToken) {
    let mut workers: BTreeMap<GenerationId, Employed> = BTreeMap::new();
    let mut tasks: JoinSet<()> = JoinSet::new();
    let mut backoff = Backoff::default();
    while let Some(looked) = stop.run_until_cancelled(Box::pin(look(&shared))).await {
        let pause = match looked {
            Ok(generations) => {
                backoff = Backoff::default();
                employ(&shared, generations, &mut workers, &mut tasks, &stop);
                Duration::from_millis(GENERATIONS_MS)
            }
            Err(error) => {
                if backoff.is_first() {
                    tracing::warn!(projection = shared.view.name(), error = %describe(&error), "generations not read; trying again");
                }
                backoff.next()
            }
        };
        tokio::select! {
            () = stop.cancelled() => {}
            () = tokio::time::sleep(pause) => {}
            Some(ended) = tasks.join_next_with_id() => {
                let id = match ended {
                    Ok((id, ())) => id,
                    Err(error) => {
                        tracing::error!(projection = shared.view.name(), %error, "a worker failed; another one is employed");
                        error.id()
                    }
                };
                workers.retain(|_, worker| worker.task != id);
            },
        }
    }
    while tasks.join_next().await.is_some() {}
}

/// Lets go of workers whose generation is retired and employs new ones.
fn employ(
    shared: &Arc<Shared>,
    generations: Vec<Generation>,
    workers: &mut BTreeMap<GenerationId, Employed>,
    tasks: &mut JoinSet<()>,
    stop: &CancellationToken,
) {
    for (id, worker) in &*workers {
        match generations.iter().find(|one| one.id == *id) {
            Some(generation) => drop(worker.status.send_replace(generation.status)),
            None => worker.stop.cancel(),
        }
    }
    for generation in generations {
        if workers.contains_key(&generation.id) {
            continue;
        }
        let token = stop.child_token();
        let store = match shared.open(&generation, token.clone()) {
            Ok(store) => store,
            Err(error) => {
                tracing::error!(%error, generation = %generation.id, "generation not opened");
                continue;
            }
        };
        let id = generation.id;
        let (status, watched) = watch::channel(generation.status);
        let worker = Worker::new(
            Arc::clone(shared),
            generation,
            watched,
            store,
            token.clone(),
        );
        let task = tasks.spawn(worker.run()).id();
        workers.insert(
            id,
            Employed {
                stop: token,
                status,
                task,
            },
        );
    }
}

/// The generations to work on, after making what is missing and switching to what is ready.
async fn look(shared: &Shared) -> Result<Vec<Generation>, StoreError> {
    let heads = shared.context_heads().await?;
    let newest = shared.ensure_generation(&heads).await?;
    shared.go_on(&newest, &heads).await?;
    if newest.status == GenerationStatus::Candidate {
        match shared.switch(&newest, &heads).await {
            Ok(_) | Err(StoreError::Behind { .. }) => {}
            Err(error) => {
                tracing::warn!(generation = %newest.id, error = %describe(&error), "not switched");
            }
        }
    }
    shared.generations().await
}
