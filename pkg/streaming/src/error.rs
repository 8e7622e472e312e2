use std::fmt;

/// What an error of the client library is kept as.
pub(crate) type Source = Box<dyn std::error::Error + Send + Sync>;

/// NATS did not do what it was asked to.
///
/// Whether it did not answer or said no, the caller backs off and asks again: everything in this
/// crate may be repeated.
#[derive(Debug, thiserror::Error)]
#[error("NATS could not {doing}")]
pub struct NatsError {
    doing: String,
    #[source]
    source: Source,
}

impl NatsError {
    pub(crate) fn new(doing: impl fmt::Display, source: impl Into<Source>) -> Self {
        Self {
            doing: doing.to_string(),
            source: source.into(),
        }
    }
}

/// There is no connection to NATS.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// The file does not hold a user's JWT and key.
    #[error("{file} (NATS_CREDS) holds no credentials: {reason}")]
    Credentials {
        /// The file.
        file: String,
        /// What is wrong with it.
        reason: std::io::Error,
    },
    /// The address makes no sense, or the server did not answer or refuses.
    #[error(transparent)]
    Server(#[from] NatsError),
}

/// An error with everything below it, for a log line at the edge that handles it.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(source) = next {
        let part = source.to_string();
        // Client errors repeat their source in their own text.
        if !text.contains(&part) {
            text.push_str(": ");
            text.push_str(&part);
        }
        next = source.source();
    }
    text
}
