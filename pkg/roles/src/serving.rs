//! The ports that requests come in by.

use std::{io, net::SocketAddr, time::Duration};

use anyhow::Context as _;
use axum::Router;
use millrace_eventlog::RepositoryOptions;
use millrace_http::ServerLimits;
use millrace_internal::InternalService;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::{KnownContext, Logs, OwnerSettings};

/// Takes the public port, before anything else is opened: a port in use is said at once.
///
/// # Errors
/// When somebody else has it.
pub async fn bind(address: SocketAddr) -> anyhow::Result<TcpListener> {
    take(address, "public", "MILLRACE_LISTEN").await
}

/// Takes the port that only other processes of the system call.
///
/// # Errors
/// When somebody else has it.
pub async fn bind_internal(address: SocketAddr) -> anyhow::Result<TcpListener> {
    take(address, "internal", "MILLRACE_INTERNAL_LISTEN").await
}

async fn take(address: SocketAddr, port: &str, setting: &str) -> anyhow::Result<TcpListener> {
    let listener = TcpListener::bind(address)
        .await
        .with_context(|| format!("the {port} port {address} ({setting}) cannot be opened"))?;
    tracing::info!(address = %listener.local_addr()?, "the {port} port is taken");
    Ok(listener)
}

/// Serves the logs of these contexts and their internal commands to other processes of the system,
/// until `shutdown`; what runs then is finished within `drain`.
///
/// # Errors
/// When the port no longer accepts at all.
pub async fn serve_internal(
    listener: TcpListener,
    contexts: &[&'static KnownContext],
    logs: &Logs,
    (options, owners): (RepositoryOptions, &OwnerSettings),
    shutdown: CancellationToken,
    drain: Duration,
) -> io::Result<()> {
    let service = InternalService::new(owners.internal_token.clone());
    let router: Router = contexts
        .iter()
        .filter_map(|known| Some((known.own_log()?, logs.of(known)?)))
        .fold(service, |service, (own, log)| {
            service.serve(log.shared(), (own.internal)(log, options))
        })
        .finish();
    let limits = ServerLimits::default();
    millrace_http::serve(listener, router, limits, shutdown, drain).await
}
