//! Holds: how far a generation may go while a verification brings it level with another one. They
//! are judged where checkpoints move, so no worker has to look for them, and they run out by
//! themselves, so a verifier that dies holds nothing for long.

use std::time::Duration;

use millrace_es::{Epoch, Position};
use sqlx::{PgConnection, PgPool, Row};

use super::store::read_lane;
use crate::{
    batch::Move,
    error::StoreError,
    generation::{Checkpoint, GenerationId, Lane},
};

/// A lane that is held.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Hold {
    /// Where the lane is.
    pub(crate) checkpoint: Checkpoint,
    /// How far it may go.
    pub(crate) at: Position,
}

impl Hold {
    /// Whether a move failed because of this hold, and not on another owner's move.
    pub(super) fn stops(&self, one: &Move) -> bool {
        let at = &self.checkpoint;
        at.lane == one.lane && at.position == one.from && at.epoch == one.epoch && one.to > self.at
    }
}

/// The holds of a generation that have not run out.
pub(super) async fn read(
    conn: &mut PgConnection,
    generation: GenerationId,
) -> Result<Vec<Hold>, StoreError> {
    let rows = sqlx::query(
        "SELECT context, partition, position, epoch, hold_at FROM projections.checkpoints
         WHERE generation = $1 AND hold_at IS NOT NULL AND hold_until > now()",
    )
    .bind(generation.get())
    .fetch_all(conn)
    .await?;
    rows.iter()
        .map(|row| {
            Ok(Hold {
                checkpoint: Checkpoint {
                    lane: read_lane(row)?,
                    position: Position::from_i64(row.try_get("position")?),
                    epoch: Epoch::from_i64(row.try_get("epoch")?),
                },
                at: Position::from_i64(row.try_get("hold_at")?),
            })
        })
        .collect()
}

/// Holds every lane of a candidate where the live generation is, or where it is itself if it is
/// further, for a time. Gives where each lane is held.
pub(crate) async fn set(
    pool: &PgPool,
    candidate: GenerationId,
    live: GenerationId,
    lasting: Duration,
) -> Result<Vec<(Lane, Position)>, StoreError> {
    let rows = sqlx::query(
        "WITH locked AS (
             SELECT context, partition FROM projections.checkpoints
             WHERE generation = $1 ORDER BY context, partition FOR UPDATE
         )
         UPDATE projections.checkpoints c
         SET hold_at = greatest(c.position, l.position),
             hold_until = clock_timestamp() + $3 * interval '1 millisecond'
         FROM projections.checkpoints l JOIN locked k USING (context, partition)
         WHERE c.generation = $1 AND c.context = k.context AND c.partition = k.partition
           AND l.generation = $2
         RETURNING c.context, c.partition, c.hold_at",
    )
    .bind(candidate.get())
    .bind(live.get())
    .bind(i64::try_from(lasting.as_millis()).unwrap_or(i64::MAX))
    .fetch_all(pool)
    .await?;
    rows.iter()
        .map(|row| {
            let at = Position::from_i64(row.try_get("hold_at")?);
            Ok((read_lane(row)?, at))
        })
        .collect()
}

/// Lets a generation go.
pub(crate) async fn release(pool: &PgPool, candidate: GenerationId) -> Result<(), StoreError> {
    sqlx::query(
        "WITH locked AS (
             SELECT context, partition FROM projections.checkpoints
             WHERE generation = $1 ORDER BY context, partition FOR UPDATE
         )
         UPDATE projections.checkpoints c SET hold_at = NULL, hold_until = NULL
         FROM locked k
         WHERE c.generation = $1 AND c.context = k.context AND c.partition = k.partition",
    )
    .bind(candidate.get())
    .execute(pool)
    .await?;
    Ok(())
}
