//! The admin port: is the process alive, can it serve, what does it count.

use std::fmt;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::Metrics;

/// How long a check's answer stands, so that many who ask do not become many who check.
const MAX_CHECK_AGE: Duration = Duration::from_millis(1_000);
/// How long a check may take before its dependency counts as missing.
const MAX_CHECK_WAIT: Duration = Duration::from_millis(2_000);
/// Gathered samples are moved into their histograms this often.
const UPKEEP_INTERVAL: Duration = Duration::from_secs(5);

type Checked = Pin<Box<dyn Future<Output = Result<(), String>> + Send>>;
type Check = Box<dyn Fn() -> Checked + Send + Sync>;
type Pulse = Box<dyn Fn() -> Result<(), String> + Send + Sync>;

/// What this process depends on, asked by whoever asks `/readyz`.
pub struct Health {
    checks: Vec<(&'static str, Check)>,
    pulse: Option<Pulse>,
    stopping: AtomicBool,
    last: tokio::sync::Mutex<Option<(Instant, Readiness)>>,
}

impl fmt::Debug for Health {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<_> = self.checks.iter().map(|(name, _)| name).collect();
        f.debug_struct("Health")
            .field("checks", &names)
            .field("stopping", &self.stopping)
            .finish()
    }
}

/// What `/readyz` says.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Readiness {
    /// Whether this process can serve.
    pub ready: bool,
    /// Whether it is ending.
    pub stopping: bool,
    /// The dependencies that are missing, with the reason.
    pub missing: std::collections::BTreeMap<&'static str, String>,
}

impl Default for Health {
    fn default() -> Self {
        Self::new()
    }
}

impl Health {
    /// Depends on nothing yet.
    #[must_use]
    pub fn new() -> Self {
        Self {
            checks: Vec::new(),
            pulse: None,
            stopping: AtomicBool::new(false),
            last: tokio::sync::Mutex::new(None),
        }
    }

    /// Adds a dependency by name, and how to ask for it: an error is the reason why it is missing,
    /// without secrets.
    #[must_use]
    pub fn with<F, Fut>(mut self, name: &'static str, check: F) -> Self
    where
        F: Fn() -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<(), String>> + Send + 'static,
    {
        self.checks
            .push((name, Box::new(move || Box::pin(check()))));
        self
    }

    /// Says how to tell that this process is stuck, so that only a new one helps: an error is the
    /// reason. Without it a process that answers is alive.
    #[must_use]
    pub fn alive_while<F>(mut self, pulse: F) -> Self
    where
        F: Fn() -> Result<(), String> + Send + Sync + 'static,
    {
        self.pulse = Some(Box::new(pulse));
        self
    }

    /// Whether this process works, or why it is stuck.
    ///
    /// # Errors
    /// The reason.
    pub fn alive(&self) -> Result<(), String> {
        self.pulse.as_ref().map_or(Ok(()), |pulse| pulse())
    }

    /// Turns readiness off for good: the process is ending.
    pub fn stopping(&self) {
        self.stopping.store(true, Ordering::Relaxed);
    }

    /// Asks every dependency side by side, or gives an answer of less than a second ago.
    pub async fn readiness(&self) -> Readiness {
        let mut last = self.last.lock().await;
        let fresh = last.as_ref().filter(|(at, _)| at.elapsed() < MAX_CHECK_AGE);
        let mut readiness = match fresh {
            Some((_, readiness)) => readiness.clone(),
            None => {
                let readiness = self.ask().await;
                *last = Some((Instant::now(), readiness.clone()));
                readiness
            }
        };
        readiness.stopping = self.stopping.load(Ordering::Relaxed);
        readiness.ready = readiness.missing.is_empty() && !readiness.stopping;
        readiness
    }

    async fn ask(&self) -> Readiness {
        let mut asked = JoinSet::new();
        for (name, check) in &self.checks {
            let name = *name;
            let check = check();
            asked.spawn(async move {
                let answer = tokio::time::timeout(MAX_CHECK_WAIT, check).await;
                let late = || format!("no answer within {} ms", MAX_CHECK_WAIT.as_millis());
                (name, answer.unwrap_or_else(|_| Err(late())))
            });
        }
        let mut missing = std::collections::BTreeMap::new();
        while let Some(answer) = asked.join_next().await {
            match answer {
                Ok((_, Ok(()))) => {}
                Ok((name, Err(reason))) => {
                    missing.insert(name, reason);
                }
                Err(error) => {
                    missing.insert("check", error.to_string());
                }
            }
        }
        Readiness {
            ready: missing.is_empty(),
            stopping: false,
            missing,
        }
    }
}

/// The admin port, open until the token given to [`serve`] is cancelled.
#[derive(Debug)]
pub struct Admin {
    address: SocketAddr,
    tasks: JoinSet<()>,
    closing: CancellationToken,
}

/// Opens the admin port: `/livez`, `/readyz`, `/metrics`, and what `operations` adds.
///
/// # Errors
/// When the address cannot be listened on.
pub async fn serve(
    address: SocketAddr,
    health: Arc<Health>,
    metrics: Metrics,
    operations: Router,
) -> std::io::Result<Admin> {
    let listener = TcpListener::bind(address).await.map_err(|error| {
        std::io::Error::new(
            error.kind(),
            format!("the admin port {address} (MILLRACE_ADMIN_LISTEN) cannot be opened: {error}"),
        )
    })?;
    let address = listener.local_addr()?;
    let closing = CancellationToken::new();
    let app = Router::new()
        .route("/livez", get(livez).with_state(Arc::clone(&health)))
        .route("/readyz", get(readyz).with_state(health))
        .route("/metrics", get(render).with_state(metrics.clone()))
        .merge(operations);
    let mut tasks = JoinSet::new();
    let closed = closing.clone();
    tasks.spawn(async move {
        let server = axum::serve(listener, app).with_graceful_shutdown(closed.cancelled_owned());
        if let Err(error) = server.await {
            tracing::error!(%error, "the admin port closed");
        }
    });
    tasks.spawn(async move {
        let mut interval = tokio::time::interval(UPKEEP_INTERVAL);
        loop {
            interval.tick().await;
            metrics.upkeep();
        }
    });
    Ok(Admin {
        address,
        tasks,
        closing,
    })
}

impl Admin {
    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Closes the port. Connections kept open by others are not waited for.
    pub async fn close(mut self) {
        self.closing.cancel();
        self.tasks.shutdown().await;
    }
}

async fn livez(State(health): State<Arc<Health>>) -> Response {
    match health.alive() {
        Ok(()) => "alive\n".into_response(),
        Err(reason) => (StatusCode::SERVICE_UNAVAILABLE, format!("{reason}\n")).into_response(),
    }
}

async fn readyz(State(health): State<Arc<Health>>) -> Response {
    let readiness = health.readiness().await;
    let status = if readiness.ready {
        StatusCode::OK
    } else {
        StatusCode::SERVICE_UNAVAILABLE
    };
    (status, Json(readiness)).into_response()
}

async fn render(State(metrics): State<Metrics>) -> Response {
    let form = [(
        header::CONTENT_TYPE,
        "text/plain; version=0.0.4; charset=utf-8",
    )];
    (form, metrics.render()).into_response()
}
