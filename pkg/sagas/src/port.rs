use std::error::Error;

use async_trait::async_trait;
use millrace_es::{Saga, StreamVersion};
use millrace_eventlog::{ExecuteError, LoadError};
use millrace_kernel::EntityId;

/// A step got no answer that says what came of it: it may have been done or not.
#[derive(Debug, thiserror::Error)]
#[error("no answer that says what came of it")]
pub struct NoAnswer(#[source] pub Box<dyn Error + Send + Sync>);

/// What became of an append.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Recorded {
    /// It was taken, or there was nothing to append.
    Taken,
    /// Somebody else was faster: read the state again.
    Overtaken,
}

/// Why what came of a step could not be kept.
#[derive(Debug, thiserror::Error)]
pub enum RecordError {
    /// The log did not take it.
    #[error("what came of a step was not appended")]
    Append(#[from] ExecuteError),
    /// What it depends on could not be read.
    #[error("what a step depends on was not read")]
    Load(#[from] LoadError),
}

/// What a saga touches. Everything that is not the saga's own decision happens in here.
#[async_trait]
pub trait Port<S: Saga>: Send + Sync {
    /// Looks whether the world changed so that the saga has to know before it goes on, and says so
    /// as a command. What the saga knows already is not said again.
    ///
    /// # Errors
    /// [`LoadError`] when the world cannot be seen.
    async fn look(&self, id: &EntityId, saga: &S) -> Result<Option<S::Command>, LoadError>;

    /// Performs a step, perhaps not for the first time, and says what came of it. It may be dropped
    /// at any moment.
    ///
    /// # Errors
    /// [`NoAnswer`] when that is not known.
    async fn perform(
        &self,
        id: &EntityId,
        saga: &S,
        step: &S::Step,
    ) -> Result<S::Command, NoAnswer>;

    /// What is kept of a step without an answer, where the saga counts these.
    fn unanswered(&self, saga: &S, step: &S::Step, reason: &str) -> Option<S::Command>;

    /// Decides a command on this very state, and appends what came of it, with whatever belongs to it
    /// in the same append.
    ///
    /// # Errors
    /// See [`RecordError`]. It may have been appended all the same.
    async fn record(
        &self,
        id: &EntityId,
        saga: (&S, StreamVersion),
        command: S::Command,
    ) -> Result<Recorded, RecordError>;
}
