//! Replays as rows of the read database: what the API server is to the controller, for an
//! installation without one.

use std::{str::FromStr, time::Duration};

use async_trait::async_trait;
use k8s_openapi::jiff;
use millrace_replay::{
    Notice, OutsideError, Owner, Record, Records, ReplaySpec, Throttle, status::ReplayStatus,
};
use serde_json::{Value, json};
use sqlx::{
    ConnectOptions, PgPool, Postgres, Row,
    pool::PoolConnection,
    postgres::{PgConnectOptions, PgPoolOptions, PgRow},
    types::Json,
};
use time::OffsetDateTime;
use uuid::Uuid;

/// The most replays that are read at once, newest first; older ones are not looked at.
pub const MAX_REPLAYS: u32 = 1_000;

/// The longest name of a replay, as a Kubernetes resource's.
pub const MAX_NAME_CHARS: usize = 63;

/// Connections of a process to the table: one to drive, one for each generation that it loads, and
/// some to read and write with.
const MAX_CONNECTIONS: u32 = 6;

/// How long a call waits for a connection before the table counts as unavailable, in milliseconds.
const ACQUIRE_TIMEOUT_MS: u64 = 5_000;

/// A statement with the columns that make a [`Record`].
macro_rules! with_columns {
    ($before:literal, $after:literal) => {
        concat!(
            $before,
            " uid, name, spec, status, generation, revision, created_at, deleting, held ",
            $after
        )
    };
}

/// Why a replay was not made, found or changed.
#[derive(Debug, thiserror::Error)]
pub enum TableError {
    /// The database does not answer, or refuses.
    #[error("the read database, where replays are written down: {0}")]
    Unavailable(#[from] sqlx::Error),
    /// There is none of this name.
    #[error("there is no replay {0:?}: `millrace replay list` shows those that are there")]
    Missing(String),
    /// There is one of this name already.
    #[error("there is a replay {0:?} already: choose another --name, or delete that one")]
    Exists(String),
    /// What is asked cannot be done any more, or a name that is none.
    #[error("{0}")]
    Refused(String),
    /// A row is not as it is written: by a newer release, or by hand.
    #[error("replay {name:?} cannot be read: {source}")]
    Undecodable {
        /// The replay.
        name: String,
        /// What is wrong with it.
        source: serde_json::Error,
    },
}

/// A change of a replay that was asked for already.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// Hold the work, or let it go on.
    Suspend(bool),
    /// Let the switch happen. Cannot be taken back.
    Approve,
    /// End the work and drop what it made. Cannot be taken back.
    Cancel,
    /// How many events a second; as many as can be with 0.
    Throttle(u32),
}

/// The table `projections.replays`.
#[derive(Debug, Clone)]
pub struct ReplayTable {
    pool: PgPool,
}

impl ReplayTable {
    /// Opens the table; connections are made when they are needed.
    ///
    /// # Errors
    /// When the URL is no PostgreSQL URL.
    pub fn open(url: &str) -> Result<Self, TableError> {
        let options = PgConnectOptions::from_str(url)?
            .application_name("millrace-replays")
            .disable_statement_logging();
        let pool = PgPoolOptions::new()
            .max_connections(MAX_CONNECTIONS)
            .acquire_timeout(Duration::from_millis(ACQUIRE_TIMEOUT_MS))
            .connect_lazy_with(options.options([("search_path", "projections")]));
        Ok(Self { pool })
    }

    /// A turn that one process has at a time, all over the read database: a lock under this name,
    /// which ends with its connection. `None` when another has it.
    pub(crate) async fn try_turn(
        &self,
        name: &str,
    ) -> Result<Option<PoolConnection<Postgres>>, TableError> {
        let mut connection = self.pool.acquire().await?;
        let taken: bool =
            sqlx::query_scalar("SELECT pg_try_advisory_lock(hashtextextended($1, 0))")
                .bind(name)
                .fetch_one(&mut *connection)
                .await?;
        Ok(taken.then(|| {
            // The lock must not go back into the pool with the connection.
            connection.close_on_drop();
            connection
        }))
    }

