use std::{
    future::Future,
    path::Path,
    sync::{Mutex, PoisonError, atomic::Ordering},
    time::Duration,
};

use async_nats::{Client, ConnectOptions, Event, jetstream};
use tokio::time::Instant;

use crate::error::{ConnectError, NatsError};

/// How often the connection is checked, in milliseconds: a server that was stopped, not closed,
/// is noticed after two of these.
const PING_INTERVAL_MS: u64 = 5_000;
/// How long one attempt to connect may take, in milliseconds.
const CONNECT_TIMEOUT_MS: u64 = 3_000;
/// How long a request waits for its answer, in milliseconds.
const REQUEST_TIMEOUT_MS: u64 = 5_000;
/// The shortest and the longest pause before another attempt to connect, in milliseconds.
const RECONNECT_MIN_MS: u64 = 25;
const RECONNECT_MAX_MS: u64 = 1_000;
/// How often somebody who waits looks whether the connection was made anew, in milliseconds.
pub(crate) const LIFETIME_LOOK_MS: u64 = 50;
/// Commands that may wait for the connection before senders have to.
const CLIENT_CAPACITY_COMMANDS: usize = 4_096;

/// The least time between two lines about refused credentials, in milliseconds.
const TELL_REFUSED_EVERY_MS: u64 = 30_000;

/// Connects to NATS and stays connected: a server that is not there yet, or goes away, is tried
/// again for ever, with a pause that grows to a second and is jittered so that a crowd of
/// processes does not come back in step.
///
/// `name` shows up in the server's list of connections. `credentials` is a file with a user's JWT and
/// key, where the server asks for them; a name and a password may stand in the URL. A server that
/// refuses them is tried again too, as what it knows may change, and the log says what to do.
///
/// # Errors
/// [`ConnectError`] when the address makes no sense or the file cannot be read.
pub async fn connect(
    url: &str,
    credentials: Option<&Path>,
    name: &str,
) -> Result<Client, ConnectError> {
    let log = ConnectionLog::new(name);
    options(credentials, name)
        .await?
        .retry_on_initial_connect()
        .ping_interval(Duration::from_millis(PING_INTERVAL_MS))
        .connection_timeout(Duration::from_millis(CONNECT_TIMEOUT_MS))
        .request_timeout(Some(Duration::from_millis(REQUEST_TIMEOUT_MS)))
        .client_capacity(CLIENT_CAPACITY_COMMANDS)
        .reconnect_delay_callback(reconnect_delay)
        .event_callback(move |event| {
            log.note(&event);
            std::future::ready(())
        })
        .connect(url)
        .await
        .map_err(|error| NatsError::new("be reached (NATS_URL)", error).into())
}

/// Connects to NATS once: for a command, whose caller waits and can call it again.
///
/// `limit` bounds the attempt; the rest is as of [`connect`].
///
/// # Errors
/// [`ConnectError`], also when the server does not answer in time or refuses the credentials.
pub async fn connect_once(
    url: &str,
    credentials: Option<&Path>,
    name: &str,
    limit: Duration,
) -> Result<Client, ConnectError> {
    options(credentials, name)
        .await?
        .connection_timeout(limit)
        .connect(url)
        .await
        .map_err(|error| NatsError::new("be reached (NATS_URL)", error).into())
}

async fn options(credentials: Option<&Path>, name: &str) -> Result<ConnectOptions, ConnectError> {
    let options = match credentials {
        Some(file) => ConnectOptions::with_credentials_file(file)
            .await
            .map_err(|reason| ConnectError::Credentials {
                file: file.display().to_string(),
                reason,
            })?,
        None => ConnectOptions::new(),
    };
    Ok(options.name(name))
}

/// One life of a connection. What was asked before a reconnect is never answered after it, and the
/// client does not say so; without this, everybody would sit out their requests' timeouts.
#[derive(Debug)]
pub(crate) struct Lifetime {
    client: Client,
    connects: u64,
}

impl Lifetime {
    pub(crate) fn of(client: Client) -> Self {
        let connects = connects(&client);
        Self { client, connects }
    }

    /// Whether the connection was made anew since.
    pub(crate) fn is_over(&self) -> bool {
        connects(&self.client) != self.connects
    }

    /// Does some work, unless the connection is made anew meanwhile.
    pub(crate) async fn bound<F: Future>(&self, work: F) -> Result<F::Output, NatsError> {
        tokio::pin!(work);
        loop {
            let look = Duration::from_millis(LIFETIME_LOOK_MS);
            match tokio::time::timeout(look, &mut work).await {
                Ok(done) => return Ok(done),
                Err(_) if self.is_over() => {
                    return Err(NatsError::new(
                        "answer",
                        "the connection was lost in between",
                    ));
                }
                Err(_) => {}
            }
        }
    }
}

fn connects(client: &Client) -> u64 {
    client.statistics().connects.load(Ordering::Relaxed)
}

/// The JetStream context that everything in this crate works with.
#[must_use]
pub fn jetstream(client: Client) -> jetstream::Context {
    jetstream::new(client)
}

fn reconnect_delay(attempts: usize) -> Duration {
    let doublings = u32::try_from(attempts.min(8)).unwrap_or(8);
    let ceiling = (RECONNECT_MIN_MS << doublings).min(RECONNECT_MAX_MS);
    millrace_eventlog::jittered(Duration::from_millis(ceiling))
}

/// What becomes of a connection, told in the log.
struct ConnectionLog {
    client: String,
    told_refused: Mutex<Option<Instant>>,
}

impl ConnectionLog {
    fn new(client: &str) -> Self {
        Self {
            client: client.to_owned(),
            told_refused: Mutex::default(),
        }
    }

    fn note(&self, event: &Event) {
        let client = &*self.client;
        match event {
            Event::Connected => tracing::info!(client, "connected to NATS"),
            Event::Disconnected => tracing::warn!(client, "lost the connection to NATS"),
            Event::SlowConsumer(subscription) => {
                tracing::warn!(client, subscription, "NATS messages were dropped: too slow");
            }
            Event::ServerError(error) if is_refusal(error) => self.refused(error),
            Event::ClientError(error) if is_refusal(error) => self.refused(error),
            Event::ServerError(error) => tracing::warn!(client, %error, "NATS reports an error"),
            Event::ClientError(error) => tracing::debug!(client, %error, "NATS client error"),
            other => tracing::info!(client, event = %other, "NATS connection event"),
        }
    }

    /// Once in a while: it is tried about once a second.
    fn refused(&self, error: &dyn std::fmt::Display) {
        let mut told = self
            .told_refused
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let quiet = Duration::from_millis(TELL_REFUSED_EVERY_MS);
        if told.is_some_and(|at| at.elapsed() < quiet) {
            return;
        }
        *told = Some(Instant::now());
        tracing::error!(
            client = self.client,
            %error,
            "NATS refuses the credentials; have NATS_CREDS name a file with a user's JWT and key \
             that this server knows and that have not expired, and start this process again"
        );
    }
}

/// Whether a server does not let somebody in. The client gives the reason as a text.
fn is_refusal(error: &impl std::fmt::Display) -> bool {
    let text = error.to_string().to_lowercase();
    [
        "authorization violation",
        "authentication expired",
        "authentication revoked",
        "signing nonce",
    ]
    .iter()
    .any(|reason| text.contains(reason))
}
