use std::{collections::HashSet, ops::Range, sync::Arc};

use async_trait::async_trait;
use millrace_es::{DecodeError, Epoch, Position, RecordedEvent, StreamId};
use sqlx::{Connection, PgConnection, PgPool, Row};

use super::{
    PgView, holds, letters,
    store::{as_i16, read_checkpoints},
};
use crate::{
    batch::{Batch, Chunk, Move, NewLetter, Parked},
    error::{PgClass, StoreError, classify},
    generation::{Checkpoint, GenerationId, Lane},
    letters::Reason,
    store::{GenerationStore, Request, Settled},
};

/// One generation of a view in PostgreSQL, open for folding. Every connection of the pool has the
/// generation's schema as `search_path`.
pub(crate) struct PgGeneration {
    pub(super) id: GenerationId,
    pub(super) pool: PgPool,
    pub(super) view: Arc<dyn PgView>,
    /// Whether the checkpoints count the events: only while a rebuild loads.
    pub(super) counts: bool,
}

/// Why an attempt at a batch did not commit.
enum Attempt {
    /// Some row is refused for good: find it.
    Data,
    Failed(StoreError),
}

impl From<sqlx::Error> for Attempt {
    fn from(error: sqlx::Error) -> Self {
        Self::Failed(error.into())
    }
}

impl PgGeneration {
    /// One transaction: checkpoints by compare-and-set, rows, letters. The checkpoints come first,
    /// because their row locks make a second owner wait and then fail before it has done anything.
    async fn attempt(
        &self,
        batch: &Batch,
        parked: &Parked,
        bisect: bool,
    ) -> Result<Vec<NewLetter>, Attempt> {
        let mut conn = self.pool.acquire().await?;
        let mut tx = conn.begin().await?;
        self.move_checkpoints(&mut tx, &batch.moves())
            .await
            .map_err(Attempt::Failed)?;
        let written = if bisect {
            self.write_bisecting(&mut tx, batch, parked).await
        } else {
            self.view
                .write(&mut tx, batch, 0..batch.len(), parked)
                .await
        };
        let letters = match written {
            Ok(letters) => letters,
            Err(error) if !bisect && classify(&error) == PgClass::Data => {
                tx.rollback().await?;
                return Err(Attempt::Data);
            }
            Err(error) => return Err(error.into()),
        };
        letters::insert(&mut tx, self.id, &letters).await?;
        tx.commit().await?;
        Ok(letters)
    }

    /// One transaction for what was done before it: checkpoints by compare-and-set, and letters.
    pub(super) async fn write_down(
        &self,
        moves: &[Move],
        letters: &[NewLetter],
    ) -> Result<(), StoreError> {
        let mut conn = self.pool.acquire().await?;
        let mut tx = conn.begin().await?;
        self.move_checkpoints(&mut tx, moves).await?;
        letters::insert(&mut tx, self.id, letters).await?;
        tx.commit().await?;
        Ok(())
    }

    /// Moves every lane of a batch from where its owner believes it to be, or none.
    async fn move_checkpoints(
        &self,
        conn: &mut PgConnection,
        moves: &[Move],
    ) -> Result<(), StoreError> {
        let rows = sqlx::query(
            "WITH wanted AS (
                 SELECT * FROM UNNEST($2::text[], $3::smallint[], $4::bigint[], $5::bigint[], $6::bigint[], $7::bigint[])
                     AS t (context, partition, epoch, before, after, events)
             ), locked AS (
                 SELECT c.context, c.partition FROM projections.checkpoints c
                 JOIN wanted w USING (context, partition)
                 WHERE c.generation = $1 ORDER BY c.context, c.partition FOR UPDATE OF c
             )
             UPDATE projections.checkpoints c
             SET position = w.after, events = c.events + w.events, updated_at = now()
             FROM wanted w JOIN locked l USING (context, partition)
             WHERE c.generation = $1 AND c.context = w.context AND c.partition = w.partition
               AND c.position = w.before AND c.epoch = w.epoch
               AND (c.hold_at IS NULL OR w.after <= c.hold_at OR c.hold_until <= now())
             RETURNING c.context, c.partition",
        )
        .bind(self.id.get())
        .bind(moves.iter().map(|one| one.lane.context.as_str()).collect::<Vec<_>>())
        .bind(moves.iter().map(|one| as_i16(one.lane.partition)).collect::<Vec<_>>())
        .bind(moves.iter().map(|one| one.epoch.as_i64()).collect::<Vec<_>>())
        .bind(moves.iter().map(|one| one.from.as_i64()).collect::<Vec<_>>())
        .bind(moves.iter().map(|one| one.to.as_i64()).collect::<Vec<_>>())
        .bind(moves.iter().map(|one| self.counted(one)).collect::<Vec<_>>())
        .fetch_all(&mut *conn)
        .await?;
        if rows.len() == moves.len() {
            return Ok(());
        }
        let mut moved = HashSet::new();
        for row in &rows {
            let context: String = row.try_get(0)?;
            moved.insert((context, row.try_get::<i16, _>(1)?));
        }
        let stuck = moves.iter().filter(|one| {
            !moved.contains(&(
                one.lane.context.as_str().to_owned(),
                as_i16(one.lane.partition),
            ))
        });
        let mut held = Vec::new();
        let holds = holds::read(conn, self.id).await?;
        for one in stuck {
            match holds.iter().find(|hold| hold.stops(one)) {
                Some(hold) => held.push((one.lane.clone(), hold.at)),
                None => {
                    return Err(StoreError::Fenced {
                        generation: self.id,
                        lane: one.lane.clone(),
                    });
                }
            }
        }
        Err(StoreError::Held {
            generation: self.id,
            holds: held,
        })
    }

    fn counted(&self, one: &Move) -> i64 {
        let events = i64::try_from(one.events).unwrap_or(i64::MAX);
        if self.counts { events } else { 0 }
    }

    /// Writes the batch in halves, under savepoints, until the events whose rows are refused for
    /// good stand alone. Halves go in order, so a stream's events stay in order, and what follows
    /// on a stream that was parked on the way becomes a letter too.
    async fn write_bisecting(
        &self,
        conn: &mut PgConnection,
        batch: &Batch,
        parked: &Parked,
    ) -> Result<Vec<NewLetter>, sqlx::Error> {
        self.view.lock(conn, batch, parked).await?;
        let mut parked = parked.clone();
        let mut letters: Vec<NewLetter> = Vec::new();
        let whole: Range<usize> = 0..batch.len();
        let mut left = Vec::from([whole]);
        while let Some(range) = left.pop() {
            let mut savepoint = conn.begin().await?;
            let written = self
                .view
                .write(&mut savepoint, batch, range.clone(), &parked)
                .await;
            let found = match written {
                Ok(found) => {
                    savepoint.commit().await?;
                    found
                }
                Err(error) if classify(&error) != PgClass::Data => return Err(error),
                Err(error) => {
                    savepoint.rollback().await?;
                    if range.len() > 1 {
                        let middle = range.start + range.len() / 2;
                        left.push(middle..range.end);
                        left.push(range.start..middle);
                        continue;
                    }
                    let refused = batch.event(range.start);
                    refused
                        .map(|(lane, event)| NewLetter::new(lane, event, Reason::Store, &error))
                        .into_iter()
                        .collect()
                }
            };
            for letter in &found {
                parked.insert(&letter.lane, &letter.event.stream);
            }
            letters.extend(found);
        }
        Ok(letters)
    }
}

