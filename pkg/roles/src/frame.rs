use std::sync::Arc;

use axum::Router;
use millrace_runtime::admin::{self, Admin, Health};
use millrace_runtime::{CommonSettings, install_metrics};
use tokio_util::sync::CancellationToken;

/// What stands around a role's work: its admin port, its health, and the order of its end.
#[derive(Debug)]
pub struct Frame {
    health: Arc<Health>,
    admin: Admin,
    shutdown: CancellationToken,
    common: CommonSettings,
}

impl Frame {
    /// Opens the admin port, with `operations` beside health and metrics.
    ///
    /// # Errors
    /// When the port cannot be opened.
    pub async fn open(
        common: &CommonSettings,
        health: Health,
        operations: Router,
        shutdown: CancellationToken,
    ) -> anyhow::Result<Self> {
        let health = Arc::new(health);
        let metrics = install_metrics()?;
        let admin = admin::serve(
            common.admin_listen,
            Arc::clone(&health),
            metrics,
            operations,
        )
        .await?;
        tracing::info!(address = %admin.address(), "the admin port is open");
        Ok(Self {
            health,
            admin,
            shutdown,
            common: common.clone(),
        })
    }

    /// Waits until this process is asked to end; then readiness goes off, and what comes in is
    /// still served for the lame-duck time.
    pub async fn until_asked_to_end(&self) {
        self.shutdown.cancelled().await;
        self.health.stopping();
        tokio::time::sleep(self.common.lame_duck()).await;
    }

    /// Closes the admin port, last of all.
    pub async fn close(self) {
        self.health.stopping();
        self.admin.close().await;
    }
}
