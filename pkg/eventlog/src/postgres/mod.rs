//! The event log in PostgreSQL.
//!
//! [`PgEventLog::append`] only queues: one task per process, the [`crate::lane`], gathers what waits,
//! [`crate::lane::plan`] decides it in memory, and [`store`] makes it durable in one transaction under the lock
//! of the one row of `log_lane`. Readers go to the pool.

mod copy;
mod failure;
mod guard;
mod guess;
mod probe;
mod read;
mod recover;
mod schema;
mod session;
mod settle;
mod sql;
mod store;
mod sweep;

use std::{fmt, sync::Arc};

use async_trait::async_trait;
use millrace_es::{
    Context, Partition, PartitionCount, Position, RecordedEvent, StreamId, StreamVersion,
};
use sqlx::{PgConnection, PgPool};
use tokio::sync::watch;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    AnswerKey, AppendError, AppendRequest, Appended, EventLog, LogError, LogHead, SnapshotRecord,
    StoredAnswer,
    lane::{Faults, Lane, limits::check_partitions, seen::Seen},
};
use read::Reader;
use store::Store;

pub use schema::{Migration, migrate};

/// A table of the write model that is kept in the append's own transaction.
#[async_trait]
pub trait PgInlineTable: Send + Sync {
    /// Takes over the effects of events, in their order; in bulk, in as few statements as it can.
    /// The connection is inside the append's transaction and its `search_path` is the context's
    /// schema.
    ///
    /// # Errors
    /// When a statement fails. An error that blames the data (a value out of range, a constraint)
    /// refuses the append that brought it, any other one is taken for passing and tried again.
    async fn apply(
        &self,
        conn: &mut PgConnection,
        events: &[RecordedEvent],
    ) -> Result<(), sqlx::Error>;
}

/// How to open a log.
#[derive(Clone)]
pub struct PgLogOptions {
    /// The owner; also the schema.
    pub context: Context,
    /// How many partitions the log was made with.
    pub partitions: PartitionCount,
    /// The tables kept in the append's transaction, in the order in which they are written.
    pub inline: Vec<Arc<dyn PgInlineTable>>,
    /// What happens at the lane's steps. For tests.
    pub faults: Option<Arc<dyn Faults>>,
}

impl PgLogOptions {
    /// A log with the default partition count and no tables kept inline.
    #[must_use]
    pub fn new(context: Context) -> Self {
        Self {
            context,
            partitions: PartitionCount::DEFAULT,
            inline: Vec::new(),
            faults: None,
        }
    }
}

impl fmt::Debug for PgLogOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PgLogOptions")
            .field("context", &self.context)
            .field("partitions", &self.partitions)
            .field("inline", &self.inline.len())
            .finish_non_exhaustive()
    }
}

/// One context's event log in PostgreSQL. Open it once per process: it owns the process's lane.
pub struct PgEventLog {
    reader: Reader,
    lane: Lane,
    inline: Vec<Arc<dyn PgInlineTable>>,
    stop: CancellationToken,
    tasks: TaskTracker,
}

impl PgEventLog {
    /// Opens a log that [`migrate`] made, and starts its lane. The lane has a connection of its
    /// own, with the pool's settings; reads use the pool.
    ///
    /// # Errors
    /// [`LogError::Missing`] when the log has no head, [`LogError::Misconfigured`] when its schema
    /// is not there or it has another partition count, [`LogError::Unreachable`] when the store
    /// does not answer.
    pub async fn open(pool: PgPool, options: PgLogOptions) -> Result<Self, LogError> {
        let context = options.context;
        let statements = Arc::new(sql::Statements::new(&context));
        let reader = Reader {
            context: context.clone(),
            pool,
            statements: Arc::clone(&statements),
        };
        let head = reader.head().await?;
        let stored = usize::from(head.partitions.get());
        check_partitions(&context, stored, options.partitions)?;
        let store = Store {
            context: context.clone(),
            statements,
            inline: options.inline.clone(),
            faults: options.faults,
            options: session::lane_options(&reader.pool.connect_options(), &context),
            conn: None,
            contended: false,
            seen: Seen::default(),
            left: None,
            clock: None,
        };
        let stop = CancellationToken::new();
        let tasks = TaskTracker::new();
        let lane = Lane::start(store, head.position, &stop, &tasks);
        tasks.spawn(sweep::run(
            reader.pool.clone(),
            Arc::clone(&reader.statements),
            context,
            stop.clone(),
        ));
        tasks.close();
        Ok(Self {
            reader,
            lane,
            inline: options.inline,
            stop,
            tasks,
        })
    }
}

