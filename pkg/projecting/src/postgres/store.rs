use std::{str::FromStr, sync::Arc, time::Duration};

use millrace_es::{Context, Epoch, Partition, Position};
use millrace_kernel::Timestamp;
use sqlx::{
    AssertSqlSafe, ConnectOptions, Connection, PgConnection, PgPool, Row,
    migrate::{Migration, MigrationType, Migrator},
    postgres::{PgConnectOptions, PgPoolOptions, PgRow},
};
use time::OffsetDateTime;

use super::{PgGeneration, PgView};
use crate::{
    error::StoreError,
    folder::Folder,
    generation::{
        Checkpoint, ContextHead, Generation, GenerationId, GenerationStatus, Lane, of_this_life,
    },
    owner::Owner,
    rebuild::Pace,
    view::View,
};

/// The schema of the control tables.
pub(super) const CONTROL_SCHEMA: &str = "projections";

/// The control tables' migrations, in order.
const MIGRATIONS: [(&str, &str); 9] = [
    (
        "generations",
        include_str!("../../../../migrations/projections/0001_generations.sql"),
    ),
    (
        "rebuilds",
        include_str!("../../../../migrations/projections/0002_rebuilds.sql"),
    ),
    (
        "holds",
        include_str!("../../../../migrations/projections/0003_holds.sql"),
    ),
    (
        "letter runs",
        include_str!("../../../../migrations/projections/0004_letter_runs.sql"),
    ),
    (
        "replays",
        include_str!("../../../../migrations/projections/0005_replays.sql"),
    ),
    (
        "forced",
        include_str!("../../../../migrations/projections/0006_forced.sql"),
    ),
    (
        "reactions",
        include_str!("../../../../migrations/projections/0007_reactions.sql"),
    ),
    (
        "checks",
        include_str!("../../../../migrations/projections/0008_checks.sql"),
    ),
    (
        "replaced",
        include_str!("../../../../migrations/projections/0009_replaced.sql"),
    ),
];

/// Connections for control work: making generations, listing letters.
const MAX_CONTROL_CONNECTIONS: u32 = 3;

/// How long a call waits for a free connection before the store counts as unavailable.
const ACQUIRE_TIMEOUT_MS: u64 = 5_000;

/// How long a paused projector may keep the checkpoint's row locked before the server ends its
/// session, in milliseconds. Another projector takes the partition over within seconds.
const IDLE_IN_TRANSACTION_MS: u32 = 5_000;

/// How long a statement waits for a lock before the batch is tried again, in milliseconds.
pub(super) const LOCK_TIMEOUT_MS: u32 = 10_000;

/// After this long without an answer from the peer the server gives a connection up, in
/// milliseconds.
const TCP_USER_TIMEOUT_MS: u32 = 10_000;

/// Connections per generation: one batch is in flight, another may be redriving letters.
const MAX_GENERATION_CONNECTIONS: u32 = 2;

/// The longest projection name: it becomes part of a schema's name.
const MAX_NAME_BYTES: usize = 40;

/// The read database: where projectors write views in PostgreSQL. Some views may be in databases of
/// their own, each with its own control tables; they are found through this one.
#[derive(Clone)]
pub struct PgStore {
    control: PgPool,
    options: PgConnectOptions,
    elsewhere: Vec<Elsewhere>,
}

