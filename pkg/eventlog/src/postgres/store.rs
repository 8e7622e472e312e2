//! One attempt after another at making a batch durable, on the lane's own connection.
//!
//! What was read outside the lane is only a guess until the head is locked. So a batch is decided
//! on a read, and written under the condition that the head is still where the read saw it: a
//! small batch in one statement, a large one after locking the head row. Where the head moved,
//! because another process appended, the batch is read and decided again under the lock.

use std::{
    collections::HashMap,
    sync::Arc,
    time::{Duration, Instant},
};

use millrace_es::{Context, Epoch, EventId, Position, RecordedEvent, StreamVersion};
use millrace_kernel::Timestamp;
use sqlx::{
    Connection, PgConnection, Row,
    postgres::{PgConnectOptions, PgRow},
};
use time::OffsetDateTime;
use tokio::time::{sleep, timeout};

use super::{
    Faults, LaneStep, PgInlineTable,
    copy::{self, MetadataText, small},
    failure::{Failure, leaves_open},
    plan::{self, Claim, Head, Plan, Probed, Wanted},
    read,
    sql::Statements,
};
use crate::{AppendRequest, LogError};

/// Up to here a batch's events ride in the statement that moves the head; above, COPY pays for its
/// two extra round trips.
const MAX_INLINE_EVENTS: usize = 32;
/// How long answers are kept.
const ANSWER_HOURS: i32 = 24;
/// How long a connection may take.
const CONNECT_MS: u64 = 3_000;
/// How long one attempt at a batch may take before its connection is given up.
const ATTEMPT_MS: u64 = 15_000;
/// How long an open commit is looked after before its appends are told that it is not known.
const SETTLE_MS: u64 = 10_000;
/// The pauses between attempts: doubled from the first to the second.
const FIRST_PAUSE_MS: u64 = 5;
const MAX_PAUSE_MS: u64 = 200;
/// How often a batch is decided again because constraints caught a race.
const MAX_RACES: u32 = 5;

/// The session settings that keep a paused or lost process from holding the lane: its transaction
/// ends when it idles, its COPY when it takes too long, its connection when the network is gone.
const IDLE_IN_TRANSACTION_MS: u64 = 3_000;
const LOCK_WAIT_MS: u64 = 6_000;
const STATEMENT_MS: u64 = 6_000;
const TCP_USER_TIMEOUT_MS: u64 = 10_000;
const TCP_KEEPALIVE_S: u64 = 5;

/// Why a batch, after all attempts, was not committed as a whole.
pub(super) enum Refused {
    /// Nothing was appended.
    Unavailable(Arc<sqlx::Error>),
    /// Nothing was appended, and nothing will be until somebody repairs it.
    Broken(LogError),
    /// Not known.
    Open(Arc<sqlx::Error>),
    /// One of the appends breaks the transaction; nothing was appended.
    Data(sqlx::Error),
}

pub(super) struct Store {
    pub context: Context,
    pub statements: Arc<Statements>,
    pub inline: Vec<Arc<dyn PgInlineTable>>,
    pub faults: Option<Arc<dyn Faults>>,
    pub options: PgConnectOptions,
    pub conn: Option<PgConnection>,
    /// Another process writes too: reading before locking would be for nothing.
    pub contended: bool,
}

/// The options of the lane's connection.
pub(super) fn lane_options(base: &PgConnectOptions, context: &Context) -> PgConnectOptions {
    let ms = |ms: u64| format!("{ms}ms");
    base.clone()
        .application_name(&format!("millrace-lane-{context}"))
        .options([
            ("search_path", context.as_str().to_owned()),
            ("default_transaction_isolation", "read committed".to_owned()),
            (
                "idle_in_transaction_session_timeout",
                ms(IDLE_IN_TRANSACTION_MS),
            ),
            ("lock_timeout", ms(LOCK_WAIT_MS)),
            ("statement_timeout", ms(STATEMENT_MS)),
            ("tcp_user_timeout", ms(TCP_USER_TIMEOUT_MS)),
            ("tcp_keepalives_idle", TCP_KEEPALIVE_S.to_string()),
            ("tcp_keepalives_interval", TCP_KEEPALIVE_S.to_string()),
            ("tcp_keepalives_count", "3".to_owned()),
            // Few statements, run very often, always by index: planned once, and never as a scan
            // because the table was empty when the plan was made.
            ("plan_cache_mode", "force_generic_plan".to_owned()),
            ("enable_seqscan", "off".to_owned()),
            ("jit", "off".to_owned()),
        ])
}

