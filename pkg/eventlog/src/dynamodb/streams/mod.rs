//! The stream processor: new events of the log as DynamoDB Streams gives them.
//!
//! Every shard is read by a reader of its own, parents before children. What they give is put back
//! in order by position ([`EventFeed`]), and the relay publishes it as it publishes any log. The
//! shards make it soon, the log makes it right: what they do not give within a bound is read from
//! the log by position, whatever the cause (records that were trimmed, a checkpoint that is lost, a
//! reader that began late, a buffer that overflowed). So nothing here has to be kept, and two
//! processors at once do no harm.

mod buffer;
mod checkpoint;
mod feed;
mod image;
mod meters;
mod reader;
mod shards;
mod source;

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use millrace_es::Position;
use tokio::{
    sync::Semaphore,
    task::JoinSet,
    time::{Instant, MissedTickBehavior},
};
use tokio_util::sync::CancellationToken;

use self::{
    checkpoint::Checkpoint,
    feed::StreamFeed,
    reader::{End, Reader},
    shards::{Place, ShardId, Shards},
    source::{Source, SourceError},
};
use crate::{Backoff, EventFeed, EventLog};

/// The shortest time between two calls on one shard, in milliseconds: DynamoDB takes five a second.
pub const CALL_MS: u64 = 200;
/// How often an idle shard is asked, in milliseconds.
pub const POLL_MS: u64 = 500;
/// How often the log's head is looked at, in milliseconds.
pub const LOOK_MS: u64 = 1_000;
/// How long an event may be missing that the log is known to have, in milliseconds; then it is read
/// from the log.
pub const HOLE_MS: u64 = 1_000;
/// The most events that wait for one before them.
pub const BUFFER_EVENTS: usize = 10_000;
/// The most bytes of events that wait for one before them.
pub const BUFFER_BYTES: usize = 32 * 1024 * 1024;
/// How often the checkpoint of the shards is written, in milliseconds, while there are events.
pub const CHECKPOINT_MS: u64 = 5_000;
/// How often new shards are looked for, in milliseconds.
pub const DISCOVER_MS: u64 = 10_000;
/// The same while a shard has ended and what follows it is not known, in milliseconds.
const DISCOVER_SOON_MS: u64 = 1_000;
/// How long the shards are read on when the relay stands by, in milliseconds.
pub const LINGER_MS: u64 = 10_000;
/// The most calls on shards at once.
const MAX_CALLS: usize = 64;
/// How far the log may be ahead of a checkpoint that is still used. Beyond it the log gives events
/// sooner than the shards.
const MAX_RESUME_EVENTS: u64 = 100_000;
/// How long the last checkpoint may take, in milliseconds.
const LAST_CHECKPOINT_MS: u64 = 1_000;
/// The shortest time between two calls to the relay that something is due, in milliseconds.
const WAKE_AGAIN_MS: u64 = 20;
/// The shortest and the longest pause after the stream could not be read, in milliseconds.
const BACKOFF_MIN_MS: u64 = 100;
const BACKOFF_MAX_MS: u64 = 10_000;

/// How a stream processor works; the defaults are the named constants of this module.
#[derive(Debug, Clone, Copy)]
pub struct StreamsOptions {
    /// The shortest time between two calls on one shard. Default [`CALL_MS`]; an endpoint of one's
    /// own may take more.
    pub call_every: Duration,
    /// How often an idle shard is asked. Default [`POLL_MS`].
    pub poll_every: Duration,
    /// How often the log's head is looked at. Default [`LOOK_MS`].
    pub look_every: Duration,
    /// How long a missing event is waited for. Default [`HOLE_MS`].
    pub hole_patience: Duration,
    /// The most events that wait for one before them. Default [`BUFFER_EVENTS`].
    pub buffer_events: usize,
    /// The most bytes of them. Default [`BUFFER_BYTES`].
    pub buffer_bytes: usize,
    /// How often the checkpoint of the shards is written. Default [`CHECKPOINT_MS`].
    pub checkpoint_every: Duration,
    /// How often new shards are looked for. Default [`DISCOVER_MS`].
    pub discover_every: Duration,
    /// How long the shards are read on when the relay stands by. Default [`LINGER_MS`].
    pub linger: Duration,
}

