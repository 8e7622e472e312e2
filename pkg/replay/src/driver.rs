//! The driver: looks, asks the plan, performs one step, writes down what came of it.
//!
//! It keeps nothing that would be missed: what takes longer than a step (indexes, comparisons) runs
//! beside the steps and begins again in the next process when this one dies.

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::jiff::Timestamp;

use crate::conditions::{READY, shortened};
use crate::engine::{Engine, EngineError, Notice, OutsideError, Record, Records, Work, WorkOrder};
use crate::plan::{self, PATIENT_INTERVAL, Step, WATCH_INTERVAL};
use crate::report::{self, Outcome};
use crate::resource::{Body, OnConflict, ReplaySpec, ReplayType};
use crate::tasks::Tasks;
use crate::world::{Task, TaskEnd, World};

/// Why a pass did not get to its end. Nothing is lost: the next one begins where the replay
/// stands.
#[derive(Debug, thiserror::Error)]
pub enum DriverError {
    /// The engine or one of its stores.
    #[error("the engine cannot go on with replay {replay}: {message}")]
    Engine {
        /// The replay.
        replay: String,
        /// What the engine said.
        message: String,
    },
    /// The place where replays are written down, or those who do the work.
    #[error(transparent)]
    Outside(#[from] OutsideError),
}

impl DriverError {
    /// Whether somebody else wrote meanwhile, so that it is worth looking again at once.
    #[must_use]
    pub fn changed(&self) -> bool {
        matches!(self, Self::Outside(OutsideError::Changed(_)))
    }
}

/// Drives replays, one step a pass. Passes of different replays may run side by side.
pub struct Driver {
    engine: Arc<dyn Engine>,
    work: Arc<dyn Work>,
    tasks: Tasks,
}

impl std::fmt::Debug for Driver {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Driver")
            .field("tasks", &self.tasks)
            .finish_non_exhaustive()
    }
}

impl Driver {
    /// Drives with this engine, and has the bulk work done by these.
    #[must_use]
    pub fn new(engine: Arc<dyn Engine>, work: Arc<dyn Work>) -> Self {
        Self {
            engine,
            work,
            tasks: Tasks::default(),
        }
    }

    /// Performs the next step of a replay, which was read just now, and gives how long the one
    /// after it may wait.
    ///
    /// # Errors
    /// See [`DriverError`].
    pub async fn pass(
        &self,
        records: &dyn Records,
        record: &Record,
        now: Timestamp,
    ) -> Result<Duration, DriverError> {
        let world = match self.look(records, record, now).await {
            Ok(world) => world,
            Err(Missing::Outside(error)) => return Err(error.into()),
            Err(Missing::Engine(error)) => return self.unanswered(records, record, error).await,
        };
        let step = plan::next(&record.spec, &record.status, &world);
        tracing::debug!(replay = record.name, ?step, "next");
        let outcome = match self.perform(records, record, &world, &step).await? {
            Ok(outcome) => outcome,
            Err(error) => judged(&step, error),
        };
        self.close(records, record, &world, &step, outcome).await
    }

    /// Writes down that the engine did not answer a question. Asked is not done, so it costs no
    /// attempt, whatever kind of error it is.
    async fn unanswered(
        &self,
        records: &dyn Records,
        record: &Record,
        error: EngineError,
    ) -> Result<Duration, DriverError> {
        let message = error.to_string();
        let mut status = record.status.clone();
        status.last_error = Some(shortened(&message));
        if status != record.status {
            records.write(record, &status).await?;
        }
        Err(DriverError::Engine {
            replay: record.name.clone(),
            message,
        })
    }

    /// Gives up what runs for a replay that is gone.
    pub fn forget(&self, owner: &crate::engine::Owner) {
        self.tasks.stop(owner);
    }

    /// Writes down what came of a step, if anything changed, and tells people if it is news.
    async fn close(
        &self,
        records: &dyn Records,
        record: &Record,
        world: &World,
        step: &Step,
        outcome: Outcome,
    ) -> Result<Duration, DriverError> {
        if matches!(step, Step::Release | Step::Remove) {
            return Ok(PATIENT_INTERVAL);
        }
        if *step == Step::Hold {
            return Ok(Duration::ZERO);
        }
        let job = self.work.job_name(&record.name, &record.owner);
        let status = report::after(record, world, step, &outcome, job);
        let mut written = false;
        if status != record.status {
            records.write(record, &status).await?;
            written = true;
        }
        if matches!(step, Step::Take(..)) {
            // Only now: what is not written down is taken once more.
            self.tasks.stop(&record.owner);
        }
        if written && let Some(notice) = news(record, &status) {
            records.tell(record, notice).await;
        }
        let failed = |message: String| DriverError::Engine {
            replay: record.name.clone(),
            message,
        };
        match (outcome, step) {
            (Outcome::Unavailable(message) | Outcome::Failed(message), _) => Err(failed(message)),
            (_, Step::Wait { at_most, .. }) => Ok(*at_most),
            (Outcome::NotYet(_), _) | (_, Step::Run(_)) => Ok(WATCH_INTERVAL),
            (_, Step::Queue { .. }) => Ok(PATIENT_INTERVAL),
            _ => Ok(Duration::ZERO),
        }
    }

