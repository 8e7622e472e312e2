//! What the driver needs of others: the engine that rebuilds, somebody who does the bulk work, and
//! a place where replays are written down. Kubernetes is one such place, a table another.

use async_trait::async_trait;
use k8s_openapi::jiff::Timestamp;

use crate::resource::{RedriveSpec, ReplaySpec, VerifySpec};
use crate::status::{PlanSummary, ReplayStatus, Target, VerificationStatus};
use crate::world::{Pace, RebuildView, RedriveView, Rival, WorkView};

/// Why the engine did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// A store does not answer. It is asked again for as long as it takes.
    #[error("{0}")]
    Unavailable(String),
    /// What is asked can never be done: the replay fails.
    #[error("{message}")]
    Refused {
        /// As a condition has it, in PascalCase, such as `UnknownProjection`.
        reason: String,
        /// In a sentence.
        message: String,
    },
    /// It is too early: the new generation is behind the live one somewhere, or another replay's
    /// generation of the projection has to be done with first.
    #[error("{0}")]
    NotYet(String),
    /// A generation is not dropped because it answers queries.
    #[error("generation {0} answers queries")]
    Active(String),
    /// It failed, and may not the next time. Counted, see `backoffLimit`.
    #[error("{0}")]
    Failed(String),
}

/// Who a generation or a run over dead letters belongs to: the UID of a Replay, so that one of the
/// same name that is made later never takes over what an earlier one left.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Owner(pub String);

/// What a rebuild, a redrive or a rollback would do.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Outline {
    /// The positions that would be replayed.
    pub targets: Vec<Target>,
    /// For people.
    pub summary: PlanSummary,
    /// The generation that answers queries; none before the first.
    pub live: Option<String>,
}

/// A generation that a rebuild made and nobody switched to yet, or dropped to the end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unfinished {
    /// Whose it is.
    pub owner: Owner,
    /// Of which projection.
    pub projection: String,
    /// Its name.
    pub generation: String,
}

/// The engine: rebuilds, redrives and switches. Every call may be repeated.
#[async_trait]
pub trait Engine: Send + Sync {
    /// Says what a replay would do, changing nothing. Refuses what can never be done: an unknown
    /// projection, a generation that is not kept.
    ///
    /// # Errors
    /// See [`EngineError`].
    async fn outline(&self, spec: &ReplaySpec) -> Result<Outline, EngineError>;

    /// Makes a new generation that belongs to the owner, or gives the one that does.
    ///
    /// # Errors
    /// See [`EngineError`].
    async fn begin(
        &self,
        owner: &Owner,
        projection: &str,
        pace: Pace,
    ) -> Result<RebuildView, EngineError>;

    /// Gives the owner's generation, with its lag when it is loaded. One that was dropped is
    /// none.
    ///
    /// # Errors
    /// See [`EngineError`].
    async fn find(
        &self,
        owner: &Owner,
        projection: &str,
    ) -> Result<Option<RebuildView>, EngineError>;

    /// Tells all workers of a rebuild how fast they may go.
    ///
    /// # Errors
    /// See [`EngineError`].
    async fn set_pace(
        &self,
        projection: &str,
        generation: &str,
        pace: Pace,
    ) -> Result<(), EngineError>;

    /// Makes a loaded generation a candidate: indexes, statistics. May take minutes.
    ///
    /// # Errors
    /// See [`EngineError`].
    async fn finish(&self, projection: &str, generation: &str) -> Result<(), EngineError>;

    /// Compares a candidate with the live generation. May take minutes; dropped when it is given
    /// up.
    ///
    /// # Errors
    /// See [`EngineError`].
    async fn verify(
        &self,
        projection: &str,
        generation: &str,
        options: &VerifySpec,
    ) -> Result<VerificationStatus, EngineError>;

    /// Lets a candidate answer queries, and gives the generation that did before, if another
    /// did. A repeat for the same generation changes nothing.
    ///
    /// # Errors
    /// See [`EngineError`].
    async fn switch(
        &self,
        projection: &str,
        generation: &str,
    ) -> Result<Option<String>, EngineError>;

