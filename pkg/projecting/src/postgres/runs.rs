//! Runs over dead letters in PostgreSQL.

use async_trait::async_trait;
use sqlx::{PgConnection, Postgres, QueryBuilder, Row, postgres::PgRow};

use super::{
    PgStore,
    dead_letters::{bounded, narrow_to, read_subject},
    store::as_i16,
};
use crate::{
    dead_letters::Subject,
    error::{StoreError, unavailable},
    letter_runs::{
        LetterRun, LetterRuns, LetterSelector, Next, OnFailure, RunPart, RunState, RunStatus,
        StoredRun,
    },
    letters::{Action, LetterStatus},
    owner::Owner,
    store::{Request, Settled},
};

fn count(row: &PgRow, name: &str) -> Result<u64, sqlx::Error> {
    Ok(u64::try_from(row.try_get::<i64, _>(name)?).unwrap_or(0))
}

fn as_i64(count: u64) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

/// Reads an owner's run; its open streams are not counted.
pub(super) async fn load(
    conn: &mut PgConnection,
    owner: &Owner,
    lock: bool,
) -> Result<Option<StoredRun>, StoreError> {
    let row = sqlx::query(if lock {
        "SELECT * FROM projections.letter_runs WHERE owner = $1 FOR UPDATE"
    } else {
        "SELECT * FROM projections.letter_runs WHERE owner = $1"
    })
    .bind(owner.as_str())
    .fetch_optional(conn)
    .await?;
    row.map(|row| read_run(&row, owner)).transpose()
}

fn read_run(row: &PgRow, owner: &Owner) -> Result<StoredRun, StoreError> {
    let unknown = |what: &str| StoreError::Unusable(format!("unknown {what} of a run").into());
    let text = |name: &str| row.try_get::<String, _>(name);
    let selector: LetterSelector = serde_json::from_str(&text("selector")?)
        .map_err(|error| StoreError::Unusable(Box::new(error)))?;
    let projection = text("projection")?;
    let max_messages: Option<i64> = row.try_get("max_messages")?;
    Ok(StoredRun {
        state: RunState {
            owner: owner.clone(),
            projection: projection.clone(),
            status: RunStatus::parse(&text("status")?).ok_or_else(|| unknown("status"))?,
            matched: count(row, "matched")?,
            redriven: count(row, "redriven")?,
            discarded: count(row, "discarded")?,
            failed: count(row, "failed")?,
            open: 0,
        },
        run: LetterRun {
            projection,
            selector,
            action: Action::parse(&text("action")?).ok_or_else(|| unknown("action"))?,
            on_failure: OnFailure::parse(&text("on_failure")?)
                .ok_or_else(|| unknown("failure policy"))?,
            max_messages: max_messages.map(|max| u64::try_from(max).unwrap_or(0)),
        },
        version: u32::try_from(row.try_get::<i32, _>("version")?).unwrap_or(0),
    })
}

/// Adds what a request came to, in its transaction. A run that was cancelled meanwhile takes the
/// whole transaction back.
pub(super) async fn add(
    conn: &mut PgConnection,
    part: &RunPart,
    request: &Request,
    settled: &Settled,
) -> Result<(), StoreError> {
    let done = sqlx::query(
        "UPDATE projections.letter_runs
         SET redriven = redriven + $2, discarded = discarded + $3, failed = failed + $4
         WHERE owner = $1 AND status = 'running'",
    )
    .bind(part.owner.as_str())
    .bind(as_i64(settled.redriven))
    .bind(as_i64(settled.discarded))
    .bind(as_i64(settled.failed()))
    .execute(&mut *conn)
    .await?;
    if done.rows_affected() == 0 {
        return Err(unavailable(format!(
            "run {} was cancelled meanwhile",
            part.owner
        )));
    }
    sqlx::query(
        "UPDATE projections.dead_letter_requests SET max_letters = max_letters - $2
         WHERE id = $1 AND max_letters IS NOT NULL",
    )
    .bind(request.id.0.parse::<i64>().unwrap_or(0))
    .bind(as_i64(settled.tried()))
    .execute(conn)
    .await?;
    Ok(())
}

