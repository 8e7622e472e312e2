use std::{str::FromStr, sync::Arc, time::Duration};

use millrace_es::{Context, Epoch, Partition, Position};
use millrace_kernel::Timestamp;
use sqlx::{
    AssertSqlSafe, ConnectOptions, Connection, PgConnection, PgPool, Row,
    migrate::{Migration, MigrationType, Migrator},
    postgres::{PgConnectOptions, PgPoolOptions, PgRow},
};
use time::OffsetDateTime;
use tokio::time::Instant;

use super::{PgGeneration, PgView};
use crate::{
    error::StoreError,
    folder::Folder,
    generation::{
        Checkpoint, ContextHead, Generation, GenerationId, GenerationStatus, Lane, of_one_life,
        of_this_life, require_reached,
    },
    view::View,
};

/// The schema of the control tables.
const CONTROL_SCHEMA: &str = "projections";

/// Connections for control work: making generations, listing letters.
const MAX_CONTROL_CONNECTIONS: u32 = 3;

/// How long a call waits for a free connection before the store counts as unavailable.
const ACQUIRE_TIMEOUT_MS: u64 = 5_000;

/// How long a paused projector may keep the checkpoint's row locked before the server ends its
/// session, in milliseconds. Another projector takes the partition over within seconds.
const IDLE_IN_TRANSACTION_MS: u32 = 5_000;

/// How long a statement waits for a lock before the batch is tried again, in milliseconds.
const LOCK_TIMEOUT_MS: u32 = 10_000;

/// After this long without an answer from the peer the server gives a connection up, in
/// milliseconds.
const TCP_USER_TIMEOUT_MS: u32 = 10_000;

/// Connections per generation: one batch is in flight, another may be redriving letters.
const MAX_GENERATION_CONNECTIONS: u32 = 2;

/// How far behind a candidate may be, in positions, for a switch to be tried.
const MAX_SWITCH_LAG: u64 = 10_000;

/// The longest that a switch holds the live generation still, in milliseconds.
const MAX_SWITCH_MS: u64 = 3_000;

/// How often it looks meanwhile whether the candidate is there, in milliseconds.
const SWITCH_POLL_MS: u64 = 20;

/// The longest projection name: it becomes part of a schema's name.
const MAX_NAME_BYTES: usize = 40;

/// The read database: where projectors write views in PostgreSQL.
#[derive(Clone)]
pub struct PgStore {
    control: PgPool,
    options: PgConnectOptions,
}

impl PgStore {
    /// Opens the read database; connections are made when they are needed.
    ///
    /// # Errors
    /// When the URL is no PostgreSQL URL.
    pub fn open(url: &str) -> Result<Self, StoreError> {
        let options = PgConnectOptions::from_str(url)?
            .application_name("millrace-projector")
            .disable_statement_logging();
        let control = PgPoolOptions::new()
            .max_connections(MAX_CONTROL_CONNECTIONS)
            .acquire_timeout(Duration::from_millis(ACQUIRE_TIMEOUT_MS))
            .connect_lazy_with(options.clone().options([("search_path", CONTROL_SCHEMA)]));
        Ok(Self { control, options })
    }

    /// Makes and upgrades the control tables. Safe to run twice, concurrently, and beside
    /// processes of the release before.
    ///
    /// # Errors
    /// When the database cannot be reached or refuses.
    pub async fn migrate(&self) -> Result<(), StoreError> {
        let text = include_str!("../../../../migrations/projections/0001_generations.sql");
        let migration = Migration::new(
            1,
            "generations".into(),
            MigrationType::Simple,
            sqlx::SqlSafeStr::into_sql_str(text),
            false,
        );
        let mut migrator = Migrator::with_migrations(vec![migration]);
        migrator.create_schema(CONTROL_SCHEMA);
        migrator.dangerous_set_table_name(format!("{CONTROL_SCHEMA}._migrations"));
        // A newer release may have migrated further: what it added does not disturb this one.
        migrator.set_ignore_missing(true);
        // A connection of its own, because the migrator's lock is the session's.
        let options = self
            .options
            .clone()
            .options([("search_path", CONTROL_SCHEMA)]);
        let mut conn = PgConnection::connect_with(&options).await?;
        let done = migrator.run(&mut conn).await;
        conn.close().await.ok();
        done.map_err(|error| match error {
            sqlx::migrate::MigrateError::Execute(error) => StoreError::from(error),
            other => StoreError::Unusable(Box::new(other)),
        })
    }