    /// Lets an earlier generation answer queries, and gives the generation that did before, if
    /// another did. A repeat changes nothing.
    ///
    /// # Errors
    /// See [`EngineError`].
    async fn roll_back(
        &self,
        projection: &str,
        generation: &str,
        force: bool,
    ) -> Result<Option<String>, EngineError>;

    /// Drops a generation with all that belongs to it. One that is gone is no error.
    ///
    /// # Errors
    /// [`EngineError::Active`] for one that answers queries.
    async fn discard(&self, projection: &str, generation: &str) -> Result<(), EngineError>;

    /// Drops a generation that is kept for the one that took over from it, unless it answered again
    /// since and another one took over: then it is kept for that one, and this does nothing. One
    /// that is gone is no error.
    ///
    /// # Errors
    /// [`EngineError::Active`] for one that answers queries.
    async fn discard_replaced(
        &self,
        projection: &str,
        generation: &str,
        by: &str,
    ) -> Result<(), EngineError>;

    /// The generations of rebuilds that were never switched to, or not dropped to the end, of all
    /// projections.
    ///
    /// # Errors
    /// See [`EngineError`].
    async fn unfinished(&self) -> Result<Vec<Unfinished>, EngineError>;

    /// The generation that answers queries.
    ///
    /// # Errors
    /// See [`EngineError`].
    async fn live(&self, projection: &str) -> Result<Option<String>, EngineError>;

    /// Begins a run over dead letters that belongs to the owner, or gives the one that does.
    ///
    /// # Errors
    /// See [`EngineError`].
    async fn begin_redrive(
        &self,
        owner: &Owner,
        spec: &RedriveSpec,
    ) -> Result<RedriveView, EngineError>;

    /// Gives the owner's run.
    ///
    /// # Errors
    /// See [`EngineError`].
    async fn find_redrive(
        &self,
        owner: &Owner,
        projection: &str,
    ) -> Result<Option<RedriveView>, EngineError>;

    /// Takes the next letters, a bounded number, and gives where the run stands.
    ///
    /// # Errors
    /// See [`EngineError`].
    async fn advance_redrive(
        &self,
        owner: &Owner,
        projection: &str,
    ) -> Result<RedriveView, EngineError>;

    /// Ends a run: no further letter is taken.
    ///
    /// # Errors
    /// See [`EngineError`].
    async fn cancel_redrive(&self, owner: &Owner, projection: &str) -> Result<(), EngineError>;
}

/// The bulk work of a rebuild, to be done by others.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WorkOrder {
    /// The name of the Replay.
    pub replay: String,
    /// Who the generation belongs to.
    pub owner: Owner,
    /// The projection.
    pub projection: String,
    /// The generation to load.
    pub generation: String,
    /// How many workers share the partitions.
    pub parallelism: u16,
    /// How often a worker may fail.
    pub backoff_limit: u32,
}

/// Why somebody cannot be made to work, or a replay not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum OutsideError {
    /// It does not answer, or not now. Tried again for as long as it takes.
    #[error("{what}")]
    Unavailable {
        /// What was tried, on what.
        what: String,
        /// Why not.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// Somebody else wrote meanwhile: read again and decide again.
    #[error("the replay {0} was changed by somebody else meanwhile")]
    Changed(String),
}

/// Who does the bulk work: a Job, or the projector itself.
#[async_trait]
pub trait Work: Send + Sync {
    /// How the work of a replay stands.
    ///
    /// # Errors
    /// See [`OutsideError`].
    async fn look(&self, replay: &str, owner: &Owner) -> Result<WorkView, OutsideError>;

    /// Has the work done, or held when it is to be. A repeat changes nothing.
    ///
    /// # Errors
    /// See [`OutsideError`].
    async fn ensure(&self, order: &WorkOrder, hold: bool) -> Result<(), OutsideError>;

