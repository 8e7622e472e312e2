//! The event log in DynamoDB: one table per context, whose items are described in [`items`].
//!
//! [`DynamoEventLog::append`] only queues: one task per process, the [`crate::lane`], gathers what
//! waits, [`crate::lane::plan`] decides it, and [`store`] makes it durable in one transaction that
//! moves the head under a condition. One process leads by a [`lease`]; the condition is what keeps
//! the log right. `docs/dynamodb-log.md` says what it costs and needs.

mod calls;
mod failure;
mod items;
mod lease;
mod limits;
mod memory;
mod read;
mod recover;
mod settle;
mod store;
pub mod streams;
mod table;
mod transaction;
mod values;

use std::{fmt, sync::Arc};

use async_trait::async_trait;
use aws_sdk_dynamodb::Client;
use millrace_es::{
    Context, Partition, PartitionCount, Position, RecordedEvent, StreamId, StreamVersion,
};
use tokio::sync::watch;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    AnswerKey, AppendError, AppendRequest, Appended, EventLog, LogError, LogHead, SnapshotRecord,
    StoredAnswer,
    lane::{Faults, Lane, limits::check_partitions, seen::Seen},
};
use calls::Table;
use lease::Lease;
use memory::Memory;
use read::Reader;
use store::{Doubts, Store};

pub use items::{
    BUCKETS, BY_POSITION, EXPIRES, event_from, event_item, inline_key, is_event, table_name,
};
pub use limits::MAX_DYNAMO_APPEND_EVENTS;
pub use table::create_log_table;
pub use values::{BadItem, Item};

/// A table of the write model that is kept in the append's own transaction: rows as items beside the
/// log, each set by the events that change it.
///
/// A row counts against the transaction's 100 items, however many events of a batch change it.
pub trait DynamoInline: Send + Sync {
    /// What an event sets in its row, or `None` if it changes none. It depends on nothing but the
    /// event: what the row held before is not known.
    ///
    /// # Errors
    /// When the event cannot be read; the append that brought it is refused.
    fn change(
        &self,
        event: &RecordedEvent,
    ) -> Result<Option<InlineChange>, Box<dyn std::error::Error + Send + Sync>>;
}

/// What an event sets in a row of the write model. Later events' attributes replace earlier ones';
/// attributes that are not named stay.
#[derive(Debug, Clone, PartialEq)]
pub struct InlineChange {
    /// The table's name.
    pub table: &'static str,
    /// The row's key in it; at most 1 KB.
    pub key: String,
    /// The attributes to set. `pk` and `sk` are the item's own.
    pub set: Item,
}

/// How to open a log.
#[derive(Clone)]
pub struct DynamoLogOptions {
    /// The prefix of the table's name.
    pub namespace: String,
    /// The owner.
    pub context: Context,
    /// How many partitions the log was made with.
    pub partitions: PartitionCount,
    /// The tables kept in the append's transaction.
    pub inline: Vec<Arc<dyn DynamoInline>>,
    /// What happens at the lane's steps. For tests.
    pub faults: Option<Arc<dyn Faults>>,
}

impl DynamoLogOptions {
    /// A log with the default partition count and no tables kept inline.
    #[must_use]
    pub fn new(namespace: impl Into<String>, context: Context) -> Self {
        Self {
            namespace: namespace.into(),
            context,
            partitions: PartitionCount::DEFAULT,
            inline: Vec::new(),
            faults: None,
        }
    }
}

impl fmt::Debug for DynamoLogOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DynamoLogOptions")
            .field("namespace", &self.namespace)
            .field("context", &self.context)
            .field("partitions", &self.partitions)
            .field("inline", &self.inline.len())
            .finish_non_exhaustive()
    }
}

/// One context's event log in DynamoDB. Open it once per process: it owns the process's lane.
pub struct DynamoEventLog {
    reader: Reader,
    lane: Lane,
    inline: Vec<Arc<dyn DynamoInline>>,
    stop: CancellationToken,
    tasks: TaskTracker,
}

