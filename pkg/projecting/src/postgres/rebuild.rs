//! Rebuilds of views in PostgreSQL.

use std::{num::NonZeroU32, sync::Arc};

use async_trait::async_trait;
use millrace_es::{Epoch, Position};
use sqlx::{AssertSqlSafe, PgConnection, Row};

use super::{
    PgGeneration, PgStore,
    store::{
        CONTROL_SCHEMA, LOCK_TIMEOUT_MS, NewGeneration, check_name, create, list_generations,
        lock_generations, read_lane,
    },
};
use crate::{
    error::StoreError,
    generation::{
        Activation, ContextHead, Generation, GenerationId, GenerationStatus, Switched, is_kept_for,
    },
    owner::Owner,
    rebuild::{LOAD_WRITERS, LaneProgress, Pace, RebuildStore, require_loaded},
    store::GenerationStore,
    view::View,
};

#[async_trait]
impl RebuildStore for PgStore {
    async fn generations(&self, projection: &str) -> Result<Vec<Generation>, StoreError> {
        Self::generations(self, projection).await
    }

    async fn begin(
        &self,
        view: &View,
        owner: &Owner,
        heads: &[ContextHead],
        pace: Pace,
    ) -> Result<Generation, StoreError> {
        check_name(view.name())?;
        let mut tx = self.control().begin().await?;
        lock_generations(&mut tx, view.name()).await?;
        let known = list_generations(&mut tx, view.name()).await?;
        if let Some(own) = Generation::of_owner(known, owner)? {
            return Ok(own);
        }
        let new = NewGeneration {
            status: GenerationStatus::Loading,
            rebuild: Some((owner, pace)),
        };
        let generation = create(&mut tx, view, &**view.postgres()?, heads, new).await?;
        tx.commit().await?;
        tracing::info!(projection = view.name(), generation = %generation.id, %owner, "a rebuild begins");
        Ok(generation)
    }

    async fn progress(&self, generation: GenerationId) -> Result<Vec<LaneProgress>, StoreError> {
        let mut conn = self.control().acquire().await?;
        Ok(read_progress(&mut conn, generation).await?)
    }

    async fn standing(
        &self,
        generation: &Generation,
    ) -> Result<Option<(GenerationStatus, Pace)>, StoreError> {
        let row = sqlx::query(
            "SELECT status, max_events_per_second, suspended FROM generations WHERE id = $1",
        )
        .bind(generation.id.get())
        .fetch_optional(self.control())
        .await?;
        let Some(row) = row else { return Ok(None) };
        let status: String = row.try_get(0)?;
        let most: Option<i64> = row.try_get(1)?;
        let pace = Pace {
            max_events_per_second: most
                .and_then(|most| u32::try_from(most).ok())
                .and_then(NonZeroU32::new),
            suspended: row.try_get(2)?,
        };
        Ok(Some((GenerationStatus::from_stored(&status), pace)))
    }

    async fn set_pace(&self, generation: &Generation, pace: Pace) -> Result<(), StoreError> {
        let done = sqlx::query(
            "UPDATE generations SET max_events_per_second = $2, suspended = $3 WHERE id = $1",
        )
        .bind(generation.id.get())
        .bind(pace.max_events_per_second.map(|most| i64::from(most.get())))
        .bind(pace.suspended)
        .execute(self.control())
        .await?;
        if done.rows_affected() == 0 {
            return Err(StoreError::Gone(generation.id));
        }
        Ok(())
    }

    fn open(
        &self,
        generation: &Generation,
        view: &View,
    ) -> Result<Arc<dyn GenerationStore>, StoreError> {
        // Each writer has a batch in flight; one more looks at checkpoints.
        let connections = u32::try_from(LOAD_WRITERS + 1).unwrap_or(u32::MAX);
        Ok(Arc::new(PgGeneration {
            id: generation.id,
            pool: self.generation_pool(generation, connections),
            view: Arc::clone(view.postgres()?),
            counts: true,
        }))
    }

    /// In one transaction: a crash on the way leaves the load as it was.
    async fn finish(&self, generation: &Generation, view: &View) -> Result<(), StoreError> {
        let mut tx = self.control().begin().await?;
        let row = sqlx::query(
            "SELECT status, schema_name FROM generations WHERE id = $1 FOR NO KEY UPDATE",
        )
        .bind(generation.id.get())
        .fetch_optional(&mut *tx)
        .await?;
        let row = row.ok_or(StoreError::Gone(generation.id))?;
        match GenerationStatus::from_stored(&row.try_get::<String, _>(0)?) {
            GenerationStatus::Loading => {}
            GenerationStatus::Retired => return Err(StoreError::Gone(generation.id)),
            _ => return Ok(()),
        }
        let lanes = read_progress(&mut tx, generation.id).await?;
        require_loaded(generation, &lanes)?;
        let schema: String = row.try_get(1)?;
        // The schema's name was made of a checked name and a number.
        let ddl = format!(
            "SET LOCAL search_path = {schema}, public; {}; SET LOCAL search_path = {CONTROL_SCHEMA};",
            view.postgres()?.indexes(),
        );
        sqlx::raw_sql(AssertSqlSafe(ddl)).execute(&mut *tx).await?;
        analyze(&mut tx, &schema).await?;
        sqlx::query("UPDATE generations SET status = $2 WHERE id = $1")
            .bind(generation.id.get())
            .bind(GenerationStatus::Candidate.stored(true))
            .execute(&mut *tx)
            .await?;
        tx.commit().await?;
        tracing::info!(projection = view.name(), generation = %generation.id, "the load is finished; projectors keep it current");
        Ok(())
    }

