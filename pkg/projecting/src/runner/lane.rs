use std::{collections::HashSet, sync::Arc, time::Duration};

use millrace_es::{DecodeError, Epoch, Position, RecordedEvent, StreamId};
use millrace_eventlog::{EventLog, LogError, LogHead};
use millrace_streaming::{
    ConsumeError, ConsumerOptions, ConsumerSpec, PartitionConsumer, Topology,
};
use tokio::sync::{Notify, mpsc, watch};

use super::pace::Backoff;
use crate::{
    batch::Chunk,
    error::StoreError,
    generation::{Checkpoint, GenerationId, Lane},
    store::GenerationStore,
};

/// The most events of one chunk: what a lane reads, decodes and hands over at once.
const MAX_CHUNK_EVENTS: usize = 1_000;

/// Chunks that a lane prepares ahead, while the batch before is being written.
pub(super) const MAX_CHUNKS_AHEAD: usize = 2;

/// How long an idle lane waits before it compares itself with the log's head, in milliseconds.
const IDLE_CHECK_MS: u64 = 1_000;

/// For how many idle checks in a row the log must be ahead before the lane reads it directly: the
/// stream may just be on its way.
const STALLED_CHECKS: u32 = 3;

/// What a lane tells its worker.
pub(super) enum Feed {
    /// It begins here.
    Opened {
        checkpoint: Checkpoint,
        parked: HashSet<StreamId>,
    },
    /// The next events.
    Chunk(Chunk),
}

/// Why a lane ended by itself.
#[derive(Debug)]
pub(super) enum LaneEnd {
    /// An event needs a newer release of this program.
    TooNew(DecodeError),
    /// The log began a new life: this generation stays where it is.
    Frozen { epoch: Epoch },
    /// The log is behind the checkpoint of the same life.
    LogBehind {
        checkpoint: Position,
        head: Position,
    },
    /// The generation is gone or has no such lane.
    Gone(StoreError),
    /// Whoever listened is gone.
    Unheard,
}

/// Reads one partition: from the stream at the checkpoint, and from the log where the stream has
/// holes. Checks the chain, so that what it hands over follows without a gap.
pub(super) struct LaneReader {
    pub(super) lane: Lane,
    pub(super) generation: GenerationId,
    pub(super) projection: &'static str,
    pub(super) store: Arc<dyn GenerationStore>,
    pub(super) log: Arc<dyn EventLog>,
    pub(super) heads: watch::Receiver<Option<LogHead>>,
    pub(super) topology: Topology,
    pub(super) feed: mpsc::Sender<Feed>,
    pub(super) ready: Arc<Notify>,
    /// How far the worker has committed.
    pub(super) committed: watch::Receiver<Position>,
    /// The last position handed over.
    pub(super) cursor: Position,
    pub(super) epoch: Epoch,
}

