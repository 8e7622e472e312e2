//! The Indexed Job that does the bulk work of a rebuild: one index for each share of the
//! partitions, from the projector's image, under restricted pod security.

use std::collections::BTreeMap;
use std::str::FromStr;

use async_trait::async_trait;
use k8s_openapi::api::batch::v1::{
    Job, JobSpec, PodFailurePolicy, PodFailurePolicyOnPodConditionsPattern, PodFailurePolicyRule,
};
use k8s_openapi::api::core::v1::{
    Capabilities, ConfigMapEnvSource, Container, EmptyDirVolumeSource, EnvFromSource, EnvVar,
    PodSecurityContext, PodSpec, PodTemplateSpec, ResourceRequirements, SeccompProfile,
    SecretEnvSource, SecurityContext, Volume, VolumeMount,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::api::{Api, DeleteParams, ObjectMeta, Patch, PatchParams, PostParams};
use kube::{Client, Resource as _};
use millrace_replay::world::WorkView;
use millrace_replay::{OutsideError, Owner, Replay, Work, WorkOrder};
use serde_json::json;

use crate::calls::{is_status, unavailable};

/// Marks what the controller made.
pub(crate) const MANAGED_BY: (&str, &str) = ("app.kubernetes.io/managed-by", "millrace-controller");
/// Says which Replay a Job belongs to.
const REPLAY_UID: &str = "millrace.dev/replay-uid";
/// A pod's name is the Job's with a hyphen, an index and six letters, and has 63.
const MAX_NAME_PREFIX_CHARS: usize = 40;
const UID_CHARS: usize = 8;
/// The user of the projector's image.
const USER: i64 = 65_532;

/// What the Jobs are made of.
#[derive(Debug, Clone)]
pub struct JobSettings {
    /// The image.
    pub image: String,
    /// When it is pulled.
    pub image_pull_policy: String,
    /// The command with its arguments.
    pub command: Vec<String>,
    /// The service account; the namespace's default when not set.
    pub service_account: Option<String>,
    /// Where the environment comes from.
    pub environment: Vec<EnvironmentSource>,
    /// Processor time of each pod.
    pub cpu: String,
    /// Memory of each pod.
    pub memory: String,
    /// How long a Job that ended is kept, in seconds.
    pub ttl_seconds: u32,
    /// What the pods are made from, instead of what else is here. Its first container is the worker;
    /// image and command are those above where it says none.
    pub template: Option<PodTemplateSpec>,
}

/// Where a Job's environment comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EnvironmentSource {
    /// A Secret.
    Secret(String),
    /// A ConfigMap.
    ConfigMap(String),
}

impl FromStr for EnvironmentSource {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.split_once('/') {
            Some(("secret", name)) if !name.is_empty() => Ok(Self::Secret(name.to_owned())),
            Some(("configmap", name)) if !name.is_empty() => Ok(Self::ConfigMap(name.to_owned())),
            _ => Err("must be secret/NAME or configmap/NAME".to_owned()),
        }
    }
}

/// Has the bulk work done by Jobs.
#[derive(Clone)]
pub struct Jobs {
    jobs: Api<Job>,
    settings: JobSettings,
}

impl std::fmt::Debug for Jobs {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Jobs")
            .field("settings", &self.settings)
            .finish_non_exhaustive()
    }
}

impl Jobs {
    /// Makes Jobs in a namespace.
    #[must_use]
    pub fn new(client: Client, namespace: &str, settings: JobSettings) -> Self {
        Self {
            jobs: Api::namespaced(client, namespace),
            settings,
        }
    }

    /// The Replay's Job, unless it is going away.
    async fn find(&self, replay: &str, owner: &Owner) -> Result<Option<Job>, OutsideError> {
        let name = name(replay, owner);
        let job = self
            .jobs
            .get_opt(&name)
            .await
            .map_err(|error| unavailable(&format!("reading the Job {name}"), error))?;
        Ok(job.filter(|job| {
            let labels = job.metadata.labels.as_ref();
            job.metadata.deletion_timestamp.is_none()
                && labels.and_then(|labels| labels.get(REPLAY_UID)) == Some(&owner.0)
        }))
    }

