//! Reads one shard, page after page, until it ends.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tokio::{sync::Semaphore, time::Instant};

use super::{
    StreamsOptions,
    feed::StreamFeed,
    image::{event_in, written_at},
    shards::{Place, ShardId, Shards},
    source::{Page, Source, SourceError},
};
use crate::Backoff;

/// The shortest and the longest pause after a failed call, in milliseconds.
const BACKOFF_MIN_MS: u64 = 100;
const BACKOFF_MAX_MS: u64 = 5_000;
/// Failures in a row after which an operator should hear of it.
const FAILURES_TO_WARN: u32 = 5;

/// How a shard's reading ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    /// It is closed and was read to its last record.
    Finished,
    /// DynamoDB does not have it any more.
    Gone,
}

/// The reader of one shard.
pub(super) struct Reader {
    pub(super) source: Source,
    pub(super) feed: Arc<StreamFeed>,
    pub(super) shards: Arc<Mutex<Shards>>,
    pub(super) calls: Arc<Semaphore>,
    pub(super) options: StreamsOptions,
    pub(super) stream: String,
    pub(super) shard: ShardId,
    /// Where it goes on.
    pub(super) place: Place,
}

impl Reader {
    /// Reads to the shard's end.
    pub(super) async fn run(mut self) -> (ShardId, End) {
        let mut backoff = Backoff::new(
            Duration::from_millis(BACKOFF_MIN_MS),
            Duration::from_millis(BACKOFF_MAX_MS),
        );
        let mut hurry = self.feed.hurry();
        let mut iterator = None;
        loop {
            hurry.borrow_and_update();
            let called = Instant::now();
            let error = match self.page(&mut iterator).await {
                Ok(page) => {
                    backoff.reset();
                    iterator = page.next.clone();
                    self.take(page);
                    if iterator.is_none() {
                        return (self.shard, End::Finished);
                    }
                    self.pace(called, &mut hurry).await;
                    continue;
                }
                Err(error) => error,
            };
            // After a failure that may pass the iterator is as good as before. Another one for what
            // is new would leave out what came meanwhile.
            if !matches!(error, SourceError::Failed { .. }) {
                iterator = None;
            }
            match error {
                SourceError::Gone(_) => return (self.shard, End::Gone),
                SourceError::Expired => self.feed.meters.expired(),
                SourceError::Trimmed if self.place != Place::Horizon => {
                    tracing::warn!(
                        context = %self.feed.log.context(), shard = self.shard,
                        "the shard no longer has the records that come next; they are read from the log"
                    );
                    self.feed.meters.trimmed();
                    self.place = Place::Horizon;
                }
                error => {
                    let pause = backoff.pause();
                    self.failed(&error, backoff.failures());
                    tokio::time::sleep(pause).await;
                }
            }
            tokio::time::sleep_until(called + self.options.call_every).await;
        }
    }

    /// The next page, with a new iterator where there is none.
    async fn page(&self, iterator: &mut Option<String>) -> Result<Page, SourceError> {
        // Nobody closes it.
        let _turn = self.calls.acquire().await;
        let iterator = match iterator {
            Some(iterator) => iterator,
            None => {
                let (stream, shard) = (&self.stream, &self.shard);
                let new = self.source.iterator(stream, shard, &self.place).await?;
                if self.place == Place::Latest {
                    self.leave_the_past().await;
                }
                iterator.insert(new)
            }
        };
        self.source.records(iterator, &self.shard).await
    }

    /// What was appended before an iterator for what is new will not come out of the shard.
    async fn leave_the_past(&self) {
        match self.feed.look().await {
            Ok(head) => self.feed.give_up(head),
            // It is then a hole, and waited for in vain.
            Err(error) => tracing::debug!(%error, "the log's head was not read"),
        }
    }

    /// Takes the events out of a page and hands them on.
    fn take(&mut self, page: Page) {
        let context = self.feed.log.context();
        let newest = page.records.last().and_then(written_at);
        let mut last = None;
        let mut events = Vec::new();
        for record in page.records {
            let sequence = record
                .dynamodb
                .as_ref()
                .map(|change| &change.sequence_number);
            last = sequence.cloned().flatten().or(last);
            match event_in(context, record) {
                None => {}
                Some(Ok(event)) => events.push(event),
                // The log has the last word on it.
                Some(Err(error)) => {
                    tracing::warn!(%context, shard = self.shard, %error, "a record is left out");
                }
            }
        }
        let highest = events.iter().map(|event| event.position).max();
        if let Some(last) = last {
            self.place = Place::After(last.clone());
            let shards = self.shards.lock();
            let mut shards = shards.unwrap_or_else(PoisonError::into_inner);
            shards.read(&self.shard, last, highest);
        }
        if !events.is_empty() {
            self.feed.put(events, newest);
        }
    }

    /// Waits until the shard may be asked again; then, while nothing is known to be missing, until
    /// it is its turn.
    async fn pace(&self, called: Instant, hurry: &mut tokio::sync::watch::Receiver<()>) {
        tokio::time::sleep_until(called + self.options.call_every).await;
        if self.feed.has_hole() {
            return;
        }
        let turn = tokio::time::sleep_until(called + self.options.poll_every);
        tokio::select! {
            () = turn => {}
            _ = hurry.changed() => {}
        }
    }

    fn failed(&mut self, error: &SourceError, failures: u32) {
        self.feed.meters.call_failed();
        let (context, shard) = (self.feed.log.context(), &self.shard);
        // A sequence number that is not the shard's, from a checkpoint that is not ours.
        if let (SourceError::Refused { .. }, Place::After(_)) = (error, &self.place) {
            self.place = Place::Latest;
            let error = error as &(dyn std::error::Error + 'static);
            tracing::warn!(%context, shard, error, "the shard is read from now on");
            return;
        }
        let error = error as &(dyn std::error::Error + 'static);
        if failures == FAILURES_TO_WARN {
            tracing::warn!(%context, shard, error, "the shard cannot be read; it is tried again");
        } else {
            tracing::debug!(%context, shard, error, failures, "the shard is read again");
        }
    }
}