impl Drop for PgEventLog {
    fn drop(&mut self) {
        // The tasks finish by themselves; whoever wants to know when calls `close`.
        self.stop.cancel();
    }
}

impl fmt::Debug for PgEventLog {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PgEventLog")
            .field("context", &self.reader.context)
            .finish_non_exhaustive()
    }
}

/// The head of a context's log, without opening it.
///
/// # Errors
/// [`LogError::Missing`] when there is no log; else see [`LogError`].
pub async fn log_head(pool: &PgPool, context: &Context) -> Result<LogHead, LogError> {
    let missing = || {
        LogError::Missing(format!(
            "there is no event log of {context} in this database: run `millrace migrate`, or name \
             another database"
        ))
    };
    let there: bool = sqlx::query_scalar("SELECT to_regclass($1) IS NOT NULL")
        .bind(format!("{context}.log_head"))
        .fetch_one(pool)
        .await
        .map_err(LogError::unreachable)?;
    if !there {
        return Err(missing());
    }
    let row = sqlx::query(&sql::Statements::new(context).head)
        .fetch_optional(pool)
        .await
        .map_err(LogError::unreachable)?;
    read::head(context, &row.ok_or_else(missing)?)
}

#[async_trait]
impl EventLog for PgEventLog {
    fn context(&self) -> &Context {
        &self.reader.context
    }

    async fn append(&self, request: AppendRequest) -> Result<Appended, AppendError> {
        self.lane.append(request).await
    }

    async fn read_stream(
        &self,
        stream: &StreamId,
        after: StreamVersion,
        limit: usize,
    ) -> Result<Vec<RecordedEvent>, LogError> {
        self.reader.stream(stream, after, limit).await
    }

    async fn read_log(
        &self,
        after: Position,
        limit: usize,
    ) -> Result<Vec<RecordedEvent>, LogError> {
        self.reader.log(after, limit).await
    }

    async fn read_partition(
        &self,
        partition: Partition,
        after: Position,
        through: Position,
        limit: usize,
    ) -> Result<Vec<RecordedEvent>, LogError> {
        self.reader
            .partitions(&[partition], after, through, limit)
            .await
    }

    async fn read_partitions(
        &self,
        partitions: &[Partition],
        after: Position,
        through: Position,
        limit: usize,
    ) -> Result<Vec<RecordedEvent>, LogError> {
        self.reader
            .partitions(partitions, after, through, limit)
            .await
    }

    async fn head(&self) -> Result<LogHead, LogError> {
        self.reader.head().await
    }

    async fn stored_answer(&self, key: &AnswerKey) -> Result<Option<StoredAnswer>, LogError> {
        self.reader.answer(key).await
    }

    async fn load_snapshot(&self, stream: &StreamId) -> Result<Option<SnapshotRecord>, LogError> {
        self.reader.load_snapshot(stream).await
    }

    async fn save_snapshot(
        &self,
        stream: &StreamId,
        snapshot: SnapshotRecord,
    ) -> Result<(), LogError> {
        self.reader.save_snapshot(stream, &snapshot).await
    }

    async fn halt(&self, reason: &str) -> Result<(), LogError> {
        self.reader.halt(reason).await
    }

    async fn import_tail(&self, events: Vec<RecordedEvent>) -> Result<LogHead, LogError> {
        let head = recover::import(&self.reader, self.inline.clone(), &events).await?;
        self.lane.announce(head.position);
        Ok(head)
    }

    async fn start_epoch(&self) -> Result<LogHead, LogError> {
        self.reader.start_epoch().await
    }

    async fn resume(&self) -> Result<(), LogError> {
        self.reader.resume().await
    }

    fn appended(&self) -> watch::Receiver<Position> {
        self.lane.appended()
    }

    async fn close(&self) {
        self.stop.cancel();
        self.tasks.wait().await;
    }
}
