//! The loop: a watch of Replays and of their Jobs, and one pass of the driver for each that
//! changed or whose time has come.

use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::StreamExt as _;
use futures::future::BoxFuture;
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::ObjectReference;
use k8s_openapi::jiff::Timestamp;
use kube::core::DeserializeGuard;
use kube::runtime::controller::{Action, Config, trigger_owners, trigger_self};
use kube::runtime::events::{Recorder, Reporter};
use kube::runtime::reflector::{self, Store};
use kube::runtime::watcher::{self, watcher};
use kube::runtime::{WatchStreamExt as _, applier};
use kube::{Api, Client, Resource as _};
use millrace_replay::{
    Driver, DriverError, Engine, Notice, Owner, Records, Replay, SWEEP_INTERVAL, Work, sweep,
};
use tokio_util::sync::CancellationToken;

use crate::backoff::Backoff;
use crate::job::MANAGED_BY;
use crate::records::{Replays, publish, record};
use crate::watching::{Sentry, Watching};

/// The name events are recorded under.
const REPORTER: &str = "millrace-controller";
/// A watch is asked for anew this often, so that a dead connection is noticed.
const WATCH_SECONDS: u32 = 60;
/// How long one pass may take.
const MAX_PASS: Duration = Duration::from_secs(120);
/// How soon a Replay is looked at again that somebody else wrote meanwhile.
const CHANGED_DELAY: Duration = Duration::from_millis(50);
/// How often a Replay that cannot be read is looked at again.
const UNDECODABLE_DELAY: Duration = Duration::from_secs(300);

const PASSES: &str = "millrace_replay_passes_total";

type Guarded = DeserializeGuard<Replay>;

/// What a controller is made of.
pub struct ControllerParts {
    /// The API server.
    pub client: Client,
    /// The namespace whose Replays are driven.
    pub namespace: String,
    /// The name of this pod.
    pub pod: String,
    /// How many Replays are worked on at once.
    pub concurrency: u16,
    /// What rebuilds and switches.
    pub engine: Arc<dyn Engine>,
    /// Who does the bulk work.
    pub work: Arc<dyn Work>,
    /// Where else replays of the same read stores are written down: theirs is not swept.
    pub elsewhere: Vec<Arc<dyn Records>>,
}

impl std::fmt::Debug for ControllerParts {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ControllerParts")
            .field("namespace", &self.namespace)
            .field("pod", &self.pod)
            .field("concurrency", &self.concurrency)
            .finish_non_exhaustive()
    }
}

/// Drives the Replays of a namespace. Several at once do no harm: each write is compared with what
/// was read, and the switch is a compare-and-set in the store.
pub struct Controller {
    client: Client,
    namespace: String,
    concurrency: u16,
    itself: ObjectReference,
    recorder: Recorder,
    context: Arc<Context>,
    watching: Watching,
    elsewhere: Vec<Arc<dyn Records>>,
}

impl std::fmt::Debug for Controller {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Controller")
            .field("namespace", &self.namespace)
            .field("watching", &self.watching)
            .finish_non_exhaustive()
    }
}

struct Context {
    engine: Arc<dyn Engine>,
    driver: Driver,
    replays: Replays,
    recorder: Recorder,
    backoff: Backoff,
}

/// Why a pass ended early; it is tried again.
#[derive(Debug, thiserror::Error)]
enum PassError {
    #[error(transparent)]
    Driver(#[from] DriverError),
    #[error("the pass took longer than {} s", MAX_PASS.as_secs())]
    TooLong,
}

impl Controller {
    /// Makes one that has done nothing yet.
    #[must_use]
    pub fn new(parts: ControllerParts) -> Self {
        let reporter = Reporter {
            controller: REPORTER.to_owned(),
            instance: Some(parts.pod.clone()),
        };
        let recorder = Recorder::new(parts.client.clone(), reporter);
        let context = Context {
            engine: Arc::clone(&parts.engine),
            driver: Driver::new(parts.engine, parts.work),
            replays: Replays::new(&parts.client, &parts.namespace, recorder.clone()),
            recorder: recorder.clone(),
            backoff: Backoff::default(),
        };
        Self {
            itself: ObjectReference {
                api_version: Some("v1".to_owned()),
                kind: Some("Pod".to_owned()),
                name: Some(parts.pod),
                namespace: Some(parts.namespace.clone()),
                ..ObjectReference::default()
            },
            client: parts.client,
            namespace: parts.namespace,
            concurrency: parts.concurrency,
            recorder,
            context: Arc::new(context),
            watching: Watching::default(),
            elsewhere: parts.elsewhere,
        }
    }

    /// What is known about the watch.
    #[must_use]
    pub fn watching(&self) -> Watching {
        self.watching.clone()
    }

    /// Drops what replays left that are gone, see [`sweep`].
    ///
    /// # Errors
    /// See [`DriverError`].
    pub async fn sweep(&self) -> Result<Vec<String>, DriverError> {
        let own: &dyn Records = &self.context.replays;
        let others = self.elsewhere.iter().map(|one| &**one);
        let places: Vec<_> = std::iter::once(own).chain(others).collect();
        sweep(&*self.context.engine, &places).await
    }

    async fn sweep_on(&self, stop: &CancellationToken) {
        let pause = || stop.run_until_cancelled(tokio::time::sleep(SWEEP_INTERVAL));
        while pause().await.is_some() {
            if let Err(error) = self.sweep().await {
                tracing::warn!(
                    error = &error as &dyn std::error::Error,
                    "what replays left that are gone was not looked for"
                );
            }
        }
    }

