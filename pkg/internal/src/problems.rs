use millrace_eventlog::LogError;
use millrace_http::Problem;

/// The kinds of problem that only the internal endpoint answers.
pub mod types {
    use millrace_http::ProblemType;

    /// The token is missing or another.
    pub static UNAUTHORIZED: ProblemType =
        ProblemType::new("unauthorized", "The internal token is not right", 401);
    /// The process does not own this context.
    pub static UNKNOWN_CONTEXT: ProblemType = ProblemType::new(
        "unknown-context",
        "This process does not serve the context",
        404,
    );
    /// What the log's store holds contradicts the log's rules.
    pub static LOG_CORRUPT: ProblemType =
        ProblemType::new("log-corrupt", "The event log is corrupt", 500);
    /// The log is missing, or set up otherwise.
    pub static LOG_NOT_SET_UP: ProblemType =
        ProblemType::new("log-not-set-up", "The event log is not set up", 500);
}

/// What a log's error is to another process of the system: more than a client of the public port
/// may know.
pub(crate) fn of_log(error: LogError) -> Problem {
    match error {
        LogError::Corrupt(_) => {
            Problem::new(&types::LOG_CORRUPT, error.to_string()).caused_by(error)
        }
        LogError::Missing(_) | LogError::Misconfigured(_) => {
            Problem::new(&types::LOG_NOT_SET_UP, error.to_string()).caused_by(error)
        }
        LogError::Unreachable(_) | LogError::Overloaded(_) | LogError::Closed => error.into(),
    }
}