    fn job(&self, order: &WorkOrder, hold: bool) -> Job {
        let labels = BTreeMap::from([
            (MANAGED_BY.0.to_owned(), MANAGED_BY.1.to_owned()),
            (REPLAY_UID.to_owned(), order.owner.0.clone()),
        ]);
        let shares = i32::from(order.parallelism);
        Job {
            metadata: ObjectMeta {
                name: Some(name(&order.replay, &order.owner)),
                labels: Some(labels.clone()),
                owner_references: Some(vec![owner_reference(&order.replay, &order.owner)]),
                ..ObjectMeta::default()
            },
            spec: Some(JobSpec {
                completion_mode: Some("Indexed".to_owned()),
                completions: Some(shares),
                parallelism: Some(shares),
                backoff_limit: Some(i32::try_from(order.backoff_limit).unwrap_or(i32::MAX)),
                suspend: Some(hold),
                ttl_seconds_after_finished: i32::try_from(self.settings.ttl_seconds).ok(),
                // A node that is drained is nobody's failure.
                pod_failure_policy: Some(PodFailurePolicy {
                    rules: vec![PodFailurePolicyRule {
                        action: "Ignore".to_owned(),
                        on_pod_conditions: Some(vec![PodFailurePolicyOnPodConditionsPattern {
                            type_: "DisruptionTarget".to_owned(),
                            status: "True".to_owned(),
                        }]),
                        ..PodFailurePolicyRule::default()
                    }],
                }),
                template: match &self.settings.template {
                    Some(template) => completed(template.clone(), &self.settings, order, labels),
                    None => PodTemplateSpec {
                        metadata: Some(ObjectMeta {
                            labels: Some(labels),
                            ..ObjectMeta::default()
                        }),
                        spec: Some(self.pod(order)),
                    },
                },
                ..JobSpec::default()
            }),
            status: None,
        }
    }

    fn pod(&self, order: &WorkOrder) -> PodSpec {
        let settings = &self.settings;
        PodSpec {
            restart_policy: Some("Never".to_owned()),
            service_account_name: settings.service_account.clone(),
            automount_service_account_token: Some(false),
            enable_service_links: Some(false),
            security_context: Some(PodSecurityContext {
                run_as_non_root: Some(true),
                run_as_user: Some(USER),
                run_as_group: Some(USER),
                seccomp_profile: Some(SeccompProfile {
                    type_: "RuntimeDefault".to_owned(),
                    localhost_profile: None,
                }),
                ..PodSecurityContext::default()
            }),
            containers: vec![Container {
                name: "rebuild".to_owned(),
                image: Some(settings.image.clone()),
                image_pull_policy: Some(settings.image_pull_policy.clone()),
                command: Some(settings.command.clone()),
                env: Some(environment(order)),
                env_from: Some(settings.environment.iter().map(env_from).collect()),
                resources: Some(self.resources()),
                security_context: Some(SecurityContext {
                    allow_privilege_escalation: Some(false),
                    read_only_root_filesystem: Some(true),
                    capabilities: Some(Capabilities {
                        drop: Some(vec!["ALL".to_owned()]),
                        add: None,
                    }),
                    ..SecurityContext::default()
                }),
                volume_mounts: Some(vec![VolumeMount {
                    name: "tmp".to_owned(),
                    mount_path: "/tmp".to_owned(),
                    ..VolumeMount::default()
                }]),
                ..Container::default()
            }],
            volumes: Some(vec![Volume {
                name: "tmp".to_owned(),
                empty_dir: Some(EmptyDirVolumeSource::default()),
                ..Volume::default()
            }]),
            ..PodSpec::default()
        }
    }

    fn resources(&self) -> ResourceRequirements {
        let quantity = |name: &str, amount: &String| (name.to_owned(), Quantity(amount.clone()));
        ResourceRequirements {
            requests: Some(BTreeMap::from([
                quantity("cpu", &self.settings.cpu),
                quantity("memory", &self.settings.memory),
            ])),
            limits: Some(BTreeMap::from([quantity("memory", &self.settings.memory)])),
            claims: None,
        }
    }
}

