//! Reading: pages of a stream, of the log, of a partition; the head; kept answers; snapshots.
//!
//! A stream is read consistently, by its own key. The log is read through the index by position,
//! which follows the table after a moment: what the head says is there and the index does not show
//! yet is waited for, so that no reader steps over it.

use std::{
    collections::HashMap,
    ops::RangeInclusive,
    time::{Duration, Instant},
};

use aws_sdk_dynamodb::operation::query::builders::QueryFluentBuilder;
use futures::{StreamExt, TryStreamExt, stream};
use millrace_es::{Context, Epoch, Partition, Position, RecordedEvent, StreamId, StreamVersion};
use millrace_kernel::Timestamp;

use super::{
    calls::{Expression, Table},
    failure::Failure,
    items::{self, BUCKETS, BY_POSITION, bucket, event_from, stream_pk},
    values::{Item, PK, SK, number, text},
};
use crate::{
    AnswerKey, LogError, LogHead, MAX_PAGE_BYTES, MAX_PAGE_EVENTS, SnapshotRecord, StoredAnswer,
    halted::show_halted,
};

/// How long a position that the head says is there may be missing from the index, or a version from
/// the middle of its stream, until the read fails.
const HOLE_WAIT_MS: u64 = 5_000;
/// The pauses before it is looked for again: doubled from the first to the second.
const FIRST_HOLE_PAUSE_MS: u64 = 5;
const MAX_HOLE_PAUSE_MS: u64 = 250;
/// How many positions are asked for at once: 64 of each bucket.
const MAX_WINDOW_EVENTS: u64 = 1_024;

/// What reading needs.
#[derive(Debug, Clone)]
pub(super) struct Reader {
    pub context: Context,
    pub table: Table,
}

/// A page as it grows, up to its bounds.
struct Page {
    events: Vec<RecordedEvent>,
    limit: usize,
    bytes: usize,
}

impl Page {
    fn new(limit: usize) -> Self {
        Self {
            events: Vec::new(),
            limit: limit.min(MAX_PAGE_EVENTS),
            bytes: 0,
        }
    }

    fn push(&mut self, event: RecordedEvent) {
        self.bytes += event.payload.get().len();
        self.events.push(event);
    }

    fn room(&self) -> usize {
        self.limit - self.events.len()
    }

    fn is_full(&self) -> bool {
        self.room() == 0 || self.bytes > MAX_PAGE_BYTES
    }
}

/// Waits for what has to come, ever longer, up to a bound.
struct Patience {
    deadline: Instant,
    pause: Duration,
}

impl Patience {
    fn new() -> Self {
        Self {
            deadline: Instant::now() + Duration::from_millis(HOLE_WAIT_MS),
            pause: Duration::from_millis(FIRST_HOLE_PAUSE_MS),
        }
    }

    /// `false` when the bound is reached.
    async fn wait(&mut self) -> bool {
        if Instant::now() >= self.deadline {
            return false;
        }
        tokio::time::sleep(self.pause).await;
        self.pause = (self.pause * 2).min(Duration::from_millis(MAX_HOLE_PAUSE_MS));
        true
    }
}

impl Reader {
    pub(super) async fn head(&self) -> Result<LogHead, LogError> {
        let (head, item) = self.table.head().await?;
        let head = items::log_head(head, &item)?;
        show_halted(&self.context, head.halted.is_some());
        Ok(head)
    }

    pub(super) async fn stream(
        &self,
        stream: &StreamId,
        after: StreamVersion,
        limit: usize,
    ) -> Result<Vec<RecordedEvent>, LogError> {
        let (events, head) = tokio::join!(self.versions(stream, after, limit), self.table.head());
        let (head, _) = head?;
        Ok(of_epoch(events?, head.epoch))
    }

