use millrace_es::{Position, RecordedEvent, StreamId};
use millrace_kernel::Timestamp;
use sqlx::{Postgres, QueryBuilder, Row, postgres::PgRow};
use time::OffsetDateTime;

use super::{
    PgStore,
    store::{as_i16, read_lane},
};
use crate::{
    dead_letters::{LetterFilter, MAX_REQUESTS_PER_CALL, Requested, Subject},
    error::StoreError,
    generation::GenerationId,
    letter_runs::{LetterSelector, PositionRange},
    letters::{Action, DeadLetter, LetterStatus, Reason, RequestId},
};

pub(super) fn bounded(count: usize) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

/// Narrows a query on `dead_letters l JOIN generations g` to what a filter means.
fn narrow(query: &mut QueryBuilder<Postgres>, projection: &str, filter: &LetterFilter) {
    query.push(" WHERE g.status <> 'retired' AND g.projection = ");
    query.push_bind(projection.to_owned());
    let status = filter.status.unwrap_or(LetterStatus::Pending);
    query.push(" AND l.status = ").push_bind(status.as_str());
    if let Some(context) = &filter.context {
        query
            .push(" AND l.context = ")
            .push_bind(context.as_str().to_owned());
    }
    narrow_to(query, &filter.selector());
}

/// Narrows a query on `dead_letters l` to what a selector names.
pub(super) fn narrow_to(query: &mut QueryBuilder<Postgres>, selector: &LetterSelector) {
    if !selector.keys.is_empty() {
        let keys = selector.keys.iter().map(|key| key.as_str().to_owned());
        query
            .push(" AND l.stream = ANY(")
            .push_bind(keys.collect::<Vec<_>>())
            .push(")");
    }
    if !selector.positions.is_empty() {
        let ends = |end: fn(&PositionRange) -> Position| {
            let ranges = selector.positions.iter();
            ranges.map(|range| end(range).as_i64()).collect::<Vec<_>>()
        };
        query
            .push(" AND EXISTS (SELECT 1 FROM UNNEST(")
            .push_bind(ends(|range| range.from))
            .push(", ")
            .push_bind(ends(|range| range.to))
            .push(") AS r (low, high) WHERE l.position BETWEEN r.low AND r.high)");
    }
    if let Some(reason) = selector.reason {
        query.push(" AND l.reason = ").push_bind(reason.as_str());
    }
    if let Some(since) = selector.since {
        query
            .push(" AND l.first_failure >= ")
            .push_bind(since.get());
    }
    if let Some(until) = selector.until {
        query.push(" AND l.first_failure < ").push_bind(until.get());
    }
}

impl PgStore {
    pub(crate) async fn letters(
        &self,
        projection: &str,
        filter: &LetterFilter,
        limit: usize,
    ) -> Result<Vec<DeadLetter>, StoreError> {
        let mut query = QueryBuilder::new(
            "SELECT g.projection, l.generation, l.context, l.partition, l.position, l.stream,
                    l.event, l.reason, l.error, l.attempts, l.first_failure, l.last_failure, l.status
             FROM dead_letters l JOIN generations g ON g.id = l.generation",
        );
        narrow(&mut query, projection, filter);
        query
            .push(" ORDER BY l.generation, l.context, l.position LIMIT ")
            .push_bind(bounded(limit));
        let rows = query.build().fetch_all(self.control()).await?;
        rows.iter().map(read_letter).collect()
    }

    pub(crate) async fn request(
        &self,
        projection: &str,
        filter: &LetterFilter,
        action: Action,
    ) -> Result<Vec<Requested>, StoreError> {
        let mut query = QueryBuilder::new(
            "SELECT DISTINCT l.generation, l.context, l.partition, l.stream
             FROM dead_letters l JOIN generations g ON g.id = l.generation",
        );
        narrow(&mut query, projection, filter);
        query
            .push(" ORDER BY 1, 2, 3, 4 LIMIT ")
            .push_bind(bounded(MAX_REQUESTS_PER_CALL));
        let rows = query.build().fetch_all(self.control()).await?;
        let subjects = rows
            .iter()
            .map(read_subject)
            .collect::<Result<Vec<_>, _>>()?;
        let rows = sqlx::query(
            "INSERT INTO dead_letter_requests (generation, context, partition, stream, action, position)
             SELECT generation, context, partition, stream, $5, $6
             FROM UNNEST($1::bigint[], $2::text[], $3::smallint[], $4::text[])
                  WITH ORDINALITY AS t (generation, context, partition, stream, nth)
             ORDER BY nth RETURNING id",
        )
        .bind(subjects.iter().map(|one| one.generation.get()).collect::<Vec<_>>())
        .bind(subjects.iter().map(|one| one.lane.context.as_str()).collect::<Vec<_>>())
        .bind(subjects.iter().map(|one| as_i16(one.lane.partition)).collect::<Vec<_>>())
        .bind(subjects.iter().map(|one| one.stream.as_str()).collect::<Vec<_>>())
        .bind(action.as_str())
        .bind(filter.position.map(Position::as_i64))
        .fetch_all(self.control())
        .await?;
        rows.iter()
            .zip(subjects)
            .map(|(row, subject)| {
                let id = RequestId(row.try_get::<i64, _>(0)?.to_string());
                Ok(subject.requested(id, projection, action))
            })
            .collect()
    }

    pub(crate) async fn request_outcome(
        &self,
        request: &Requested,
    ) -> Result<Option<String>, StoreError> {
        let row = sqlx::query("SELECT outcome FROM dead_letter_requests WHERE id = $1")
            .bind(request.id.0.parse::<i64>().unwrap_or(0))
            .fetch_optional(self.control())
            .await?;
        Ok(row.map(|row| row.try_get(0)).transpose()?.flatten())
    }
}

pub(super) fn read_subject(row: &PgRow) -> Result<Subject, StoreError> {
    Ok(Subject {
        generation: GenerationId::new(row.try_get("generation")?),
        lane: read_lane(row)?,
        stream: read_stream(row)?,
    })
}

fn read_stream(row: &PgRow) -> Result<StreamId, StoreError> {
    let stream: String = row.try_get("stream")?;
    StreamId::new(&stream).map_err(|error| StoreError::Unusable(Box::new(error)))
}

fn read_letter(row: &PgRow) -> Result<DeadLetter, StoreError> {
    let event: String = row.try_get("event")?;
    let event: RecordedEvent =
        serde_json::from_str(&event).map_err(|error| StoreError::Unusable(Box::new(error)))?;
    let reason: String = row.try_get("reason")?;
    let status: String = row.try_get("status")?;
    let unknown = |what: &str| StoreError::Unusable(format!("unknown {what} of a letter").into());
    let time = |name: &str| row.try_get::<OffsetDateTime, _>(name).map(Timestamp::new);
    Ok(DeadLetter {
        projection: row.try_get("projection")?,
        generation: GenerationId::new(row.try_get("generation")?),
        lane: read_lane(row)?,
        position: Position::from_i64(row.try_get("position")?),
        stream: read_stream(row)?,
        event,
        reason: Reason::parse(&reason).ok_or_else(|| unknown("reason"))?,
        error: row.try_get("error")?,
        attempts: u32::try_from(row.try_get::<i32, _>("attempts")?).unwrap_or(0),
        first_failure: time("first_failure")?,
        last_failure: time("last_failure")?,
        status: LetterStatus::parse(&status).ok_or_else(|| unknown("status"))?,
    })
}