/// Why the lane pauses and opens its consumer again.
#[derive(Debug, thiserror::Error)]
enum Interrupted {
    #[error(transparent)]
    Consume(#[from] ConsumeError),
    #[error(transparent)]
    Log(#[from] LogError),
    #[error("the log gave nothing of {lane} after {after} although {through} is in it")]
    Missing {
        lane: Lane,
        after: Position,
        through: Position,
    },
    #[error("the lane ends")]
    End(LaneEnd),
}

impl LaneReader {
    /// Reads until something ends the lane.
    pub(super) async fn run(mut self) -> LaneEnd {
        if let Err(end) = self.begin().await {
            return end;
        }
        let mut backoff = Backoff::default();
        loop {
            let before = self.cursor;
            let interrupted = match self.follow().await {
                Interrupted::End(end) => return end,
                other => other,
            };
            if self.cursor > before {
                backoff = Backoff::default();
            }
            tracing::debug!(
                projection = self.projection,
                lane = %self.lane,
                error = %crate::batch::describe(&interrupted),
                "the lane opens its consumer again"
            );
            backoff.pause().await;
        }
    }

    /// Learns where the lane stands.
    async fn begin(&mut self) -> Result<(), LaneEnd> {
        let mut backoff = Backoff::default();
        let (checkpoint, parked) = loop {
            let failed = match self.load().await {
                Ok(loaded) => break loaded,
                Err(error @ StoreError::Gone(_)) => return Err(LaneEnd::Gone(error)),
                Err(error) => error,
            };
            if backoff.is_first() {
                tracing::warn!(
                    projection = self.projection,
                    lane = %self.lane,
                    error = %crate::batch::describe(&failed),
                    "checkpoint not read"
                );
            }
            backoff.pause().await;
        };
        self.cursor = checkpoint.position;
        self.epoch = checkpoint.epoch;
        self.hand(Feed::Opened { checkpoint, parked }).await
    }

    async fn load(&self) -> Result<(Checkpoint, HashSet<StreamId>), StoreError> {
        let all = self.store.checkpoints().await?;
        let own = all.into_iter().find(|one| one.lane == self.lane);
        let checkpoint = own.ok_or(StoreError::Gone(self.generation))?;
        Ok((checkpoint, self.store.parked(&self.lane).await?))
    }

    async fn hand(&self, feed: Feed) -> Result<(), LaneEnd> {
        self.feed.send(feed).await.map_err(|_| LaneEnd::Unheard)?;
        self.ready.notify_one();
        Ok(())
    }

    /// One life of the consumer.
    async fn follow(&mut self) -> Interrupted {
        match self.try_follow().await {
            Ok(never) => match never {},
            Err(interrupted) => interrupted,
        }
    }

    async fn try_follow(&mut self) -> Result<std::convert::Infallible, Interrupted> {
        self.check_life().await?;
        let spec = ConsumerSpec {
            context: self.lane.context.clone(),
            partition: self.lane.partition,
            projection: self.projection.to_owned(),
            generation: self.generation.to_string(),
        };
        let opened = PartitionConsumer::open(
            &self.topology,
            spec,
            self.cursor,
            ConsumerOptions::default(),
        );
        let mut consumer = match opened.await {
            Ok(consumer) => consumer,
            Err(error) => {
                // Without a stream the log itself says what is new.
                self.catch_up_from_head().await?;
                return Err(error.into());
            }
        };
        let first = consumer.first_position();
        if first > self.cursor.next() {
            let before_first = Position::new(first.get() - 1);
            self.read_log(before_first).await?;
        }
        let mut stalled = 0;
        let idle = Duration::from_millis(IDLE_CHECK_MS);
        loop {
            let events = tokio::select! {
                biased;
                moved = self.committed.changed() => {
                    if moved.is_err() {
                        return Err(Interrupted::End(LaneEnd::Unheard));
                    }
                    let through = *self.committed.borrow_and_update();
                    consumer.ack_through(through).await?;
                    continue;
                }
                events = consumer.next_batch(MAX_CHUNK_EVENTS, idle) => events?,
            };
            if events.is_empty() {
                stalled = if self.log_is_ahead() { stalled + 1 } else { 0 };
                if stalled >= STALLED_CHECKS {
                    self.catch_up_from_head().await?;
                    stalled = 0;
                }
                continue;
            }
            stalled = 0;
            self.take(events).await?;
        }
    }

    /// The log may have been restored, or begun a new life, since the checkpoint was written.
    async fn check_life(&self) -> Result<(), Interrupted> {
        let head = match self.log.head().await {
            Ok(head) => head,
            // The stream goes on without the log.
            Err(LogError::Unreachable(_)) => return Ok(()),
            Err(error) => return Err(error.into()),
        };
        if head.epoch > self.epoch {
            return Err(Interrupted::End(LaneEnd::Frozen { epoch: head.epoch }));
        }
        let newest = newest_of(&head, &self.lane);
        if head.epoch < self.epoch || newest < self.cursor {
            return Err(Interrupted::End(LaneEnd::LogBehind {
                checkpoint: self.cursor,
                head: newest,
            }));
        }
        Ok(())
    }

    /// Whether the log has events of this lane that were not handed over, as of a moment ago.
    fn log_is_ahead(&self) -> bool {
        let head = self.heads.borrow();
        head.as_ref().is_some_and(|head| {
            head.epoch == self.epoch && newest_of(head, &self.lane) > self.cursor
        })
    }

    async fn catch_up_from_head(&mut self) -> Result<(), Interrupted> {
        let head = self.log.head().await?;
        if head.epoch != self.epoch {
            return Ok(());
        }
        let newest = newest_of(&head, &self.lane);
        if newest > self.cursor {
            tracing::info!(
                projection = self.projection,
                lane = %self.lane,
                after = %self.cursor,
                "the stream does not deliver; reading the log"
            );
            self.read_log(newest).await?;
        }
        Ok(())
    }

    /// Takes what the stream delivered. Each event names the one before it in its lane.
    async fn take(&mut self, events: Vec<RecordedEvent>) -> Result<(), Interrupted> {
        let mut run: Vec<RecordedEvent> = Vec::with_capacity(events.len());
        let mut cursor = self.cursor;
        for event in events {
            if event.position <= cursor {
                continue;
            }
            if event.epoch > self.epoch {
                self.emit(std::mem::take(&mut run)).await?;
                let epoch = event.epoch;
                return Err(Interrupted::End(LaneEnd::Frozen { epoch }));
            }
            if event.epoch < self.epoch {
                // Of an earlier life: the stream may still hold a tail that the log gave up, so
                // only the log can say. What is left out here is found as a hole, or when idle.
                self.emit(std::mem::take(&mut run)).await?;
                return self.catch_up_from_head().await;
            }
            if event.previous == cursor {
                cursor = event.position;
                run.push(event);
                continue;
            }
            // A hole, or a chain that contradicts what was read: the log says what belongs here.
            self.emit(std::mem::take(&mut run)).await?;
            let after = self.cursor;
            self.read_log(event.position).await?;
            cursor = self.cursor;
            if cursor < event.position {
                return Err(Interrupted::Missing {
                    lane: self.lane.clone(),
                    after,
                    through: event.position,
                });
            }
        }
        self.emit(run).await
    }

    /// Reads the log from the cursor through a position that is known to be in it, or below the
    /// first one in the stream.
    async fn read_log(&mut self, through: Position) -> Result<(), Interrupted> {
        metrics::counter!("millrace_projection_log_reads_total", "projection" => self.projection)
            .increment(1);
        loop {
            let page = self
                .log
                .read_partition(self.lane.partition, self.cursor, through, MAX_CHUNK_EVENTS)
                .await?;
            let full = page.len() == MAX_CHUNK_EVENTS;
            let mut cursor = self.cursor;
            for event in &page {
                if event.epoch > self.epoch {
                    return Err(Interrupted::End(LaneEnd::Frozen { epoch: event.epoch }));
                }
                if event.previous != cursor {
                    return Err(Interrupted::Missing {
                        lane: self.lane.clone(),
                        after: cursor,
                        through: event.position,
                    });
                }
                cursor = event.position;
            }
            self.emit(page).await?;
            if !full {
                return Ok(());
            }
        }
    }

    /// Decodes events that follow the cursor and hands them over.
    async fn emit(&mut self, events: Vec<RecordedEvent>) -> Result<(), Interrupted> {
        if events.is_empty() {
            return Ok(());
        }
        let (chunk, too_new) =
            self.store
                .decode(self.lane.clone(), self.epoch, self.cursor, events);
        if let Some(chunk) = chunk {
            self.cursor = chunk.through();
            self.hand(Feed::Chunk(chunk))
                .await
                .map_err(Interrupted::End)?;
        }
        match too_new {
            None => Ok(()),
            Some(error) => Err(Interrupted::End(LaneEnd::TooNew(error))),
        }
    }
}

/// The newest position of a lane.
pub(super) fn newest_of(head: &LogHead, lane: &Lane) -> Position {
    head.partition_positions
        .get(usize::from(lane.partition.get()))
        .copied()
        .unwrap_or_default()
}
