//! Reading: pages of a stream, of the log, of a partition; the head; kept answers; snapshots.

use std::borrow::Cow;

use futures::{Stream, TryStreamExt};
use millrace_es::{
    Context, Epoch, EventId, Partition, PartitionCount, Position, RecordedEvent, StreamId,
    StreamVersion,
};
use millrace_kernel::Timestamp;
use serde_json::value::RawValue;
use sqlx::{PgPool, Row, postgres::PgRow};
use time::OffsetDateTime;

use super::sql::Statements;
use crate::{
    Answer, AnswerKey, LogError, LogHead, MAX_PAGE_BYTES, MAX_PAGE_EVENTS, SnapshotRecord,
    StoredAnswer, halted::show_halted,
};

/// What reading needs.
pub(super) struct Reader {
    pub context: Context,
    pub pool: PgPool,
    pub statements: std::sync::Arc<Statements>,
}

impl Reader {
    pub(super) async fn stream(
        &self,
        stream: &StreamId,
        after: StreamVersion,
        limit: usize,
    ) -> Result<Vec<RecordedEvent>, LogError> {
        let query = sqlx::query(&self.statements.stream)
            .bind(stream.as_str())
            .bind(after.as_i64())
            .bind(page(limit));
        self.page(query.fetch(&self.pool)).await
    }

    pub(super) async fn log(
        &self,
        after: Position,
        limit: usize,
    ) -> Result<Vec<RecordedEvent>, LogError> {
        let query = sqlx::query(&self.statements.log)
            .bind(after.as_i64())
            .bind(page(limit));
        let events = self.page(query.fetch(&self.pool)).await?;
        let gap = events
            .iter()
            .zip(1..)
            .find(|(event, offset)| event.position != after.plus(*offset));
        match gap {
            None => Ok(events),
            Some((event, offset)) => Err(LogError::Corrupt(format!(
                "the log of {} has position {} where {} should be",
                self.context,
                event.position,
                after.plus(offset)
            ))),
        }
    }

    pub(super) async fn partitions(
        &self,
        partitions: &[Partition],
        after: Position,
        through: Position,
        limit: usize,
    ) -> Result<Vec<RecordedEvent>, LogError> {
        let numbers: Vec<i16> = partitions
            .iter()
            .map(|partition| super::copy::small(partition.get()))
            .collect();
        let query = sqlx::query(&self.statements.partitions)
            .bind(numbers)
            .bind(after.as_i64())
            .bind(through.as_i64())
            .bind(page(limit));
        self.page(query.fetch(&self.pool)).await
    }

    async fn page(
        &self,
        mut rows: impl Stream<Item = Result<PgRow, sqlx::Error>> + Unpin,
    ) -> Result<Vec<RecordedEvent>, LogError> {
        let mut events = Vec::new();
        let mut bytes = 0;
        while let Some(row) = rows.try_next().await.map_err(LogError::unreachable)? {
            let event = event(&self.context, &row)?;
            bytes += event.payload.get().len();
            events.push(event);
            if bytes > MAX_PAGE_BYTES {
                break;
            }
        }
        Ok(events)
    }

    pub(super) async fn head(&self) -> Result<LogHead, LogError> {
        let row = sqlx::query(&self.statements.head)
            .fetch_one(&self.pool)
            .await
            .map_err(LogError::unreachable)?;
        let head = head(&self.context, &row)?;
        show_halted(&self.context, head.halted.is_some());
        Ok(head)
    }

    pub(super) async fn answer(&self, key: &AnswerKey) -> Result<Option<StoredAnswer>, LogError> {
        let row = sqlx::query(&self.statements.answers)
            .bind([key.key_hash.as_slice()].as_slice())
            .fetch_optional(&self.pool)
            .await
            .map_err(LogError::unreachable)?;
        let Some(row) = row else { return Ok(None) };
        let (stored, expired) = answer(&row)?;
        Ok((!expired).then_some(stored))
    }

    pub(super) async fn load_snapshot(
        &self,
        stream: &StreamId,
    ) -> Result<Option<SnapshotRecord>, LogError> {
        let row = sqlx::query(&self.statements.load_snapshot)
            .bind(stream.as_str())
            .fetch_optional(&self.pool)
            .await
            .map_err(LogError::unreachable)?;
        let Some(row) = row else { return Ok(None) };
        let read = || -> Result<_, sqlx::Error> {
            Ok((
                row.try_get::<i64, _>("version")?,
                row.try_get::<i32, _>("snapshot_version")?,
                row.try_get::<String, _>("state")?,
            ))
        };
        let (version, snapshot_version, state) = read().map_err(corrupt)?;
        Ok(Some(SnapshotRecord {
            version: StreamVersion::from_i64(version),
            // A number this code never wrote is some other release's: discarded like one.
            snapshot_version: u16::try_from(snapshot_version).unwrap_or(u16::MAX),
            state: raw(state)?,
        }))
    }

