//! Opening stores that may not be there yet.

use std::str::FromStr as _;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use anyhow::Context as _;
use millrace_eventlog::{EventLog, LogError};
use millrace_runtime::Secret;
use millrace_streaming::{Names, Topology};
use sqlx::ConnectOptions as _;
use sqlx::postgres::{PgConnectOptions, PgPool, PgPoolOptions};
use tokio_util::sync::CancellationToken;

use crate::{LogSettings, NatsSettings};

/// The shortest and the longest pause between two attempts to open a store.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const MAX_PAUSE: Duration = Duration::from_secs(2);
/// How long a read of the log waits for a connection.
const ACQUIRE_TIMEOUT: Duration = Duration::from_secs(5);

/// Something that is there once it was opened; until then a check says that it is not.
#[derive(Debug)]
pub struct Late<T>(Arc<OnceLock<T>>);

impl<T> Clone for Late<T> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<T> Default for Late<T> {
    fn default() -> Self {
        Self(Arc::default())
    }
}

impl<T: Clone> Late<T> {
    /// Puts it there; a second one is ignored.
    pub fn set(&self, value: T) {
        let _ = self.0.set(value);
    }

    /// It, if it was opened.
    ///
    /// # Errors
    /// A sentence for `/readyz`.
    pub fn get(&self) -> Result<T, String> {
        self.0
            .get()
            .cloned()
            .ok_or_else(|| "not opened yet".to_owned())
    }
}

/// Tries until it works, with growing pauses, as long as the error may pass. `None` when told to
/// stop meanwhile.
///
/// # Errors
/// The first error that does not pass.
pub async fn patiently<T, E, Fut>(
    what: &str,
    stop: &CancellationToken,
    may_pass: impl Fn(&E) -> bool,
    mut attempt: impl FnMut() -> Fut,
) -> Result<Option<T>, E>
where
    E: std::error::Error + 'static,
    Fut: Future<Output = Result<T, E>>,
{
    let mut pause = FIRST_PAUSE;
    loop {
        let tried = stop.run_until_cancelled(attempt()).await;
        match tried {
            None => return Ok(None),
            Some(Ok(value)) => return Ok(Some(value)),
            Some(Err(error)) if may_pass(&error) => {
                tracing::warn!(
                    error = &error as &dyn std::error::Error,
                    "cannot {what} yet; trying again"
                );
            }
            Some(Err(error)) => return Err(error),
        }
        if stop
            .run_until_cancelled(tokio::time::sleep(pause))
            .await
            .is_none()
        {
            return Ok(None);
        }
        pause = (pause * 2).min(MAX_PAUSE);
    }
}

/// Connections to a PostgreSQL of event logs, made when they are needed. `setting` says where the URL
/// is from.
///
/// # Errors
/// When the URL is no PostgreSQL URL; the URL itself is not in the error.
pub(crate) fn pool(
    settings: &LogSettings,
    (url, setting): (&Secret<String>, &str),
    name: &'static str,
) -> anyhow::Result<PgPool> {
    let options = PgConnectOptions::from_str(url.expose())
        .with_context(|| format!("{setting} is not a PostgreSQL URL"))?
        .application_name(name)
        .disable_statement_logging();
    Ok(PgPoolOptions::new()
        .max_connections(settings.database_connections)
        .acquire_timeout(ACQUIRE_TIMEOUT)
        .connect_lazy_with(options))
}

/// Whether a log's error is about its store being away.
pub(crate) fn may_pass(error: &LogError) -> bool {
    matches!(error, LogError::Unreachable(_) | LogError::Overloaded(_))
}

/// Whether a log that cannot be opened may be there later: its store is away, or nobody has made it
/// yet.
pub(crate) fn may_be_made(error: &LogError) -> bool {
    may_pass(error) || matches!(error, LogError::Missing(_))
}

/// Connects to NATS, which may come later, and gives everything of this namespace in it.
///
/// # Errors
/// When namespace or address make no sense.
pub async fn topology(
    settings: &NatsSettings,
    namespace: &str,
    name: &str,
) -> anyhow::Result<Topology> {
    let names = Names::new(namespace)?;
    let (url, credentials) = (settings.nats_url.expose(), settings.nats_creds.as_deref());
    let client = millrace_streaming::connect(url, credentials, name).await?;
    Ok(Topology::new(
        millrace_streaming::jetstream(client),
        names,
        settings.topology(),
    ))
}

/// Whether the log answers and takes appends.
///
/// # Errors
/// A sentence for `/readyz`.
pub(crate) async fn check_log(log: &dyn EventLog) -> Result<(), String> {
    let head = log.head().await.map_err(|error| error.to_string())?;
    match head.halted {
        None => Ok(()),
        Some(reason) => Err(format!("halted: {reason}; run `millrace log recover`")),
    }
}

/// Whether NATS is connected.
///
/// # Errors
/// A sentence for `/readyz`.
pub fn check_nats(client: &async_nats::Client) -> Result<(), String> {
    match client.connection_state() {
        async_nats::connection::State::Connected => Ok(()),
        state => Err(format!("the connection is {state}")),
    }
}