    /// The pool of the control tables, for the letters' API.
    pub(crate) const fn control(&self) -> &PgPool {
        &self.control
    }

    /// The generation that a runner of this view fills and keeps current, made if there is none:
    /// the first one of a projection answers queries at once; one of a newer version or of a newer
    /// life of the log is a candidate until it has caught up. Several processes may call this at
    /// once.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub async fn ensure_generation(
        &self,
        view: &View,
        heads: &[ContextHead],
    ) -> Result<Generation, StoreError> {
        check_name(view.name())?;
        let tables = view.postgres()?;
        let mut tx = self.control.begin().await?;
        sqlx::query(
            "SELECT pg_advisory_xact_lock(hashtextextended('millrace.generation.' || $1, 0))",
        )
        .bind(view.name())
        .execute(&mut *tx)
        .await?;
        let known = list_generations(&mut tx, view.name()).await?;
        let mut stale = Vec::new();
        for generation in known
            .iter()
            .filter(|one| one.version == view.version())
            .filter(|one| {
                matches!(
                    one.status,
                    GenerationStatus::Active | GenerationStatus::Candidate
                )
            })
        {
            let checkpoints = read_checkpoints(&mut tx, generation.id).await?;
            if of_this_life(&checkpoints, heads) {
                return Ok(generation.clone());
            }
            if generation.status == GenerationStatus::Candidate {
                stale.push(generation.id.get());
            }
        }
        // A candidate of an older life will never be switched to.
        sqlx::query("UPDATE generations SET status = 'retired' WHERE id = ANY($1)")
            .bind(&stale)
            .execute(&mut *tx)
            .await?;
        let answers = known
            .iter()
            .any(|one| one.status == GenerationStatus::Active && one.version <= view.version());
        let status = if answers {
            GenerationStatus::Candidate
        } else {
            GenerationStatus::Active
        };
        let generation = create(&mut tx, view, &**tables, heads, status).await?;
        tx.commit().await?;
        tracing::info!(projection = view.name(), generation = %generation.id, status = status.as_str(), "made a generation");
        Ok(generation)
    }

    /// The generations of a projection, newest first.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub async fn generations(&self, projection: &str) -> Result<Vec<Generation>, StoreError> {
        let mut conn = self.control.acquire().await?;
        list_generations(&mut conn, projection).await
    }

    /// How far a generation is, by lane.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub async fn checkpoints(
        &self,
        generation: GenerationId,
    ) -> Result<Vec<Checkpoint>, StoreError> {
        let mut conn = self.control.acquire().await?;
        Ok(read_checkpoints(&mut conn, generation).await?)
    }

    /// Makes a candidate answer queries, in one transaction that holds the checkpoints of the live
    /// generation still (the candidate's only go forward). It has to be at or beyond the generation
    /// it replaces in every lane, so that no reader goes back; where the log began a new life
    /// since, at or beyond `heads`.
    ///
    /// # Errors
    /// [`StoreError::Behind`] when it is not far enough; else see [`StoreError`].
    pub async fn switch(
        &self,
        candidate: &Generation,
        heads: &[ContextHead],
    ) -> Result<(), StoreError> {
        let mut tx = self.control.begin().await?;
        let known = list_generations(&mut tx, &candidate.projection).await?;
        let live = known
            .iter()
            .filter(|one| {
                one.status == GenerationStatus::Active && one.version <= candidate.version
            })
            .max_by_key(|one| one.version);
        let mut same_life = true;
        if let Some(live) = live {
            let theirs = read_checkpoints(&mut tx, live.id).await?;
            let own = read_checkpoints(&mut tx, candidate.id).await?;
            same_life = of_one_life(&own, &theirs);
            if same_life {
                require_near(candidate.id, &own, &theirs)?;
                overtake(&mut tx, live.id, candidate.id).await?;
            }
        }
        if !same_life {
            let own = read_checkpoints(&mut tx, candidate.id).await?;
            let needed = heads.iter().flat_map(ContextHead::lanes);
            require_reached(candidate.id, &own, needed)?;
        }
        let left = if same_life { "retained" } else { "retired" };
        if let Some(live) = live.filter(|one| one.version == candidate.version) {
            set_status(&mut tx, live.id, left).await?;
        }
        set_status(&mut tx, candidate.id, "active").await?;
        tx.commit().await?;
        tracing::info!(projection = candidate.projection, generation = %candidate.id, "switched to a generation");
        Ok(())
    }

    /// Opens a generation to fold into by hand.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub async fn folder(&self, generation: &Generation, view: &View) -> Result<Folder, StoreError> {
        let view = Arc::clone(view.postgres()?);
        Folder::open(Arc::new(self.generation(generation, view))).await
    }

    /// Opens a generation for the process that folds into it.
    pub(crate) fn generation(
        &self,
        generation: &Generation,
        view: Arc<dyn PgView>,
    ) -> PgGeneration {
        // The log repairs what an asynchronous commit loses in a crash: rows and checkpoint are
        // lost together, and every lane begins again at the stored checkpoint, since its
        // connection died with the server. So a batch need not wait for the disk.
        let options = generation_options(&self.options, &generation.place).options([
            ("synchronous_commit", "off".to_owned()),
            (
                "idle_in_transaction_session_timeout",
                IDLE_IN_TRANSACTION_MS.to_string(),
            ),
            ("lock_timeout", LOCK_TIMEOUT_MS.to_string()),
            ("tcp_user_timeout", TCP_USER_TIMEOUT_MS.to_string()),
        ]);
        let pool = PgPoolOptions::new()
            .max_connections(MAX_GENERATION_CONNECTIONS)
            .acquire_timeout(Duration::from_millis(ACQUIRE_TIMEOUT_MS))
            .connect_lazy_with(options);
        PgGeneration::new(generation.id, pool, view)
    }
}