    pub(super) async fn save_snapshot(
        &self,
        stream: &StreamId,
        snapshot: &SnapshotRecord,
    ) -> Result<(), LogError> {
        sqlx::query(&self.statements.save_snapshot)
            .bind(stream.as_str())
            .bind(snapshot.version.as_i64())
            .bind(i32::from(snapshot.snapshot_version))
            .bind(snapshot.state.get())
            .execute(&self.pool)
            .await
            .map(|_| ())
            .map_err(LogError::unreachable)
    }
}

fn page(limit: usize) -> i64 {
    i64::try_from(limit.min(MAX_PAGE_EVENTS)).unwrap_or(i64::MAX)
}

fn corrupt(error: impl std::fmt::Display) -> LogError {
    LogError::Corrupt(error.to_string())
}

fn raw(text: String) -> Result<Box<RawValue>, LogError> {
    RawValue::from_string(text).map_err(corrupt)
}

/// A row of `events` as the event it holds.
fn event(context: &Context, row: &PgRow) -> Result<RecordedEvent, LogError> {
    let read = || -> Result<_, sqlx::Error> {
        let number = |column| row.try_get::<i64, _>(column);
        Ok((
            RecordedEvent {
                id: EventId::new(row.try_get("event_id")?),
                context: context.clone(),
                epoch: Epoch::from_i64(number("epoch")?),
                position: Position::from_i64(number("position")?),
                partition: Partition::new(unsigned(row.try_get("partition")?)),
                previous: Position::from_i64(number("previous")?),
                stream: StreamId::new(row.try_get("stream")?)
                    .map_err(|error| sqlx::Error::Decode(error.into()))?,
                version: StreamVersion::from_i64(number("version")?),
                event_type: Cow::Owned(row.try_get("event_type")?),
                schema_version: unsigned(row.try_get("schema_version")?),
                payload: RawValue::NULL.to_owned(),
                metadata: std::sync::Arc::new(
                    serde_json::from_str(row.try_get("metadata")?)
                        .map_err(|error| sqlx::Error::Decode(error.into()))?,
                ),
                recorded_at: Timestamp::new(row.try_get::<OffsetDateTime, _>("recorded_at")?),
            },
            row.try_get::<String, _>("payload")?,
        ))
    };
    let (mut event, payload) = read().map_err(corrupt)?;
    event.payload = raw(payload)?;
    Ok(event)
}

fn unsigned(number: i16) -> u16 {
    u16::try_from(number).unwrap_or(0)
}

pub(super) fn head(context: &Context, row: &PgRow) -> Result<LogHead, LogError> {
    let read = || -> Result<_, sqlx::Error> {
        Ok((
            row.try_get::<i64, _>("position")?,
            row.try_get::<i64, _>("epoch")?,
            row.try_get::<i16, _>("partition_count")?,
            row.try_get::<Vec<i64>, _>("partition_positions")?,
            row.try_get::<Option<String>, _>("halted")?,
        ))
    };
    let (position, epoch, count, positions, halted) = read().map_err(corrupt)?;
    let partitions = PartitionCount::new(unsigned(count)).map_err(corrupt)?;
    if positions.len() != usize::from(partitions.get()) {
        return Err(LogError::Corrupt(format!(
            "the head of {context} says {count} partitions and holds positions of {}",
            positions.len()
        )));
    }
    Ok(LogHead {
        position: Position::from_i64(position),
        epoch: Epoch::from_i64(epoch),
        partitions,
        partition_positions: positions.into_iter().map(Position::from_i64).collect(),
        halted,
    })
}

/// A row of `answers`, and whether it has expired.
pub(super) fn answer(row: &PgRow) -> Result<(StoredAnswer, bool), LogError> {
    let read = || -> Result<_, sqlx::Error> {
        Ok((
            row.try_get::<Vec<u8>, _>("key_hash")?,
            row.try_get::<Vec<u8>, _>("request_hash")?,
            row.try_get::<i16, _>("status")?,
            row.try_get::<String, _>("headers")?,
            row.try_get::<Vec<u8>, _>("body")?,
            row.try_get::<String, _>("token")?,
            row.try_get::<bool, _>("expired")?,
        ))
    };
    let (key_hash, request_hash, status, headers, body, token, expired) =
        read().map_err(corrupt)?;
    let hash = |bytes: Vec<u8>| {
        <[u8; 32]>::try_from(bytes).map_err(|_| corrupt("a hash in answers has not 32 bytes"))
    };
    let stored = StoredAnswer {
        key: AnswerKey {
            key_hash: hash(key_hash)?,
            request_hash: hash(request_hash)?,
        },
        answer: Answer {
            status: unsigned(status),
            headers: serde_json::from_str(&headers).map_err(corrupt)?,
            body: body.into(),
        },
        token: token.parse().map_err(corrupt)?,
    };
    Ok((stored, expired))
}