impl DynamoEventLog {
    /// Opens a log that [`create_log_table`] or an operator made, and starts its lane. The client's
    /// own retries and timeouts hold for reads; transactions are sent once and judged here.
    ///
    /// # Errors
    /// [`LogError::Missing`] when the log is not there, [`LogError::Misconfigured`] when it has
    /// another partition count, [`LogError::Unreachable`] when the store does not answer.
    pub async fn open(client: Client, options: DynamoLogOptions) -> Result<Self, LogError> {
        let context = options.context;
        let table = Table::of(&client, &options.namespace, &context);
        let (head, _) = table.head().await?;
        check_partitions(&context, head.partitions.len(), options.partitions)?;
        let me = format!("{:032x}", rand::random::<u128>());
        let store = Store {
            context: context.clone(),
            table: table.clone(),
            inline: options.inline.clone(),
            faults: options.faults,
            lease: Lease::new(table.clone(), me),
            seen: Seen::default(),
            memory: Memory::default(),
            doubts: Doubts::default(),
        };
        let stop = CancellationToken::new();
        let tasks = TaskTracker::new();
        let lane = Lane::start(store, head.position, &stop, &tasks);
        tasks.close();
        Ok(Self {
            reader: Reader { context, table },
            lane,
            inline: options.inline,
            stop,
            tasks,
        })
    }

    /// Reads a row of the write model as it is now: with everything that was appended before.
    ///
    /// # Errors
    /// See [`LogError`].
    pub async fn inline_item(&self, table: &str, key: &str) -> Result<Option<Item>, LogError> {
        Ok(self.reader.table.get(inline_key(table, key)).await?)
    }
}

/// The head of a context's log, without opening it.
///
/// # Errors
/// [`LogError::Missing`] when there is no log; else see [`LogError`].
pub async fn log_head(
    client: &Client,
    namespace: &str,
    context: &Context,
) -> Result<LogHead, LogError> {
    let (head, item) = Table::of(client, namespace, context).head().await?;
    Ok(items::log_head(head, &item)?)
}

/// Reads a row of a context's write model as it is now, without opening its log.
///
/// # Errors
/// See [`LogError`].
pub async fn inline_item(
    client: &Client,
    namespace: &str,
    context: &Context,
    table: &str,
    key: &str,
) -> Result<Option<Item>, LogError> {
    let log = Table::of(client, namespace, context);
    Ok(log.get(inline_key(table, key)).await?)
}

impl Drop for DynamoEventLog {
    fn drop(&mut self) {
        // The tasks finish by themselves; whoever wants to know when calls `close`.
        self.stop.cancel();
    }
}

impl fmt::Debug for DynamoEventLog {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DynamoEventLog")
            .field("context", &self.reader.context)
            .field("table", &self.reader.table.name)
            .finish_non_exhaustive()
    }
}

#[async_trait]
impl EventLog for DynamoEventLog {
    fn context(&self) -> &Context {
        &self.reader.context
    }

    async fn append(&self, request: AppendRequest) -> Result<Appended, AppendError> {
        limits::check(&request)?;
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
            .partition(partition, after, through, limit)
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
        recover::halt(&self.reader.table, reason).await?;
        let context = &self.reader.context;
        tracing::error!(%context, reason, "the log is halted; run `millrace log recover`");
        Ok(())
    }

    async fn import_tail(&self, events: Vec<RecordedEvent>) -> Result<LogHead, LogError> {
        let head = recover::import(&self.reader, &self.inline, &events).await?;
        self.lane.announce(head.position);
        Ok(head)
    }

    async fn start_epoch(&self) -> Result<LogHead, LogError> {
        recover::start_epoch(&self.reader.table).await?;
        self.reader.head().await
    }

    async fn resume(&self) -> Result<(), LogError> {
        Ok(recover::resume(&self.reader.table).await?)
    }

    fn appended(&self) -> watch::Receiver<Position> {
        self.lane.appended()
    }
    /// It also lets go of the lease, so that nobody waits for it.
    async fn close(&self) {
        self.stop.cancel();
        self.tasks.wait().await;
    }
}
