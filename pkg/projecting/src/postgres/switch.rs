//! Which generation answers: switches and rollbacks.

use std::time::Duration;

use sqlx::{PgConnection, Row};
use tokio::time::Instant;

use super::{
    PgStore,
    store::{list_generations, lock_checkpoints, lock_generations, read_checkpoints},
};
use crate::{
    error::StoreError,
    generation::{
        Activation, Checkpoint, ContextHead, Generation, GenerationId, GenerationStatus, Switched,
        of_one_life, require_reached,
    },
};

/// How far behind a candidate may be, in positions, for a switch to be tried.
const MAX_SWITCH_LAG: u64 = 10_000;

/// The longest that a switch holds the live generation still, in milliseconds.
const MAX_SWITCH_MS: u64 = 3_000;

/// How often it looks meanwhile whether the candidate is there, in milliseconds.
const SWITCH_POLL_MS: u64 = 20;

impl PgStore {
    /// Makes a candidate answer queries, in one transaction that holds the checkpoints of the live
    /// generation still (the candidate's only go forward). It has to be at or beyond the generation
    /// it replaces in every lane, so that no reader goes back; where the log began a new life
    /// since, at or beyond `heads`. For the generation that answers already it only says what that
    /// replaced.
    ///
    /// # Errors
    /// [`StoreError::Behind`] when it is not far enough; [`StoreError::Invalid`] when it is no
    /// candidate; else see [`StoreError`].
    pub async fn switch(
        &self,
        candidate: &Generation,
        heads: &[ContextHead],
    ) -> Result<Switched, StoreError> {
        self.make_active(candidate, heads, Activation::Switch).await
    }

    pub(super) async fn make_active(
        &self,
        wanted: &Generation,
        heads: &[ContextHead],
        how: Activation,
    ) -> Result<Switched, StoreError> {
        let mut tx = self.control().begin().await?;
        lock_generations(&mut tx, &wanted.projection).await?;
        let known = list_generations(&mut tx, &wanted.projection).await?;
        let Some(wanted) = known.iter().find(|one| one.id == wanted.id) else {
            return Err(StoreError::Gone(wanted.id));
        };
        let live = how.live(wanted, &known);
        if live.is_some_and(|live| live.id == wanted.id) {
            let previous = read_previous(&mut tx, wanted.id).await?;
            return Ok(Switched { previous });
        }
        how.check(wanted)?;
        let forced = how.is_forced();
        let mut same_life = true;
        if let Some(live) = live {
            let theirs = read_checkpoints(&mut tx, live.id).await?;
            let own = read_checkpoints(&mut tx, wanted.id).await?;
            same_life = of_one_life(&own, &theirs);
            if same_life && !forced {
                require_near(wanted.id, &own, &theirs)?;
                overtake(&mut tx, live.id, wanted.id).await?;
            }
        }
        if !same_life && !forced {
            let own = read_checkpoints(&mut tx, wanted.id).await?;
            let needed = heads.iter().flat_map(ContextHead::lanes);
            require_reached(wanted.id, &own, needed)?;
        }
        let left = if same_life || forced {
            GenerationStatus::Retained
        } else {
            GenerationStatus::Retired
        };
        for one in how.leaving(wanted, &known) {
            set_status(&mut tx, one.id, left, Some(wanted.id)).await?;
        }
        set_status(&mut tx, wanted.id, GenerationStatus::Active, None).await?;
        let previous = live.map(|one| one.id);
        write_origin(&mut tx, wanted.id, previous, forced).await?;
        tx.commit().await?;
        tracing::info!(projection = wanted.projection, generation = %wanted.id, ?previous, "switched to a generation");
        Ok(Switched { previous })
    }
}

/// Refuses a candidate that has far to go: holding the live generation still for it would take
/// too long.
fn require_near(
    candidate: GenerationId,
    own: &[Checkpoint],
    live: &[Checkpoint],
) -> Result<(), StoreError> {
    let needed = live.iter().map(|one| {
        let near = one.position.get().saturating_sub(MAX_SWITCH_LAG);
        (one.lane.clone(), millrace_es::Position::new(near))
    });
    require_reached(candidate, own, needed)
}

/// Holds the live generation still, by the row locks of its checkpoints, until the candidate is
/// nowhere behind it. Under load neither ever waits for the other by itself.
async fn overtake(
    conn: &mut PgConnection,
    live: GenerationId,
    candidate: GenerationId,
) -> Result<(), StoreError> {
    lock_checkpoints(conn, live).await?;
    let theirs = read_checkpoints(conn, live).await?;
    let deadline = Instant::now() + Duration::from_millis(MAX_SWITCH_MS);
    loop {
        let own = read_checkpoints(conn, candidate).await?;
        let needed = theirs.iter().map(|one| (one.lane.clone(), one.position));
        match require_reached(candidate, &own, needed) {
            Err(StoreError::Behind { .. }) if Instant::now() < deadline => {
                tokio::time::sleep(Duration::from_millis(SWITCH_POLL_MS)).await;
            }
            done => return done,
        }
    }
}

async fn set_status(
    conn: &mut PgConnection,
    id: GenerationId,
    status: GenerationStatus,
    replaced_by: Option<GenerationId>,
) -> Result<(), StoreError> {
    sqlx::query(
        "UPDATE generations SET status = $2, switched_at = now(), replaced_by = $3 WHERE id = $1",
    )
    .bind(id.get())
    .bind(status.as_str())
    .bind(replaced_by.map(GenerationId::get))
    .execute(conn)
    .await?;
    Ok(())
}

async fn read_previous(
    conn: &mut PgConnection,
    id: GenerationId,
) -> Result<Option<GenerationId>, StoreError> {
    let row = sqlx::query("SELECT previous FROM generations WHERE id = $1")
        .bind(id.get())
        .fetch_one(conn)
        .await?;
    Ok(row.try_get::<Option<i64>, _>(0)?.map(GenerationId::new))
}

/// What the generation that answers took over from, and whether it had to be nowhere behind it.
async fn write_origin(
    conn: &mut PgConnection,
    id: GenerationId,
    previous: Option<GenerationId>,
    forced: bool,
) -> Result<(), StoreError> {
    sqlx::query("UPDATE generations SET previous = $2, forced = $3 WHERE id = $1")
        .bind(id.get())
        .bind(previous.map(GenerationId::get))
        .bind(forced)
        .execute(conn)
        .await?;
    Ok(())
}
