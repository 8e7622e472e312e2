//! Whether the controller sees what it is to see: is the resource there, does the API server
//! answer, does the watch keep up.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1::ObjectReference;
use kube::Api;
use kube::api::{ListParams, PartialObjectMeta};
use kube::core::DeserializeGuard;
use kube::runtime::events::Recorder;
use kube::runtime::reflector::{ObjectRef, Store};
use millrace_replay::{Notice, Replay};
use tokio_util::sync::CancellationToken;

use crate::calls::is_status;
use crate::records::publish;
use crate::telling::Telling;

/// How often the API server is asked.
const INTERVAL: Duration = Duration::from_secs(1);
/// How long an answer may take.
const MAX_ANSWER_WAIT: Duration = Duration::from_secs(10);
/// How long the watch may miss what a list shows before this process counts as stuck.
const MAX_WATCH_LAG: Duration = Duration::from_secs(60);
/// So many Replays are compared with what the watch has shown.
const MAX_COMPARED: u32 = 500;

const MISSING: &str = "millrace_replay_resource_missing";
const UNDECODABLE: &str = "millrace_replays_undecodable";

type Guarded = DeserializeGuard<Replay>;

/// What is known about the watch, shared with the health of the process.
#[derive(Debug, Clone, Default)]
pub struct Watching(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    resource: Resource,
    /// Since when the watch misses something that a list shows.
    behind_since: Option<Instant>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
enum Resource {
    #[default]
    Unknown,
    There,
    Missing,
    Unreachable(String),
}

impl Watching {
    fn state(&self) -> MutexGuard<'_, State> {
        // Nothing panics between two changes: the state is whole.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether Replays can be read.
    ///
    /// # Errors
    /// A sentence for `/readyz`.
    pub fn ready(&self) -> Result<(), String> {
        match &self.state().resource {
            Resource::There => Ok(()),
            Resource::Unknown => Err("the API server was not asked yet".to_owned()),
            Resource::Missing => Err(
                "the Replay resource is not defined in the cluster: apply k8s/crds/replays.yaml"
                    .to_owned(),
            ),
            Resource::Unreachable(error) => Err(error.clone()),
        }
    }

    /// Whether the watch keeps up.
    ///
    /// # Errors
    /// A sentence for `/livez`.
    pub fn alive(&self) -> Result<(), String> {
        match self.state().behind_since.map(|since| since.elapsed()) {
            Some(behind) if behind > MAX_WATCH_LAG => Err(format!(
                "the watch has been missing changes of Replays for {} s",
                behind.as_secs()
            )),
            _ => Ok(()),
        }
    }

    fn behind(&self, behind: bool) {
        let mut state = self.state();
        match (behind, state.behind_since) {
            (true, None) => state.behind_since = Some(Instant::now()),
            (false, _) => state.behind_since = None,
            (true, Some(_)) => {}
        }
    }
}

/// Asks the API server again and again.
pub(crate) struct Sentry {
    pub(crate) replays: Api<Guarded>,
    pub(crate) recorder: Recorder,
    /// What events about the controller itself are recorded on.
    pub(crate) itself: ObjectReference,
    pub(crate) watching: Watching,
}

impl Sentry {
    /// Waits until the resource is there. False when told to stop meanwhile.
    pub(crate) async fn until_there(&self, stop: &CancellationToken) -> bool {
        loop {
            self.ask(None).await;
            if self.watching.ready().is_ok() {
                return true;
            }
            let pause = tokio::time::sleep(INTERVAL);
            if stop.run_until_cancelled(pause).await.is_none() {
                return false;
            }
        }
    }

    /// Returns when the resource is not there any more.
    pub(crate) async fn until_missing(&self, seen: &Store<Guarded>) {
        let mut telling = Telling::default();
        loop {
            tokio::time::sleep(INTERVAL).await;
            tell(&mut telling, seen);
            self.ask(Some(seen)).await;
            if self.watching.state().resource == Resource::Missing {
                return;
            }
        }
    }

    async fn ask(&self, seen: Option<&Store<Guarded>>) {
        let params = ListParams::default().limit(MAX_COMPARED);
        let list = self.replays.list_metadata(&params);
        let found = match tokio::time::timeout(MAX_ANSWER_WAIT, list).await {
            Ok(Ok(list)) => {
                let missed =
                    seen.is_some_and(|seen| list.items.iter().any(|item| !has_seen(seen, item)));
                self.watching.behind(missed);
                Resource::There
            }
            Ok(Err(error)) if is_status(&error, 404) => Resource::Missing,
            Ok(Err(error)) => Resource::Unreachable(format!("the API server says: {error}")),
            Err(_) => Resource::Unreachable(format!(
                "the API server gave no answer within {} s",
                MAX_ANSWER_WAIT.as_secs()
            )),
        };
        self.found(found).await;
    }

    /// Keeps what was found, and says so when it is news.
    async fn found(&self, found: Resource) {
        let missing = found == Resource::Missing;
        metrics::gauge!(MISSING).set(f64::from(u8::from(missing)));
        let before = std::mem::replace(&mut self.watching.state().resource, found.clone());
        if before == found {
            return;
        }
        match found {
            Resource::Missing => {
                let message = "the Replay resource is not defined in the cluster: apply k8s/crds/replays.yaml; waiting for it";
                tracing::warn!(message);
                let notice = Notice {
                    warning: true,
                    reason: "ReplayResourceMissing".to_owned(),
                    message: message.to_owned(),
                };
                publish(&self.recorder, &self.itself, notice).await;
            }
            Resource::Unreachable(error) => tracing::warn!(error, "the API server cannot be asked"),
            Resource::There => tracing::info!("the Replay resource is there"),
            Resource::Unknown => {}
        }
    }
}

fn tell(telling: &mut Telling, seen: &Store<Guarded>) {
    let all = seen.state();
    let undecodable = all.iter().filter(|replay| replay.0.is_err()).count();
    let undecodable = u32::try_from(undecodable).unwrap_or(u32::MAX);
    metrics::gauge!(UNDECODABLE).set(f64::from(undecodable));
    telling.tell(all.iter().filter_map(|replay| replay.0.as_ref().ok()));
}

/// Whether the watch has shown an object as new as a list did.
fn has_seen(seen: &Store<Guarded>, item: &PartialObjectMeta<Guarded>) -> bool {
    let version = |text: Option<&String>| text.and_then(|text| text.parse::<u128>().ok());
    let Some(listed) = version(item.metadata.resource_version.as_ref()) else {
        return true;
    };
    let reference = ObjectRef::<Guarded>::new(item.metadata.name.as_deref().unwrap_or_default())
        .within(item.metadata.namespace.as_deref().unwrap_or_default());
    seen.get(&reference).is_some_and(|object| {
        use kube::Resource as _;
        version(object.meta().resource_version.as_ref()).is_none_or(|shown| shown >= listed)
    })
}
