use std::{
    collections::HashMap,
    str::FromStr,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use async_trait::async_trait;
use futures::future::BoxFuture;
use millrace_es::{Context, LogToken};
use millrace_eventlog::EventLog;
use millrace_streaming::Signals;
use sqlx::{
    ConnectOptions, PgConnection, PgPool, Postgres,
    pool::PoolConnection,
    postgres::{PgConnectOptions, PgPoolOptions},
};
use tokio::task::JoinSet;

use super::store::{generation_options, list_generations, read_checkpoints};
use crate::{
    error::StoreError,
    generation::{Checkpoint, Generation, GenerationId},
    read::{AtLeast, Backend, ReadError, ReadState, Reading},
    view::View,
};

/// The longest a query may run before the server ends it, in milliseconds.
const STATEMENT_TIMEOUT_MS: u32 = 15_000;

/// Reads a row of each table of a generation, so that a connection has their definitions.
const TOUCH_TABLES: &str = "
    DO $$
    DECLARE one regclass;
    BEGIN
        FOR one IN
            SELECT oid FROM pg_class
            WHERE relnamespace = current_schema()::regnamespace AND relkind IN ('r', 'p')
        LOOP
            EXECUTE format('SELECT FROM %s LIMIT 1', one);
        END LOOP;
    END $$";

/// How a read model connects.
#[derive(Debug, Clone, Copy)]
pub struct PgReadOptions {
    /// Connections for queries. Default [`PgReadOptions::MAX_CONNECTIONS`].
    pub max_connections: u32,
    /// How long a query waits for a connection before the store counts as unavailable. Default 5
    /// seconds.
    pub acquire_timeout: Duration,
}

impl PgReadOptions {
    /// Connections of one read model, unless said otherwise.
    pub const MAX_CONNECTIONS: u32 = 16;
}

impl Default for PgReadOptions {
    fn default() -> Self {
        Self {
            max_connections: Self::MAX_CONNECTIONS,
            acquire_timeout: Duration::from_secs(5),
        }
    }
}

/// The query side of one view in PostgreSQL, perhaps on a replica.
///
/// Every generation has its own connections, whose `search_path` is that generation's schema for
/// life: a query is a constant text, its plan stays cached, and it can never meet the tables of
/// two generations. After a switch, new reads go to the new one and the old connections close as
/// they come back.
#[derive(Clone)]
pub struct PgReadModel {
    state: Arc<ReadState<PgBackend>>,
    _tasks: Arc<JoinSet<()>>,
}

struct PgBackend {
    control: PgPool,
    connect: PgConnectOptions,
    options: PgReadOptions,
    pools: Mutex<HashMap<GenerationId, PgPool>>,
}

impl PgBackend {
    /// The generation's connections.
    fn pool(&self, generation: &Generation) -> PgPool {
        let mut pools = self.pools.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(pool) = pools.get(&generation.id) {
            return pool.clone();
        }
        let pool = PgPoolOptions::new()
            .max_connections(self.options.max_connections)
            .acquire_timeout(self.options.acquire_timeout)
            // A round trip per read would double what a small query costs; a connection that
            // died is an error of the store, which the caller may try again.
            .test_before_acquire(false)
            .connect_lazy_with(
                generation_options(&self.connect, &generation.place)
                    .options([("statement_timeout", STATEMENT_TIMEOUT_MS.to_string())])
                    .options(PgReadModel::PLANNING),
            );
        pools.insert(generation.id, pool.clone());
        pool
    }

    /// A connection of a generation that has its tables' definitions already.
    async fn ready_connection(pool: &PgPool) -> Result<PoolConnection<Postgres>, sqlx::Error> {
        let mut conn = pool.acquire().await?;
        sqlx::raw_sql(TOUCH_TABLES).execute(&mut *conn).await?;
        Ok(conn)
    }
}

#[async_trait]
impl Backend for PgBackend {
    async fn generations(&self, projection: &str) -> Result<Vec<Generation>, StoreError> {
        let mut conn = self.control.acquire().await?;
        list_generations(&mut conn, projection).await
    }

    async fn checkpoints(&self, generation: &Generation) -> Result<Vec<Checkpoint>, StoreError> {
        let mut conn = self.control.acquire().await?;
        Ok(read_checkpoints(&mut conn, generation.id).await?)
    }

    /// As many connections as the one before has: opening them, and reading the definitions of tables
    /// and indexes on each, costs the server more than many queries do.
    async fn make_ready(&self, before: &Generation, next: &Generation) {
        let wanted = self.pool(before).size();
        let pool = self.pool(next);
        // Held until all are there, for an idle one would be taken again.
        let mut held = Vec::new();
        for _ in 0..wanted {
            match Self::ready_connection(&pool).await {
                Ok(conn) => held.push(conn),
                Err(error) => {
                    tracing::debug!(generation = %next.id, %error, "connection not made ready");
                    return;
                }
            }
        }
    }

    fn keep_only(&self, answering: Option<&Generation>) {
        let mut pools = self.pools.lock().unwrap_or_else(PoisonError::into_inner);
        pools.retain(|id, _| answering.is_some_and(|one| one.id == *id));
    }
}

impl PgReadModel {
    /// What the planner is told on connections that answer queries. Rows are read through indexes
    /// from memory or flash, where a random page costs little more than the next one: a page of a
    /// list then comes in its index's order, instead of from a bitmap that is sorted, which costs
    /// nothing for a user of fifty rows and much for one of a million under the same cached plan.
    pub const PLANNING: [(&str, &str); 1] = [("random_page_cost", "1.1")];

    /// Opens the query side of a view. `logs` are the event logs of the view's contexts, as far
    /// as this process reaches them: without one, a bare position is reached only when every
    /// partition has gone beyond it. Without `signals`, waiting readers poll.
    ///
    /// # Errors
    /// When the URL is no PostgreSQL URL, or the view is not kept in PostgreSQL.
    pub fn open(
        url: &str,
        view: &View,
        logs: Vec<Arc<dyn EventLog>>,
        signals: Option<Signals>,
        options: PgReadOptions,
    ) -> Result<Self, StoreError> {
        view.postgres()?;
        let connect = PgConnectOptions::from_str(url)?
            .application_name("millrace-query")
            .disable_statement_logging();
        let control = PgPoolOptions::new()
            .max_connections(2)
            .acquire_timeout(options.acquire_timeout)
            .connect_lazy_with(connect.clone().options([("search_path", "projections")]));
        let backend = PgBackend {
            control,
            connect,
            options,
            pools: Mutex::new(HashMap::new()),
        };
        let state = ReadState::new(view.clone(), backend, logs);
        let mut tasks = JoinSet::new();
        state.keep_fresh(&mut tasks, signals);
        Ok(Self {
            state,
            _tasks: Arc::new(tasks),
        })
    }

    /// A connection to answer from; with `at_least`, one that has seen that position.
    ///
    /// # Errors
    /// See [`ReadError`].
    pub async fn read(&self, at_least: Option<&AtLeast>) -> Result<PgReader, ReadError> {
        let backend = &self.state.backend;
        let Some(at_least) = at_least else {
            let (generation, reading) = self.state.enter().await?;
            let conn = backend.pool(&generation).acquire().await?;
            return Ok(PgReader {
                conn,
                generation,
                _reading: reading,
            });
        };
        self.state
            .wait(at_least, |generation, reading| async move {
                let mut left = self.most_lost();
                loop {
                    let mut conn = backend.pool(&generation).acquire().await?;
                    match read_checkpoints(&mut conn, generation.id).await {
                        Err(error) if left > 0 && is_lost(&error) => drop(conn.detach()),
                        found => {
                            let reader = PgReader {
                                conn,
                                generation,
                                _reading: reading,
                            };
                            return Ok((reader, found?));
                        }
                    }
                    left -= 1;
                }
            })
            .await
    }

    /// Runs a query on such a connection; once more when its generation was dropped in between,
    /// and on the next connection when one turns out to be dead, as all of them are after the
    /// server was restarted. The query must therefore only read.
    ///
    /// # Errors
    /// See [`ReadError`].
    pub async fn query<T, F>(&self, at_least: Option<&AtLeast>, run: F) -> Result<T, ReadError>
    where
        F: for<'c> Fn(&'c mut PgConnection) -> BoxFuture<'c, Result<T, sqlx::Error>> + Send + Sync,
        T: Send,
    {
        let mut refreshed = false;
        let mut left = self.most_lost();
        loop {
            let mut reader = self.read(at_least).await?;
            match run(reader.conn()).await {
                Err(error) if !refreshed && is_undefined_table(&error) => {
                    refreshed = true;
                    drop(reader);
                    self.state.refresh().await?;
                }
                Err(error) if left > 0 && is_lost(&error) => {
                    left -= 1;
                    reader.discard();
                }
                other => return Ok(other?),
            }
        }
    }

    /// Every connection that is there may have died, and one is made anew.
    fn most_lost(&self) -> u32 {
        self.state.backend.options.max_connections
    }

    /// How far the read model is in a context, as of a moment ago: a lower bound for every read
    /// that this process answers from one server, and it costs nothing.
    #[must_use]
    pub fn current(&self, context: &Context) -> Option<LogToken> {
        self.state.current(context)
    }

    /// Whether a generation answers, and its database can be reached.
    ///
    /// # Errors
    /// See [`ReadError`].
    pub async fn check(&self) -> Result<(), ReadError> {
        self.state.check().await
    }
}

/// `42P01`: the generation's schema was dropped.
fn is_undefined_table(error: &sqlx::Error) -> bool {
    matches!(error, sqlx::Error::Database(database) if database.code().as_deref() == Some("42P01"))
}

/// The connection is gone; a new one may be fine.
fn is_lost(error: &sqlx::Error) -> bool {
    match error {
        sqlx::Error::Io(_) => true,
        // Ended by an administrator, by a crash, by a server that shuts down.
        sqlx::Error::Database(database) => {
            matches!(
                database.code().as_deref(),
                Some("57P01" | "57P02" | "57P05")
            )
        }
        _ => false,
    }
}

/// A connection that sees one generation's tables under their own names.
#[derive(Debug)]
pub struct PgReader {
    conn: PoolConnection<Postgres>,
    generation: Generation,
    _reading: Reading,
}

impl PgReader {
    /// The connection.
    pub fn conn(&mut self) -> &mut PgConnection {
        &mut self.conn
    }

    /// The generation that answers.
    #[must_use]
    pub const fn generation(&self) -> &Generation {
        &self.generation
    }

    fn discard(self) {
        drop(self.conn.detach());
    }
}
