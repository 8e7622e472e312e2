//! Where the embedded servers listen.

use std::net::SocketAddr;

use anyhow::Context as _;
use tokio::net::TcpListener;

use crate::failure::Failure;

/// Listens there.
pub async fn on(address: SocketAddr) -> Result<TcpListener, Failure> {
    let listener = TcpListener::bind(address).await;
    Ok(listener.with_context(|| format!("{address} cannot be listened on"))?)
}
