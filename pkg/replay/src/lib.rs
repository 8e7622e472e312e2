//! Replays: the resource that asks for one, the plan that says what comes next, and the driver
//! that does it.
//!
//! A replay is a rebuild of a projection, a redrive of its dead letters, or a rollback to a
//! generation that is still kept. Three things are apart here. [`Replay`] is what people write and
//! read. [`plan::next`] is a pure function of the resource and of the [`world`] to one step.
//! [`Driver`] performs that step through an [`Engine`], has bulk work done through [`Work`], and
//! writes down what came of it in [`Records`]. The controller and the tools without Kubernetes use
//! the same three.

pub mod conditions;
mod crd;
mod driver;
mod engine;
pub mod plan;
mod report;
mod resource;
pub mod status;
mod sweep;
mod tasks;
#[cfg(feature = "testing")]
pub mod testing;
pub mod world;

pub use crd::{CrdError, replay_crd};
pub use driver::{Driver, DriverError};
pub use engine::{
    Engine, EngineError, Notice, Outline, OutsideError, Owner, ProjectorWorks, Record, Records,
    Unfinished, Work, WorkOrder,
};
pub use report::{Outcome, after};
pub use resource::{
    Body, CutoverSpec, CutoverStrategy, DEFAULT_EVENTS_PER_SECOND, LetterSelector, MAX_KEYS,
    MAX_PARALLELISM, MAX_PROJECTION_CHARS, OnConflict, OnFailure, PositionRange, ReasonClass,
    RebuildSpec, RedriveAction, RedriveSpec, Replay, ReplaySpec, ReplayType, RollbackSpec,
    Throttle, VerifyMode, VerifySpec,
};
pub use sweep::{SWEEP_INTERVAL, sweep};
