//! One attempt after another at making a batch durable, on the lane's own connection.
//!
//! What is known outside the lane is only a guess until the lane is locked. So a batch is decided on
//! what this process remembers (see [`super::guess`]), else on a read, and its first statement locks
//! the lane and writes everything under the condition that it was decided on the truth. Where it was
//! not, because another process appended, the batch is read and decided again, in the end under the
//! lock.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use async_trait::async_trait;
use millrace_es::{Context, RecordedEvent, StreamId};
use sqlx::{Connection, PgConnection, Postgres, Transaction, postgres::PgConnectOptions};
use tokio::time::{sleep, timeout};

use super::{
    PgInlineTable,
    copy::{MetadataText, small},
    failure::{Failure, leaves_open, timed_out},
    guard::end_sleepers,
    guess::{self, Clock},
    session,
    sql::Statements,
};
use crate::{
    AppendRequest, ExpectedVersion, LogError,
    lane::{
        Faults, LaneStep, LaneStore, Refused, SharedError,
        plan::{self, Claim, Head, Plan, Wanted},
        seen::{Seen, WentBack},
    },
};

/// How long answers are kept.
const ANSWER_HOURS: i32 = 24;
/// How long one attempt at a batch may take before its connection is given up.
const ATTEMPT_MS: u64 = 15_000;
/// The pauses between attempts: doubled from the first to the second.
const FIRST_PAUSE_MS: u64 = 5;
const MAX_PAUSE_MS: u64 = 200;
/// How often a batch is decided again because constraints caught a race.
const MAX_RACES: u32 = 5;

pub(super) struct Store {
    pub context: Context,
    pub statements: Arc<Statements>,
    pub inline: Vec<Arc<dyn PgInlineTable>>,
    pub faults: Option<Arc<dyn Faults>>,
    pub options: PgConnectOptions,
    pub conn: Option<PgConnection>,
    /// Another process writes too: reading before locking would be for nothing.
    pub contended: bool,
    /// The newest head this process has seen.
    pub seen: Seen,
    /// Where the last commit of this process left the log.
    pub left: Option<Head>,
    /// The server's clock, as it was read last.
    pub clock: Option<Clock>,
}

#[async_trait]
impl LaneStore for Store {
    fn context(&self) -> &Context {
        &self.context
    }

    async fn commit<'a>(
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
                Ok(Ok(plan)) => {
                    self.seen.committed(plan.before.epoch, plan.position);
                    self.left = plan.after();
                    return Ok(plan);
                }
                Ok(Err(failure)) => failure,
                Err(_) => Failure::Passing(timed_out("an attempt at a batch", ATTEMPT_MS)),
            };
            let error = match failure {
                Failure::Data(error) => {
                    return Err(Refused::Data {
                        reason: reason(&error),
                        error: SharedError::new(error),
                    });
                }
                Failure::Fatal(error) => return Err(Refused::Broken(error)),
                Failure::WentBack(reason) => match self.halt(&reason).await {
                    Ok(()) => continue,
                    Err(error) => error,
                },
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
                    if lock_not_had(&error) {
                        self.end_sleepers().await;
                    }
                    if let Some(plan) = sent.filter(|_| leaves_open(&error)) {
                        let error = SharedError::new(error);
                        match self.settle(&plan).await {
                            Ok(true) => return Ok(plan),
                            Ok(false) => {}
                            Err(settling) => {
                                tracing::error!(context = %self.context, %settling, %error,
                                    "a commit's outcome could not be found out");
                                return Err(Refused::Open(error));
                            }
                        }
                        sqlx::Error::Io(std::io::Error::other(error))
                    } else {
                        error
                    }
                }
            };
            if Instant::now() + pause >= deadline {
                return Err(Refused::Unavailable(SharedError::new(error)));
            }
            tracing::warn!(context = %self.context, %error, "a batch did not commit, trying again");
            sleep(pause).await;
            pause = (pause * 2).min(Duration::from_millis(MAX_PAUSE_MS));
        }
    }
}

