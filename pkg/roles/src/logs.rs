//! The event logs of a process's contexts.

use std::{fmt, sync::Arc};

use millrace_es::Context;
use millrace_eventlog::{EventLog, LogError};
use sqlx::PgPool;
use tokio_util::sync::CancellationToken;

use crate::{KnownContext, Late, LogSettings, check_log, migrate_log, open::open_log, pool};

/// A context's event log, opened.
#[derive(Clone)]
pub struct OpenedLog {
    log: Arc<dyn EventLog>,
    pool: PgPool,
}

impl fmt::Debug for OpenedLog {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("OpenedLog")
            .field(self.log.context())
            .finish()
    }
}

impl OpenedLog {
    /// Whose it is.
    #[must_use]
    pub fn context(&self) -> &Context {
        self.log.context()
    }

    /// The log.
    #[must_use]
    pub fn shared(&self) -> Arc<dyn EventLog> {
        Arc::clone(&self.log)
    }

    /// Connections to the PostgreSQL that it is kept in.
    #[must_use]
    pub const fn pool(&self) -> &PgPool {
        &self.pool
    }
}

/// How a process opens its logs.
#[derive(Debug, Clone, Copy)]
pub struct LogUse {
    /// The name that PostgreSQL shows for its connections.
    pub name: &'static str,
    /// Whether to bring schemas up to date first.
    pub migrate: bool,
    /// Whether it appends, and so keeps the tables of the append's own transaction.
    pub appends: bool,
}

/// The event logs of a process, one for each of its contexts.
#[derive(Debug, Clone, Default)]
pub struct Logs(Vec<OpenedLog>);

impl Logs {
    /// Opens the log of every context that is served, as soon as its store answers. `None` when
    /// told to stop meanwhile.
    ///
    /// # Errors
    /// When a log is not set up, or not as the settings say.
    pub async fn open(
        settings: &LogSettings,
        log_use: LogUse,
        stop: &CancellationToken,
    ) -> anyhow::Result<Option<Self>> {
        let pool = pool(settings, log_use.name)?;
        let mut logs = Vec::new();
        for known in settings.contexts()? {
            let context = known.context()?;
            let Some(log) = open_one(&pool, settings, log_use, known, &context, stop).await? else {
                return Ok(None);
            };
            logs.push(OpenedLog {
                log,
                pool: pool.clone(),
            });
        }
        Ok(Some(Self(logs)))
    }

    /// Each of them.
    pub fn iter(&self) -> impl Iterator<Item = &OpenedLog> {
        self.0.iter()
    }

    /// The log of a context.
    #[must_use]
    pub fn of(&self, context: &KnownContext) -> Option<&OpenedLog> {
        self.0
            .iter()
            .find(|log| log.context().as_str() == context.name)
    }

    /// All of them, to read from.
    #[must_use]
    pub fn shared(&self) -> Vec<Arc<dyn EventLog>> {
        self.0.iter().map(OpenedLog::shared).collect()
    }

    /// Finishes the appends that wait, and ends what the logs do beside.
    pub async fn close(&self) {
        for one in &self.0 {
            one.log.close().await;
        }
    }
}

impl Late<Logs> {
    /// Whether every log answers and takes appends.
    ///
    /// # Errors
    /// A sentence for `/readyz`.
    pub async fn check(&self) -> Result<(), String> {
        for one in self.get()?.iter() {
            check_log(&*one.log)
                .await
                .map_err(|error| format!("{}: {error}", one.context()))?;
        }
        Ok(())
    }
}

async fn open_one(
    pool: &PgPool,
    settings: &LogSettings,
    log_use: LogUse,
    known: &KnownContext,
    context: &Context,
    stop: &CancellationToken,
) -> Result<Option<Arc<dyn EventLog>>, LogError> {
    let own = (known.migrations)();
    if log_use.migrate && !migrate_log(pool, context, settings.partitions, own, stop).await? {
        return Ok(None);
    }
    let inline = if log_use.appends {
        (known.inline_tables)()
    } else {
        Vec::new()
    };
    let log = open_log(pool, settings, context, &inline, stop).await?;
    Ok(log.map(|log| log as Arc<dyn EventLog>))
}