#[async_trait]
impl GenerationStore for PgGeneration {
    async fn checkpoints(&self) -> Result<Vec<Checkpoint>, StoreError> {
        let mut conn = self.pool.acquire().await?;
        let found = read_checkpoints(&mut conn, self.id).await?;
        if found.is_empty() {
            return Err(StoreError::Gone(self.id));
        }
        Ok(found)
    }

    async fn parked(&self, lane: &Lane) -> Result<HashSet<StreamId>, StoreError> {
        let mut conn = self.pool.acquire().await?;
        letters::parked(&mut conn, self.id, lane).await
    }

    fn decode(
        &self,
        lane: Lane,
        epoch: Epoch,
        previous: Position,
        events: Vec<RecordedEvent>,
    ) -> (Option<Chunk>, Option<DecodeError>) {
        self.view.decode(lane, epoch, previous, events)
    }

    async fn apply(&self, batch: &Batch, parked: &Parked) -> Result<Vec<NewLetter>, StoreError> {
        match self.attempt(batch, parked, false).await {
            Ok(letters) => return Ok(letters),
            Err(Attempt::Failed(error)) => return Err(error),
            Err(Attempt::Data) => {}
        }
        match self.attempt(batch, parked, true).await {
            Ok(letters) => Ok(letters),
            Err(Attempt::Failed(error)) => Err(error),
            Err(Attempt::Data) => Err(StoreError::Invalid(
                "a batch in halves was refused whole".to_owned(),
            )),
        }
    }

    async fn requests(&self, lanes: &[Lane]) -> Result<Vec<Request>, StoreError> {
        let mut conn = self.pool.acquire().await?;
        letters::requests(&mut conn, self.id, lanes).await
    }

    async fn settle(
        &self,
        request: &Request,
        checkpoint: &Checkpoint,
    ) -> Result<Settled, StoreError> {
        let mut conn = self.pool.acquire().await?;
        let mut tx = conn.begin().await?;
        self.lock_checkpoint(&mut tx, checkpoint).await?;
        let again = letters::Again::Fold(&*self.view);
        let settled = letters::settle(&mut tx, self.id, again, request, checkpoint).await?;
        tx.commit().await?;
        Ok(settled)
    }

    async fn holds(&self) -> Result<Vec<(Lane, Position)>, StoreError> {
        let mut conn = self.pool.acquire().await?;
        let found = holds::read(&mut conn, self.id).await?;
        Ok(found
            .into_iter()
            .map(|hold| (hold.checkpoint.lane, hold.at))
            .collect())
    }

    async fn pending_letters(&self) -> Result<u64, StoreError> {
        let row = sqlx::query(
            "SELECT count(*) FROM projections.dead_letters WHERE generation = $1 AND status = 'pending'",
        )
        .bind(self.id.get())
        .fetch_one(&self.pool)
        .await?;
        Ok(u64::try_from(row.try_get::<i64, _>(0)?).unwrap_or(0))
    }
}

impl PgGeneration {
    /// Holds a lane still for a redrive, if it is where its owner left it.
    pub(super) async fn lock_checkpoint(
        &self,
        conn: &mut PgConnection,
        checkpoint: &Checkpoint,
    ) -> Result<(), StoreError> {
        let lane = &checkpoint.lane;
        let found = sqlx::query(
            "SELECT 1 FROM projections.checkpoints WHERE generation = $1 AND context = $2
             AND partition = $3 AND position = $4 AND epoch = $5 FOR UPDATE",
        )
        .bind(self.id.get())
        .bind(lane.context.as_str())
        .bind(as_i16(lane.partition))
        .bind(checkpoint.position.as_i64())
        .bind(checkpoint.epoch.as_i64())
        .fetch_optional(conn)
        .await?;
        found.map(|_| ()).ok_or_else(|| StoreError::Fenced {
            generation: self.id,
            lane: lane.clone(),
        })
    }
}