    async fn activate(
        &self,
        generation: &Generation,
        heads: &[ContextHead],
        how: Activation,
    ) -> Result<Switched, StoreError> {
        self.make_active(generation, heads, how).await
    }

    async fn clear(
        &self,
        generation: &Generation,
        kept_for: Option<GenerationId>,
    ) -> Result<bool, StoreError> {
        let schema = match self.retire(generation, kept_for).await? {
            Retired::Schema(schema) => schema,
            Retired::Gone => return Ok(true),
            Retired::KeptForAnother => return Ok(false),
        };
        let mut tx = self.control().begin().await?;
        let limit = format!("SET LOCAL lock_timeout = {LOCK_TIMEOUT_MS}");
        sqlx::raw_sql(AssertSqlSafe(limit))
            .execute(&mut *tx)
            .await?;
        // The checkpoints first: a batch in flight is waited for, and the next one finds none.
        for table in [
            "checkpoints",
            "parked_keys",
            "dead_letter_requests",
            "dead_letters",
        ] {
            let sql = format!("DELETE FROM {table} WHERE generation = $1");
            sqlx::query(AssertSqlSafe(sql))
                .bind(generation.id.get())
                .execute(&mut *tx)
                .await?;
        }
        let ddl = format!("DROP SCHEMA IF EXISTS {schema} CASCADE");
        sqlx::raw_sql(AssertSqlSafe(ddl)).execute(&mut *tx).await?;
        tx.commit().await?;
        tracing::info!(projection = generation.projection, generation = %generation.id, "dropped a generation");
        Ok(true)
    }

    async fn forget(&self, generation: &Generation) -> Result<(), StoreError> {
        sqlx::query("DELETE FROM generations WHERE id = $1 AND status = 'retired'")
            .bind(generation.id.get())
            .execute(self.control())
            .await?;
        Ok(())
    }
}

/// What came of taking a generation out of everybody's hands.
enum Retired {
    /// It is: its schema can be dropped.
    Schema(String),
    /// There is none.
    Gone,
    /// Another one than the caller's took over from it last.
    KeptForAnother,
}

impl PgStore {
    async fn retire(
        &self,
        generation: &Generation,
        kept_for: Option<GenerationId>,
    ) -> Result<Retired, StoreError> {
        let mut tx = self.control().begin().await?;
        lock_generations(&mut tx, &generation.projection).await?;
        let row = sqlx::query(
            "SELECT status, schema_name, (to_jsonb(g) ->> 'replaced_by')::bigint
             FROM generations g WHERE id = $1 FOR NO KEY UPDATE",
        )
        .bind(generation.id.get())
        .fetch_optional(&mut *tx)
        .await?;
        let Some(row) = row else {
            return Ok(Retired::Gone);
        };
        let status = GenerationStatus::from_stored(&row.try_get::<String, _>(0)?);
        generation.require_idle(status)?;
        let replaced_by: Option<i64> = row.try_get(2)?;
        if !is_kept_for(kept_for, replaced_by.map(GenerationId::new)) {
            return Ok(Retired::KeptForAnother);
        }
        sqlx::query("UPDATE generations SET status = 'retired' WHERE id = $1")
            .bind(generation.id.get())
            .execute(&mut *tx)
            .await?;
        tx.commit().await?;
        Ok(Retired::Schema(row.try_get(1)?))
    }
}

/// Tells the planner what is in a generation's tables.
async fn analyze(conn: &mut PgConnection, schema: &str) -> Result<(), StoreError> {
    let rows = sqlx::query(
        "SELECT format('ANALYZE %I.%I', schemaname, tablename) FROM pg_tables WHERE schemaname = $1",
    )
    .bind(schema)
    .fetch_all(&mut *conn)
    .await?;
    for row in rows {
        let statement: String = row.try_get(0)?;
        sqlx::raw_sql(AssertSqlSafe(statement))
            .execute(&mut *conn)
            .await?;
    }
    Ok(())
}

async fn read_progress(
    conn: &mut PgConnection,
    generation: GenerationId,
) -> Result<Vec<LaneProgress>, sqlx::Error> {
    let rows = sqlx::query(
        "SELECT context, partition, position, epoch, coalesce(target, 0) AS target, events
         FROM checkpoints WHERE generation = $1 ORDER BY context, partition",
    )
    .bind(generation.get())
    .fetch_all(conn)
    .await?;
    rows.iter()
        .map(|row| {
            Ok(LaneProgress {
                lane: read_lane(row)?,
                epoch: Epoch::from_i64(row.try_get("epoch")?),
                position: Position::from_i64(row.try_get("position")?),
                target: Position::from_i64(row.try_get("target")?),
                events: u64::try_from(row.try_get::<i64, _>("events")?).unwrap_or(0),
            })
        })
        .collect()
}