    /// A stream's events. A query beside a transaction may see some of its items and others not
    /// yet, so a version that is missing in between is asked for again.
    async fn versions(
        &self,
        stream: &StreamId,
        after: StreamVersion,
        limit: usize,
    ) -> Result<Vec<RecordedEvent>, LogError> {
        let mut page = Page::new(limit);
        let mut patience = Patience::new();
        let mut next = after.next();
        while !page.is_full() {
            let (items, more) = self.query_versions(stream, next, page.room()).await?;
            let before = next;
            let mut hole = false;
            for item in &items {
                let event = event_from(&self.context, item)?;
                hole = event.version != next;
                if hole || page.is_full() {
                    break;
                }
                next = next.next();
                page.push(event);
            }
            if hole && next == before && !patience.wait().await {
                return Err(LogError::Corrupt(format!(
                    "stream {stream} has events behind version {next} and not {next}"
                )));
            }
            if !hole && !more {
                break;
            }
        }
        Ok(page.events)
    }

    async fn query_versions(
        &self,
        stream: &StreamId,
        from: StreamVersion,
        limit: usize,
    ) -> Result<(Vec<Item>, bool), Failure> {
        let mut expression = Expression::default();
        let condition = format!(
            "{} AND {} >= {}",
            expression.equals(PK, text(stream_pk(stream))),
            expression.name(SK),
            expression.value(number(from))
        );
        let query = self
            .table
            .client
            .query()
            .table_name(&self.table.name)
            .consistent_read(true)
            .limit(i32::try_from(limit).unwrap_or(i32::MAX));
        let (items, more) = self.query(query, condition, expression).await?;
        // One page of DynamoDB ends at 1 MB or at the limit, whichever comes first.
        Ok((items, more))
    }

    async fn query(
        &self,
        query: QueryFluentBuilder,
        condition: String,
        expression: Expression,
    ) -> Result<(Vec<Item>, bool), Failure> {
        let answer = query
            .key_condition_expression(condition)
            .set_expression_attribute_names(Some(expression.names))
            .set_expression_attribute_values(Some(expression.values))
            .send()
            .await
            .map_err(Failure::of)?;
        let more = answer.last_evaluated_key.is_some_and(|key| !key.is_empty());
        Ok((answer.items.unwrap_or_default(), more))
    }

    pub(super) async fn log(
        &self,
        after: Position,
        limit: usize,
    ) -> Result<Vec<RecordedEvent>, LogError> {
        let (head, _) = self.table.head().await?;
        let mut page = Page::new(limit);
        let window = page.limit as u64;
        self.fill(&mut page, after, head.position, window, |_| true)
            .await?;
        Ok(of_epoch(page.events, head.epoch))
    }

    /// There is no index by partition: its events are those of the log, read in order, without the
    /// others. The partition's newest position in the head says where to end.
    pub(super) async fn partition(
        &self,
        partition: Partition,
        after: Position,
        through: Position,
        limit: usize,
    ) -> Result<Vec<RecordedEvent>, LogError> {
        let (head, _) = self.table.head().await?;
        let newest = head.partitions.get(usize::from(partition.get()));
        let through = through.min(newest.copied().unwrap_or_default());
        let mut page = Page::new(limit);
        let of_partition = |event: &RecordedEvent| event.partition == partition;
        self.fill(&mut page, after, through, MAX_WINDOW_EVENTS, of_partition)
            .await?;
        Ok(of_epoch(page.events, head.epoch))
    }

    /// Fills a page with the wanted events of the log, every position seen, so many at a time.
    async fn fill(
        &self,
        page: &mut Page,
        after: Position,
        through: Position,
        window: u64,
        wanted: impl Fn(&RecordedEvent) -> bool + Send,
    ) -> Result<(), LogError> {
        let mut next = after.next();
        let mut patience = Patience::new();
        let window = window.clamp(1, MAX_WINDOW_EVENTS);
        while next <= through && !page.is_full() {
            let last = through.min(next.plus(window - 1));
            let mut found = self.window(next.get()..=last.get()).await?;
            let before = next;
            while let Some(event) = found.remove(&next.get()) {
                next = next.next();
                if wanted(&event) {
                    page.push(event);
                }
                if page.is_full() || next > through {
                    return Ok(());
                }
            }
            if next > before {
                // A bucket whose page of DynamoDB was full, or a hole: the next round tells.
                patience = Patience::new();
            } else if !patience.wait().await {
                return Err(LogError::Unreachable(
                    format!(
                        "the index {BY_POSITION} of {} has not shown position {next} for \
                         {HOLE_WAIT_MS} ms, and the head is at {through} or beyond; try again, and \
                         if it stays so look whether the index is being built",
                        self.table.name
                    )
                    .into(),
                ));
            }
        }
        Ok(())
    }