    async fn look(
        &self,
        records: &dyn Records,
        record: &Record,
        now: Timestamp,
    ) -> Result<World, Missing> {
        let (spec, status) = (&record.spec, &record.status);
        let mut world = World {
            deleting: record.deleting,
            held: record.held,
            task: self.tasks.view(&record.owner),
            ..World::empty(now)
        };
        if spec.dry_run {
            return Ok(world);
        }
        let projection = spec.projection();
        if status.start_time.is_some() {
            match spec.kind {
                ReplayType::Rebuild => {
                    world.rebuild = self.engine.find(&record.owner, projection).await?;
                    world.work = self.work.look(&record.name, &record.owner).await?;
                }
                ReplayType::Redrive => {
                    world.redrive = self.engine.find_redrive(&record.owner, projection).await?;
                }
                ReplayType::Rollback => {}
            }
        }
        if status.ended() {
            return Ok(world);
        }
        if spec.kind == ReplayType::Rollback {
            world.live = self.engine.live(projection).await?;
        }
        if status.start_time.is_none() {
            let others = records.all().await?;
            let rivals = others.iter().filter_map(|other| record.rival(other));
            world.rivals = rivals.collect();
            world
                .rivals
                .sort_by_key(|rival| (!rival.raised, !rival.before, rival.name.clone()));
        }
        Ok(world)
    }

    /// Performs a step: what is outside fails the pass, what the engine says is an outcome.
    async fn perform(
        &self,
        records: &dyn Records,
        record: &Record,
        world: &World,
        step: &Step,
    ) -> Result<Result<Outcome, EngineError>, DriverError> {
        match step {
            Step::Hold => records.hold(record).await?,
            Step::Release => {
                self.tasks.stop(&record.owner);
                records.release(record).await?;
            }
            Step::Remove => records.remove(record).await?,
            Step::Work { hold } => {
                if let Some(order) = order(record, world) {
                    self.work.ensure(&order, *hold).await?;
                }
            }
            Step::StopWork
            | Step::CountFailure {
                for_good: false, ..
            } => {
                self.work.stop(&record.name, &record.owner).await?;
            }
            Step::StopTask => self.tasks.stop(&record.owner),
            Step::Run(task) => self.begin_task(record, world, *task),
            Step::Take(_, end) => return Ok(taken(end)),
            step => return Ok(self.ask(record, world, step).await),
        }
        Ok(Ok(Outcome::Done))
    }

    /// Performs the steps that the engine performs.
    async fn ask(
        &self,
        record: &Record,
        world: &World,
        step: &Step,
    ) -> Result<Outcome, EngineError> {
        let (engine, spec) = (&self.engine, &record.spec);
        let projection = spec.projection();
        let candidate = world.rebuild.as_ref().map(|view| view.generation.as_str());
        match (step, spec.body()) {
            (Step::Outline, _) => {
                let outline = engine.outline(spec).await?;
                return Ok(Outcome::Outlined(Box::new(outline)));
            }
            (Step::Begin, _) => {
                let pace = plan::rebuild_pace(spec);
                let begun = engine.begin(&record.owner, projection, pace).await;
                let view = begun.map_err(|error| unless_queued(spec, error))?;
                return Ok(Outcome::Begun(Box::new(view)));
            }
            (Step::SetPace(pace), _) => {
                if let Some(generation) = candidate {
                    engine.set_pace(projection, generation, *pace).await?;
                }
            }
            (Step::Switch, _) => {
                if let Some(generation) = candidate {
                    let previous = engine.switch(projection, generation).await?;
                    return Ok(Outcome::Switched(previous));
                }
            }
            (Step::RollBack, Some(Body::Rollback(body))) => {
                let to = &body.to_generation;
                let previous = engine.roll_back(projection, to, body.force).await?;
                return Ok(Outcome::Switched(previous));
            }
            (Step::Discard, _) => {
                if let Some(generation) = candidate {
                    engine.discard(projection, generation).await?;
                }
            }
            (Step::DropPrevious, _) => {
                let generations = record.status.generations.as_ref();
                let names = generations.map(|one| (one.previous.as_ref(), one.candidate.as_ref()));
                match names.unwrap_or_default() {
                    (Some(previous), Some(by)) => {
                        engine.discard_replaced(projection, previous, by).await?;
                    }
                    (Some(previous), None) => engine.discard(projection, previous).await?,
                    (None, _) => {}
                }
            }
            (Step::BeginRedrive, Some(Body::Redrive(body))) => {
                let view = engine.begin_redrive(&record.owner, body).await?;
                return Ok(Outcome::Redriven(view.counts));
            }
            (Step::AdvanceRedrive, _) => {
                let view = engine.advance_redrive(&record.owner, projection).await?;
                return Ok(Outcome::Redriven(view.counts));
            }
            (Step::CancelRedrive, _) => engine.cancel_redrive(&record.owner, projection).await?,
            // Nothing to do but to write it down.
            _ => {}
        }
        Ok(Outcome::Done)
    }

