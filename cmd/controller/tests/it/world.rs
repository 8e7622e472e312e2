use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::events::v1::Event;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::{Api, DeleteParams, ListParams, Patch, PatchParams, PostParams};
use kube::{Client, ResourceExt as _};
use millrace_controller::{Controller, ControllerParts, JobSettings, Jobs, Watching};
use millrace_replay::testing::ScriptedEngine;
use millrace_replay::{ProjectorWorks, Records, Replay, ReplaySpec, Work, replay_crd};
use millrace_testkit::{Kubernetes, eventually, kubernetes};
use serde_json::{Value, json};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// The longest wait for something that takes a few passes, on a loaded machine.
pub const BOUND: Duration = Duration::from_secs(60);

/// A namespace with the resource defined, an engine, and controllers that a test starts and kills.
pub struct World {
    pub kubernetes: Kubernetes,
    pub client: Client,
    pub replays: Api<Replay>,
    pub jobs: Api<Job>,
    pub engine: Arc<ScriptedEngine>,
    controllers: JoinSet<()>,
    stop: CancellationToken,
}

impl World {
    pub async fn new() -> Self {
        Self::on(kubernetes().await).await
    }

    pub async fn on(kubernetes: Kubernetes) -> Self {
        let world = Self::bare(kubernetes).await;
        world.define().await;
        world
    }

    /// Without the resource being defined.
    pub async fn bare(kubernetes: Kubernetes) -> Self {
        let client = kubernetes.client().await;
        Self {
            replays: Api::namespaced(client.clone(), &kubernetes.namespace),
            jobs: Api::namespaced(client.clone(), &kubernetes.namespace),
            engine: Arc::new(ScriptedEngine::with("orders")),
            controllers: JoinSet::new(),
            stop: CancellationToken::new(),
            kubernetes,
            client,
        }
    }

    /// Defines the resource, and waits until it is served.
    pub async fn define(&self) {
        self.define_as(replay_crd().unwrap()).await;
    }

    pub async fn define_as(&self, definition: CustomResourceDefinition) {
        let definitions: Api<CustomResourceDefinition> = Api::all(self.client.clone());
        let params = PatchParams::apply("test").force();
        let patch = Patch::Apply(&definition);
        definitions
            .patch(&definition.name_any(), &params, &patch)
            .await
            .unwrap();
        eventually("the resource to be served", BOUND, || async {
            self.replays
                .list(&ListParams::default())
                .await
                .ok()
                .map(drop)
        })
        .await;
    }

    /// Starts a controller whose bulk work the projector does by itself.
    pub fn control(&mut self) -> Watching {
        self.control_with(Arc::new(ProjectorWorks))
    }

    /// Starts a controller that makes Jobs.
    pub fn control_jobs(&mut self) -> Watching {
        let settings = JobSettings {
            image: "example.test/projector:1".to_owned(),
            image_pull_policy: "IfNotPresent".to_owned(),
            command: vec!["millrace-projector".to_owned()],
            service_account: Some("rebuilder".to_owned()),
            environment: vec!["secret/stores".parse().unwrap()],
            cpu: "250m".to_owned(),
            memory: "256Mi".to_owned(),
            ttl_seconds: 60,
            template: None,
        };
        let jobs = Jobs::new(self.client.clone(), &self.kubernetes.namespace, settings);
        self.control_with(Arc::new(jobs))
    }

    /// A controller that does not run.
    pub fn controller(&self, work: Arc<dyn Work>, elsewhere: Vec<Arc<dyn Records>>) -> Controller {
        Controller::new(ControllerParts {
            client: self.client.clone(),
            namespace: self.kubernetes.namespace.clone(),
            pod: "controller-0".to_owned(),
            concurrency: 4,
            engine: Arc::clone(&self.engine) as _,
            work,
            elsewhere,
        })
    }

    fn control_with(&mut self, work: Arc<dyn Work>) -> Watching {
        let controller = self.controller(work, Vec::new());
        let watching = controller.watching();
        let stop = self.stop.clone();
        self.controllers
            .spawn(async move { controller.run(stop).await });
        watching
    }

    /// Kills every controller, wherever it is.
    pub async fn kill(&mut self) {
        self.controllers.shutdown().await;
    }

    /// Asks every controller to end, and waits until it has.
    pub async fn end(&mut self) {
        self.stop.cancel();
        let ended = async { while self.controllers.join_next().await.is_some() {} };
        tokio::time::timeout(BOUND, ended)
            .await
            .expect("the controllers end");
        self.stop = CancellationToken::new();
    }