/// The database of some views.
#[derive(Clone)]
struct Elsewhere {
    views: Vec<&'static str>,
    store: PgStore,
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
        Ok(Self {
            control,
            options,
            elsewhere: Vec::new(),
        })
    }

    /// With some views in another database.
    #[must_use]
    pub fn with(mut self, views: &[View], store: Self) -> Self {
        let views = views.iter().map(View::name).collect();
        self.elsewhere.push(Elsewhere { views, store });
        self
    }

    /// Where a view of this name is: here, unless it has a database of its own.
    #[must_use]
    pub fn of(&self, view: &str) -> &Self {
        self.elsewhere
            .iter()
            .find(|other| other.views.contains(&view))
            .map_or(self, |other| &other.store)
    }

    /// This database and those of views that have their own.
    pub fn all(&self) -> impl Iterator<Item = &Self> {
        std::iter::once(self).chain(self.elsewhere.iter().map(|other| &other.store))
    }

    /// Makes and upgrades the control tables, in every database. Safe to run twice, concurrently,
    /// and beside processes of the release before.
    ///
    /// # Errors
    /// When a database cannot be reached or refuses.
    pub async fn migrate(&self) -> Result<(), StoreError> {
        for store in self.all() {
            store.migrate_one().await?;
        }
        Ok(())
    }

    async fn migrate_one(&self) -> Result<(), StoreError> {
        let migrations = MIGRATIONS.iter().zip(1..).map(|((name, text), version)| {
            Migration::new(
                version,
                (*name).into(),
                MigrationType::Simple,
                sqlx::SqlSafeStr::into_sql_str(*text),
                false,
            )
        });
        let mut migrator = Migrator::with_migrations(migrations.collect());
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

    /// A connection of one's own to the read database, with options of the session.
    pub(crate) async fn connect(
        &self,
        session: &[(&str, String)],
    ) -> Result<PgConnection, StoreError> {
        let options = self.options.clone();
        let options = options.options(session.iter().map(|(name, value)| (*name, value)));
        Ok(PgConnection::connect_with(&options).await?)
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
        let tables = view.tables()?;
        let mut tx = self.control.begin().await?;
        lock_generations(&mut tx, view.name()).await?;
        let known = list_generations(&mut tx, view.name()).await?;
        // A reaction's only one, whatever became of its log: another would repeat every effect.
        if view.is_reaction()
            && let Some(only) = known.first()
        {
            return Ok(only.clone());
        }
        let mut own = Vec::new();
        for generation in known
            .iter()
            .filter(|one| one.version == view.version() && one.is_own())
        {
            let checkpoints = read_checkpoints(&mut tx, generation.id).await?;
            own.push((generation.clone(), of_this_life(&checkpoints, heads)));
        }
        let (kept, stale) = Generation::to_go_on_with(&own);
        if !stale.is_empty() {
            sqlx::query("UPDATE generations SET status = 'retired' WHERE id = ANY($1)")
                .bind(stale.iter().map(|one| one.id.get()).collect::<Vec<_>>())
                .execute(&mut *tx)
                .await?;
        }
        if let Some(kept) = kept {
            tx.commit().await?;
            return Ok(kept.clone());
        }
        let answers = known
            .iter()
            .any(|one| one.status == GenerationStatus::Active && one.version <= view.version());
        let status = if answers {
            GenerationStatus::Candidate
        } else {
            GenerationStatus::Active
        };
        let made = NewGeneration {
            status,
            rebuild: None,
        };
        let generation = create(&mut tx, view, &**tables, heads, made).await?;
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
        let pool = self.generation_pool(generation, MAX_GENERATION_CONNECTIONS);
        PgGeneration {
            id: generation.id,
            pool,
            view,
            counts: false,
        }
    }

    /// Connections that fold into one generation.
    pub(super) fn generation_pool(&self, generation: &Generation, connections: u32) -> PgPool {
        // The log repairs what an asynchronous commit loses in a crash: rows and checkpoint are
        // lost together, and every lane begins again at the stored checkpoint, since its
        // connection died with the server. So a batch need not wait for the disk.
        self.bounded_pool(generation, connections, "off")
    }

    /// Connections to one generation whose commits survive a crash of the server.
    pub(super) fn durable_pool(&self, generation: &Generation) -> PgPool {
        self.bounded_pool(generation, MAX_GENERATION_CONNECTIONS, "on")
    }

    fn bounded_pool(
        &self,
        generation: &Generation,
        connections: u32,
        synchronous_commit: &str,
    ) -> PgPool {
        let options = generation_options(&self.options, &generation.place).options([
            ("synchronous_commit", synchronous_commit.to_owned()),
            (
                "idle_in_transaction_session_timeout",
                IDLE_IN_TRANSACTION_MS.to_string(),
            ),
            ("lock_timeout", LOCK_TIMEOUT_MS.to_string()),
            ("tcp_user_timeout", TCP_USER_TIMEOUT_MS.to_string()),
        ]);
        PgPoolOptions::new()
            .max_connections(connections)
            .acquire_timeout(Duration::from_millis(ACQUIRE_TIMEOUT_MS))
            .connect_lazy_with(options)
    }
}

/// Connections that see one generation's tables and nothing of another; `public` only for
/// extensions.
pub(crate) fn generation_options(options: &PgConnectOptions, schema: &str) -> PgConnectOptions {
    options
        .clone()
        .options([("search_path", format!("{schema},public"))])
}

