//! What the engine, the cluster and the clock say, as plain data: everything that the plan looks
//! at beside the resource itself.

use k8s_openapi::jiff::Timestamp;

use crate::status::{RedriveStatus, Target, VerificationStatus};

/// The world as it was found before a step.
#[derive(Clone, Debug, PartialEq)]
pub struct World {
    /// The present.
    pub now: Timestamp,
    /// Whether the resource is being deleted.
    pub deleting: bool,
    /// Whether the resource cannot vanish before it is released: its finalizer is on it.
    pub held: bool,
    /// The other replays of the projection that have not ended. Looked up only until its
    /// turn is taken.
    pub rivals: Vec<Rival>,
    /// The generation that this replay fills or filled.
    pub rebuild: Option<RebuildView>,
    /// The run of dead letters that this replay began.
    pub redrive: Option<RedriveView>,
    /// The generation that answers queries; looked up for a Rollback only.
    pub live: Option<String>,
    /// Who does the bulk work.
    pub work: WorkView,
    /// What this process does for the replay that takes longer than a step.
    pub task: TaskView,
}

impl World {
    /// A world in which nothing has happened yet.
    #[must_use]
    pub fn empty(now: Timestamp) -> Self {
        Self {
            now,
            deleting: false,
            held: true,
            rivals: Vec::new(),
            rebuild: None,
            redrive: None,
            live: None,
            work: WorkView::Absent,
            task: TaskView::Idle,
        }
    }
}

/// Another replay of the same projection that has not ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rival {
    /// Its name.
    pub name: String,
    /// Whether it was created before.
    pub before: bool,
    /// Whether it has taken its turn, or is about to.
    pub raised: bool,
}

/// How fast a rebuild may go, all its workers together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pace {
    /// Events a second; no bound when not set.
    pub max_events_per_second: Option<u32>,
    /// Whether it stands still.
    pub suspended: bool,
}

/// How far a generation is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// Filled in bulk; no projector touches it.
    Loading,
    /// Loaded, and kept current by the projector.
    Candidate,
    /// Answers queries.
    Active,
    /// Answered queries before.
    Retained,
}

/// A generation that a replay fills.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RebuildView {
    /// Its name, such as `g12`.
    pub generation: String,
    /// How far it is.
    pub stage: Stage,
    /// The generation that answers queries; none before the first.
    pub live: Option<String>,
    /// The positions that are replayed.
    pub targets: Vec<Target>,
    /// How fast it may go.
    pub pace: Pace,
    /// How many events there are to fold.
    pub events_total: u64,
    /// How many are folded.
    pub events_done: u64,
    /// How many partitions are at their target.
    pub lanes_done: u32,
    /// Of how many.
    pub lanes_total: u32,
    /// Positions behind the heads of the logs; asked for once it is loaded.
    pub lag: Option<u64>,
}

/// A run over dead letters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RedriveView {
    /// What it did so far.
    pub counts: RedriveStatus,
    /// Whether it goes on.
    pub state: RedriveState,
}

/// Whether a run over dead letters goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RedriveState {
    /// There are letters left.
    Running,
    /// There are none left.
    Done,
    /// A letter failed again, and the run was to stop then.
    Stopped,
    /// It was cancelled.
    Cancelled,
}

/// Who does the bulk work, and whether they still do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WorkView {
    /// Nobody was asked to.
    Absent,
    /// Somebody does it without being asked, and follows the pace of the generation.
    ByItself,
    /// Somebody is at it, or about to be.
    Running,
    /// Somebody was asked to, and to hold.
    Held,
    /// Those who were asked say that they are done.
    Complete,
    /// Those who were asked gave up.
    Failed {
        /// Why, in a sentence.
        message: String,
    },
}

impl WorkView {
    /// Whether there is something to stop.
    #[must_use]
    pub fn engaged(&self) -> bool {
        !matches!(self, Self::Absent | Self::ByItself)
    }
}

/// What takes longer than a step and runs beside the steps, in this process only: it begins again
/// in the next one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TaskView {
    /// Nothing.
    Idle,
    /// It runs.
    Running(Task),
    /// It ended; its outcome is taken with the next step.
    Ended(Task, TaskEnd),
}

/// What takes longer than a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Task {
    /// Indexes and statistics of a loaded generation.
    Finish,
    /// The comparison of two generations.
    Verify,
}

/// How a task ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TaskEnd {
    /// The generation is finished.
    Finished,
    /// The generations were compared.
    Verified(VerificationStatus),
    /// It can never be done.
    Refused {
        /// As a condition has it.
        reason: String,
        /// In a sentence.
        message: String,
    },
    /// A store did not answer.
    Unavailable(String),
    /// It failed in a way that counts.
    Failed(String),
}