/// The options of a connection that takes a tail back: one long transaction, under an operator's
/// eyes.
pub(super) fn import_options(base: &PgConnectOptions, context: &Context) -> PgConnectOptions {
    base.clone()
        .application_name(&format!("millrace-import-{context}"))
        .options([
            ("search_path", context.as_str()),
            ("default_transaction_isolation", "read committed"),
            ("idle_in_transaction_session_timeout", "60s"),
        ])
}

impl Store {
    /// Commits what of the batch can be committed, and gives the verdicts.
    pub(super) async fn commit<'a>(
        &mut self,
        requests: &[&'a AppendRequest],
        deadline: Instant,
    ) -> Result<Plan<'a>, Refused> {
        let mut pause = Duration::from_millis(FIRST_PAUSE_MS);
        let mut races = 0;
        loop {
            let mut sent = None;
            let attempt = self.attempt(requests, &mut sent);
            let failure = match timeout(Duration::from_millis(ATTEMPT_MS), attempt).await {
                Ok(Ok(plan)) => return Ok(plan),
                Ok(Err(failure)) => failure,
                Err(_) => Failure::Passing(timed_out("an attempt at a batch", ATTEMPT_MS)),
            };
            let error = match failure {
                Failure::Data(error) => return Err(Refused::Data(error)),
                Failure::Fatal(error) => return Err(Refused::Broken(error)),
                Failure::Raced(error) => {
                    self.contended = true;
                    races += 1;
                    if races < MAX_RACES {
                        continue;
                    }
                    error
                }
                Failure::Passing(error) => {
                    self.conn = None;
                    if let Some(plan) = sent.filter(|_| leaves_open(&error)) {
                        let error = Arc::new(error);
                        match self.settle(&plan).await {
                            Ok(true) => return Ok(plan),
                            Ok(false) => {}
                            Err(settling) => {
                                tracing::error!(context = %self.context, %settling, %error,
                                    "a commit's outcome could not be found out");
                                return Err(Refused::Open(error));
                            }
                        }
                        sqlx::Error::Io(std::io::Error::other(SharedError(error)))
                    } else {
                        error
                    }
                }
            };
            if Instant::now() + pause >= deadline {
                return Err(Refused::Unavailable(Arc::new(error)));
            }
            tracing::warn!(context = %self.context, %error, "a batch did not commit, trying again");
            sleep(pause).await;
            pause = (pause * 2).min(Duration::from_millis(MAX_PAUSE_MS));
        }
    }

    /// One attempt. `sent` holds the plan from the moment on at which it may have been committed.
    async fn attempt<'a>(
        &mut self,
        requests: &[&'a AppendRequest],
        sent: &mut Option<Plan<'a>>,
    ) -> Result<Plan<'a>, Failure> {
        // Taken out, so that a connection in a doubtful state is dropped with the attempt.
        let mut conn = match self.conn.take() {
            Some(conn) => conn,
            None => self.connect().await?,
        };
        let result = self.run(&mut conn, requests, sent).await;
        if matches!(
            result,
            Ok(_) | Err(Failure::Data(_) | Failure::Raced(_) | Failure::Fatal(_))
        ) {
            self.conn = Some(conn);
        }
        result
    }

    async fn run<'a>(
        &mut self,
        conn: &mut PgConnection,
        requests: &[&'a AppendRequest],
        sent: &mut Option<Plan<'a>>,
    ) -> Result<Plan<'a>, Failure> {
        let wanted = Wanted::of(requests.iter().copied());
        let mut guess = None;
        if !self.contended {
            let plan = self.decide(conn, &wanted, requests).await?;
            if plan.is_empty() {
                return Ok(plan);
            }
            if plan.rows.len() <= MAX_INLINE_EVENTS {
                if let Some(plan) = self.write_small(conn, plan, sent).await? {
                    return Ok(plan);
                }
            } else {
                guess = Some(plan);
            }
        }
        self.write_locked(conn, &wanted, requests, guess, sent)
            .await
    }

    /// Reads what a batch needs and decides it.
    async fn decide<'a>(
        &self,
        conn: &mut PgConnection,
        wanted: &Wanted<'a>,
        requests: &[&'a AppendRequest],
    ) -> Result<Plan<'a>, Failure> {
        let probed = self.probe(conn, wanted).await?;
        let plan = plan::decide(&self.context, requests.iter().copied(), &probed);
        self.at(LaneStep::Probed).await;
        Ok(plan)
    }

    /// Writes a small batch under the condition that the head did not move; `None` when it did.
    async fn write_small<'a>(
        &mut self,
        conn: &mut PgConnection,
        plan: Plan<'a>,
        sent: &mut Option<Plan<'a>>,
    ) -> Result<Option<Plan<'a>>, Failure> {
        let alone = self.inline.is_empty() && plan.touches_events_and_answers_only();
        if alone {
            // One statement is its own transaction: from here on it may be durable.
            self.at(LaneStep::Committing).await;
            let plan = sent.insert(plan);
            if !self.write(conn, plan, true).await? {
                *sent = None;
                return Ok(None);
            }
        } else {
            let mut tx = conn.begin().await.map_err(Failure::of)?;
            self.drop_expired(&mut tx, &plan).await?;
            if !self.write(&mut tx, &plan, true).await? {
                tx.rollback().await.map_err(Failure::of)?;
                return Ok(None);
            }
            self.at(LaneStep::Written).await;
            self.write_beside(&mut tx, &plan).await?;
            self.at(LaneStep::Committing).await;
            *sent = Some(plan);
            tx.commit().await.map_err(Failure::of)?;
        }
        self.at(LaneStep::Committed).await;
        Ok(sent.take())
    }

    /// Writes a batch of any size after locking the head.
    async fn write_locked<'a>(
        &mut self,
        conn: &mut PgConnection,
        wanted: &Wanted<'a>,
        requests: &[&'a AppendRequest],
        guess: Option<Plan<'a>>,
        sent: &mut Option<Plan<'a>>,
    ) -> Result<Plan<'a>, Failure> {
        let mut tx = conn.begin().await.map_err(Failure::of)?;
        let row = sqlx::query(&self.statements.lock)
            .fetch_one(&mut *tx)
            .await
            .map_err(Failure::of)?;
        let head = head(&row).map_err(Failure::of)?;
        self.at(LaneStep::Locked).await;
        let known = guess.filter(|plan| plan.before.is_where(&head));
        self.contended = known.is_none();
        let plan = match known {
            Some(mut plan) => {
                plan.before.guard = head.guard;
                plan
            }
            None => self.decide(&mut tx, wanted, requests).await?,
        };
        if plan.is_empty() {
            tx.rollback().await.map_err(Failure::of)?;
            return Ok(plan);
        }
        self.drop_expired(&mut tx, &plan).await?;
        let by_copy = plan.rows.len() > MAX_INLINE_EVENTS;
        if by_copy {
            self.copy(&mut tx, &plan.rows).await?;
            self.at(LaneStep::Copied).await;
        }
        if !self.write(&mut tx, &plan, !by_copy).await? {
            return Err(Failure::Fatal(LogError::Corrupt(format!(
                "the head of {} moved while it was locked",
                self.context
            ))));
        }
        self.at(LaneStep::Written).await;
        self.write_beside(&mut tx, &plan).await?;
        self.at(LaneStep::Committing).await;
        *sent = Some(plan);
        tx.commit().await.map_err(Failure::of)?;
        self.at(LaneStep::Committed).await;
        sent.take()
            .ok_or(Failure::Passing(sqlx::Error::WorkerCrashed))
    }

    /// Keys that expired and are used again: their rows make place for the new ones.
    async fn drop_expired(&self, conn: &mut PgConnection, plan: &Plan<'_>) -> Result<(), Failure> {
        if plan.expired.is_empty() {
            return Ok(());
        }
        let keys: Vec<&[u8]> = plan.expired.iter().map(<[u8; 32]>::as_slice).collect();
        sqlx::query(&self.statements.drop_expired)
            .bind(keys)
            .execute(conn)
            .await
            .map(|_| ())
            .map_err(Failure::of)
    }

    pub(super) async fn copy(
        &self,
        conn: &mut PgConnection,
        rows: &[plan::Row<'_>],
    ) -> Result<(), Failure> {
        let body =
            copy::encode(rows).map_err(|error| Failure::Data(sqlx::Error::Encode(error.into())))?;
        let mut copy = conn
            .copy_in_raw(self.statements.copy.as_str())
            .await
            .map_err(Failure::of)?;
        copy.send(body).await.map_err(Failure::of)?;
        copy.finish().await.map_err(Failure::of)?;
        Ok(())
    }

    /// Moves the head and writes the answers, and the events unless they came by COPY. `false` when
    /// the head was not where the plan was made; then nothing was written.
    async fn write(
        &self,
        conn: &mut PgConnection,
        plan: &Plan<'_>,
        with_events: bool,
    ) -> Result<bool, Failure> {
        let rows = if with_events {
            plan.rows.as_slice()
        } else {
            &[]
        };
        let encode = |error: serde_json::Error| Failure::Data(sqlx::Error::Encode(error.into()));
        let numbers = |of: fn(&plan::Row<'_>) -> i64| rows.iter().map(of).collect::<Vec<_>>();
        let smalls = |of: fn(&plan::Row<'_>) -> u16| {
            rows.iter().map(|row| small(of(row))).collect::<Vec<_>>()
        };
        let mut text = MetadataText::default();
        let metadata = rows
            .iter()
            .map(|row| text.of(&row.event.metadata).map(str::to_owned))
            .collect::<Result<Vec<_>, _>>()
            .map_err(encode)?;
        let headers = plan
            .kept
            .iter()
            .map(|kept| serde_json::to_string(&kept.answer.headers))
            .collect::<Result<Vec<_>, _>>()
            .map_err(encode)?;
        let positions: Vec<i64> = plan.partitions.iter().map(|at| at.as_i64()).collect();
        let moved: Option<bool> = sqlx::query_scalar(&self.statements.write)
            .bind(plan.before.position.as_i64())
            .bind(plan.before.epoch.as_i64())
            .bind(plan.before.guard)
            .bind(plan.position.as_i64())
            .bind(positions)
            .bind(plan.recorded_at.get())
            .bind(numbers(|row| row.position.as_i64()))
            .bind(numbers(|row| row.version.as_i64()))
            .bind(numbers(|row| row.previous.as_i64()))
            .bind(
                rows.iter()
                    .map(|row| row.event.id.get())
                    .collect::<Vec<_>>(),
            )
            .bind(smalls(|row| row.event.schema_version))
            .bind(smalls(|row| row.partition.get()))
            .bind(
                rows.iter()
                    .map(|row| row.stream.as_str())
                    .collect::<Vec<_>>(),
            )
            .bind(
                rows.iter()
                    .map(|row| row.event.event_type.as_ref())
                    .collect::<Vec<_>>(),
            )
            .bind(
                rows.iter()
                    .map(|row| row.event.payload.get())
                    .collect::<Vec<_>>(),
            )
            .bind(metadata)
            .bind(
                plan.kept
                    .iter()
                    .map(|kept| kept.key.key_hash.as_slice())
                    .collect::<Vec<_>>(),
            )
            .bind(
                plan.kept
                    .iter()
                    .map(|kept| kept.key.request_hash.as_slice())
                    .collect::<Vec<_>>(),
            )
            .bind(
                plan.kept
                    .iter()
                    .map(|kept| small(kept.answer.status))
                    .collect::<Vec<_>>(),
            )
            .bind(headers)
            .bind(
                plan.kept
                    .iter()
                    .map(|kept| kept.answer.body.as_ref())
                    .collect::<Vec<_>>(),
            )
            .bind(
                plan.kept
                    .iter()
                    .map(|kept| kept.token.as_ref().map(ToString::to_string))
                    .collect::<Vec<_>>(),
            )
            .bind(ANSWER_HOURS)
            .fetch_optional(conn)
            .await
            .map_err(Failure::of)?;
        Ok(moved.is_some())
    }

    /// What a batch changes beside events and answers: names and write-model rows.
    async fn write_beside(&self, conn: &mut PgConnection, plan: &Plan<'_>) -> Result<(), Failure> {
        if !plan.releases.is_empty() {
            let (scopes, values, holders) = columns(&plan.releases);
            sqlx::query(&self.statements.release)
                .bind(scopes)
                .bind(values)
                .bind(holders)
                .execute(&mut *conn)
                .await
                .map_err(Failure::of)?;
        }
        if !plan.claims.is_empty() {
            let (scopes, values, holders) = columns(&plan.claims);
            sqlx::query(&self.statements.claim)
                .bind(scopes)
                .bind(values)
                .bind(holders)
                .execute(&mut *conn)
                .await
                .map_err(Failure::of)?;
        }
        if !self.inline.is_empty() && !plan.rows.is_empty() {
            self.write_inline(conn, &plan.recorded(&self.context))
                .await?;
        }
        Ok(())
    }

    pub(super) async fn write_inline(
        &self,
        conn: &mut PgConnection,
        events: &[RecordedEvent],
    ) -> Result<(), Failure> {
        for table in &self.inline {
            table.apply(&mut *conn, events).await.map_err(Failure::of)?;
            self.at(LaneStep::Inlined).await;
        }
        Ok(())
    }

    pub(super) async fn probe(
        &self,
        conn: &mut PgConnection,
        wanted: &Wanted<'_>,
    ) -> Result<Probed, Failure> {
        let streams: Vec<&str> = wanted.streams.iter().map(|s| s.as_str()).collect();
        let keys: Vec<&[u8]> = wanted.keys.iter().map(<[u8; 32]>::as_slice).collect();
        let row = sqlx::query(&self.statements.probe)
            .bind(streams)
            .bind(keys)
            .fetch_one(&mut *conn)
            .await
            .map_err(Failure::of)?;
        let (mut probed, known) = probed(&row, wanted).map_err(Failure::of)?;
        if !known.is_empty() {
            let rows = sqlx::query(&self.statements.answers)
                .bind(known)
                .fetch_all(&mut *conn)
                .await
                .map_err(Failure::of)?;
            for row in &rows {
                let (stored, expired) = read::answer(row).map_err(Failure::Fatal)?;
                if expired {
                    probed.expired.push(stored.key.key_hash);
                } else {
                    probed.answers.insert(stored.key.key_hash, stored);
                }
            }
        }
        if !wanted.names.is_empty() {
            let (scopes, values): (Vec<&str>, Vec<&str>) = wanted.names.iter().copied().unzip();
            let rows = sqlx::query(&self.statements.holders)
                .bind(scopes)
                .bind(values)
                .fetch_all(&mut *conn)
                .await
                .map_err(Failure::of)?;
            for row in &rows {
                let name = || -> Result<_, sqlx::Error> {
                    Ok(((row.try_get(0)?, row.try_get(1)?), row.try_get(2)?))
                };
                let (name, holder) = name().map_err(Failure::of)?;
                probed.holders.insert(name, holder);
            }
        }
        Ok(probed)
    }

    /// Finds out whether a batch whose commit was not answered is there. It waits for the head's
    /// row, which the batch's transaction holds while it is alive, and moves the guard, so that a
    /// statement still on its way finds its condition broken.
    async fn settle(&mut self, plan: &Plan<'_>) -> Result<bool, sqlx::Error> {
        let deadline = Instant::now() + Duration::from_millis(SETTLE_MS);
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let error = match timeout(left, self.is_there(plan)).await {
                Ok(Ok(there)) => return Ok(there),
                Ok(Err(Failure::Fatal(error))) => return Err(sqlx::Error::Io(other(error))),
                Ok(Err(Failure::Data(error) | Failure::Raced(error) | Failure::Passing(error))) => {
                    error
                }
                Err(_) => return Err(timed_out("settling a commit", SETTLE_MS)),
            };
            tracing::warn!(context = %self.context, %error, "a commit's outcome is still open");
            sleep(Duration::from_millis(MAX_PAUSE_MS)).await;
        }
    }

    async fn is_there(&mut self, plan: &Plan<'_>) -> Result<bool, Failure> {
        let mut conn = self.connect().await?;
        sqlx::query(&self.statements.fence)
            .execute(&mut conn)
            .await
            .map_err(Failure::of)?;
        let there = if let Some(first) = plan.rows.first() {
            let found: Option<uuid::Uuid> = sqlx::query_scalar(&self.statements.event_at)
                .bind(first.position.as_i64())
                .fetch_optional(&mut conn)
                .await
                .map_err(Failure::of)?;
            found == Some(first.event.id.get())
        } else if let Some(first) = plan.kept.first() {
            let row = sqlx::query(&self.statements.answers)
                .bind([first.key.key_hash.as_slice()].as_slice())
                .fetch_optional(&mut conn)
                .await
                .map_err(Failure::of)?;
            let stored = row
                .map(|row| read::answer(&row))
                .transpose()
                .map_err(Failure::Fatal)?;
            stored.is_some_and(|(stored, _)| {
                stored.key == *first.key && stored.answer == *first.answer
            })
        } else {
            true
        };
        self.conn = Some(conn);
        Ok(there)
    }

    pub(super) async fn connect(&self) -> Result<PgConnection, Failure> {
        let connecting = async {
            let mut conn = PgConnection::connect_with(&self.options).await?;
            // An append is acknowledged when it is on disk, whatever the server's default; a
            // stronger setting (remote_apply) stays.
            let weak: String = sqlx::query_scalar("SELECT current_setting('synchronous_commit')")
                .fetch_one(&mut conn)
                .await?;
            if matches!(weak.as_str(), "off" | "local") {
                sqlx::raw_sql("SET synchronous_commit = on")
                    .execute(&mut conn)
                    .await?;
            }
            Ok(conn)
        };
        match timeout(Duration::from_millis(CONNECT_MS), connecting).await {
            Ok(conn) => conn.map_err(Failure::of),
            Err(_) => Err(Failure::Passing(timed_out("connecting", CONNECT_MS))),
        }
    }

    async fn at(&self, step: LaneStep) {
        if let Some(faults) = &self.faults {
            faults.at(step).await;
        }
    }
}

