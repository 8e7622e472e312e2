//! Bringing two generations in PostgreSQL to equal checkpoints, and taking a snapshot of that
//! instant.
//!
//! Both are in one database, and rows commit with their checkpoints: a repeatable-read transaction
//! that finds the checkpoints equal in every lane sees the rows of both at exactly these, whatever
//! happens around it. So nothing has to stand still while rows are compared, and one such
//! transaction needs no exported snapshot: its pages are throttled, so a second connection beside
//! it would only rest longer.
//!
//! What is left is to make the checkpoints equal for an instant under load. The candidate is held
//! (`hold_at` in its checkpoints) where the live generation is; when both are there, the live one
//! is locked, the hold moves to exactly where it stopped, and the candidate goes the last steps.

use std::time::Duration;

use millrace_es::Position;
use sqlx::{Connection, PgConnection};
use tokio::time::Instant;

use crate::{
    error::{StoreError, unavailable},
    generation::{Checkpoint, Generation, Lane, of_one_life},
    postgres::{PgStore, holds, lock_checkpoints, read_checkpoints},
};

/// How often it is tried to bring two generations level.
const MAX_ATTEMPTS: u32 = 5;

/// The longest that an attempt holds the live generation still, in milliseconds: its batches wait
/// meanwhile, its readers do not.
const MAX_STANDSTILL_MS: u64 = 1_000;

/// How long both generations may take until they are where the candidate is held, in milliseconds.
const MAX_APPROACH_MS: u64 = 20_000;

/// How long a hold lasts, in milliseconds: longer than an attempt, and the most that a verifier
/// that died holds a candidate back.
const HOLD_MS: u64 = 25_000;

/// How often checkpoints are looked at meanwhile, in milliseconds.
const POLL_MS: u64 = 5;

/// The longest that one statement of a comparison may take, in milliseconds.
const MAX_STATEMENT_MS: u64 = 120_000;

/// A transaction that sees both generations at equal checkpoints.
pub(super) struct Level {
    pub(super) conn: PgConnection,
    pub(super) at: Vec<Checkpoint>,
    /// How long the live generation stood still at the longest.
    pub(super) stood_still: Duration,
}

/// The two generations on their way.
pub(super) struct Pair<'a> {
    pub(super) store: &'a PgStore,
    pub(super) candidate: &'a Generation,
    pub(super) live: &'a Generation,
}

