//! Reactions: one generation for ever, kept in the control tables alone.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use async_trait::async_trait;
use millrace_es::{DecodeError, Epoch, Position, RecordedEvent, StreamId};
use millrace_kernel::Timestamp;
use sqlx::{Connection, Row};
use time::OffsetDateTime;
use tokio_util::sync::CancellationToken;

use super::{
    PgGeneration, PgStore,
    letters::{self, Again, Tried},
    store::{as_i16, read_lane},
};
use crate::{
    batch::{Batch, Chunk, NewLetter, Parked, describe},
    error::StoreError,
    generation::{Checkpoint, Generation, GenerationId, Lane},
    letters::{Action, Reason},
    reacting::{Availability, GoesOn, Memory, Moved, Perform, Performance},
    store::{GenerationStore, Request, Settled},
    view::View,
};

/// The most letters of a stream that one step of a redrive performs; the request stays open while
/// there are more, and the lanes go on in between.
const MAX_REDRIVE_EFFECTS: i64 = 20;

/// The generation of a reaction, open for its effects.
pub(crate) struct PgReaction {
    control: PgGeneration,
    perform: Arc<dyn Perform>,
    memory: Memory,
    availability: Availability,
    stop: CancellationToken,
}

impl PgStore {
    /// Opens a reaction's generation for the process that performs it.
    pub(crate) fn reaction(
        &self,
        generation: &Generation,
        view: &View,
        stop: CancellationToken,
    ) -> Result<PgReaction, StoreError> {
        let perform = view.performed()?;
        let mut control = self.generation(generation, Arc::clone(&view.reaction_view()?.rows));
        // What was performed is written down for good: a repeat is a repeat in the world.
        control.pool = self.durable_pool(generation);
        Ok(PgReaction {
            control,
            perform,
            memory: Memory::default(),
            availability: Availability::new(view.name()),
            stop,
        })
    }
}

impl PgStore {
    /// The checkpoints of a generation, each with when it was last moved.
    pub(crate) async fn moved(&self, generation: GenerationId) -> Result<Vec<Moved>, StoreError> {
        let rows = sqlx::query(
            "SELECT context, partition, position, epoch, updated_at FROM checkpoints
             WHERE generation = $1 ORDER BY context, partition",
        )
        .bind(generation.get())
        .fetch_all(self.control())
        .await?;
        rows.iter()
            .map(|row| {
                Ok(Moved {
                    checkpoint: Checkpoint {
                        lane: read_lane(row)?,
                        position: Position::from_i64(row.try_get("position")?),
                        epoch: Epoch::from_i64(row.try_get("epoch")?),
                    },
                    at: Timestamp::new(row.try_get::<OffsetDateTime, _>("updated_at")?),
                })
            })
            .collect()
    }

    /// Lets a lane go on in the new life of its log, unless another process has done so. Letters of
    /// events beyond are forgotten: those events are gone, or are tried again.
    pub(crate) async fn go_on(
        &self,
        generation: GenerationId,
        lane: &GoesOn,
    ) -> Result<bool, StoreError> {
        let (partition, context) = (as_i16(lane.lane.partition), lane.lane.context.as_str());
        let mut tx = self.control().begin().await?;
        let done = sqlx::query(
            "UPDATE checkpoints SET position = $6, epoch = $7, updated_at = now()
             WHERE generation = $1 AND context = $2 AND partition = $3
               AND position = $4 AND epoch = $5",
        )
        .bind(generation.get())
        .bind(context)
        .bind(partition)
        .bind(lane.from.0.as_i64())
        .bind(lane.from.1.as_i64())
        .bind(lane.to.0.as_i64())
        .bind(lane.to.1.as_i64())
        .execute(&mut *tx)
        .await?;
        if done.rows_affected() == 0 {
            return Ok(false);
        }
        sqlx::query(
            "DELETE FROM dead_letters
             WHERE generation = $1 AND context = $2 AND partition = $3 AND position > $4",
        )
        .bind(generation.get())
        .bind(context)
        .bind(partition)
        .bind(lane.to.0.as_i64())
        .execute(&mut *tx)
        .await?;
        sqlx::query(
            "DELETE FROM parked_keys k
             WHERE generation = $1 AND context = $2 AND partition = $3 AND NOT EXISTS (
                 SELECT 1 FROM dead_letters l WHERE l.generation = k.generation
                 AND l.context = k.context AND l.stream = k.stream AND l.status = 'pending')",
        )
        .bind(generation.get())
        .bind(context)
        .bind(partition)
        .execute(&mut *tx)
        .await?;
        tx.commit().await?;
        Ok(true)
    }
}

