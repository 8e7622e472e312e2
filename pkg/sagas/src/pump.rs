use std::{error::Error, sync::Arc, time::Duration};

use millrace_es::{Saga, StreamVersion};
use millrace_eventlog::{LoadError, Repository};
use millrace_kernel::EntityId;
use serde::{Serialize, de::DeserializeOwned};

use crate::{NoAnswer, Port, RecordError, Recorded};

/// The most that one pump does for a saga, times overtaken included, before others get their turn.
pub const MAX_STEPS_PER_PUMP: u32 = 32;
/// How long a step may take unless told otherwise.
const DEFAULT_MAX_STEP: Duration = Duration::from_secs(10);

/// How a pump left a saga.
#[derive(Debug)]
pub enum Pumped {
    /// Nothing is to be done.
    Idle,
    /// Something is, later.
    Later(Leftover),
}

/// Why a saga is not done.
#[derive(Debug, thiserror::Error)]
pub enum Leftover {
    /// A step got no answer.
    #[error("step {step} got no answer")]
    NoAnswer {
        /// The step.
        step: String,
        /// Why not.
        #[source]
        source: NoAnswer,
    },
    /// It has more steps than one pump makes.
    #[error("more than {MAX_STEPS_PER_PUMP} steps were to be made at once")]
    TooLong,
}

/// Why a saga could not be pumped.
#[derive(Debug, thiserror::Error)]
pub enum PumpError {
    /// Its state or the world could not be read.
    #[error("what a saga depends on was not read")]
    Load(#[from] LoadError),
    /// What came of a step could not be kept. The step is made again.
    #[error("what came of a step was not kept")]
    Record(#[from] RecordError),
}

/// A step took longer than it may.
#[derive(Debug, thiserror::Error)]
#[error("it took longer than {} s", .0.as_secs_f32())]
struct TooSlow(Duration);

/// Brings sagas of one kind on. Cheap to clone.
pub struct Pump<S: Saga> {
    sagas: Arc<Repository<S>>,
    port: Arc<dyn Port<S>>,
    max_step: Duration,
}

impl<S: Saga> Clone for Pump<S> {
    fn clone(&self) -> Self {
        Self {
            sagas: Arc::clone(&self.sagas),
            port: Arc::clone(&self.port),
            max_step: self.max_step,
        }
    }
}

impl<S: Saga> std::fmt::Debug for Pump<S> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Pump")
            .field("saga", &S::NAME)
            .field("max_step", &self.max_step)
            .finish_non_exhaustive()
    }
}

impl<S: Saga + Serialize + DeserializeOwned> Pump<S> {
    /// Sagas that touch the world through a port.
    #[must_use]
    pub fn new(sagas: Arc<Repository<S>>, port: Arc<dyn Port<S>>) -> Self {
        Self {
            sagas,
            port,
            max_step: DEFAULT_MAX_STEP,
        }
    }

    /// A step may take this long.
    #[must_use]
    pub const fn with_max_step(mut self, max_step: Duration) -> Self {
        self.max_step = max_step;
        self
    }

    /// Does what is next, until nothing is or a step gets no answer.
    ///
    /// # Errors
    /// See [`PumpError`]. Pumping again is always right.
    pub async fn pump(&self, id: &EntityId) -> Result<Pumped, PumpError> {
        for _ in 0..MAX_STEPS_PER_PUMP {
            let (saga, version) = self.sagas.load(id).await?;
            if let Some(command) = self.port.look(id, &saga).await? {
                self.record(id, (&saga, version), command).await?;
                continue;
            }
            let Some(step) = saga.next() else {
                return Ok(Pumped::Idle);
            };
            let source = match self.perform(id, &saga, &step).await {
                Ok(command) => {
                    // Overtaken or not, the state that is there now says what is next.
                    self.record(id, (&saga, version), command).await?;
                    continue;
                }
                Err(source) => source,
            };
            let reason = reason_of(&source);
            if let Some(command) = self.port.unanswered(&saga, &step, &reason) {
                self.record(id, (&saga, version), command).await?;
            }
            let step = format!("{step:?}");
            return Ok(Pumped::Later(Leftover::NoAnswer { step, source }));
        }
        Ok(Pumped::Later(Leftover::TooLong))
    }

    async fn perform(
        &self,
        id: &EntityId,
        saga: &S,
        step: &S::Step,
    ) -> Result<S::Command, NoAnswer> {
        let performing = self.port.perform(id, saga, step);
        match tokio::time::timeout(self.max_step, performing).await {
            Ok(performed) => performed,
            Err(_) => Err(NoAnswer(TooSlow(self.max_step).into())),
        }
    }

    async fn record(
        &self,
        id: &EntityId,
        saga: (&S, StreamVersion),
        command: S::Command,
    ) -> Result<Recorded, RecordError> {
        let recorded = self.port.record(id, saga, command).await?;
        if recorded == Recorded::Overtaken {
            metrics::counter!("millrace_saga_overtaken_total", "saga" => S::NAME).increment(1);
        }
        Ok(recorded)
    }
}

/// The innermost reason, which is the one that helps.
fn reason_of(error: &NoAnswer) -> String {
    let mut last: &dyn Error = &*error.0;
    while let Some(source) = last.source() {
        last = source;
    }
    last.to_string()
}
