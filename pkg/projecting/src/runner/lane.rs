use std::{collections::HashSet, sync::Arc, time::Duration};

use millrace_es::{DecodeError, Epoch, Position, RecordedEvent, StreamId};
use millrace_eventlog::{EventLog, LogError, LogHead};
use millrace_streaming::{
    ConsumeError, ConsumerOptions, ConsumerSpec, PartitionConsumer, Topology,
};
use tokio::sync::{Notify, mpsc, watch};

use crate::{
    backoff::Backoff,
    batch::Chunk,
    chain::{Broken, Chain, Taken},
    error::StoreError,
    generation::{Checkpoint, GenerationId, Lane},
    store::GenerationStore,
};

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
    /// The most events that are read, decoded and handed over at once.
    pub(super) max_chunk_events: usize,
    /// How far the worker has committed.
    pub(super) committed: watch::Receiver<Position>,
    /// What was handed over last.
    pub(super) chain: Chain,
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
            let before = self.chain.at;
            let interrupted = match self.follow().await {
                Interrupted::End(end) => return end,
                other => other,
            };
            if self.chain.at > before {
                backoff = Backoff::default();
            }
            tracing::debug!(
                projection = self.projection,
                lane = %self.lane,
                error = %crate::batch::describe(&interrupted),
                "the lane opens its consumer again"
            );
            backoff.pause().await;
            // A generation that was dropped takes its consumers with it: none is made again.
            if let Err(error @ StoreError::Gone(_)) = self.store.checkpoints().await {
                return LaneEnd::Gone(error);
            }
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
        self.chain = Chain {
            at: checkpoint.position,
            epoch: checkpoint.epoch,
        };
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
            self.chain.at,
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
        if first > self.chain.at.next() {
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
                events = consumer.next_batch(self.max_chunk_events, idle) => events?,
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
        if head.epoch > self.chain.epoch {
            return Err(Interrupted::End(LaneEnd::Frozen { epoch: head.epoch }));
        }
        let newest = newest_of(&head, &self.lane);
        if head.epoch < self.chain.epoch || newest < self.chain.at {
            return Err(Interrupted::End(LaneEnd::LogBehind {
                checkpoint: self.chain.at,
                head: newest,
            }));
        }
        Ok(())
    }

    /// Whether the log has events of this lane that were not handed over, as of a moment ago.
    fn log_is_ahead(&self) -> bool {
        let head = self.heads.borrow();
        head.as_ref().is_some_and(|head| {
            head.epoch == self.chain.epoch && newest_of(head, &self.lane) > self.chain.at
        })
    }

    async fn catch_up_from_head(&mut self) -> Result<(), Interrupted> {
        let head = self.log.head().await?;
        if head.epoch != self.chain.epoch {
            return Ok(());
        }
        let newest = newest_of(&head, &self.lane);
        if newest > self.chain.at {
            tracing::info!(
                projection = self.projection,
                lane = %self.lane,
                after = %self.chain.at,
                "the stream does not deliver; reading the log"
            );
            self.read_log(newest).await?;
        }
        Ok(())
    }

    /// Takes what the stream delivered, and from the log what it did not.
    async fn take(&mut self, events: Vec<RecordedEvent>) -> Result<(), Interrupted> {
        let mut delivered = events.into_iter();
        loop {
            let mut chain = self.chain;
            let mut run = Vec::with_capacity(delivered.len());
            let taken = chain.take(&mut delivered, &mut run);
            self.emit(run).await?;
            let through = match taken {
                Taken::All => return Ok(()),
                Taken::Newer(epoch) => {
                    return Err(Interrupted::End(LaneEnd::Frozen { epoch }));
                }
                // What is left out here is found as a hole, or when idle.
                Taken::Older => return self.catch_up_from_head().await,
                Taken::Hole(through) => through,
            };
            let after = self.chain.at;
            self.read_log(through).await?;
            if self.chain.at < through {
                return Err(self.missing(after, through));
            }
        }
    }

    fn missing(&self, after: Position, through: Position) -> Interrupted {
        Interrupted::Missing {
            lane: self.lane.clone(),
            after,
            through,
        }
    }

    /// Reads the log from the cursor through a position that is known to be in it, or below the
    /// first one in the stream.
    async fn read_log(&mut self, through: Position) -> Result<(), Interrupted> {
        metrics::counter!("millrace_projection_log_reads_total", "projection" => self.projection)
            .increment(1);
        loop {
            let page = self
                .log
                .read_partition(
                    self.lane.partition,
                    self.chain.at,
                    through,
                    self.max_chunk_events,
                )
                .await?;
            // A page of large events is shorter than asked for, so only an empty one is the end.
            if page.is_empty() {
                return Ok(());
            }
            let mut chain = self.chain;
            match chain.take_from_log(&page) {
                Ok(()) => {}
                Err(Broken::Newer(epoch)) => {
                    return Err(Interrupted::End(LaneEnd::Frozen { epoch }));
                }
                Err(Broken::Gap(at)) => return Err(self.missing(chain.at, at)),
            }
            self.emit(page).await?;
            if chain.at >= through {
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
                .decode(self.lane.clone(), self.chain.epoch, self.chain.at, events);
        if let Some(chunk) = chunk {
            self.chain.at = chunk.through();
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
