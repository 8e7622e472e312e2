//! The public port.

use std::net::SocketAddr;

use anyhow::Context as _;
use tokio::net::TcpListener;

/// Takes the public port, before anything else is opened: a port in use is said at once.
///
/// # Errors
/// When somebody else has it.
pub async fn bind(address: SocketAddr) -> anyhow::Result<TcpListener> {
    let listener = TcpListener::bind(address)
        .await
        .with_context(|| format!("the public port {address} (MILLRACE_LISTEN) cannot be opened"))?;
    tracing::info!(address = %listener.local_addr()?, "the public port is taken");
    Ok(listener)
}