impl Head {
    /// Whether another read of the head saw the same log.
    fn is_where(&self, other: &Self) -> bool {
        self.position == other.position && self.epoch == other.epoch && self.halted == other.halted
    }
}

impl Plan<'_> {
    /// Whether the statement that moves the head writes all of it.
    fn touches_events_and_answers_only(&self) -> bool {
        self.claims.is_empty() && self.releases.is_empty() && self.expired.is_empty()
    }
}

fn columns(claims: &[Claim]) -> (Vec<&str>, Vec<&str>, Vec<&str>) {
    let mut columns = (Vec::new(), Vec::new(), Vec::new());
    for ((scope, value), holder) in claims {
        columns.0.push(scope.as_str());
        columns.1.push(value.as_str());
        columns.2.push(holder.as_str());
    }
    columns
}

fn head(row: &PgRow) -> Result<Head, sqlx::Error> {
    let at = |column| -> Result<Timestamp, sqlx::Error> {
        Ok(Timestamp::new(row.try_get::<OffsetDateTime, _>(column)?))
    };
    Ok(Head {
        position: Position::from_i64(row.try_get("position")?),
        epoch: Epoch::from_i64(row.try_get("epoch")?),
        guard: row.try_get("guard")?,
        halted: row.try_get("halted")?,
        partitions: row
            .try_get::<Vec<i64>, _>("partition_positions")?
            .into_iter()
            .map(Position::from_i64)
            .collect(),
        recorded_at: at("recorded_at")?,
        now: at("now")?,
    })
}