    pub async fn create(&self, name: &str, spec: ReplaySpec) -> Replay {
        let replay = Replay::new(name, spec);
        self.replays
            .create(&PostParams::default(), &replay)
            .await
            .unwrap()
    }

    /// Creates from what a person would write; what the API server says when it refuses.
    pub async fn post(&self, name: &str, spec: Value) -> Result<Replay, String> {
        let replay = json!({
            "apiVersion": "millrace.dev/v1alpha1",
            "kind": "Replay",
            "metadata": {"name": name},
            "spec": spec,
        });
        let path = format!(
            "/apis/millrace.dev/v1alpha1/namespaces/{}/replays",
            self.kubernetes.namespace
        );
        let request = http::Request::post(path)
            .header("content-type", "application/json")
            .body(serde_json::to_vec(&replay).unwrap())
            .unwrap();
        self.client.request(request).await.map_err(said)
    }

    /// Changes the spec as a person would; what the API server says when it refuses.
    pub async fn patch(&self, name: &str, spec: Value) -> Result<Replay, String> {
        let patch = Patch::Merge(json!({"spec": spec}));
        self.replays
            .patch(name, &PatchParams::default(), &patch)
            .await
            .map_err(said)
    }

    pub async fn patch_status(&self, name: &str, status: Value) -> Result<Replay, String> {
        let patch = Patch::Merge(json!({"status": status}));
        self.replays
            .patch_status(name, &PatchParams::default(), &patch)
            .await
            .map_err(said)
    }

    pub async fn get(&self, name: &str) -> Replay {
        self.replays.get(name).await.unwrap()
    }

    pub async fn delete(&self, name: &str) {
        self.replays
            .delete(name, &DeleteParams::default())
            .await
            .unwrap();
    }

    /// Waits until a replay is as wanted.
    pub async fn until(&self, name: &str, what: &str, wanted: impl Fn(&Replay) -> bool) -> Replay {
        let found = async || {
            let replay = self.replays.get(name).await.ok()?;
            wanted(&replay).then_some(replay)
        };
        let waited = tokio::time::timeout(BOUND, async {
            loop {
                if let Some(replay) = found().await {
                    return replay;
                }
                tokio::time::sleep(Duration::from_millis(25)).await;
            }
        });
        match waited.await {
            Ok(replay) => replay,
            Err(_) => {
                let status = self.replays.get(name).await.map(|replay| replay.status);
                panic!("waited in vain for {name} {what}: {status:#?}");
            }
        }
    }

    /// Waits until a replay stands where it is wanted, as `kubectl get` shows it.
    pub async fn until_status(&self, name: &str, reason: &str) -> Replay {
        self.until(name, reason, |replay| shown(replay) == reason)
            .await
    }

    pub async fn until_ended(&self, name: &str) -> Replay {
        let ended = |replay: &Replay| replay.status.as_ref().is_some_and(|status| status.ended());
        self.until(name, "to end", ended).await
    }

    pub async fn until_gone(&self, name: &str) {
        eventually(&format!("{name} to be gone"), BOUND, || async {
            matches!(self.replays.get_opt(name).await, Ok(None)).then_some(())
        })
        .await;
    }

    /// The events of a namespace, as reasons, oldest first.
    pub async fn events(&self, about: &str) -> Vec<String> {
        let events: Api<Event> = Api::namespaced(self.client.clone(), &self.kubernetes.namespace);
        let mut events = events.list(&ListParams::default()).await.unwrap().items;
        events.sort_by(|one, other| one.event_time.cmp(&other.event_time));
        events
            .into_iter()
            .filter(|event| {
                event
                    .regarding
                    .as_ref()
                    .and_then(|object| object.name.as_deref())
                    == Some(about)
            })
            .filter_map(|event| event.reason)
            .collect()
    }
}

/// Where a replay stands, as `kubectl get` shows it.
pub fn shown(replay: &Replay) -> String {
    let status = replay.status.as_ref();
    let ready = status.and_then(|status| status.condition("Ready"));
    ready.map(|ready| ready.reason.clone()).unwrap_or_default()
}

pub fn succeeded(replay: &Replay) -> bool {
    replay
        .status
        .as_ref()
        .is_some_and(|status| status.is_true("Succeeded"))
}

fn said(error: kube::Error) -> String {
    match error {
        kube::Error::Api(status) => status.message,
        error => panic!("{error}"),
    }
}