impl Store {
    /// Halts a log that went back; deciding the batch again then says so to its appends.
    async fn halt(&mut self, reason: &str) -> Result<(), sqlx::Error> {
        tracing::error!(context = %self.context, reason, "the log is halted; run `millrace log recover`");
        let mut conn = PgConnection::connect_with(&self.options).await?;
        sqlx::query(&self.statements.halt)
            .bind(reason)
            .execute(&mut conn)
            .await
            .map(|_| ())
    }

    /// What keeps the lane from being had may be a process that sleeps.
    async fn end_sleepers(&mut self) {
        let Ok(mut conn) = session::connect(&self.options).await else {
            return;
        };
        match end_sleepers(&mut conn, &self.statements, &self.context).await {
            Ok(()) => self.conn = Some(conn),
            Err(error) => {
                tracing::warn!(context = %self.context, %error, "cannot end sessions that hold the log");
            }
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
            None => session::connect(&self.options).await?,
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
        if !self.contended {
            if let Some(plan) = self.write_guessed(conn, &wanted, requests, sent).await? {
                return Ok(plan);
            }
            let plan = self.decide(conn, &wanted, requests).await?;
            if plan.is_empty() {
                return Ok(plan);
            }
            if let Some(plan) = self.write_unlocked(conn, plan, &[], sent).await? {
                return Ok(plan);
            }
        }
        self.write_locked(conn, &wanted, requests, sent).await
    }

    /// Decides a batch without reading, and writes it if what it was decided on is so.
    async fn write_guessed<'a>(
        &mut self,
        conn: &mut PgConnection,
        wanted: &Wanted<'a>,
        requests: &[&'a AppendRequest],
        sent: &mut Option<Plan<'a>>,
    ) -> Result<Option<Plan<'a>>, Failure> {
        let left = self.left.take();
        let guess = left.and_then(|head| guess::guess(head, self.clock.as_ref()?, wanted));
        let Some(probed) = guess else {
            return Ok(None);
        };
        let plan = plan::decide(&self.context, requests.iter().copied(), &probed);
        // Nothing to write is nothing that would find out whether the guess was right.
        if plan.is_empty() {
            return Ok(None);
        }
        self.at(LaneStep::Probed).await;
        self.write_unlocked(conn, plan, &wanted.streams, sent).await
    }