/// The streams that a run takes, and how many letters of each: named ones, and for a redrive all
/// that wait with them.
fn push_streams(query: &mut QueryBuilder<Postgres>, run: &LetterRun, version: u32) {
    let taken = match run.action {
        Action::Discard => "count(*)",
        Action::Redrive => {
            "(SELECT count(*) FROM projections.dead_letters w
              WHERE w.generation = l.generation AND w.context = l.context
                AND w.stream = l.stream AND w.status = 'pending')"
        }
    };
    query.push(format!(
        "SELECT l.generation, l.context, l.partition, l.stream, {taken} AS letters
         FROM projections.dead_letters l JOIN projections.generations g ON g.id = l.generation
         WHERE g.status NOT IN ('retired', 'loading') AND g.projection = "
    ));
    query.push_bind(run.projection.clone());
    query.push(" AND g.version = ");
    query.push_bind(i32::try_from(version).unwrap_or(i32::MAX));
    query.push(" AND l.status = ");
    query.push_bind(LetterStatus::Pending.as_str());
    narrow_to(query, &run.selector);
}

const GROUPED: &str = " GROUP BY l.generation, l.context, l.partition, l.stream";

/// What is open of a run: how many streams, and how many letters they may take yet.
async fn open(conn: &mut PgConnection, owner: &Owner) -> Result<(usize, u64), StoreError> {
    let row = sqlx::query(
        "SELECT count(*) AS open, coalesce(sum(greatest(max_letters, 0)), 0)::bigint AS reserved
         FROM projections.dead_letter_requests WHERE run = $1 AND finished_at IS NULL",
    )
    .bind(owner.as_str())
    .fetch_one(conn)
    .await?;
    let open = usize::try_from(row.try_get::<i64, _>("open")?).unwrap_or(usize::MAX);
    Ok((open, count(&row, "reserved")?))
}

async fn with_open(conn: &mut PgConnection, stored: StoredRun) -> Result<RunState, StoreError> {
    let (open, _) = open(conn, &stored.state.owner).await?;
    Ok(RunState {
        open: u64::try_from(open).unwrap_or(u64::MAX),
        ..stored.state
    })
}

#[async_trait]
impl LetterRuns for PgStore {
    async fn count_run(&self, run: &LetterRun, version: u32) -> Result<u64, StoreError> {
        let mut query =
            QueryBuilder::new("SELECT coalesce(sum(letters), 0)::bigint AS matched FROM (");
        push_streams(&mut query, run, version);
        query.push(GROUPED).push(") AS s");
        let row = query.build().fetch_one(self.control()).await?;
        Ok(count(&row, "matched")?)
    }

    async fn begin_run(
        &self,
        owner: &Owner,
        run: &LetterRun,
        version: u32,
    ) -> Result<RunState, StoreError> {
        let mut conn = self.control().acquire().await?;
        let mut found = load(&mut conn, owner, false).await?;
        if found.is_none() {
            let matched = self.count_run(run, version).await?;
            insert(&mut conn, owner, run, version, matched).await?;
            found = load(&mut conn, owner, false).await?;
        }
        let stored = found.ok_or_else(|| unavailable(format!("run {owner} was forgotten")))?;
        stored.require_same(run)?;
        with_open(&mut conn, stored).await
    }

    async fn find_run(&self, owner: &Owner) -> Result<Option<RunState>, StoreError> {
        let mut conn = self.control().acquire().await?;
        match load(&mut conn, owner, false).await? {
            None => Ok(None),
            Some(stored) => Ok(Some(with_open(&mut conn, stored).await?)),
        }
    }

    async fn advance_run(&self, owner: &Owner) -> Result<Option<RunState>, StoreError> {
        let mut tx = self.control().begin().await?;
        let Some(stored) = load(&mut tx, owner, true).await? else {
            return Ok(None);
        };
        if stored.state.status == RunStatus::Running {
            let (open, reserved) = open(&mut tx, owner).await?;
            match stored.next(open, reserved) {
                Next::Wait => {}
                Next::End(status) => end(&mut tx, owner, status).await?,
                Next::Begin { streams, letters } => {
                    let begun = begin_streams(&mut tx, &stored, streams, letters).await?;
                    if begun == 0 && open == 0 {
                        end(&mut tx, owner, RunStatus::Done).await?;
                    }
                }
            }
        }
        let Some(stored) = load(&mut tx, owner, false).await? else {
            return Ok(None);
        };
        let state = with_open(&mut tx, stored).await?;
        tx.commit().await?;
        Ok(Some(state))
    }

    async fn cancel_run(&self, owner: &Owner) -> Result<Option<RunState>, StoreError> {
        let mut tx = self.control().begin().await?;
        let Some(stored) = load(&mut tx, owner, true).await? else {
            return Ok(None);
        };
        if stored.state.status == RunStatus::Running {
            end(&mut tx, owner, RunStatus::Cancelled).await?;
            sqlx::query(
                "UPDATE dead_letter_requests SET finished_at = now(), outcome = 'withdrawn'
                 WHERE run = $1 AND finished_at IS NULL",
            )
            .bind(owner.as_str())
            .execute(&mut *tx)
            .await?;
        }
        let Some(stored) = load(&mut tx, owner, false).await? else {
            return Ok(None);
        };
        tx.commit().await?;
        Ok(Some(stored.state))
    }