    /// Drives until told to stop; then what runs finishes its pass. Waits as long as the resource
    /// is not defined, also when its definition goes and comes back.
    pub async fn run(&self, stop: CancellationToken) {
        tokio::join!(Box::pin(self.drive(&stop)), Box::pin(self.sweep_on(&stop)));
    }

    async fn drive(&self, stop: &CancellationToken) {
        let sentry = Sentry {
            replays: Api::namespaced(self.client.clone(), &self.namespace),
            recorder: self.recorder.clone(),
            itself: self.itself.clone(),
            watching: self.watching.clone(),
        };
        while sentry.until_there(stop).await {
            let ended = stop.child_token();
            let (store, writer) = reflector::store();
            let session = Box::pin(self.session(store.clone(), writer, ended.clone()));
            tokio::select! {
                () = session => {}
                () = sentry.until_missing(&store) => {}
            }
            ended.cancel();
            if stop.is_cancelled() {
                return;
            }
        }
    }

    /// Drives as long as the resource is there.
    async fn session(
        &self,
        store: Store<Guarded>,
        writer: reflector::store::Writer<Guarded>,
        ended: CancellationToken,
    ) {
        let config = watcher::Config::default().timeout(WATCH_SECONDS);
        let replays = watcher(
            Api::<Guarded>::namespaced(self.client.clone(), &self.namespace),
            config.clone(),
        )
        .default_backoff()
        .reflect(writer)
        .applied_objects();
        let jobs = watcher(
            Api::<Job>::namespaced(self.client.clone(), &self.namespace),
            config.labels(&format!("{}={}", MANAGED_BY.0, MANAGED_BY.1)),
        )
        .default_backoff()
        .touched_objects();
        let queue = futures::stream::select(
            trigger_self::<Guarded, _>(replays, ()),
            trigger_owners(jobs, (), ()),
        );
        applier(
            |replay, context| -> BoxFuture<'static, Result<Action, PassError>> {
                Box::pin(reconcile(replay, context))
            },
            failed,
            Arc::clone(&self.context),
            store,
            queue.boxed().take_until(ended.cancelled_owned()),
            Config::default().concurrency(self.concurrency),
        )
        .for_each(async |passed| {
            if let Err(error) = passed {
                note(&error);
            }
        })
        .await;
    }
}

/// Logs what a pass or a watch met, once, here.
fn note(error: &kube::runtime::controller::Error<PassError, watcher::Error>) {
    match error {
        // Gone between the wish to look and the look.
        kube::runtime::controller::Error::ObjectNotFound(_) => {}
        error => tracing::warn!(
            error = error as &dyn std::error::Error,
            "a replay is tried again"
        ),
    }
}

async fn reconcile(seen: Arc<Guarded>, context: Arc<Context>) -> Result<Action, PassError> {
    let metadata = seen.meta();
    let (Some(name), Some(uid)) = (metadata.name.as_deref(), metadata.uid.as_deref()) else {
        return Ok(Action::await_change());
    };
    let generation = metadata.generation.unwrap_or(0);
    if let Some(left) = context.backoff.left(uid, generation, Instant::now()) {
        return Ok(Action::requeue(left));
    }
    // The watch may be a moment late; what is decided on is read now.
    let read = context.replays.get(name).await.map_err(DriverError::from)?;
    let Some(read) = read.filter(|read| read.meta().uid.as_deref() == Some(uid)) else {
        context.driver.forget(&Owner(uid.to_owned()));
        context.backoff.forget(uid);
        return Ok(Action::await_change());
    };
    let replay = match &read.0 {
        Ok(replay) => replay,
        Err(invalid) => {
            tell_undecodable(&context, &read, &invalid.error).await;
            return Ok(Action::requeue(UNDECODABLE_DELAY));
        }
    };
    let Some(record) = record(replay) else {
        return Ok(Action::await_change());
    };
    // The edge at which a pass gets its time.
    let now = Timestamp::now();
    let pass = context.driver.pass(&context.replays, &record, now);
    let passed = tokio::time::timeout(MAX_PASS, pass).await;
    match passed.map_err(|_| PassError::TooLong)? {
        Ok(delay) => {
            context.backoff.worked(uid, Instant::now());
            metrics::counter!(PASSES, "outcome" => "done").increment(1);
            Ok(Action::requeue(delay))
        }
        Err(error) if error.changed() => {
            metrics::counter!(PASSES, "outcome" => "changed").increment(1);
            Ok(Action::requeue(CHANGED_DELAY))
        }
        Err(error) => Err(error.into()),
    }
}

/// Each Replay waits for itself: one that fails does not slow the others.
#[expect(clippy::needless_pass_by_value, reason = "kube gives it so")]
fn failed(replay: Arc<Guarded>, _: &PassError, context: Arc<Context>) -> Action {
    metrics::counter!(PASSES, "outcome" => "failed").increment(1);
    let metadata = replay.meta();
    let uid = metadata.uid.as_deref().unwrap_or_default();
    let generation = metadata.generation.unwrap_or(0);
    Action::requeue(context.backoff.failed(uid, generation, Instant::now()))
}

/// A Replay that this version cannot read stays as it is, also when it is being deleted: nobody
/// knows what it made.
async fn tell_undecodable(context: &Context, replay: &Guarded, error: &str) {
    let message = format!(
        "this controller cannot read the resource, and leaves it alone: {error}; update the controller, or correct the resource"
    );
    let mut reference = replay.object_ref(&());
    reference.namespace.clone_from(&replay.meta().namespace);
    let notice = Notice {
        warning: true,
        reason: "Undecodable".to_owned(),
        message,
    };
    publish(&context.recorder, &reference, notice).await;
}
