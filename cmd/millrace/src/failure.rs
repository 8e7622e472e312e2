//! How a command ends: an exit code that scripts can tell apart, and one sentence for people.

use std::{fmt, io, process::ExitCode};

use millrace_eventlog::LogError;
use millrace_projecting::StoreError;
use millrace_streaming::RecoverError;

/// What the exit codes mean, as `--help` says it.
pub const HELP: &str = "\
Exit codes:
  0  done
  1  failed
  2  wrong usage: an option or value that makes no sense
  3  not found: the stream, dead letter or log asked for is not there
  4  unavailable: a server did not answer; the same command may work later
  5  refused: it needs a confirmation (--yes), or the state does not allow it
  6  different: a view or a stream is not what the log says (millrace verify)";

/// Why a command did not do what it was asked to. Each kind has an exit code of its own.
#[derive(Debug)]
pub enum Failure {
    /// Anything that no other kind covers.
    Failed(anyhow::Error),
    /// Options that clap cannot judge: a combination that makes no sense.
    Usage(String),
    /// What was asked for is not there.
    NotFound(String),
    /// A server does not answer.
    Unavailable(anyhow::Error),
    /// It needs a confirmation, or the state does not allow it.
    Refused(String),
    /// Something is not what the log says.
    Different(String),
    /// Whoever reads our output went away (`| head`): nothing is left to do, and nothing is wrong.
    OutputClosed,
}

impl Failure {
    /// A server that does not answer, with what was wanted of it.
    pub fn unavailable(
        what: impl fmt::Display + Send + Sync + 'static,
        source: impl Into<anyhow::Error>,
    ) -> Self {
        Self::Unavailable(source.into().context(what.to_string()))
    }

    /// The code the process ends with.
    pub fn exit_code(&self) -> ExitCode {
        ExitCode::from(match self {
            Self::OutputClosed => 0,
            Self::Failed(_) => 1,
            Self::Usage(_) => 2,
            Self::NotFound(_) => 3,
            Self::Unavailable(_) => 4,
            Self::Refused(_) => 5,
            Self::Different(_) => 6,
        })
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Failed(error) | Self::Unavailable(error) => f.write_str(&chain(error)),
            Self::Usage(text)
            | Self::NotFound(text)
            | Self::Refused(text)
            | Self::Different(text) => f.write_str(text),
            Self::OutputClosed => f.write_str("the output was closed"),
        }
    }
}

/// An error with everything below it, in one line; what a text already says is not repeated.
fn chain(error: &anyhow::Error) -> String {
    let mut text = String::new();
    for part in error.chain().map(ToString::to_string) {
        if text.is_empty() {
            text = part;
        } else if !text.contains(&part) {
            text.push_str(": ");
            text.push_str(&part);
        }
    }
    text
}

impl From<anyhow::Error> for Failure {
    fn from(error: anyhow::Error) -> Self {
        let closed = error
            .downcast_ref::<io::Error>()
            .is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe);
        if closed {
            Self::OutputClosed
        } else {
            Self::Failed(error)
        }
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        anyhow::Error::from(error).into()
    }
}

impl From<LogError> for Failure {
    fn from(error: LogError) -> Self {
        match error {
            LogError::Unreachable(_) | LogError::Overloaded(_) | LogError::Closed => {
                Self::Unavailable(error.into())
            }
            LogError::Missing(text) => Self::NotFound(text),
            LogError::Corrupt(_) | LogError::Misconfigured(_) => Self::Failed(error.into()),
        }
    }
}

impl From<sqlx::Error> for Failure {
    fn from(error: sqlx::Error) -> Self {
        match error {
            sqlx::Error::Io(_)
            | sqlx::Error::PoolTimedOut
            | sqlx::Error::PoolClosed
            | sqlx::Error::Tls(_) => Self::unavailable("PostgreSQL does not answer", error),
            other => Self::Failed(other.into()),
        }
    }
}

impl From<RecoverError> for Failure {
    fn from(error: RecoverError) -> Self {
        match error {
            RecoverError::Nats(error) => Self::Unavailable(error.into()),
            RecoverError::Log(error) => error.into(),
            RecoverError::NoStream(_)
            | RecoverError::NothingToImport { .. }
            | RecoverError::TailTooLong { .. }
            | RecoverError::DoesNotContinue(_) => Self::Refused(error.to_string()),
        }
    }
}

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Unavailable(_) => Self::Unavailable(error.into()),
            StoreError::Gone(_) => Self::NotFound(error.to_string()),
            StoreError::Invalid(text) => Self::Usage(text),
            other => Self::Failed(other.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_closed_pipe_is_no_failure() {
        let closed = Failure::from(io::Error::from(io::ErrorKind::BrokenPipe));
        assert_eq!(closed.exit_code(), ExitCode::SUCCESS);
    }

    #[test]
    fn a_text_says_nothing_twice() {
        let error = anyhow::anyhow!("connection refused")
            .context("NATS does not answer: connection refused");
        assert_eq!(
            Failure::Failed(error).to_string(),
            "NATS does not answer: connection refused"
        );
    }
}
