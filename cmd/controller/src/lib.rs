//! The controller: drives the Replay resources of a Kubernetes namespace.
//!
//! It decides and switches; the bulk work of a rebuild is a Job's, and what rebuilds, compares and
//! switches is the [`Engine`]. Nothing is lost with this process: the resource and the engine
//! know where a replay stands.

mod backoff;
mod calls;
mod controller;
mod job;
mod records;
mod settings;
mod stores;
mod telling;
mod watching;

use std::sync::Arc;

use anyhow::Context as _;
use axum::Router;
use kube::{Client, Config};
use millrace_replay::{Engine, ProjectorWorks, Records, Work};
use millrace_roles::{Frame, RebuildBy};
use millrace_runtime::admin::Health;
use millrace_runtime::instance_name;
use tokio_util::sync::CancellationToken;

pub use controller::{Controller, ControllerParts};
pub use job::{EnvironmentSource, JobSettings, Jobs};
pub use records::{FINALIZER, Replays};
pub use settings::{ControllerSettings, Settings};
pub use watching::Watching;

/// Drives Replays until told to stop, on the API server that kubectl would find.
///
/// # Errors
/// When the admin port is in use, a setting makes no sense, a store is not what it should be, or no
/// API server is configured.
pub async fn run(settings: Settings, shutdown: CancellationToken) -> anyhow::Result<()> {
    let config = Config::infer().await.context(
        "no API server is configured: set KUBECONFIG, or run in a pod with a service account",
    )?;
    let Some(stores) = stores::open(&settings, &shutdown).await? else {
        return Ok(());
    };
    let elsewhere: Vec<Arc<dyn Records>> = vec![Arc::new(stores.replays)];
    let ended = run_on(config, settings, stores.engine, elsewhere, shutdown).await;
    stores.logs.close().await;
    ended
}

/// As [`run`], with this engine and on this API server; `elsewhere` is where else replays of the
/// same stores are written down.
///
/// # Errors
/// When the admin port is in use, or a setting makes no sense.
pub async fn run_on(
    config: Config,
    settings: Settings,
    engine: Arc<dyn Engine>,
    elsewhere: Vec<Arc<dyn Records>>,
    shutdown: CancellationToken,
) -> anyhow::Result<()> {
    let own = &settings.controller;
    let namespace = own
        .watch_namespace
        .clone()
        .unwrap_or_else(|| config.default_namespace.clone());
    let client = Client::try_from(config).context("the API server cannot be talked to")?;
    let work: Arc<dyn Work> = match own.rebuild_by {
        RebuildBy::Job => Arc::new(Jobs::new(client.clone(), &namespace, own.job()?)),
        RebuildBy::Projector => Arc::new(ProjectorWorks),
    };
    tracing::info!(namespace, "driving replays");
    let controller = Controller::new(ControllerParts {
        client,
        namespace,
        pod: own.pod_name.clone().unwrap_or_else(instance_name),
        concurrency: own.concurrency,
        engine,
        work,
        elsewhere,
    });
    let health = health(&controller);
    let frame = Frame::open(&settings.common, health, Router::new(), shutdown).await?;
    let stop = CancellationToken::new();
    tokio::join!(Box::pin(controller.run(stop.clone())), async {
        frame.until_asked_to_end().await;
        stop.cancel();
    });
    frame.close().await;
    Ok(())
}

/// Ready while Replays can be read, alive while the watch keeps up.
fn health(controller: &Controller) -> Health {
    let (ready, alive) = (controller.watching(), controller.watching());
    Health::new()
        .with("replays", move || std::future::ready(ready.ready()))
        .alive_while(move || alive.alive())
}
