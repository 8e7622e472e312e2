//! What a failed batch means: whether anything was appended, and what may be tried.

use sqlx::postgres::{PgDatabaseError, PgSeverity};

use crate::LogError;

/// Why an attempt at a batch failed.
#[derive(Debug)]
pub(super) enum Failure {
    /// A constraint caught what the batch had not seen: decide again, under the lock.
    Raced(sqlx::Error),
    /// The store went away or asks to try again.
    Passing(sqlx::Error),
    /// The log is older than this process has seen it: it has to be halted, for this reason.
    WentBack(String),
    /// An append's own data breaks the transaction.
    Data(sqlx::Error),
    /// Trying again changes nothing.
    Fatal(LogError),
}

impl Failure {
    /// Judges an error of a write-model table: what it cannot read or write is the event's fault,
    /// not the log's.
    pub(super) fn of_table(error: sqlx::Error) -> Self {
        match error {
            sqlx::Error::RowNotFound
            | sqlx::Error::Decode(_)
            | sqlx::Error::ColumnDecode { .. } => Self::Data(error),
            other => Self::of(other),
        }
    }

    /// Judges an error of any of the log's own statements.
    pub(super) fn of(error: sqlx::Error) -> Self {
        match &error {
            sqlx::Error::RowNotFound => Self::Fatal(LogError::Missing(
                "the log has no head; run `millrace migrate`".to_owned(),
            )),
            sqlx::Error::Decode(_) | sqlx::Error::ColumnDecode { .. } => {
                Self::Fatal(LogError::Corrupt(error.to_string()))
            }
            sqlx::Error::Encode(_) | sqlx::Error::TypeNotFound { .. } => Self::Data(error),
            sqlx::Error::Database(database) => {
                let Some(database) = database.try_downcast_ref::<PgDatabaseError>() else {
                    return Self::Passing(error);
                };
                let verdict = of_code(database);
                verdict(error)
            }
            _ => Self::Passing(error),
        }
    }
}

fn of_code(error: &PgDatabaseError) -> fn(sqlx::Error) -> Failure {
    let code = error.code();
    match (code, code.get(..2).unwrap_or_default()) {
        ("23505", _) => match error.table() {
            Some("answers" | "reservations") => Failure::Raced,
            // Nobody else may write there: the head does not stand for the events any more.
            Some("events") => |error| Failure::Fatal(LogError::Corrupt(error.to_string())),
            _ => Failure::Data,
        },
        // Tables that are not there: not migrated, or by an older release.
        ("42P01" | "42703" | "3F000", _) => |error| {
            Failure::Fatal(LogError::Misconfigured(format!(
                "the log's schema is not as this release needs it ({error}); run `millrace migrate`"
            )))
        },
        (_, "21" | "22" | "23" | "42" | "54" | "P0") => Failure::Data,
        _ => Failure::Passing,
    }
}

/// Whether an error that answers a commit leaves it open whether the commit happened: everything
/// but a plain refusal does.
pub(super) fn leaves_open(error: &sqlx::Error) -> bool {
    let Some(database) = error
        .as_database_error()
        .and_then(|error| error.try_downcast_ref::<PgDatabaseError>())
    else {
        return true;
    };
    let plain = matches!(database.severity(), PgSeverity::Error);
    !plain
        || matches!(database.code().get(..2), Some("08" | "57" | "58"))
        || database.code() == "40003"
}

/// Something took longer than it may.
pub(super) fn timed_out(what: &str, bound_ms: u64) -> sqlx::Error {
    sqlx::Error::Io(std::io::Error::new(
        std::io::ErrorKind::TimedOut,
        format!("{what} took more than {bound_ms} ms"),
    ))
}

impl LogError {
    /// The store did not answer.
    pub(crate) fn unreachable(error: sqlx::Error) -> Self {
        match Failure::of(error) {
            Failure::Fatal(error) => error,
            Failure::WentBack(reason) => Self::Corrupt(reason),
            Failure::Raced(error) | Failure::Passing(error) | Failure::Data(error) => {
                Self::Unreachable(Box::new(error))
            }
        }
    }
}