    fn begin_task(&self, record: &Record, world: &World, task: Task) {
        let (Some(view), Some(body)) = (&world.rebuild, &record.spec.rebuild) else {
            return;
        };
        let engine = Arc::clone(&self.engine);
        let (projection, generation) = (body.projection.clone(), view.generation.clone());
        let options = body.verify.clone();
        self.tasks.run(&record.owner, task, async move {
            match task {
                Task::Finish => engine
                    .finish(&projection, &generation)
                    .await
                    .map(|()| TaskEnd::Finished),
                Task::Verify => engine
                    .verify(&projection, &generation, &options)
                    .await
                    .map(TaskEnd::Verified),
            }
        });
    }
}

/// What was not found out.
enum Missing {
    Engine(EngineError),
    Outside(OutsideError),
}

impl From<EngineError> for Missing {
    fn from(error: EngineError) -> Self {
        Self::Engine(error)
    }
}

impl From<OutsideError> for Missing {
    fn from(error: OutsideError) -> Self {
        Self::Outside(error)
    }
}

/// What an error of the engine means for the step that met it.
/// A replay that does not wait for others of its projection fails, also where the other one was
/// asked for elsewhere.
fn unless_queued(spec: &ReplaySpec, error: EngineError) -> EngineError {
    match error {
        EngineError::NotYet(message) if spec.on_conflict == OnConflict::Fail => {
            EngineError::Refused {
                reason: plan::CONFLICT.to_owned(),
                message: format!("{message}; onConflict is Fail"),
            }
        }
        other => other,
    }
}

fn judged(step: &Step, error: EngineError) -> Outcome {
    match error {
        EngineError::Unavailable(message) => Outcome::Unavailable(message),
        EngineError::Refused { reason, message } => Outcome::Refused { reason, message },
        EngineError::NotYet(message) => Outcome::NotYet(message),
        // What answers queries is kept: as the previous one it was switched back to, as the own
        // one it was switched to by somebody else. The next look tells.
        EngineError::Active(_) if matches!(step, Step::Discard | Step::DropPrevious) => {
            Outcome::Done
        }
        error @ (EngineError::Active(_) | EngineError::Failed(_)) => {
            Outcome::Failed(error.to_string())
        }
    }
}

fn taken(end: &TaskEnd) -> Result<Outcome, EngineError> {
    match end.clone() {
        TaskEnd::Finished | TaskEnd::Verified(_) => Ok(Outcome::Done),
        TaskEnd::Refused { reason, message } => Err(EngineError::Refused { reason, message }),
        TaskEnd::Unavailable(message) => Err(EngineError::Unavailable(message)),
        TaskEnd::Failed(message) => Err(EngineError::Failed(message)),
    }
}

fn order(record: &Record, world: &World) -> Option<WorkOrder> {
    let (view, body) = (world.rebuild.as_ref()?, record.spec.rebuild.as_ref()?);
    Some(WorkOrder {
        replay: record.name.clone(),
        owner: record.owner.clone(),
        projection: body.projection.clone(),
        generation: view.generation.clone(),
        parallelism: body.parallelism,
        backoff_limit: record.spec.backoff_limit,
    })
}

/// What people are told: where the replay stands, when that changed.
fn news(record: &Record, status: &crate::status::ReplayStatus) -> Option<Notice> {
    let new = status.condition(READY)?;
    let old = record.status.condition(READY);
    if old.is_some_and(|old| old.reason == new.reason) {
        return None;
    }
    Some(Notice {
        warning: status.is_true(crate::conditions::STALLED),
        reason: new.reason.clone(),
        message: new.message.clone(),
    })
}