impl Pair<'_> {
    /// Brings them level. Nothing is held any more when it returns, and after a hold has run out
    /// when it does not.
    pub(super) async fn level(&self) -> Result<Level, StoreError> {
        let (own, theirs) = self.checkpoints().await?;
        self.require_comparable(&own, &theirs)?;
        let mut conn = self.store.connect(&compare_session()).await?;
        let mut stood_still = Duration::ZERO;
        // Where no events come in they are level without anyone's help.
        begin(&mut conn).await?;
        let mut found = self.snapshot(&mut conn).await?;
        if found.is_none() {
            let levelled = self.try_to_level(&mut conn, &mut stood_still).await;
            self.release().await;
            found = levelled?;
        }
        match found {
            Some(at) => Ok(Level {
                conn,
                at,
                stood_still,
            }),
            None => Err(unavailable(format!(
                "generations {} and {} of {} were not brought to equal checkpoints in {MAX_ATTEMPTS} attempts of {MAX_STANDSTILL_MS} ms; verify again when fewer events come in",
                self.candidate.id, self.live.id, self.live.projection
            ))),
        }
    }

    /// Lets the candidate go. A hold that cannot be released runs out by itself.
    pub(super) async fn release(&self) {
        if let Err(error) = holds::release(self.store.control(), self.candidate.id).await {
            tracing::warn!(generation = %self.candidate.id, %error, "a hold was not released; it runs out within {HOLD_MS} ms");
        }
    }

    async fn try_to_level(
        &self,
        conn: &mut PgConnection,
        stood_still: &mut Duration,
    ) -> Result<Option<Vec<Checkpoint>>, StoreError> {
        for attempt in 1..=MAX_ATTEMPTS {
            let targets = self.hold().await?;
            self.approach(&targets).await?;
            // What can be done before anything stands still is done before.
            let mut lock = self.store.connect(&lock_session()).await?;
            sqlx::raw_sql("BEGIN").execute(&mut lock).await?;
            sqlx::raw_sql("ROLLBACK").execute(&mut *conn).await?;
            begin(conn).await?;
            let began = Instant::now();
            let found = self.stand_still(lock, conn).await;
            *stood_still = began.elapsed().max(*stood_still);
            metrics::histogram!("millrace_verify_standstill_seconds", "projection" => self.live.projection.clone())
                .record(began.elapsed().as_secs_f64());
            if let Some(at) = found? {
                tracing::info!(projection = self.live.projection, candidate = %self.candidate.id, attempt, stood_still = ?stood_still, "two generations are level");
                return Ok(Some(at));
            }
        }
        Ok(None)
    }

    async fn hold(&self) -> Result<Vec<(Lane, Position)>, StoreError> {
        let lasting = Duration::from_millis(HOLD_MS);
        holds::set(
            self.store.control(),
            self.candidate.id,
            self.live.id,
            lasting,
        )
        .await
    }

    /// Waits until the candidate is where it is held and the live generation is there or beyond.
    async fn approach(&self, targets: &[(Lane, Position)]) -> Result<(), StoreError> {
        let deadline = Instant::now() + Duration::from_millis(MAX_APPROACH_MS);
        loop {
            let (own, theirs) = self.checkpoints().await?;
            let candidate_waits = first_below(&own, targets);
            let live_waits = first_below(&theirs, targets);
            let Some((lane, at, needed)) = candidate_waits.or(live_waits) else {
                return Ok(());
            };
            if Instant::now() >= deadline {
                return Err(if candidate_waits.is_some() {
                    StoreError::Behind {
                        candidate: self.candidate.id,
                        lane: lane.clone(),
                        at,
                        needed,
                    }
                } else {
                    unavailable(format!(
                        "generation {} of {} answers queries and is behind its candidate in {lane}, at {at} of {needed}: see that a projector keeps it current",
                        self.live.id, self.live.projection
                    ))
                });
            }
            tokio::time::sleep(Duration::from_millis(POLL_MS)).await;
        }
    }

    /// Holds the live generation still, within the bound, until the candidate is exactly there and
    /// a snapshot has been taken of it.
    async fn stand_still(
        &self,
        mut lock: PgConnection,
        conn: &mut PgConnection,
    ) -> Result<Option<Vec<Checkpoint>>, StoreError> {
        let bound = Duration::from_millis(MAX_STANDSTILL_MS);
        let held = tokio::time::timeout(bound, self.lock_and_wait(&mut lock, conn)).await;
        // The end of its session is the end of its locks.
        lock.close().await.ok();
        match held {
            Ok(Err(StoreError::Unavailable(error))) => {
                tracing::debug!(%error, "an attempt to bring two generations level failed");
                Ok(None)
            }
            Ok(done) => done,
            Err(_) => Ok(None),
        }
    }

    async fn lock_and_wait(
        &self,
        lock: &mut PgConnection,
        conn: &mut PgConnection,
    ) -> Result<Option<Vec<Checkpoint>>, StoreError> {
        lock_checkpoints(lock, self.live.id).await?;
        let targets = self.hold().await?;
        loop {
            let own = self.store.checkpoints(self.candidate.id).await?;
            if first_below(&own, &targets).is_none() {
                return self.snapshot(conn).await;
            }
            tokio::time::sleep(Duration::from_millis(POLL_MS)).await;
        }
    }

    /// Whether both are at equal checkpoints in what the transaction sees, and where.
    async fn snapshot(
        &self,
        conn: &mut PgConnection,
    ) -> Result<Option<Vec<Checkpoint>>, StoreError> {
        let own = read_checkpoints(conn, self.candidate.id).await?;
        let theirs = read_checkpoints(conn, self.live.id).await?;
        if own == theirs {
            return Ok(Some(own));
        }
        Ok(None)
    }

    async fn checkpoints(&self) -> Result<(Vec<Checkpoint>, Vec<Checkpoint>), StoreError> {
        // The live one last: what the candidate has reached then, it keeps.
        let own = self.store.checkpoints(self.candidate.id).await?;
        let theirs = self.store.checkpoints(self.live.id).await?;
        Ok((own, theirs))
    }

    /// Refuses generations whose positions do not compare.
    fn require_comparable(
        &self,
        own: &[Checkpoint],
        theirs: &[Checkpoint],
    ) -> Result<(), StoreError> {
        for (id, found) in [(self.candidate.id, own), (self.live.id, theirs)] {
            if found.is_empty() {
                return Err(StoreError::Gone(id));
            }
        }
        let lanes = |all: &[Checkpoint]| all.iter().map(|one| one.lane.clone()).collect::<Vec<_>>();
        if lanes(own) == lanes(theirs) && of_one_life(own, theirs) {
            return Ok(());
        }
        Err(StoreError::Invalid(format!(
            "generations {} and {} of {} follow different lives or partitions of their logs: there is nothing to compare",
            self.candidate.id, self.live.id, self.live.projection
        )))
    }
}

/// Begins a transaction that sees one moment, that of its first question.
pub(super) async fn begin(conn: &mut PgConnection) -> Result<(), StoreError> {
    sqlx::raw_sql("BEGIN ISOLATION LEVEL REPEATABLE READ")
        .execute(conn)
        .await?;
    Ok(())
}

/// A lane that has not reached its target: where it is, and where it has to be.
fn first_below<'a>(
    checkpoints: &[Checkpoint],
    targets: &'a [(Lane, Position)],
) -> Option<(&'a Lane, Position, Position)> {
    targets.iter().find_map(|(lane, target)| {
        let found = checkpoints.iter().find(|one| one.lane == *lane);
        let at = found.map_or(Position::ZERO, |one| one.position);
        (at < *target).then_some((lane, at, *target))
    })
}

/// A session that holds checkpoints: the server ends it if this process stops in the middle.
fn lock_session() -> [(&'static str, String); 3] {
    let bound = MAX_STANDSTILL_MS.to_string();
    [
        // A statement that waits for locks has some already: it may use up half of the bound.
        ("statement_timeout", (MAX_STANDSTILL_MS / 2).to_string()),
        ("idle_in_transaction_session_timeout", bound.clone()),
        ("tcp_user_timeout", bound),
    ]
}

/// A session that compares. Texts that go back in as bounds of ranges have to lose nothing.
pub(super) fn compare_session() -> [(&'static str, String); 3] {
    [
        ("statement_timeout", MAX_STATEMENT_MS.to_string()),
        ("tcp_user_timeout", MAX_STATEMENT_MS.to_string()),
        ("jit", "off".to_owned()),
    ]
}