impl PgReaction {
    async fn perform(&self, batch: &Batch, parked: &Parked, memory: &Memory) -> Performance {
        let done = self
            .perform
            .perform(batch, parked, memory, &self.stop)
            .await;
        match &done.error {
            Some(error) => self.availability.failed(&**error),
            // A batch without effects says nothing about the endpoint.
            None if done.holds.is_empty() && done.performed > 0 => self.availability.succeeded(),
            None => {}
        }
        done
    }

    /// Tries the oldest letters of a stream again, up to the first that fails or has to wait.
    async fn perform_again(
        &self,
        request: &Request,
        checkpoint: &Checkpoint,
    ) -> Result<HashMap<Position, Tried>, StoreError> {
        let mut conn = self.control.pool.acquire().await?;
        let events =
            letters::waiting(&mut conn, self.control.id, request, MAX_REDRIVE_EFFECTS).await?;
        drop(conn);
        let mut tried = HashMap::new();
        let nothing_parked = Parked::default();
        for event in events {
            let (position, previous) = (event.position, event.previous);
            let (chunk, too_new) = self.control.decode(
                request.lane.clone(),
                checkpoint.epoch,
                previous,
                vec![event],
            );
            let Some(chunk) = chunk else {
                let error = too_new.map_or_else(String::new, |error| describe(&error));
                tried.insert(position, Some((Reason::Malformed, error)));
                break;
            };
            let mut batch = Batch::default();
            batch.push(chunk);
            let done = self
                .perform(&batch, &nothing_parked, &Memory::default())
                .await;
            if !done.holds.is_empty() {
                // What was performed before it is written down, if anything was.
                if tried.is_empty() {
                    return Err(waiting(done));
                }
                break;
            }
            let failed = done.letters.into_iter().next();
            let failed = failed.map(|letter| (letter.reason, letter.error));
            let is_failed = failed.is_some();
            tried.insert(position, failed);
            if is_failed {
                break;
            }
        }
        Ok(tried)
    }
}

fn waiting(done: Performance) -> StoreError {
    StoreError::Waiting {
        holds: done.holds.into_iter().collect(),
        source: done.error.unwrap_or_else(|| "told to stop".into()),
    }
}

#[async_trait]
impl GenerationStore for PgReaction {
    async fn checkpoints(&self) -> Result<Vec<Checkpoint>, StoreError> {
        self.control.checkpoints().await
    }

    async fn parked(&self, lane: &Lane) -> Result<HashSet<StreamId>, StoreError> {
        // The lane begins at its checkpoint: another process may have gone on from there, or the
        // store been put back.
        self.memory.forget_lane(lane);
        self.control.parked(lane).await
    }

    fn decode(
        &self,
        lane: Lane,
        epoch: Epoch,
        previous: Position,
        events: Vec<RecordedEvent>,
    ) -> (Option<Chunk>, Option<DecodeError>) {
        self.control.decode(lane, epoch, previous, events)
    }

    async fn apply(&self, batch: &Batch, parked: &Parked) -> Result<Vec<NewLetter>, StoreError> {
        let done = self.perform(batch, parked, &self.memory).await;
        if !done.holds.is_empty() {
            return Err(waiting(done));
        }
        let moves = batch.moves();
        self.control.write_down(&moves, &done.letters).await?;
        self.memory.forget(&moves);
        Ok(done.letters)
    }

    async fn requests(&self, lanes: &[Lane]) -> Result<Vec<Request>, StoreError> {
        self.control.requests(lanes).await
    }

    async fn settle(
        &self,
        request: &Request,
        checkpoint: &Checkpoint,
    ) -> Result<Settled, StoreError> {
        let tried = match request.action {
            Action::Redrive => self.perform_again(request, checkpoint).await?,
            Action::Discard => HashMap::new(),
        };
        let mut conn = self.control.pool.acquire().await?;
        let mut tx = conn.begin().await?;
        self.control.lock_checkpoint(&mut tx, checkpoint).await?;
        let again = Again::Performed(&tried);
        let settled = letters::settle(&mut tx, self.control.id, again, request, checkpoint).await?;
        tx.commit().await?;
        Ok(settled)
    }

    async fn pending_letters(&self) -> Result<u64, StoreError> {
        self.control.pending_letters().await
    }
}