impl Default for StreamsOptions {
    fn default() -> Self {
        Self {
            call_every: Duration::from_millis(CALL_MS),
            poll_every: Duration::from_millis(POLL_MS),
            look_every: Duration::from_millis(LOOK_MS),
            hole_patience: Duration::from_millis(HOLE_MS),
            buffer_events: BUFFER_EVENTS,
            buffer_bytes: BUFFER_BYTES,
            checkpoint_every: Duration::from_millis(CHECKPOINT_MS),
            discover_every: Duration::from_millis(DISCOVER_MS),
            linger: Duration::from_millis(LINGER_MS),
        }
    }
}

/// Reads the stream of a log's table and feeds the relay with it.
///
/// It works while the relay of this process does, and rests while another process's relay has the
/// lease. When the stream cannot be read, it says so, tries again, and feeds from the log
/// meanwhile.
pub struct StreamProcessor {
    source: Source,
    feed: Arc<StreamFeed>,
    options: StreamsOptions,
    /// The stream that is read, and its shards.
    reading: Mutex<Option<Stream>>,
}

#[derive(Clone)]
struct Stream {
    name: String,
    shards: Arc<Mutex<Shards>>,
}

impl Stream {
    fn shards(&self) -> MutexGuard<'_, Shards> {
        self.shards.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl StreamProcessor {
    /// A processor for the table of a log, whose stream has to be enabled with the view type
    /// `NEW_IMAGE`. Both clients reach the same endpoint.
    #[must_use]
    pub fn new(
        log: Arc<dyn EventLog>,
        tables: aws_sdk_dynamodb::Client,
        streams: aws_sdk_dynamodbstreams::Client,
        table: String,
        options: StreamsOptions,
    ) -> Self {
        Self {
            source: Source {
                tables,
                streams,
                table,
            },
            feed: Arc::new(StreamFeed::new(log, &options)),
            options,
            reading: Mutex::new(None),
        }
    }

    /// Where the relay reads its events. Without [`StreamProcessor::run`] it gives none.
    #[must_use]
    pub fn feed(&self) -> Arc<dyn EventFeed> {
        Arc::clone(&self.feed) as Arc<dyn EventFeed>
    }

    /// Works until told to stop. Whatever goes wrong is logged, counted and tried again.
    pub async fn run(self, stop: CancellationToken) {
        while stop.run_until_cancelled(self.feed.wanted()).await.is_some() {
            let work = Box::pin(async { tokio::join!(self.read(), self.tend(), self.keep()) });
            tokio::select! {
                _ = work => {}
                () = self.feed.abandoned(self.options.linger) => {}
                () = stop.cancelled() => {}
            }
            let last = Duration::from_millis(LAST_CHECKPOINT_MS);
            if tokio::time::timeout(last, self.save()).await.is_err() {
                tracing::debug!(
                    table = self.source.table,
                    "the last checkpoint took too long"
                );
            }
            *self.reading() = None;
            self.feed.rest();
        }
    }

    fn reading(&self) -> MutexGuard<'_, Option<Stream>> {
        self.reading.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Reads one stream after the other; there is another one when the table's is enabled anew.
    async fn read(&self) {
        let mut backoff = Backoff::new(
            Duration::from_millis(BACKOFF_MIN_MS),
            Duration::from_millis(BACKOFF_MAX_MS),
        );
        loop {
            let Err(error) = Box::pin(self.read_stream(&mut backoff)).await else {
                continue;
            };
            self.failed(&error);
            tokio::time::sleep(backoff.pause()).await;
        }
    }

    fn failed(&self, error: &SourceError) {
        self.feed.meters.call_failed();
        let error = error as &(dyn std::error::Error + 'static);
        tracing::warn!(
            table = self.source.table,
            error,
            "the table's stream is not read; events come from the log until it is"
        );
    }

    /// Reads a stream until there is a newer one.
    async fn read_stream(&self, backoff: &mut Backoff) -> Result<(), SourceError> {
        let name = self.source.stream().await?;
        let shards = Arc::new(Mutex::new(self.resume(&name).await?));
        let stream = Stream { name, shards };
        *self.reading() = Some(stream.clone());
        let calls = Arc::new(Semaphore::new(MAX_CALLS));
        let mut readers: JoinSet<(ShardId, End)> = JoinSet::new();
        let mut discover_at = Instant::now();
        loop {
            let begun = tokio::select! {
                () = tokio::time::sleep_until(discover_at) => {
                    let described = self.source.shards(&stream.name).await?;
                    backoff.reset();
                    let begun = stream.shards().discover(&described);
                    let orphaned = stream.shards().lacks_children();
                    if orphaned && self.source.stream().await? != stream.name {
                        return Ok(());
                    }
                    discover_at = Instant::now() + self.discover_after(&stream);
                    begun
                }
                Some(ended) = readers.join_next() => match ended {
                    Ok((shard, end)) => {
                        let begun = self.ended(&stream, &shard, end);
                        discover_at = discover_at.min(Instant::now() + self.discover_after(&stream));
                        begun
                    }
                    Err(error) => return Err(SourceError::Failed {
                        doing: "read a shard",
                        source: Box::new(error),
                    }),
                }
            };
            for (shard, place) in begun {
                readers.spawn(self.reader(&stream, &calls, shard, place).run());
            }
            self.feed.meters.shards(stream.shards().reading_count());
        }
    }

    /// The shards as the checkpoint has them, where it is this stream's and not too old.
    async fn resume(&self, stream: &str) -> Result<Shards, SourceError> {
        let failed = |doing, source| SourceError::Failed { doing, source };
        let Source { tables, table, .. } = &self.source;
        let checkpoint = Checkpoint::load(tables, table)
            .await
            .map_err(|source| failed("give the checkpoint of its shards", source))?;
        let head = self.feed.look().await;
        let head = head.map_err(|error| failed("say where the log ends", Box::new(error)))?;
        let Some(checkpoint) = checkpoint.filter(|found| found.stream == stream) else {
            return Ok(Shards::default());
        };
        // Everything before was read from the shards.
        self.feed.give_up(checkpoint.position);
        if head.get().saturating_sub(checkpoint.position.get()) > MAX_RESUME_EVENTS {
            return Ok(Shards::default());
        }
        Ok(Shards::resume(checkpoint.shards))
    }

    fn ended(&self, stream: &Stream, shard: &str, end: End) -> Vec<(ShardId, Place)> {
        tracing::debug!(table = self.source.table, shard, ?end, "a shard ended");
        stream.shards().finished(shard)
    }

    fn discover_after(&self, stream: &Stream) -> Duration {
        if stream.shards().lacks_children() {
            Duration::from_millis(DISCOVER_SOON_MS).min(self.options.discover_every)
        } else {
            self.options.discover_every
        }
    }

    fn reader(
        &self,
        stream: &Stream,
        calls: &Arc<Semaphore>,
        shard: ShardId,
        place: Place,
    ) -> Reader {
        Reader {
            source: self.source.clone(),
            feed: Arc::clone(&self.feed),
            shards: Arc::clone(&stream.shards),
            calls: Arc::clone(calls),
            options: self.options,
            stream: stream.name.clone(),
            shard,
            place,
        }
    }

    /// Follows the log's head, and wakes the relay when a hole has lasted too long.
    async fn tend(&self) {
        let mut appended = self.feed.log.appended();
        let mut looks = tokio::time::interval(self.options.look_every);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut woken = Instant::now();
        loop {
            let due = self.feed.due_at();
            let wake_at = due.map(|due| due.max(woken + Duration::from_millis(WAKE_AGAIN_MS)));
            tokio::select! {
                Ok(()) = appended.changed() => {
                    let position = *appended.borrow_and_update();
                    self.feed.know(position);
                }
                _ = looks.tick() => {
                    if let Err(error) = self.feed.look().await {
                        tracing::debug!(%error, "the log's head was not read");
                    }
                }
                () = tokio::time::sleep_until(wake_at.unwrap_or(woken)), if wake_at.is_some() => {
                    woken = Instant::now();
                    self.feed.wake();
                }
                () = self.feed.stirred() => {}
            }
        }
    }

    /// Writes the checkpoint from time to time.
    async fn keep(&self) {
        let mut turns = tokio::time::interval(self.options.checkpoint_every);
        turns.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut kept = self.feed.fed();
        loop {
            turns.tick().await;
            // The checkpoint's own record comes through the stream; it must not call for another.
            let fed = self.feed.fed();
            if fed != kept {
                self.save().await;
                kept = fed;
            }
        }
    }

    async fn save(&self) {
        let Some(stream) = self.reading().clone() else {
            return;
        };
        let position = self.feed.fed();
        if position == Position::ZERO {
            // Nobody has asked yet; what an earlier processor wrote says more.
            return;
        }
        let shards = stream.shards().checkpoint(position);
        let checkpoint = Checkpoint {
            shards,
            stream: stream.name,
            position,
        };
        let Source { tables, table, .. } = &self.source;
        if let Err(error) = checkpoint.save(tables, table).await {
            tracing::debug!(
                table,
                error = &*error as &dyn std::error::Error,
                "the shards' checkpoint was not written"
            );
        }
    }
}
