use std::path::{Path, PathBuf};

use anyhow::Context as _;
use clap::{Args, Parser};
use k8s_openapi::api::core::v1::PodTemplateSpec;
use millrace_roles::{
    DynamoSettings, LogSettings, NatsSettings, OwnerSettings, ReadStoreSettings, RebuildBy,
};
use millrace_runtime::{CommonSettings, Service};

use crate::job::{EnvironmentSource, JobSettings};

/// Drives Replay resources: rebuilds of projections, redrives of dead letters, rollbacks.
///
/// Every setting can be given on the command line, in the environment, or in a TOML file, in this
/// order; a setting that nobody knows is an error. The API server is found as kubectl finds it: by
/// KUBECONFIG, else by the service account of the pod.
#[derive(Debug, Clone, Parser)]
#[command(name = "millrace-controller", version, max_term_width = 100)]
pub struct Settings {
    /// What every role has.
    #[command(flatten)]
    pub common: CommonSettings,
    /// The event logs, for their heads and for verifications.
    #[command(flatten)]
    pub log: LogSettings,
    /// NATS, for the consumers of generations that are dropped.
    #[command(flatten)]
    pub nats: NatsSettings,
    /// The read models in PostgreSQL.
    #[command(flatten)]
    pub read: ReadStoreSettings,
    /// The read models in DynamoDB.
    #[command(flatten)]
    pub dynamodb: DynamoSettings,
    /// The other contexts.
    #[command(flatten)]
    pub owners: OwnerSettings,
    /// This role's own.
    #[command(flatten)]
    pub controller: ControllerSettings,
}

impl Service for Settings {
    fn common(&self) -> &CommonSettings {
        &self.common
    }
}

/// What only the controller has.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Controller")]
pub struct ControllerSettings {
    /// The Kubernetes namespace whose Replays are driven [default: the one of the service account,
    /// or of the kubeconfig's context]
    #[arg(long, env = "MILLRACE_CONTROLLER_NAMESPACE", value_name = "NAME")]
    pub watch_namespace: Option<String>,

    /// The name of this pod, which events about the controller itself are recorded on
    #[arg(long, env = "MILLRACE_POD_NAME", value_name = "NAME")]
    pub pod_name: Option<String>,

    /// How many Replays are worked on at once
    #[arg(
        long,
        env = "MILLRACE_CONTROLLER_CONCURRENCY",
        default_value = "4",
        value_parser = clap::value_parser!(u16).range(1..=64),
        value_name = "COUNT"
    )]
    pub concurrency: u16,

    /// Who does the bulk work of a rebuild
    #[arg(long, env = "MILLRACE_REBUILD_BY", default_value = "job", value_enum)]
    pub rebuild_by: RebuildBy,

    /// Image of the Job that rebuilds: the projector's. Required with `--rebuild-by job`
    #[arg(long, env = "MILLRACE_JOB_IMAGE", value_name = "IMAGE")]
    pub job_image: Option<String>,

    /// When the Job's image is pulled
    #[arg(
        long,
        env = "MILLRACE_JOB_IMAGE_PULL_POLICY",
        default_value = "IfNotPresent",
        value_name = "POLICY"
    )]
    pub job_image_pull_policy: String,

    /// Command of the Job with its arguments, separated by commas
    #[arg(
        long,
        env = "MILLRACE_JOB_COMMAND",
        default_value = "/millrace,role,projector",
        value_delimiter = ',',
        value_name = "WORDS"
    )]
    pub job_command: Vec<String>,

    /// Service account of the Job's pods; they get no token of it
    #[arg(long, env = "MILLRACE_JOB_SERVICE_ACCOUNT", value_name = "NAME")]
    pub job_service_account: Option<String>,

    /// Where the Job's environment comes from, separated by commas: secret/NAME or configmap/NAME
    #[arg(
        long,
        env = "MILLRACE_JOB_ENV_FROM",
        value_delimiter = ',',
        value_name = "SOURCES"
    )]
    pub job_env_from: Vec<EnvironmentSource>,

    /// Processor time that each of the Job's pods is given, as Kubernetes writes it
    #[arg(
        long,
        env = "MILLRACE_JOB_CPU",
        default_value = "500m",
        value_name = "QUANTITY"
    )]
    pub job_cpu: String,

    /// Memory that each of the Job's pods is given and may not exceed, as Kubernetes writes it
    #[arg(
        long,
        env = "MILLRACE_JOB_MEMORY",
        default_value = "512Mi",
        value_name = "QUANTITY"
    )]
    pub job_memory: String,

    /// How long a Job that ended is kept for its logs, in seconds
    #[arg(
        long,
        env = "MILLRACE_JOB_TTL_SECONDS",
        default_value = "600",
        value_name = "SECONDS"
    )]
    pub job_ttl_seconds: u32,

    /// File with a template of the Job's pods (a PodTemplateSpec as JSON), instead of service account,
    /// environment, processor time and memory as said here. Its first container is the worker; the
    /// image is that of `--job-image` where it says none
    #[arg(long, env = "MILLRACE_JOB_POD_TEMPLATE", value_name = "FILE")]
    pub job_pod_template: Option<PathBuf>,
}

impl ControllerSettings {
    /// What the Jobs are made of.
    ///
    /// # Errors
    /// When no image is set, or the file with the template of pods has none.
    pub fn job(&self) -> anyhow::Result<JobSettings> {
        let image = self.job_image.clone().filter(|image| !image.is_empty());
        Ok(JobSettings {
            image: image.ok_or_else(|| {
                anyhow::anyhow!(
                    "MILLRACE_JOB_IMAGE is not set: give the projector's image, or let the projector rebuild (MILLRACE_REBUILD_BY=projector)"
                )
            })?,
            image_pull_policy: self.job_image_pull_policy.clone(),
            command: self.job_command.clone(),
            service_account: self.job_service_account.clone(),
            environment: self.job_env_from.clone(),
            cpu: self.job_cpu.clone(),
            memory: self.job_memory.clone(),
            ttl_seconds: self.job_ttl_seconds,
            template: self.job_pod_template.as_deref().map(pod_template).transpose()?,
        })
    }
}

/// Reads a template of pods.
fn pod_template(path: &Path) -> anyhow::Result<PodTemplateSpec> {
    let read = || -> anyhow::Result<PodTemplateSpec> {
        let template: PodTemplateSpec = serde_json::from_str(&std::fs::read_to_string(path)?)?;
        let containers = template
            .spec
            .as_ref()
            .map_or(0, |spec| spec.containers.len());
        anyhow::ensure!(containers > 0, "it has no container");
        Ok(template)
    };
    read().with_context(|| {
        let path = path.display();
        format!("{path} (MILLRACE_JOB_POD_TEMPLATE) has no template of pods as JSON")
    })
}