    /// Asks for a replay.
    ///
    /// # Errors
    /// See [`TableError`].
    #[expect(
        clippy::disallowed_methods,
        reason = "an id comes in here, at the edge"
    )]
    pub async fn create(&self, name: &str, spec: &ReplaySpec) -> Result<Record, TableError> {
        check_name(name)?;
        let made = sqlx::query(with_columns!(
            "INSERT INTO replays (uid, name, spec, status) VALUES ($1, $2, $3, $4)
             ON CONFLICT (name) DO NOTHING RETURNING",
            ""
        ))
        .bind(Uuid::now_v7())
        .bind(name)
        .bind(Json(spec))
        .bind(Json(ReplayStatus::default()))
        .fetch_optional(&self.pool)
        .await?;
        match made {
            Some(row) => record(&row),
            None => Err(TableError::Exists(name.to_owned())),
        }
    }

    /// A replay by its name.
    ///
    /// # Errors
    /// [`TableError::Missing`] when there is none; else see [`TableError`].
    pub async fn get(&self, name: &str) -> Result<Record, TableError> {
        let found = sqlx::query(with_columns!("SELECT", "FROM replays WHERE name = $1"))
            .bind(name)
            .fetch_optional(&self.pool)
            .await?;
        match found {
            Some(row) => record(&row),
            None => Err(TableError::Missing(name.to_owned())),
        }
    }

    /// The newest replays, at most [`MAX_REPLAYS`], newest first. Those that cannot be read are
    /// left out, with a warning: one of them must not hold up the others.
    ///
    /// # Errors
    /// See [`TableError`].
    pub async fn list(&self) -> Result<Vec<Record>, TableError> {
        let rows = sqlx::query(with_columns!(
            "SELECT",
            "FROM replays ORDER BY created_at DESC, name LIMIT $1"
        ))
        .bind(i64::from(MAX_REPLAYS))
        .fetch_all(&self.pool)
        .await?;
        let mut found = Vec::with_capacity(rows.len());
        for row in &rows {
            match record(row) {
                Ok(record) => found.push(record),
                Err(error @ TableError::Undecodable { .. }) => {
                    tracing::warn!(%error, "a replay is left alone");
                }
                Err(error) => return Err(error),
            }
        }
        Ok(found)
    }

    /// Changes what may change. What is so already stays so, and is no error.
    ///
    /// # Errors
    /// [`TableError::Refused`] when it has ended, or is to be cancelled after its switch began;
    /// [`TableError::Missing`]; else see [`TableError`].
    pub async fn change(&self, name: &str, change: Change) -> Result<Record, TableError> {
        let patch = match change {
            Change::Suspend(suspend) => json!({ "suspend": suspend }),
            Change::Approve => json!({ "approve": true }),
            Change::Cancel => json!({ "cancel": true }),
            Change::Throttle(rate) => json!({ "throttle": Throttle {
                max_events_per_second: Some(rate),
            } }),
        };
        // One statement, so that a switch cannot begin between the look and the change.
        let changed = sqlx::query(with_columns!(
            "UPDATE replays SET spec = jsonb_strip_nulls(spec || $2),
                 generation = generation + 1, revision = revision + 1
             WHERE name = $1 AND NOT status ? 'completionTime'
               AND ($2 -> 'cancel' IS NULL OR NOT status ? 'cutoverStarted') RETURNING",
            ""
        ))
        .bind(name)
        .bind(Json(&patch))
        .fetch_optional(&self.pool)
        .await?;
        if let Some(row) = changed {
            return record(&row);
        }
        let there = self.get(name).await?;
        Err(TableError::Refused(if there.status.ended() {
            format!("replay {name:?} has ended; nothing of it can be changed")
        } else {
            format!(
                "the switch of replay {name:?} has begun: it cannot be cancelled any more, \
                 `millrace replay rollback` leads back"
            )
        }))
    }

    /// Asks for a replay to go, with the generations that are kept only for it.
    ///
    /// # Errors
    /// [`TableError::Missing`]; else see [`TableError`].
    pub async fn delete(&self, name: &str) -> Result<(), TableError> {
        let told = sqlx::query(
            "UPDATE replays SET deleting = true, revision = revision + 1 WHERE name = $1",
        )
        .bind(name)
        .execute(&self.pool)
        .await?;
        if told.rows_affected() == 0 {
            return Err(TableError::Missing(name.to_owned()));
        }
        Ok(())
    }

    /// Runs a statement on exactly the revision that was read.
    async fn on_revision(
        &self,
        record: &Record,
        sql: &'static str,
        status: Option<&ReplayStatus>,
    ) -> Result<Record, OutsideError> {
        let (Ok(uid), Ok(revision)) = (
            Uuid::parse_str(&record.owner.0),
            record.revision.parse::<i64>(),
        ) else {
            return Err(OutsideError::Changed(record.name.clone()));
        };
        let written = sqlx::query(sql)
            .bind(uid)
            .bind(revision)
            .bind(status.map(Json))
            .fetch_optional(&self.pool)
            .await
            .map_err(|error| unavailable(record, error))?;
        let row = written.ok_or_else(|| OutsideError::Changed(record.name.clone()))?;
        self::record(&row).map_err(|error| unavailable(record, error))
    }
}