/// A probe's row, and the keys that have a row in `answers`.
fn probed(row: &PgRow, wanted: &Wanted<'_>) -> Result<(Probed, Vec<Vec<u8>>), sqlx::Error> {
    let numbers: Option<Vec<i64>> = row.try_get("numbers")?;
    let versions: Option<Vec<i64>> = row.try_get("versions")?;
    let ids: Option<Vec<uuid::Uuid>> = row.try_get("ids")?;
    let found = numbers
        .unwrap_or_default()
        .into_iter()
        .zip(versions.unwrap_or_default())
        .zip(ids.unwrap_or_default());
    let mut streams = HashMap::new();
    for ((number, version), id) in found {
        let index = usize::try_from(number - 1).unwrap_or(usize::MAX);
        if let Some(stream) = wanted.streams.get(index) {
            streams.insert(
                (*stream).clone(),
                (StreamVersion::from_i64(version), EventId::new(id)),
            );
        }
    }
    let probed = Probed {
        head: head(row)?,
        streams,
        answers: HashMap::new(),
        expired: Vec::new(),
        holders: HashMap::new(),
    };
    let keys: Option<Vec<Vec<u8>>> = row.try_get("keys")?;
    Ok((probed, keys.unwrap_or_default()))
}

#[derive(Debug, thiserror::Error)]
#[error(transparent)]
struct SharedError(Arc<sqlx::Error>);

fn other(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> std::io::Error {
    std::io::Error::other(error)
}

fn timed_out(what: &str, bound_ms: u64) -> sqlx::Error {
    sqlx::Error::Io(std::io::Error::new(
        std::io::ErrorKind::TimedOut,
        format!("{what} took more than {bound_ms} ms"),
    ))
}