    /// What the index shows of a range of positions: of each bucket at most one page of DynamoDB, so
    /// that what is held of them is bounded.
    async fn window(
        &self,
        range: RangeInclusive<u64>,
    ) -> Result<HashMap<u64, RecordedEvent>, LogError> {
        let (first, last) = (*range.start(), *range.end());
        // As many buckets as the range has positions, and no more than there are.
        let buckets = range.take(usize::try_from(BUCKETS).unwrap_or(usize::MAX));
        let pages: Vec<Vec<Item>> = stream::iter(buckets)
            .map(|position| self.query_bucket(bucket(Position::new(position)), first, last))
            .buffer_unordered(usize::try_from(BUCKETS).unwrap_or(1))
            .try_collect()
            .await?;
        let mut found = HashMap::new();
        for item in pages.iter().flatten() {
            let event = event_from(&self.context, item)?;
            let position = event.position;
            if let Some(other) = found.insert(position.get(), event) {
                return Err(LogError::Corrupt(format!(
                    "two events of {} are at position {position}; one is {}",
                    self.table.name, other.id
                )));
            }
        }
        Ok(found)
    }

    async fn query_bucket(&self, bucket: u64, first: u64, last: u64) -> Result<Vec<Item>, Failure> {
        let mut expression = Expression::default();
        let condition = format!(
            "{} AND {} BETWEEN {} AND {}",
            expression.equals(items::BUCKET, number(bucket)),
            expression.name(items::POSITION),
            expression.value(number(first)),
            expression.value(number(last))
        );
        let query = self
            .table
            .client
            .query()
            .table_name(&self.table.name)
            .index_name(BY_POSITION);
        let (items, _) = self.query(query, condition, expression).await?;
        Ok(items)
    }

    pub(super) async fn answer(&self, key: &AnswerKey) -> Result<Option<StoredAnswer>, LogError> {
        let item = self.table.get(items::answer_key(&key.key_hash)).await?;
        let Some(item) = item else { return Ok(None) };
        let (stored, expires) = items::answer_from(&item)?;
        Ok((expires > Timestamp::now().get().unix_timestamp()).then_some(stored))
    }

    pub(super) async fn load_snapshot(
        &self,
        stream: &StreamId,
    ) -> Result<Option<SnapshotRecord>, LogError> {
        let item = self.table.get(items::snapshot_key(stream)).await?;
        Ok(item.as_ref().map(items::snapshot_from).transpose()?)
    }

    /// Keeps a snapshot unless one of a newer form, or of its form and a newer version, is there.
    pub(super) async fn save_snapshot(
        &self,
        stream: &StreamId,
        snapshot: &SnapshotRecord,
    ) -> Result<(), LogError> {
        let mut expression = Expression::default();
        let form = expression.name(items::SNAPSHOT_VERSION);
        let version = expression.name(items::VERSION);
        let new_form = expression.value(number(snapshot.snapshot_version));
        let new_version = expression.value(number(snapshot.version));
        let condition = format!(
            "attribute_not_exists({}) OR {form} < {new_form} OR \
             ({form} = {new_form} AND {version} < {new_version})",
            expression.name(PK)
        );
        let put = self
            .table
            .client
            .put_item()
            .table_name(&self.table.name)
            .set_item(Some(items::snapshot_item(stream, snapshot)))
            .condition_expression(condition)
            .set_expression_attribute_names(Some(expression.names))
            .set_expression_attribute_values(Some(expression.values))
            .send()
            .await;
        match put {
            Err(error)
                if !error
                    .as_service_error()
                    .is_some_and(|refused| refused.is_conditional_check_failed_exception()) =>
            {
                Err(Failure::of(error).into())
            }
            _ => Ok(()),
        }
    }
}

/// Events as readers see them: of the epoch that the log is in, not of that in which they came.
fn of_epoch(mut events: Vec<RecordedEvent>, epoch: Epoch) -> Vec<RecordedEvent> {
    for event in &mut events {
        event.epoch = epoch;
    }
    events
}
