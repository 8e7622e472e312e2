//! Folding whole logs a second time, for a view whose rows are fed by many streams: no stream of it
//! can be folded alone.

use std::{
    collections::{BTreeMap, BTreeSet, HashSet},
    sync::Arc,
};

use millrace_es::{Context, Position, RecordedEvent};
use millrace_eventlog::EventLog;
use sqlx::{PgConnection, Row};
use tokio::time::Instant;

use super::{
    against::Passed,
    log_error,
    refold::{Refold, Scope},
    rest,
    samples::newest,
};
use crate::{
    error::{StoreError, unavailable},
    generation::{Checkpoint, Lane},
    letters::{LetterStatus, Reason},
};

/// Events that are folded at once.
const PAGE_EVENTS: usize = 1_000;

/// The most dead letters of a generation that are gone around.
const MAX_LETTERS: i64 = 10_000;

/// What a whole fold came to.
pub(super) enum Whole {
    Folded(Scope),
    /// It cannot be made, and why.
    Skipped(String),
}

impl Refold<'_> {
    /// Folds every event that the generation has seen.
    pub(super) async fn fold_everything(
        &self,
        conn: &mut PgConnection,
        logs: &[Arc<dyn EventLog>],
        at: &[Checkpoint],
        max_events: u64,
        passed: &mut Passed,
    ) -> Result<Whole, StoreError> {
        let events: u64 = logs.iter().map(|log| newest(&**log, at).get()).sum();
        if events > max_events {
            return Ok(Whole::Skipped(format!(
                "its rows are sums over {events} events, more than the {max_events} that a check \
                 may read (--max-events)"
            )));
        }
        let Some(lacking) = self.lacking(conn, passed).await? else {
            return Ok(Whole::Skipped(format!(
                "it has more than {MAX_LETTERS} dead letters: deal with them first"
            )));
        };
        for log in logs {
            let through = newest(&**log, at);
            let mut after = Position::ZERO;
            while after < through {
                let began = Instant::now();
                let page = log.read_log(after, PAGE_EVENTS).await.map_err(log_error)?;
                let Some(last) = page.last() else {
                    return Err(unavailable(format!(
                        "the log of {} gives nothing after {after}, and the view has seen {through}",
                        log.context()
                    )));
                };
                after = last.position;
                if !self.fold_page(conn, page, at, &lacking).await? {
                    let why = "a row or an event of it needs another release, or is refused";
                    return Ok(Whole::Skipped(why.to_owned()));
                }
                rest(began).await;
            }
        }
        Ok(Whole::Folded(Scope::Everything(at.to_vec())))
    }

    async fn fold_page(
        &self,
        conn: &mut PgConnection,
        page: Vec<RecordedEvent>,
        at: &[Checkpoint],
        lacking: &HashSet<(Context, Position)>,
    ) -> Result<bool, StoreError> {
        let mut lanes: BTreeMap<Lane, Vec<RecordedEvent>> = BTreeMap::new();
        for event in page {
            let lane = Lane::new(event.context.clone(), event.partition);
            if !lacking.contains(&(event.context.clone(), event.position)) {
                lanes.entry(lane).or_default().push(event);
            }
        }
        let mut chunks = Vec::new();
        for checkpoint in at {
            let mut events = lanes.remove(&checkpoint.lane).unwrap_or_default();
            events.retain(|event| event.position <= checkpoint.position);
            let Some(first) = events.first() else {
                continue;
            };
            let (lane, previous) = (checkpoint.lane.clone(), first.previous);
            let decoded = self.view.decode(lane, checkpoint.epoch, previous, events);
            let (Some(chunk), None) = decoded else {
                return Ok(false);
            };
            chunks.push(chunk);
        }
        Ok(self.write(conn, chunks, false).await?.is_some())
    }

    /// The events that are in no row, as the generation's dead letters say; none when there are too
    /// many. What the fold refused it refuses again.
    async fn lacking(
        &self,
        conn: &mut PgConnection,
        passed: &mut Passed,
    ) -> Result<Option<HashSet<(Context, Position)>>, StoreError> {
        let rows = sqlx::query(
            "SELECT context, position, stream, reason, status FROM projections.dead_letters
             WHERE generation = $1 AND status <> $2 LIMIT $3",
        )
        .bind(self.generation.id.get())
        .bind(LetterStatus::Redriven.as_str())
        .bind(MAX_LETTERS + 1)
        .fetch_all(conn)
        .await?;
        if rows.len() > usize::try_from(MAX_LETTERS).unwrap_or(usize::MAX) {
            return Ok(None);
        }
        let mut lacking = HashSet::new();
        let mut waiting: BTreeSet<String> = BTreeSet::new();
        for row in &rows {
            let context: String = row.try_get(0)?;
            let context =
                Context::new(&context).map_err(|error| StoreError::Unusable(Box::new(error)))?;
            if row.try_get::<String, _>(3)? != Reason::Fold.as_str() {
                lacking.insert((context, Position::from_i64(row.try_get(1)?)));
            }
            if row.try_get::<String, _>(4)? == LetterStatus::Pending.as_str() {
                waiting.insert(row.try_get(2)?);
            }
        }
        for stream in &waiting {
            passed.park(stream);
        }
        Ok(Some(lacking))
    }
}
