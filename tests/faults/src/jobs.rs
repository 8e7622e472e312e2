//! Jobs on an API server that has no nodes: what the controllers of a cluster would do with them,
//! with processes in place of pods.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
};

use k8s_openapi::{api::batch::v1::Job, jiff::Timestamp};
use kube::{
    Api, ResourceExt as _,
    api::{DeleteParams, ListParams, Patch, PatchParams},
};
use millrace_replay::Replay;
use serde_json::json;

use crate::{Role, RoleProcess, Seed};

/// Runs the Jobs of a namespace.
pub struct JobRunner {
    jobs: Api<Job>,
    replays: Api<Replay>,
    program: PathBuf,
    settings: BTreeMap<String, String>,
    running: BTreeMap<String, Running>,
}

/// The processes of one Job.
#[derive(Default)]
struct Running {
    workers: BTreeMap<i32, RoleProcess>,
    done: BTreeSet<i32>,
    failed: i32,
}

impl JobRunner {
    /// Runs the Jobs of a namespace with this program and these settings.
    #[must_use]
    pub const fn new(
        jobs: Api<Job>,
        replays: Api<Replay>,
        program: PathBuf,
        settings: BTreeMap<String, String>,
    ) -> Self {
        Self {
            jobs,
            replays,
            program,
            settings,
            running: BTreeMap::new(),
        }
    }

    /// Looks once: begins what is missing, ends what is not wanted, reports what is done. While the
    /// API server is away everything goes on as it is.
    pub async fn look(&mut self) {
        let everything = ListParams::default();
        let (Ok(jobs), Ok(replays)) = (
            self.jobs.list(&everything).await,
            self.replays.list_metadata(&everything).await,
        ) else {
            return;
        };
        let replays: BTreeSet<String> = replays.items.iter().filter_map(|one| one.uid()).collect();
        let mut known = BTreeSet::new();
        for job in jobs.items {
            let Some(uid) = job.uid() else { continue };
            let owners = job.owner_references();
            // The garbage collector's work.
            if owners.iter().all(|owner| !replays.contains(&owner.uid)) {
                let params = DeleteParams::background();
                let _ = self.jobs.delete(&job.name_any(), &params).await;
                continue;
            }
            if is_over(&job) {
                continue;
            }
            known.insert(uid.clone());
            self.work(&uid, &job).await;
        }
        // Dropped processes are killed.
        self.running.retain(|uid, _| known.contains(uid));
    }

    async fn work(&mut self, uid: &str, job: &Job) {
        let Some(spec) = &job.spec else { return };
        let running = self.running.entry(uid.to_owned()).or_default();
        if spec.suspend == Some(true) {
            running.workers.clear();
            return;
        }
        for index in 0..spec.completions.unwrap_or(1) {
            match running.workers.get_mut(&index).map(RoleProcess::succeeded) {
                _ if running.done.contains(&index) => {}
                Some(None) => {}
                Some(Some(true)) => {
                    running.workers.remove(&index);
                    running.done.insert(index);
                }
                Some(Some(false)) => {
                    running.workers.remove(&index);
                    running.failed += 1;
                }
                None => {
                    let worker = begin(&self.program, &self.settings, job, index);
                    running.workers.insert(index, worker);
                }
            }
        }
        let (done, failed) = (running.done.len(), running.failed);
        if i32::try_from(done).ok() == spec.completions {
            self.complete(job, done, failed).await;
        }
    }

    async fn complete(&self, job: &Job, done: usize, failed: i32) {
        let now = Timestamp::now().to_string();
        let conditions = ["SuccessCriteriaMet", "Complete"].map(|kind| {
            json!({
                "type": kind, "status": "True", "lastTransitionTime": now,
                "reason": "CompletionsReached", "message": "all indexes are done",
            })
        });
        let began = job.creation_timestamp();
        let indexes: Vec<String> = (0..done).map(|one| one.to_string()).collect();
        let status = json!({"status": {
            "startTime": began.map_or_else(|| now.clone(), |at| at.0.to_string()),
            "completionTime": now,
            "succeeded": done,
            "failed": failed,
            "ready": 0,
            "terminating": 0,
            "completedIndexes": indexes.join(","),
            "uncountedTerminatedPods": {},
            "conditions": conditions,
        }});
        let (params, patch) = (PatchParams::default(), Patch::Merge(status));
        let patched = self
            .jobs
            .patch_status(&job.name_any(), &params, &patch)
            .await;
        if let Err(kube::Error::Api(refused)) = patched {
            assert!(refused.code == 404 || refused.code == 409, "{refused:?}");
        }
    }

    /// How many processes there are.
    #[must_use]
    pub fn workers(&self) -> usize {
        self.running.values().map(|one| one.workers.len()).sum()
    }

    /// Kills one of the processes; whether there was one.
    pub async fn kill_one(&mut self, seed: &Seed) -> bool {
        let mut all: Vec<&mut RoleProcess> = self
            .running
            .values_mut()
            .flat_map(|one| one.workers.values_mut())
            .collect();
        if all.is_empty() {
            return false;
        }
        let victim = seed.index(all.len());
        all[victim].kill().await;
        true
    }
}

fn is_over(job: &Job) -> bool {
    let status = job.status.as_ref();
    let conditions = status.and_then(|status| status.conditions.as_ref());
    conditions.into_iter().flatten().any(|condition| {
        condition.status == "True" && matches!(condition.type_.as_str(), "Complete" | "Failed")
    })
}

/// A pod's process, with the environment that the Job says.
fn begin(
    program: &std::path::Path,
    settings: &BTreeMap<String, String>,
    job: &Job,
    index: i32,
) -> RoleProcess {
    let mut settings = settings.clone();
    let pod = job
        .spec
        .as_ref()
        .and_then(|spec| spec.template.spec.as_ref());
    let variables = pod.into_iter().flat_map(|pod| &pod.containers);
    for variable in variables.flat_map(|container| container.env.iter().flatten()) {
        let value = variable.value.clone().unwrap_or_default();
        settings.insert(variable.name.clone(), value);
    }
    settings.insert("JOB_COMPLETION_INDEX".to_owned(), index.to_string());
    let number = usize::try_from(index).unwrap_or_default();
    RoleProcess::start(program, Role::Projector, number, &settings)
}
