use std::collections::{HashMap, HashSet};

use millrace_es::{Position, RecordedEvent, StreamId};
use sqlx::{Connection, PgConnection, QueryBuilder, Row, postgres::PgRow};

use super::{
    PgView,
    dead_letters::narrow_to,
    runs,
    store::{as_i16, read_lane},
};
use crate::{
    batch::{Batch, NewLetter, Parked, describe},
    error::{PgClass, StoreError, classify},
    generation::{Checkpoint, GenerationId, Lane},
    letter_runs::{LetterSelector, RunPart, RunStatus},
    letters::{Action, LetterStatus, Reason, RequestId},
    owner::Owner,
    store::{Request, Settled},
};

/// Letters that one transaction of a redrive takes; the request stays open while there are more.
const MAX_REDRIVE_LETTERS: i64 = 500;

/// Requests that an owner takes up at a time.
const MAX_REQUESTS: i64 = 50;

/// Keeps letters and parks their streams, in the batch's transaction.
pub(super) async fn insert(
    conn: &mut PgConnection,
    generation: GenerationId,
    letters: &[NewLetter],
) -> Result<(), sqlx::Error> {
    if letters.is_empty() {
        return Ok(());
    }
    let events: Vec<String> = letters
        .iter()
        .map(|letter| serde_json::to_string(&letter.event))
        .collect::<Result<_, _>>()
        .map_err(|error| sqlx::Error::Encode(Box::new(error)))?;
    let contexts: Vec<&str> = letters
        .iter()
        .map(|one| one.lane.context.as_str())
        .collect();
    let partitions: Vec<i16> = letters
        .iter()
        .map(|one| as_i16(one.lane.partition))
        .collect();
    let positions: Vec<i64> = letters
        .iter()
        .map(|one| one.event.position.as_i64())
        .collect();
    let streams: Vec<&str> = letters
        .iter()
        .map(|one| one.event.stream.as_str())
        .collect();
    sqlx::query(
        "INSERT INTO projections.dead_letters
             (generation, context, partition, position, stream, event_type, event, reason, error)
         SELECT $1, * FROM UNNEST($2::text[], $3::smallint[], $4::bigint[], $5::text[], $6::text[], $7::text[], $8::text[], $9::text[])
         ON CONFLICT DO NOTHING",
    )
    .bind(generation.get())
    .bind(&contexts)
    .bind(&partitions)
    .bind(&positions)
    .bind(&streams)
    .bind(letters.iter().map(|one| one.event.event_type.replace('\0', "")).collect::<Vec<_>>())
    .bind(events)
    .bind(letters.iter().map(|one| one.reason.as_str()).collect::<Vec<_>>())
    .bind(letters.iter().map(|one| one.error.as_str()).collect::<Vec<_>>())
    .execute(&mut *conn)
    .await?;
    sqlx::query(
        "INSERT INTO projections.parked_keys (generation, context, partition, stream, since)
         SELECT $1, context, partition, stream, min(position)
         FROM UNNEST($2::text[], $3::smallint[], $4::text[], $5::bigint[]) AS t (context, partition, stream, position)
         GROUP BY context, partition, stream
         ON CONFLICT DO NOTHING",
    )
    .bind(generation.get())
    .bind(&contexts)
    .bind(&partitions)
    .bind(&streams)
    .bind(&positions)
    .execute(conn)
    .await?;
    Ok(())
}

pub(super) async fn parked(
    conn: &mut PgConnection,
    generation: GenerationId,
    lane: &Lane,
) -> Result<HashSet<StreamId>, StoreError> {
    let rows = sqlx::query(
        "SELECT stream FROM projections.parked_keys
         WHERE generation = $1 AND context = $2 AND partition = $3",
    )
    .bind(generation.get())
    .bind(lane.context.as_str())
    .bind(as_i16(lane.partition))
    .fetch_all(conn)
    .await?;
    rows.iter()
        .map(|row| stream_id(&row.try_get::<String, _>(0)?))
        .collect()
}