fn unavailable(
    record: &Record,
    error: impl std::error::Error + Send + Sync + 'static,
) -> OutsideError {
    OutsideError::Unavailable {
        what: format!("writing the replay {}", record.name),
        source: Box::new(error),
    }
}

fn check_name(name: &str) -> Result<(), TableError> {
    let is_good = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    let good = (1..=MAX_NAME_CHARS).contains(&name.len())
        && name.bytes().all(is_good)
        && !name.starts_with('-')
        && !name.ends_with('-');
    if good {
        return Ok(());
    }
    Err(TableError::Refused(format!(
        "{name:?} is no name of a replay: 1 to {MAX_NAME_CHARS} of a-z 0-9 -, no - at either end"
    )))
}

fn record(row: &PgRow) -> Result<Record, TableError> {
    let name: String = row.try_get("name")?;
    let undecodable = |source| TableError::Undecodable {
        name: name.clone(),
        source,
    };
    let spec: Value = row.try_get("spec")?;
    let status: Value = row.try_get("status")?;
    let created: OffsetDateTime = row.try_get("created_at")?;
    Ok(Record {
        owner: Owner(row.try_get::<Uuid, _>("uid")?.to_string()),
        generation: row.try_get("generation")?,
        created: jiff::Timestamp::from_nanosecond(created.unix_timestamp_nanos())
            .unwrap_or_default(),
        deleting: row.try_get("deleting")?,
        held: row.try_get("held")?,
        spec: serde_json::from_value(spec).map_err(undecodable)?,
        status: serde_json::from_value(status).map_err(undecodable)?,
        revision: row.try_get::<i64, _>("revision")?.to_string(),
        name,
    })
}

#[async_trait]
impl Records for ReplayTable {
    async fn all(&self) -> Result<Vec<Record>, OutsideError> {
        let mut all = self
            .list()
            .await
            .map_err(|error| OutsideError::Unavailable {
                what: "listing replays".to_owned(),
                source: Box::new(error),
            })?;
        all.retain(|one| !one.status.ended());
        Ok(all)
    }

    async fn owners(&self) -> Result<Vec<Owner>, OutsideError> {
        let found = sqlx::query_scalar::<_, Uuid>("SELECT uid FROM replays")
            .fetch_all(&self.pool)
            .await;
        match found {
            Ok(all) => Ok(all.into_iter().map(|uid| Owner(uid.to_string())).collect()),
            Err(error) => Err(OutsideError::Unavailable {
                what: "listing replays".to_owned(),
                source: Box::new(error),
            }),
        }
    }

    async fn write(&self, record: &Record, status: &ReplayStatus) -> Result<Record, OutsideError> {
        self.on_revision(
            record,
            with_columns!(
                "UPDATE replays SET status = $3, revision = revision + 1
             WHERE uid = $1 AND revision = $2 RETURNING",
                ""
            ),
            Some(status),
        )
        .await
    }

    async fn hold(&self, record: &Record) -> Result<(), OutsideError> {
        self.on_revision(
            record,
            with_columns!(
                "UPDATE replays SET held = true, revision = revision + 1
             WHERE uid = $1 AND revision = $2 AND $3::jsonb IS NULL RETURNING",
                ""
            ),
            None,
        )
        .await
        .map(drop)
    }

    /// A row that is to go goes with its hold.
    async fn release(&self, record: &Record) -> Result<(), OutsideError> {
        let sql = if record.deleting {
            with_columns!(
                "DELETE FROM replays
                 WHERE uid = $1 AND revision = $2 AND $3::jsonb IS NULL RETURNING",
                ""
            )
        } else {
            with_columns!(
                "UPDATE replays SET held = false, revision = revision + 1
                 WHERE uid = $1 AND revision = $2 AND $3::jsonb IS NULL RETURNING",
                ""
            )
        };
        self.on_revision(record, sql, None).await.map(drop)
    }

    /// One that is held is let go first, by the driver.
    async fn remove(&self, record: &Record) -> Result<(), OutsideError> {
        let sql = if record.held {
            with_columns!(
                "UPDATE replays SET deleting = true, revision = revision + 1
                 WHERE uid = $1 AND revision = $2 AND $3::jsonb IS NULL RETURNING",
                ""
            )
        } else {
            with_columns!(
                "DELETE FROM replays
                 WHERE uid = $1 AND revision = $2 AND $3::jsonb IS NULL RETURNING",
                ""
            )
        };
        self.on_revision(record, sql, None).await.map(drop)
    }

    async fn tell(&self, record: &Record, notice: Notice) {
        let Notice {
            reason, message, ..
        } = notice;
        if notice.warning {
            tracing::warn!(
                replay = record.name,
                reason,
                message,
                "a replay needs somebody"
            );
        } else {
            tracing::info!(replay = record.name, reason, message, "a replay went on");
        }
    }
}