    /// Writes a batch that was decided before the lane is locked; `None` when it was decided on
    /// something that is not so, or not any more.
    async fn write_unlocked<'a>(
        &mut self,
        conn: &mut PgConnection,
        plan: Plan<'a>,
        guessed: &[(&StreamId, ExpectedVersion)],
        sent: &mut Option<Plan<'a>>,
    ) -> Result<Option<Plan<'a>>, Failure> {
        if self.is_one_statement(&plan) {
            return self.write_alone(conn, plan, guessed, sent).await;
        }
        let tx = conn.begin().await.map_err(Failure::of)?;
        self.write_all(tx, plan, guessed, sent).await
    }

    /// Reads what a batch needs and decides it.
    async fn decide<'a>(
        &mut self,
        conn: &mut PgConnection,
        wanted: &Wanted<'a>,
        requests: &[&'a AppendRequest],
    ) -> Result<Plan<'a>, Failure> {
        let probed = self.probe(conn, wanted).await?;
        self.clock = Some(Clock::read(probed.head.now));
        self.contended = !self.seen.is(&probed.head);
        let taken = self.seen.take(&probed.head);
        taken.map_err(|WentBack(reason)| Failure::WentBack(reason))?;
        let plan = plan::decide(&self.context, requests.iter().copied(), &probed);
        self.at(LaneStep::Probed).await;
        Ok(plan)
    }

    /// Whether the statement that moves the head writes all of a plan.
    fn is_one_statement(&self, plan: &Plan<'_>) -> bool {
        self.inline.is_empty()
            && plan.claims.is_empty()
            && plan.releases.is_empty()
            && plan.expired.is_empty()
    }

    /// Writes a batch in one statement, which is its own transaction.
    async fn write_alone<'a>(
        &mut self,
        conn: &mut PgConnection,
        plan: Plan<'a>,
        guessed: &[(&StreamId, ExpectedVersion)],
        sent: &mut Option<Plan<'a>>,
    ) -> Result<Option<Plan<'a>>, Failure> {
        self.at(LaneStep::Committing).await;
        // From here on it may be durable.
        let plan = sent.insert(plan);
        if !self.write(conn, plan, guessed).await? {
            *sent = None;
            return Ok(None);
        }
        self.at(LaneStep::Committed).await;
        Ok(sent.take())
    }

    /// Writes a batch after locking the lane, decided on what is there then.
    async fn write_locked<'a>(
        &mut self,
        conn: &mut PgConnection,
        wanted: &Wanted<'a>,
        requests: &[&'a AppendRequest],
        sent: &mut Option<Plan<'a>>,
    ) -> Result<Plan<'a>, Failure> {
        let mut tx = conn.begin().await.map_err(Failure::of)?;
        sqlx::query(&self.statements.lock)
            .fetch_one(&mut *tx)
            .await
            .map_err(Failure::of)?;
        self.at(LaneStep::Locked).await;
        let plan = self.decide(&mut tx, wanted, requests).await?;
        if plan.is_empty() {
            tx.rollback().await.map_err(Failure::of)?;
            return Ok(plan);
        }
        let written = self.write_all(tx, plan, &[], sent).await?;
        written.ok_or_else(|| {
            Failure::Fatal(LogError::Corrupt(format!(
                "the head of {} moved while it was locked",
                self.context
            )))
        })
    }

    /// Writes a batch and all beside it, and commits.
    async fn write_all<'a>(
        &mut self,
        mut tx: Transaction<'_, Postgres>,
        plan: Plan<'a>,
        guessed: &[(&StreamId, ExpectedVersion)],
        sent: &mut Option<Plan<'a>>,
    ) -> Result<Option<Plan<'a>>, Failure> {
        self.drop_expired(&mut tx, &plan).await?;
        if !self.write(&mut tx, &plan, guessed).await? {
            tx.rollback().await.map_err(Failure::of)?;
            return Ok(None);
        }
        self.at(LaneStep::Written).await;
        self.write_beside(&mut tx, &plan).await?;
        self.at(LaneStep::Committing).await;
        *sent = Some(plan);
        tx.commit().await.map_err(Failure::of)?;
        self.at(LaneStep::Committed).await;
        Ok(sent.take())
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

    /// Moves the head and writes events and answers. `false` when the head was not where the plan
    /// was made, or a stream is not as `guessed`; then nothing was written.
    async fn write(
        &self,
        conn: &mut PgConnection,
        plan: &Plan<'_>,
        guessed: &[(&StreamId, ExpectedVersion)],
    ) -> Result<bool, Failure> {
        let rows = plan.rows.as_slice();
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
                    .map(|kept| kept.token.to_string())
                    .collect::<Vec<_>>(),
            )
            .bind(ANSWER_HOURS)
            .bind(
                guessed
                    .iter()
                    .map(|(stream, _)| stream.as_str())
                    .collect::<Vec<_>>(),
            )
            .bind(
                guessed
                    .iter()
                    .map(|(_, expected)| guess::version(*expected))
                    .collect::<Vec<_>>(),
            )
            .bind(
                guessed
                    .iter()
                    .map(|(_, expected)| guess::event(*expected))
                    .collect::<Vec<_>>(),
            )
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
            table
                .apply(&mut *conn, events)
                .await
                .map_err(Failure::of_table)?;
            self.at(LaneStep::Inlined).await;
        }
        Ok(())
    }

    async fn at(&self, step: LaneStep) {
        if let Some(faults) = &self.faults {
            faults.at(step).await;
        }
    }
}

/// `55P03`: the lock did not come in time.
fn lock_not_had(error: &sqlx::Error) -> bool {
    let code = error.as_database_error().and_then(|error| error.code());
    code.as_deref() == Some("55P03")
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

/// What the store says about an append's data, without statement or host.
fn reason(error: &sqlx::Error) -> String {
    match error.as_database_error() {
        Some(error) => error.message().to_owned(),
        None => error.to_string(),
    }
}