fn stream_id(text: &str) -> Result<StreamId, StoreError> {
    StreamId::new(text).map_err(|error| StoreError::Unusable(Box::new(error)))
}

pub(super) async fn requests(
    conn: &mut PgConnection,
    generation: GenerationId,
    lanes: &[Lane],
) -> Result<Vec<Request>, StoreError> {
    let rows = sqlx::query(
        "SELECT r.id, r.context, r.partition, r.stream, r.action, r.position, r.run, r.max_letters
         FROM projections.dead_letter_requests r
         JOIN UNNEST($2::text[], $3::smallint[]) AS l (context, partition) USING (context, partition)
         WHERE r.generation = $1 AND r.finished_at IS NULL ORDER BY r.id LIMIT $4",
    )
    .bind(generation.get())
    .bind(lanes.iter().map(|lane| lane.context.as_str()).collect::<Vec<_>>())
    .bind(lanes.iter().map(|lane| as_i16(lane.partition)).collect::<Vec<_>>())
    .bind(MAX_REQUESTS)
    .fetch_all(conn)
    .await?;
    rows.iter().map(read_request).collect()
}

fn read_request(row: &PgRow) -> Result<Request, StoreError> {
    let action: String = row.try_get("action")?;
    let owner: Option<String> = row.try_get("run")?;
    let max_letters: Option<i64> = row.try_get("max_letters")?;
    let part = owner.map(|owner| {
        Ok::<_, StoreError>(RunPart {
            owner: Owner::new(&owner)?,
            max_letters: max_letters.map(|max| u64::try_from(max).unwrap_or(0)),
        })
    });
    Ok(Request {
        id: RequestId(row.try_get::<i64, _>("id")?.to_string()),
        lane: read_lane(row)?,
        stream: stream_id(&row.try_get::<String, _>("stream")?)?,
        action: Action::parse(&action)
            .ok_or_else(|| StoreError::Invalid(format!("unknown action {action:?}")))?,
        position: row
            .try_get::<Option<i64>, _>("position")?
            .map(Position::from_i64),
        part: part.transpose()?,
    })
}

/// What a letter that was tried again failed on, if it failed for good.
pub(super) type Tried = Option<(Reason, String)>;