pub(super) fn check_name(name: &str) -> Result<(), StoreError> {
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

/// Makes whoever changes a projection's generations wait for each other, until the transaction
/// ends.
pub(super) async fn lock_generations(
    conn: &mut PgConnection,
    projection: &str,
) -> Result<(), StoreError> {
    sqlx::query("SELECT pg_advisory_xact_lock(hashtextextended('millrace.generation.' || $1, 0))")
        .bind(projection)
        .execute(conn)
        .await?;
    Ok(())
}

/// What a generation is made for.
pub(super) struct NewGeneration<'a> {
    pub(super) status: GenerationStatus,
    /// Whose rebuild it is, and at which pace it is loaded.
    pub(super) rebuild: Option<(&'a Owner, Pace)>,
}

pub(super) async fn create(
    conn: &mut PgConnection,
    view: &View,
    tables: &dyn PgView,
    heads: &[ContextHead],
    new: NewGeneration<'_>,
) -> Result<Generation, StoreError> {
    let (owner, pace) = new.rebuild.unzip();
    let pace = pace.unwrap_or_default();
    // The schema's name carries the id, which is known only after the insert.
    let row = sqlx::query(
        "INSERT INTO generations
             (projection, version, status, schema_name, owner, max_events_per_second, suspended)
         VALUES ($1, $2, $3, gen_random_uuid()::text, $4, $5, $6) RETURNING id",
    )
    .bind(view.name())
    .bind(i32::try_from(view.version()).unwrap_or(i32::MAX))
    .bind(new.status.stored(owner.is_some()))
    .bind(owner.map(Owner::as_str))
    .bind(pace.max_events_per_second.map(|most| i64::from(most.get())))
    .bind(pace.suspended)
    .fetch_one(&mut *conn)
    .await?;
    let id: i64 = row.try_get(0)?;
    let schema = format!("{}_g{id}", view.name().replace('-', "_"));
    let row = sqlx::query(
        "UPDATE generations SET schema_name = $2 WHERE id = $1
         RETURNING id, projection, version, status, schema_name, created_at, owner, forced",
    )
    .bind(id)
    .bind(&schema)
    .fetch_one(&mut *conn)
    .await?;
    let generation = read_generation(&row)?;
    let is_loaded = new.status == GenerationStatus::Loading;
    insert_checkpoints(conn, generation.id, heads, is_loaded).await?;
    // What is loaded gets its indexes afterwards, which costs a fraction.
    let indexes = if is_loaded { "" } else { tables.indexes() };
    // The schema's name is made of a checked name and a number.
    let ddl = format!(
        "CREATE SCHEMA {schema}; SET LOCAL search_path = {schema}, public; {}; {indexes}; SET LOCAL search_path = {CONTROL_SCHEMA};",
        tables.tables(),
    );
    sqlx::raw_sql(AssertSqlSafe(ddl))
        .execute(&mut *conn)
        .await?;
    Ok(generation)
}

/// The lanes of a generation at their beginning; with targets at the heads if it is to be loaded.
async fn insert_checkpoints(
    conn: &mut PgConnection,
    generation: GenerationId,
    heads: &[ContextHead],
    is_loaded: bool,
) -> Result<(), StoreError> {
    let lanes: Vec<(Lane, Position, Epoch)> = heads
        .iter()
        .flat_map(|head| head.lanes().map(|(lane, at)| (lane, at, head.epoch)))
        .collect();
    let contexts: Vec<&str> = lanes
        .iter()
        .map(|(lane, ..)| lane.context.as_str())
        .collect();
    let partitions: Vec<i16> = lanes
        .iter()
        .map(|(lane, ..)| as_i16(lane.partition))
        .collect();
    let targets: Vec<Option<i64>> = lanes
        .iter()
        .map(|(_, at, _)| is_loaded.then(|| at.as_i64()))
        .collect();
    let epochs: Vec<i64> = lanes.iter().map(|(.., epoch)| epoch.as_i64()).collect();
    sqlx::query(
        "INSERT INTO checkpoints (generation, context, partition, position, epoch, target)
         SELECT $1, context, partition, 0, epoch, target
         FROM UNNEST($2::text[], $3::smallint[], $4::bigint[], $5::bigint[])
              AS t (context, partition, epoch, target)",
    )
    .bind(generation.get())
    .bind(contexts)
    .bind(partitions)
    .bind(epochs)
    .bind(targets)
    .execute(conn)
    .await?;
    Ok(())
}

pub(super) async fn list_generations(
    conn: &mut PgConnection,
    projection: &str,
) -> Result<Vec<Generation>, StoreError> {
    // What later migrations added is read so that it may be missing: a query role may be of this
    // release before the projector has migrated the tables.
    let rows = sqlx::query(
        "SELECT id, projection, version, status, schema_name, created_at,
                to_jsonb(g) ->> 'owner' AS owner,
                coalesce((to_jsonb(g) ->> 'forced')::boolean, false) AS forced
         FROM generations g WHERE projection = $1 ORDER BY id DESC",
    )
    .bind(projection)
    .fetch_all(conn)
    .await?;
    rows.iter().map(read_generation).collect()
}

pub(crate) fn read_generation(row: &PgRow) -> Result<Generation, StoreError> {
    let status: String = row.try_get("status")?;
    let owner: Option<String> = row.try_get("owner")?;
    Ok(Generation {
        id: GenerationId::new(row.try_get("id")?),
        projection: row.try_get("projection")?,
        version: u32::try_from(row.try_get::<i32, _>("version")?).unwrap_or(0),
        status: GenerationStatus::from_stored(&status),
        place: row.try_get("schema_name")?,
        created_at: Timestamp::new(row.try_get::<OffsetDateTime, _>("created_at")?),
        owner: owner.as_deref().map(Owner::new).transpose()?,
        forced: row.try_get("forced")?,
    })
}

/// The checkpoints of a generation, by lane. The statement names its schema, because it runs on
/// connections of every kind.
pub(crate) async fn read_checkpoints(
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

/// Holds a generation still until the transaction ends: no batch of it can commit.
pub(crate) async fn lock_checkpoints(
    conn: &mut PgConnection,
    generation: GenerationId,
) -> Result<(), sqlx::Error> {
    sqlx::query(
        "SELECT 1 FROM projections.checkpoints WHERE generation = $1
         ORDER BY context, partition FOR UPDATE",
    )
    .bind(generation.get())
    .execute(conn)
    .await?;
    Ok(())
}