/// A template of pods, with what only the controller knows.
fn completed(
    mut template: PodTemplateSpec,
    settings: &JobSettings,
    order: &WorkOrder,
    labels: BTreeMap<String, String>,
) -> PodTemplateSpec {
    let metadata = template.metadata.get_or_insert_default();
    metadata.labels.get_or_insert_default().extend(labels);
    let spec = template.spec.get_or_insert_default();
    spec.restart_policy = Some("Never".to_owned());
    if let Some(worker) = spec.containers.first_mut() {
        if worker.image.is_none() {
            worker.image = Some(settings.image.clone());
            worker.image_pull_policy = Some(settings.image_pull_policy.clone());
        }
        if worker.command.is_none() {
            worker.command = Some(settings.command.clone());
        }
        let variables = worker.env.get_or_insert_default();
        variables.extend(environment(order));
    }
    template
}

/// What tells a worker what to load; Kubernetes adds `JOB_COMPLETION_INDEX`.
fn environment(order: &WorkOrder) -> Vec<EnvVar> {
    let variable = |name: &str, value: String| EnvVar {
        name: name.to_owned(),
        value: Some(value),
        value_from: None,
    };
    vec![
        variable("MILLRACE_REBUILD_PROJECTION", order.projection.clone()),
        variable("MILLRACE_REBUILD_GENERATION", order.generation.clone()),
        variable("MILLRACE_REBUILD_WORKERS", order.parallelism.to_string()),
    ]
}

fn env_from(source: &EnvironmentSource) -> EnvFromSource {
    match source {
        EnvironmentSource::Secret(name) => EnvFromSource {
            secret_ref: Some(SecretEnvSource {
                name: name.clone(),
                optional: None,
            }),
            ..EnvFromSource::default()
        },
        EnvironmentSource::ConfigMap(name) => EnvFromSource {
            config_map_ref: Some(ConfigMapEnvSource {
                name: name.clone(),
                optional: None,
            }),
            ..EnvFromSource::default()
        },
    }
}

fn owner_reference(replay: &str, owner: &Owner) -> OwnerReference {
    OwnerReference {
        api_version: Replay::api_version(&()).into_owned(),
        kind: Replay::kind(&()).into_owned(),
        name: replay.to_owned(),
        uid: owner.0.clone(),
        controller: Some(true),
        block_owner_deletion: Some(true),
    }
}

/// The name of a Replay's Job: told apart from that of an earlier Replay of the same name.
fn name(replay: &str, owner: &Owner) -> String {
    let prefix: String = replay
        .chars()
        .take(MAX_NAME_PREFIX_CHARS)
        .map(|letter| if letter == '.' { '-' } else { letter })
        .collect();
    let uid: String = owner.0.chars().take(UID_CHARS).collect();
    format!("{}-{uid}", prefix.trim_end_matches('-'))
}

fn view(job: &Job) -> WorkView {
    let conditions = job
        .status
        .as_ref()
        .and_then(|status| status.conditions.as_ref());
    let holds = |kind: &str| {
        conditions
            .into_iter()
            .flatten()
            .find(|condition| condition.type_ == kind && condition.status == "True")
    };
    if let Some(failed) = holds("Failed") {
        let reason = failed.reason.as_deref().unwrap_or("it gives no reason");
        let message = failed.message.as_deref().unwrap_or("it says nothing");
        return WorkView::Failed {
            message: format!("the Job failed: {reason}: {message}"),
        };
    }
    if holds("Complete").is_some() {
        return WorkView::Complete;
    }
    match job.spec.as_ref().and_then(|spec| spec.suspend) {
        Some(true) => WorkView::Held,
        _ => WorkView::Running,
    }
}

#[async_trait]
impl Work for Jobs {
    async fn look(&self, replay: &str, owner: &Owner) -> Result<WorkView, OutsideError> {
        let job = self.find(replay, owner).await?;
        Ok(job.map_or(WorkView::Absent, |job| view(&job)))
    }

    async fn ensure(&self, order: &WorkOrder, hold: bool) -> Result<(), OutsideError> {
        let name = name(&order.replay, &order.owner);
        let Some(found) = self.find(&order.replay, &order.owner).await? else {
            let job = self.job(order, hold);
            let made = self.jobs.create(&PostParams::default(), &job).await;
            return made
                .map(drop)
                .map_err(|error| unavailable(&format!("making the Job {name}"), error));
        };
        if found
            .spec
            .as_ref()
            .and_then(|spec| spec.suspend)
            .unwrap_or(false)
            == hold
        {
            return Ok(());
        }
        let patch = Patch::Merge(json!({"spec": {"suspend": hold}}));
        self.jobs
            .patch(&name, &PatchParams::default(), &patch)
            .await
            .map(drop)
            .map_err(|error| unavailable(&format!("holding or resuming the Job {name}"), error))
    }

