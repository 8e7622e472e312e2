use std::sync::Arc;

use async_trait::async_trait;
use millrace_es::{Position, RecordedEvent};
use tokio::sync::watch;

use crate::{EventLog, LogError};

/// The new events of a log in order, for the relay. A log can be its own feed ([`LogFeed`]), or its
/// store can push what is appended sooner or cheaper than the log can be asked for it.
#[async_trait]
pub trait EventFeed: Send + Sync {
    /// The events after a position, oldest first, without a gap, at most `limit`: those that the
    /// feed has. It waits for none, but may read the log. [`is_last`](crate::is_last) says whether
    /// a page gave all there was; what the feed gets later, [`EventFeed::grown`] tells. Any
    /// position may be asked for, also one that was given before.
    ///
    /// # Errors
    /// See [`LogError`].
    async fn next(&self, after: Position, limit: usize) -> Result<Vec<RecordedEvent>, LogError>;

    /// Changes when asking again may give more. As long as nobody holds one of these, a feed may
    /// rest.
    fn grown(&self) -> watch::Receiver<Position>;
}

/// A log as its own feed: it is read, and this process's appends tell of more.
pub struct LogFeed {
    log: Arc<dyn EventLog>,
}

impl LogFeed {
    /// Feeds from a log.
    #[must_use]
    pub fn new(log: Arc<dyn EventLog>) -> Self {
        Self { log }
    }
}

#[async_trait]
impl EventFeed for LogFeed {
    async fn next(&self, after: Position, limit: usize) -> Result<Vec<RecordedEvent>, LogError> {
        self.log.read_log(after, limit).await
    }

    fn grown(&self) -> watch::Receiver<Position> {
        self.log.appended()
    }
}