/// Connections that see one generation's tables and nothing of another; `public` only for
/// extensions.
pub(crate) fn generation_options(options: &PgConnectOptions, schema: &str) -> PgConnectOptions {
    options
        .clone()
        .options([("search_path", format!("{schema},public"))])
}

fn check_name(name: &str) -> Result<(), StoreError> {
    let ok = name.len() <= MAX_NAME_BYTES
        && name.starts_with(|c: char| c.is_ascii_lowercase())
        && name
            .bytes()
            .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-');
    if ok {
        return Ok(());
    }
    Err(StoreError::Invalid(format!(
        "projection name {name:?} is not 1 to {MAX_NAME_BYTES} of a-z 0-9 -, beginning with a letter"
    )))
}

async fn create(
    conn: &mut PgConnection,
    view: &View,
    tables: &dyn PgView,
    heads: &[ContextHead],
    status: GenerationStatus,
) -> Result<Generation, StoreError> {
    // The schema's name carries the id, which is known only after the insert.
    let row = sqlx::query(
        "INSERT INTO generations (projection, version, status, schema_name)
         VALUES ($1, $2, $3, gen_random_uuid()::text) RETURNING id",
    )
    .bind(view.name())
    .bind(i32::try_from(view.version()).unwrap_or(i32::MAX))
    .bind(status.as_str())
    .fetch_one(&mut *conn)
    .await?;
    let id: i64 = row.try_get(0)?;
    let schema = format!("{}_g{id}", view.name().replace('-', "_"));
    let row = sqlx::query(
        "UPDATE generations SET schema_name = $2 WHERE id = $1
         RETURNING id, projection, version, status, schema_name, created_at",
    )
    .bind(id)
    .bind(&schema)
    .fetch_one(&mut *conn)
    .await?;
    let generation = read_generation(&row)?;
    let lanes: Vec<(Lane, Epoch)> = heads
        .iter()
        .flat_map(|head| head.lanes().map(|(lane, _)| (lane, head.epoch)))
        .collect();
    sqlx::query(
        "INSERT INTO checkpoints (generation, context, partition, position, epoch)
         SELECT $1, context, partition, 0, epoch
         FROM UNNEST($2::text[], $3::smallint[], $4::bigint[]) AS t (context, partition, epoch)",
    )
    .bind(id)
    .bind(
        lanes
            .iter()
            .map(|(lane, _)| lane.context.as_str())
            .collect::<Vec<_>>(),
    )
    .bind(
        lanes
            .iter()
            .map(|(lane, _)| as_i16(lane.partition))
            .collect::<Vec<_>>(),
    )
    .bind(
        lanes
            .iter()
            .map(|(_, epoch)| epoch.as_i64())
            .collect::<Vec<_>>(),
    )
    .execute(&mut *conn)
    .await?;
    // The schema's name is made of a checked name and a number.
    let ddl = format!(
        "CREATE SCHEMA {schema}; SET LOCAL search_path = {schema}, public; {}; {}; SET LOCAL search_path = {CONTROL_SCHEMA};",
        tables.tables(),
        tables.indexes(),
    );
    sqlx::raw_sql(AssertSqlSafe(ddl))
        .execute(&mut *conn)
        .await?;
    Ok(generation)
}

