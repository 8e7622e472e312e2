//! The orderly end: SIGTERM or SIGINT asks for it, a second one insists.

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// The signals that end this process.
#[derive(Debug)]
pub struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    /// Listens from now on.
    ///
    /// # Errors
    /// When the operating system refuses.
    pub fn listen() -> std::io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
        })
    }

    /// Waits for the next one, and gives its name.
    pub async fn next(&mut self) -> &'static str {
        tokio::select! {
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
        }
    }

    /// Cancels `shutdown` at the first signal and returns at the second.
    pub async fn drive(&mut self, shutdown: &CancellationToken) {
        let name = self.next().await;
        tracing::info!(signal = name, "ending");
        shutdown.cancel();
        let name = self.next().await;
        tracing::warn!(signal = name, "ending at once, what runs is given up");
    }
}