    async fn stop(&self, replay: &str, owner: &Owner) -> Result<(), OutsideError> {
        if self.find(replay, owner).await?.is_none() {
            return Ok(());
        }
        let name = name(replay, owner);
        match self.jobs.delete(&name, &DeleteParams::background()).await {
            Ok(_) => Ok(()),
            Err(error) if is_status(&error, 404) => Ok(()),
            Err(error) => Err(unavailable(&format!("deleting the Job {name}"), error)),
        }
    }

    fn job_name(&self, replay: &str, owner: &Owner) -> Option<String> {
        Some(name(replay, owner))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_job_is_named_after_its_replay_and_never_twice() {
        let owner = |uid: &str| Owner(uid.to_owned());
        let one = name("orders", &owner("0123456789"));
        assert_eq!(one, "orders-01234567");
        assert_ne!(one, name("orders", &owner("abcdefghij")));
        let long = name(&format!("{}.v2", "a".repeat(39)), &owner("0123456789"));
        assert_eq!(long, format!("{}-01234567", "a".repeat(39)));
        assert!(long.len() + 1 + 2 + 1 + 5 <= 63);
    }

    #[test]
    fn a_template_keeps_what_it_says_and_gets_what_only_the_controller_knows() {
        let template = serde_json::from_value(json!({
            "metadata": {"labels": {"app": "rebuild", MANAGED_BY.0: "Helm"}},
            "spec": {
                "restartPolicy": "OnFailure",
                "serviceAccountName": "rebuilder",
                "containers": [{
                    "name": "rebuild",
                    "command": ["/projector"],
                    "env": [{"name": "A", "value": "1"}],
                }],
            },
        }));
        let settings = JobSettings {
            image: "i:1".to_owned(),
            image_pull_policy: "Never".to_owned(),
            command: vec!["other".to_owned()],
            service_account: None,
            environment: Vec::new(),
            cpu: "1".to_owned(),
            memory: "1Gi".to_owned(),
            ttl_seconds: 1,
            template: None,
        };
        let order = WorkOrder {
            replay: "one".to_owned(),
            owner: Owner("0123456789".to_owned()),
            projection: "orders".to_owned(),
            generation: "g2".to_owned(),
            parallelism: 2,
            backoff_limit: 3,
        };
        let labels = BTreeMap::from([(MANAGED_BY.0.to_owned(), MANAGED_BY.1.to_owned())]);
        let made = completed(template.unwrap(), &settings, &order, labels);
        let made = serde_json::to_value(made).unwrap();
        assert_eq!(made["metadata"]["labels"]["app"], "rebuild");
        assert_eq!(made["metadata"]["labels"][MANAGED_BY.0], MANAGED_BY.1);
        assert_eq!(made["spec"]["restartPolicy"], "Never");
        assert_eq!(made["spec"]["serviceAccountName"], "rebuilder");
        let worker = &made["spec"]["containers"][0];
        assert_eq!(worker["image"], "i:1");
        assert_eq!(worker["imagePullPolicy"], "Never");
        assert_eq!(worker["command"], json!(["/projector"]));
        let names: Vec<&str> = worker["env"]
            .as_array()
            .unwrap()
            .iter()
            .filter_map(|variable| variable["name"].as_str())
            .collect();
        let expected = [
            "A",
            "MILLRACE_REBUILD_PROJECTION",
            "MILLRACE_REBUILD_GENERATION",
            "MILLRACE_REBUILD_WORKERS",
        ];
        assert_eq!(names, expected);
    }

    #[test]
    fn an_environment_comes_from_a_secret_or_a_config_map() {
        assert_eq!(
            "secret/a".parse(),
            Ok(EnvironmentSource::Secret("a".to_owned()))
        );
        assert_eq!(
            "configmap/b".parse(),
            Ok(EnvironmentSource::ConfigMap("b".to_owned()))
        );
        assert!("b".parse::<EnvironmentSource>().is_err());
        assert!("secret/".parse::<EnvironmentSource>().is_err());
    }
}