pub(super) async fn list_generations(
    conn: &mut PgConnection,
    projection: &str,
) -> Result<Vec<Generation>, StoreError> {
    let rows = sqlx::query(
        "SELECT id, projection, version, status, schema_name, created_at
         FROM generations WHERE projection = $1 ORDER BY id DESC",
    )
    .bind(projection)
    .fetch_all(conn)
    .await?;
    rows.iter().map(read_generation).collect()
}

pub(crate) fn read_generation(row: &PgRow) -> Result<Generation, StoreError> {
    let status: String = row.try_get("status")?;
    Ok(Generation {
        id: GenerationId::new(row.try_get("id")?),
        projection: row.try_get("projection")?,
        version: u32::try_from(row.try_get::<i32, _>("version")?).unwrap_or(0),
        status: GenerationStatus::parse(&status).unwrap_or(GenerationStatus::Retired),
        place: row.try_get("schema_name")?,
        created_at: Timestamp::new(row.try_get::<OffsetDateTime, _>("created_at")?),
    })
}

/// The checkpoints of a generation, by lane. The statement names its schema, because it runs on
/// connections of every kind.
pub(super) async fn read_checkpoints(
    conn: &mut PgConnection,
    generation: GenerationId,
) -> Result<Vec<Checkpoint>, sqlx::Error> {
    let rows = sqlx::query(
        "SELECT context, partition, position, epoch FROM projections.checkpoints
         WHERE generation = $1 ORDER BY context, partition",
    )
    .bind(generation.get())
    .fetch_all(conn)
    .await?;
    rows.iter()
        .map(|row| {
            Ok(Checkpoint {
                lane: read_lane(row)?,
                position: Position::from_i64(row.try_get("position")?),
                epoch: Epoch::from_i64(row.try_get("epoch")?),
            })
        })
        .collect()
}

pub(super) fn read_lane(row: &PgRow) -> Result<Lane, sqlx::Error> {
    let context: String = row.try_get("context")?;
    let context = Context::new(&context).map_err(|error| sqlx::Error::Decode(Box::new(error)))?;
    let partition: i16 = row.try_get("partition")?;
    Ok(Lane::new(
        context,
        Partition::new(u16::try_from(partition).unwrap_or(0)),
    ))
}

pub(crate) fn as_i16(partition: Partition) -> i16 {
    i16::try_from(partition.get()).unwrap_or(i16::MAX)
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
        (one.lane.clone(), Position::new(near))
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
    sqlx::query(
        "SELECT 1 FROM checkpoints WHERE generation = $1
         ORDER BY context, partition FOR UPDATE",
    )
    .bind(live.get())
    .execute(&mut *conn)
    .await?;
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
    status: &str,
) -> Result<(), StoreError> {
    sqlx::query("UPDATE generations SET status = $2, switched_at = now() WHERE id = $1")
        .bind(id.get())
        .bind(status)
        .execute(conn)
        .await?;
    Ok(())
}