/// How letters are tried again.
#[derive(Clone, Copy)]
pub(super) enum Again<'a> {
    /// Folded into the rows, in the transaction that settles them.
    Fold(&'a dyn PgView),
    /// Performed before the transaction; this is what came of those that were tried.
    Performed(&'a HashMap<Position, Tried>),
}

/// Does a request in the transaction that holds its lane's checkpoint.
pub(super) async fn settle(
    conn: &mut PgConnection,
    generation: GenerationId,
    again: Again<'_>,
    request: &Request,
    checkpoint: &Checkpoint,
) -> Result<Settled, StoreError> {
    let mut settled = Settled::default();
    let mut selector = request.selector();
    if let Some(part) = &request.part {
        // The checkpoint's lock keeps two that do the same request apart.
        if !is_open(conn, request).await? {
            return Ok(settled);
        }
        let run = runs::load(conn, &part.owner, false).await?;
        match run.filter(|run| run.state.status == RunStatus::Running) {
            Some(run) => selector = run.run.selector,
            None => {
                settled.withdrawn = true;
                finish(conn, request, &settled).await?;
                return Ok(settled);
            }
        }
    }
    match request.action {
        Action::Discard => {
            settled.discarded = discard(conn, generation, request, &selector).await?;
        }
        Action::Redrive => {
            redrive(conn, generation, again, request, checkpoint, &mut settled).await?;
        }
    }
    let row = sqlx::query(
        "SELECT count(*) FROM projections.dead_letters
         WHERE generation = $1 AND context = $2 AND stream = $3 AND status = 'pending'",
    )
    .bind(generation.get())
    .bind(request.lane.context.as_str())
    .bind(request.stream.as_str())
    .fetch_one(&mut *conn)
    .await?;
    settled.released = row.try_get::<i64, _>(0)? == 0;
    if settled.released {
        settled.unfinished = false;
        sqlx::query(
            "DELETE FROM projections.parked_keys
             WHERE generation = $1 AND context = $2 AND partition = $3 AND stream = $4",
        )
        .bind(generation.get())
        .bind(request.lane.context.as_str())
        .bind(as_i16(request.lane.partition))
        .bind(request.stream.as_str())
        .execute(&mut *conn)
        .await?;
    }
    // The run's row before the request's: a cancel takes them in this order too.
    if let Some(part) = &request.part {
        runs::add(conn, part, request, &settled).await?;
    }
    if !settled.unfinished {
        finish(conn, request, &settled).await?;
    }
    Ok(settled)
}

async fn is_open(conn: &mut PgConnection, request: &Request) -> Result<bool, StoreError> {
    let found = sqlx::query(
        "SELECT 1 FROM projections.dead_letter_requests WHERE id = $1 AND finished_at IS NULL",
    )
    .bind(request.id.0.parse::<i64>().unwrap_or(0))
    .fetch_optional(conn)
    .await?;
    Ok(found.is_some())
}

async fn finish(
    conn: &mut PgConnection,
    request: &Request,
    settled: &Settled,
) -> Result<(), StoreError> {
    sqlx::query(
        "UPDATE projections.dead_letter_requests SET finished_at = now(), outcome = $2 WHERE id = $1",
    )
    .bind(request.id.0.parse::<i64>().unwrap_or(0))
    .bind(settled.describe())
    .execute(conn)
    .await?;
    Ok(())
}

/// Gives up the letters of a stream that a selector names, oldest first.
async fn discard(
    conn: &mut PgConnection,
    generation: GenerationId,
    request: &Request,
    selector: &LetterSelector,
) -> Result<u64, StoreError> {
    let mut query = QueryBuilder::new(
        "UPDATE projections.dead_letters SET status = 'discarded' WHERE generation = ",
    );
    query.push_bind(generation.get());
    query.push(" AND context = ");
    query.push_bind(request.lane.context.as_str());
    query.push(
        " AND position IN (SELECT l.position FROM projections.dead_letters l WHERE l.generation = ",
    );
    query.push_bind(generation.get());
    query.push(" AND l.context = ");
    query.push_bind(request.lane.context.as_str());
    query.push(" AND l.stream = ");
    query.push_bind(request.stream.as_str());
    query.push(" AND l.status = ");
    query.push_bind(LetterStatus::Pending.as_str());
    narrow_to(&mut query, selector);
    query.push(" ORDER BY l.position LIMIT ");
    query.push_bind(request.max_letters().map(as_i64));
    query.push(")");
    let done = query.build().execute(conn).await?;
    Ok(done.rows_affected())
}

fn as_i64(count: u64) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

/// Events of letters that wait, oldest first.
pub(super) async fn waiting(
    conn: &mut PgConnection,
    generation: GenerationId,
    request: &Request,
    most: i64,
) -> Result<Vec<RecordedEvent>, StoreError> {
    let rows = sqlx::query(
        "SELECT event FROM projections.dead_letters
         WHERE generation = $1 AND context = $2 AND stream = $3 AND status = 'pending'
         ORDER BY position LIMIT $4",
    )
    .bind(generation.get())
    .bind(request.lane.context.as_str())
    .bind(request.stream.as_str())
    .bind(most)
    .fetch_all(conn)
    .await?;
    rows.iter()
        .map(|row| {
            let text: String = row.try_get(0)?;
            serde_json::from_str(&text).map_err(|error| StoreError::Unusable(Box::new(error)))
        })
        .collect()
}

/// Tries a stream's letters again one by one, oldest first, until one fails again.
async fn redrive(
    conn: &mut PgConnection,
    generation: GenerationId,
    again: Again<'_>,
    request: &Request,
    checkpoint: &Checkpoint,
    settled: &mut Settled,
) -> Result<(), StoreError> {
    let most = request.max_letters().map_or(MAX_REDRIVE_LETTERS, as_i64);
    let events = waiting(conn, generation, request, most.min(MAX_REDRIVE_LETTERS)).await?;
    let taken = i64::try_from(events.len()).unwrap_or(0);
    settled.unfinished = taken == MAX_REDRIVE_LETTERS
        && request
            .max_letters()
            .is_none_or(|_| most > MAX_REDRIVE_LETTERS);
    for event in events {
        let position = event.position;
        let tried = match again {
            Again::Fold(view) => fold_again(conn, view, &request.lane, checkpoint, event).await?,
            Again::Performed(tried) => match tried.get(&position) {
                Some(tried) => tried.clone(),
                None => {
                    settled.unfinished = true;
                    break;
                }
            },
        };
        match tried {
            None => {
                settle_letter(
                    conn,
                    generation,
                    &request.lane,
                    position,
                    LetterStatus::Redriven,
                )
                .await?;
                settled.redriven += 1;
            }
            Some((reason, error)) => {
                fail_again(conn, generation, &request.lane, position, reason, &error).await?;
                settled.failed_again = Some(error);
                settled.unfinished = false;
                break;
            }
        }
    }
    Ok(())
}

/// Folds one letter under a savepoint; what it fails on, if it fails for good.
async fn fold_again(
    conn: &mut PgConnection,
    view: &dyn PgView,
    lane: &Lane,
    checkpoint: &Checkpoint,
    event: RecordedEvent,
) -> Result<Tried, StoreError> {
    let previous = event.previous;
    let (chunk, too_new) = view.decode(lane.clone(), checkpoint.epoch, previous, vec![event]);
    let Some(chunk) = chunk else {
        let error = too_new.map_or_else(String::new, |error| describe(&error));
        return Ok(Some((Reason::Malformed, error)));
    };
    let mut batch = Batch::default();
    batch.push(chunk);
    let nothing_parked = Parked::default();
    let mut savepoint = conn.begin().await?;
    let written = view
        .write(&mut savepoint, &batch, 0..1, &nothing_parked)
        .await;
    match written {
        Ok(letters) => {
            savepoint.commit().await?;
            Ok(letters
                .into_iter()
                .next()
                .map(|letter| (letter.reason, letter.error)))
        }
        Err(error) if classify(&error) == PgClass::Data => {
            savepoint.rollback().await?;
            Ok(Some((Reason::Store, describe(&error))))
        }
        Err(error) => Err(error.into()),
    }
}

async fn settle_letter(
    conn: &mut PgConnection,
    generation: GenerationId,
    lane: &Lane,
    position: Position,
    status: LetterStatus,
) -> Result<(), StoreError> {
    sqlx::query(
        "UPDATE projections.dead_letters SET status = $4, attempts = attempts + 1
         WHERE generation = $1 AND context = $2 AND position = $3",
    )
    .bind(generation.get())
    .bind(lane.context.as_str())
    .bind(position.as_i64())
    .bind(status.as_str())
    .execute(conn)
    .await?;
    Ok(())
}

async fn fail_again(
    conn: &mut PgConnection,
    generation: GenerationId,
    lane: &Lane,
    position: Position,
    reason: Reason,
    error: &str,
) -> Result<(), StoreError> {
    sqlx::query(
        "UPDATE projections.dead_letters
         SET attempts = attempts + 1, last_failure = now(), reason = $4, error = $5
         WHERE generation = $1 AND context = $2 AND position = $3",
    )
    .bind(generation.get())
    .bind(lane.context.as_str())
    .bind(position.as_i64())
    .bind(reason.as_str())
    .bind(error)
    .execute(conn)
    .await?;
    Ok(())
}
