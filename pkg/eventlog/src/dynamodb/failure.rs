//! What an error of the SDK means: whether anything was written, and what may be tried.

use aws_sdk_dynamodb::error::{DisplayErrorContext, ProvideErrorMetadata, SdkError};

use crate::{
    LogError,
    lane::{SharedError, seen::WentBack},
};

use super::values::BadItem;

/// Why an attempt at a batch failed.
#[derive(Debug)]
pub(super) enum Failure {
    /// Something was not as the batch was decided on; nothing was written: decide again.
    Raced,
    /// Nothing was written, and trying again may help.
    Passing(SharedError),
    /// Not known whether it was written.
    Open(SharedError),
    /// The log is older than this process has seen it: it has to be halted, for this reason.
    WentBack(String),
    /// An append's own data is not possible; nothing was written.
    Data {
        /// What the store says about it.
        reason: String,
        /// All it said.
        error: SharedError,
    },
    /// Trying again changes nothing.
    Fatal(LogError),
}

/// What the store answered, as a text with its sources.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(super) struct Said(pub String);

impl Failure {
    pub(super) fn passing(what: impl Into<String>) -> Self {
        Self::Passing(SharedError::new(Said(what.into())))
    }

    pub(super) fn open(what: impl Into<String>) -> Self {
        Self::Open(SharedError::new(Said(what.into())))
    }

    /// An append that can never be taken.
    pub(super) fn data(reason: String) -> Self {
        Self::Data {
            error: SharedError::new(Said(reason.clone())),
            reason,
        }
    }

    /// Judges an error of a call.
    #[expect(clippy::needless_pass_by_value, reason = "stands in `map_err`")]
    pub(super) fn of<E, R>(error: SdkError<E, R>) -> Self
    where
        E: ProvideErrorMetadata + std::error::Error + Send + Sync + 'static,
        R: std::fmt::Debug + Send + Sync + 'static,
    {
        let said = || DisplayErrorContext(&error).to_string();
        let Some(code) = error.code() else {
            return if never_sent(&error) {
                Self::passing(said())
            } else {
                Self::open(said())
            };
        };
        match code {
            "ValidationException" | "ItemCollectionSizeLimitExceededException" => {
                let reason = error.message().unwrap_or(code).to_owned();
                Self::Data {
                    reason,
                    error: SharedError::new(Said(said())),
                }
            }
            "ResourceNotFoundException" => Self::Fatal(LogError::Missing(
                "the log's table is not there; run `millrace migrate`, or make it from the template \
                 in docs/dynamodb-log.md"
                    .to_owned(),
            )),
            "AccessDeniedException"
            | "UnrecognizedClientException"
            | "MissingAuthenticationTokenException"
            | "IncompleteSignatureException"
            | "InvalidSignatureException" => Self::Fatal(LogError::Misconfigured(format!(
                "the log's table refuses this process ({code}); check its credentials and policy"
            ))),
            "ProvisionedThroughputExceededException"
            | "ThrottlingException"
            | "RequestLimitExceeded"
            | "ReplicatedWriteConflictException"
            | "TransactionConflictException"
            | "TransactionCanceledException"
            | "LimitExceededException"
            | "ExpiredTokenException" => Self::passing(said()),
            _ => Self::open(said()),
        }
    }
}

/// Whether an error is certain to have come before anything was sent.
fn never_sent(error: &(dyn std::error::Error + 'static)) -> bool {
    let mut next = Some(error);
    while let Some(error) = next {
        let refused = error
            .downcast_ref::<std::io::Error>()
            .is_some_and(|error| error.kind() == std::io::ErrorKind::ConnectionRefused);
        if refused {
            return true;
        }
        next = error.source();
    }
    false
}

impl From<BadItem> for Failure {
    fn from(bad: BadItem) -> Self {
        Self::Fatal(bad.into())
    }
}

impl From<WentBack> for Failure {
    fn from(WentBack(reason): WentBack) -> Self {
        Self::WentBack(reason)
    }
}

impl From<BadItem> for LogError {
    fn from(bad: BadItem) -> Self {
        Self::Corrupt(bad.to_string())
    }
}

impl From<Failure> for LogError {
    /// For calls beside the lane, whose requests are of our own making.
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Fatal(error) => error,
            Failure::WentBack(reason) => Self::Corrupt(reason),
            Failure::Raced => Self::Unreachable("others write too often".into()),
            Failure::Passing(error) | Failure::Open(error) | Failure::Data { error, .. } => {
                Self::Unreachable(Box::new(error))
            }
        }
    }
}