    /// Ends the work. Work that is not there is no error.
    ///
    /// # Errors
    /// See [`OutsideError`].
    async fn stop(&self, replay: &str, owner: &Owner) -> Result<(), OutsideError>;

    /// The name of the Job that does the work of a replay, where there is one.
    fn job_name(&self, replay: &str, owner: &Owner) -> Option<String>;
}

/// The projector does the work by itself: it finds generations that are to be loaded, and follows
/// their pace. There is nothing to start or to stop.
#[derive(Debug, Clone, Copy, Default)]
pub struct ProjectorWorks;

#[async_trait]
impl Work for ProjectorWorks {
    async fn look(&self, _: &str, _: &Owner) -> Result<WorkView, OutsideError> {
        Ok(WorkView::ByItself)
    }

    async fn ensure(&self, _: &WorkOrder, _: bool) -> Result<(), OutsideError> {
        Ok(())
    }

    async fn stop(&self, _: &str, _: &Owner) -> Result<(), OutsideError> {
        Ok(())
    }

    fn job_name(&self, _: &str, _: &Owner) -> Option<String> {
        None
    }
}

/// A replay as it was read.
#[derive(Clone, Debug, PartialEq)]
pub struct Record {
    /// Its name.
    pub name: String,
    /// Who its generations belong to.
    pub owner: Owner,
    /// How often its spec was changed.
    pub generation: i64,
    /// When it was made.
    pub created: Timestamp,
    /// Whether it is being deleted.
    pub deleting: bool,
    /// Whether it cannot vanish before it is released.
    pub held: bool,
    /// What is asked for.
    pub spec: ReplaySpec,
    /// Where it stands.
    pub status: ReplayStatus,
    /// What it is compared by when it is written.
    pub revision: String,
}

impl Record {
    /// How another replay of the same projection looks from here; `None` when it has ended or
    /// never competes.
    #[must_use]
    pub fn rival(&self, other: &Self) -> Option<Rival> {
        let order = |record: &Self| (record.created, record.name.clone(), record.owner.clone());
        let competes = other.owner != self.owner
            && other.spec.projection() == self.spec.projection()
            && !other.status.ended()
            && !other.spec.dry_run;
        competes.then(|| Rival {
            name: other.name.clone(),
            before: order(other) < order(self),
            raised: other.status.start_time.is_some() || other.status.queue_position == Some(0),
        })
    }
}

/// Something to tell people about a replay.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Notice {
    /// Whether it is something to worry about.
    pub warning: bool,
    /// In PascalCase.
    pub reason: String,
    /// In a sentence.
    pub message: String,
}

/// Where replays are written down.
#[async_trait]
pub trait Records: Send + Sync {
    /// All replays that have not ended, as they are now: never from a memory.
    ///
    /// # Errors
    /// See [`OutsideError`].
    async fn all(&self) -> Result<Vec<Record>, OutsideError>;

    /// Whose replays there are, ended and undecodable ones included.
    ///
    /// # Errors
    /// See [`OutsideError`]; also when there are more than can be read.
    async fn owners(&self) -> Result<Vec<Owner>, OutsideError>;

    /// Writes a status over exactly the revision that was read, and gives the new record.
    ///
    /// # Errors
    /// [`OutsideError::Changed`] when somebody wrote meanwhile.
    async fn write(&self, record: &Record, status: &ReplayStatus) -> Result<Record, OutsideError>;

    /// Keeps the resource from vanishing.
    ///
    /// # Errors
    /// See [`OutsideError`].
    async fn hold(&self, record: &Record) -> Result<(), OutsideError>;

    /// Lets it vanish.
    ///
    /// # Errors
    /// See [`OutsideError`].
    async fn release(&self, record: &Record) -> Result<(), OutsideError>;

    /// Deletes it.
    ///
    /// # Errors
    /// See [`OutsideError`].
    async fn remove(&self, record: &Record) -> Result<(), OutsideError>;

    /// Tells people; a notice that is lost is lost.
    async fn tell(&self, record: &Record, notice: Notice);
}
