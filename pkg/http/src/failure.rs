//! What failures of the event log mean to a client.

use millrace_eventlog::{AppendError, LogError};

use crate::{Problem, problem::types};

impl From<AppendError> for Problem {
    fn from(error: AppendError) -> Self {
        match error {
            AppendError::Conflict { actual, .. } => Self::new(
                &types::CONTENDED,
                "It was changed by others at the same time; read it again and decide anew",
            )
            .with("version", actual.get()),
            AppendError::DuplicateKey(_) => Self::idempotency_key_reused(),
            AppendError::Reserved { .. } => Self::new(
                &types::ALREADY_TAKEN,
                "A name in the request must be unique and is already in use",
            )
            .caused_by(error),
            AppendError::Invalid(_) => Self::internal(error),
            AppendError::Halted { .. } => Self::unavailable(
                "Writes are stopped until an operator has decided how to go on; nothing was done",
            )
            .caused_by(error),
            AppendError::Unavailable(source) => source.into(),
            AppendError::OutcomeUnknown(_) => Self::unavailable(
                "The event log did not say whether it took the write; send it again with the same \
                 Idempotency-Key",
            )
            .caused_by(error),
        }
    }
}

impl From<LogError> for Problem {
    fn from(error: LogError) -> Self {
        match error {
            LogError::Unreachable(_) => {
                Self::unavailable("The event log cannot be reached; nothing was done, try again")
                    .caused_by(error)
            }
            LogError::Overloaded(_) => {
                Self::unavailable("Too much is waiting to be written; nothing was done, try again")
                    .caused_by(error)
            }
            LogError::Closed => {
                Self::unavailable("This instance is shutting down; nothing was done, try again")
                    .caused_by(error)
            }
            LogError::Corrupt(_) | LogError::Misconfigured(_) => Self::internal(error),
        }
    }
}

impl Problem {
    /// 422: the key came before with another body.
    #[must_use]
    pub fn idempotency_key_reused() -> Self {
        Self::new(
            &types::IDEMPOTENCY_KEY_REUSED,
            "This Idempotency-Key was used with another body; a new request needs a new key",
        )
    }

    /// 409: the command was tried again inside, a bounded number of times, and others were always
    /// faster.
    #[must_use]
    pub fn contended(attempts: usize) -> Self {
        Self::new(
            &types::CONTENDED,
            format!("It changed during each of {attempts} attempts; try again"),
        )
    }
}