    async fn forget_run(&self, owner: &Owner) -> Result<(), StoreError> {
        let mut tx = self.control().begin().await?;
        for sql in [
            "DELETE FROM dead_letter_requests WHERE run = $1",
            "DELETE FROM letter_runs WHERE owner = $1",
        ] {
            sqlx::query(sql)
                .bind(owner.as_str())
                .execute(&mut *tx)
                .await?;
        }
        tx.commit().await?;
        Ok(())
    }
}

/// Keeps a new run, unless its owner has one.
async fn insert(
    conn: &mut PgConnection,
    owner: &Owner,
    run: &LetterRun,
    version: u32,
    matched: u64,
) -> Result<(), StoreError> {
    let selector = serde_json::to_string(&run.selector)
        .map_err(|error| StoreError::Invalid(error.to_string()))?;
    sqlx::query(
        "INSERT INTO letter_runs (owner, projection, version, action, selector, on_failure, max_messages, matched)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8) ON CONFLICT DO NOTHING",
    )
    .bind(owner.as_str())
    .bind(&run.projection)
    .bind(i32::try_from(version).unwrap_or(i32::MAX))
    .bind(run.action.as_str())
    .bind(selector)
    .bind(run.on_failure.as_str())
    .bind(run.max_messages.map(as_i64))
    .bind(as_i64(matched))
    .execute(conn)
    .await?;
    Ok(())
}

async fn end(conn: &mut PgConnection, owner: &Owner, status: RunStatus) -> Result<(), StoreError> {
    sqlx::query(
        "UPDATE projections.letter_runs SET status = $2, finished_at = now() WHERE owner = $1",
    )
    .bind(owner.as_str())
    .bind(status.as_str())
    .execute(conn)
    .await?;
    Ok(())
}

/// Makes requests for the next streams, and moves on behind them. Says how many.
async fn begin_streams(
    conn: &mut PgConnection,
    stored: &StoredRun,
    streams: usize,
    letters: Option<u64>,
) -> Result<usize, StoreError> {
    let owner = stored.state.owner.as_str();
    let mut query = QueryBuilder::new("");
    push_streams(&mut query, &stored.run, stored.version);
    query.push(
        " AND (l.generation, l.context, l.stream) >
              (SELECT after_generation, after_context, after_stream FROM letter_runs WHERE owner = ",
    );
    query.push_bind(owner).push(")").push(GROUPED);
    query
        .push(" ORDER BY l.generation, l.context, l.stream LIMIT ")
        .push_bind(bounded(streams));
    let rows = query.build().fetch_all(&mut *conn).await?;
    let mut left = letters;
    let mut begun: Vec<(Subject, Option<i64>)> = Vec::new();
    for row in &rows {
        let takes = left.map(|left| left.min(count(row, "letters").unwrap_or(0)));
        if left == Some(0) {
            break;
        }
        left = left.map(|left| left - takes.unwrap_or(0));
        begun.push((read_subject(row)?, takes.map(as_i64)));
    }
    let Some((last, _)) = begun.last() else {
        return Ok(0);
    };
    sqlx::query(
        "UPDATE letter_runs SET after_generation = $2, after_context = $3, after_stream = $4
         WHERE owner = $1",
    )
    .bind(owner)
    .bind(last.generation.get())
    .bind(last.lane.context.as_str())
    .bind(last.stream.as_str())
    .execute(&mut *conn)
    .await?;
    let subjects = || begun.iter().map(|(subject, _)| subject);
    sqlx::query(
        "INSERT INTO dead_letter_requests (generation, context, partition, stream, action, run, max_letters)
         SELECT generation, context, partition, stream, $5, $6, max_letters
         FROM UNNEST($1::bigint[], $2::text[], $3::smallint[], $4::text[], $7::bigint[])
             AS t (generation, context, partition, stream, max_letters)",
    )
    .bind(subjects().map(|one| one.generation.get()).collect::<Vec<_>>())
    .bind(subjects().map(|one| one.lane.context.as_str()).collect::<Vec<_>>())
    .bind(subjects().map(|one| as_i16(one.lane.partition)).collect::<Vec<_>>())
    .bind(subjects().map(|one| one.stream.as_str()).collect::<Vec<_>>())
    .bind(stored.run.action.as_str())
    .bind(owner)
    .bind(begun.iter().map(|(_, takes)| *takes).collect::<Vec<_>>())
    .execute(conn)
    .await?;
    Ok(begun.len())
}
