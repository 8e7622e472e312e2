//! What the event log's verdicts mean to a client.

use axum::response::{IntoResponse, Response};
use millrace_es::DecodeError;
use millrace_eventlog::{AppendError, ExecuteError, Executed, LoadError, LogError};

use crate::{Problem, problem::types, respond};

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
            AppendError::OutcomeUnknown(_) => Self::outcome_unknown().caused_by(error),
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
            LogError::Corrupt(_) | LogError::Missing(_) | LogError::Misconfigured(_) => {
                Self::internal(error)
            }
        }
    }
}

impl From<LoadError> for Problem {
    fn from(error: LoadError) -> Self {
        match error {
            LoadError::Log(error) => error.into(),
            LoadError::Decode(error) => error.into(),
        }
    }
}

impl From<DecodeError> for Problem {
    fn from(error: DecodeError) -> Self {
        if error.needs_newer_release() {
            Self::unavailable("It was written by a newer release than this instance is; try again")
                .caused_by(error)
        } else {
            Self::internal(error)
        }
    }
}

impl From<ExecuteError> for Problem {
    fn from(error: ExecuteError) -> Self {
        match error {
            ExecuteError::VersionMismatch { actual } => Self::precondition_failed(Some(actual)),
            ExecuteError::KeyReused => Self::idempotency_key_reused(),
            ExecuteError::Contended { attempts } => Self::contended(attempts),
            ExecuteError::Append(error) => error.into(),
            ExecuteError::Log(error) => error.into(),
            ExecuteError::Decode(error) => error.into(),
            ExecuteError::Encode { .. } => Self::internal(error),
        }
    }
}

impl IntoResponse for Written {
    fn into_response(self) -> Response {
        let Self(executed) = self;
        respond(executed.answer, &executed.token, executed.replayed)
    }
}

/// What a command became, as a response.
#[derive(Debug)]
pub struct Written(pub Executed);

impl Problem {
    /// 504: whether the write was done is not known.
    #[must_use]
    pub fn outcome_unknown() -> Self {
        Self::new(
            &types::TIMEOUT,
            "No answer came in time; whether anything was done is not known, so send the request \
             again with the same Idempotency-Key",
        )
    }

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
    pub fn contended(attempts: u32) -> Self {
        Self::new(
            &types::CONTENDED,
            format!("It changed during each of {attempts} attempts; try again"),
        )
    }
}
