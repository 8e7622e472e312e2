//! The Job that does the bulk work, as far as an API server without controllers shows it.

use k8s_openapi::api::batch::v1::Job;
use kube::api::{Patch, PatchParams};
use millrace_replay::testing::EVENTS;
use millrace_replay::{Replay, ReplaySpec};
use millrace_testkit::eventually;
use serde_json::json;

use crate::world::{BOUND, World, shown, succeeded};

fn rebuild() -> ReplaySpec {
    let mut spec = ReplaySpec::rebuild("orders");
    spec.backoff_limit = 3;
    spec.rebuild.as_mut().unwrap().parallelism = 2;
    spec
}

async fn job_of(world: &World, name: &str) -> Job {
    let made = |replay: &Replay| {
        replay
            .status
            .as_ref()
            .is_some_and(|status| status.job_ref.is_some())
    };
    let replay = world.until(name, "to have a Job", made).await;
    let job = replay.status.unwrap().job_ref.unwrap().name;
    world.jobs.get(&job).await.unwrap()
}

async fn suspended(world: &World, job: &str, expected: bool) {
    eventually(
        &format!("the Job's suspension to be {expected}"),
        BOUND,
        || async {
            let job = world.jobs.get(job).await.ok()?;
            (job.spec?.suspend? == expected).then_some(())
        },
    )
    .await;
}

/// Ends a Job as its controller would.
async fn end(world: &World, job: &str, conditions: &[&str]) {
    let now = "2026-11-01T00:00:01Z";
    let conditions: Vec<_> = conditions
        .iter()
        .map(|kind| json!({"type": kind, "status": "True", "reason": "BackoffLimitExceeded", "message": "pods failed", "lastTransitionTime": now}))
        .collect();
    let mut status = json!({
        "startTime": "2026-11-01T00:00:00Z",
        "conditions": conditions,
        "ready": 0,
        "terminating": 0,
        "uncountedTerminatedPods": {},
    });
    if conditions
        .iter()
        .any(|condition| condition["type"] == "Complete")
    {
        status["completionTime"] = json!(now);
        status["succeeded"] = json!(2);
        status["completedIndexes"] = json!("0,1");
    } else {
        status["failed"] = json!(4);
        status["completedIndexes"] = json!("");
    }
    let patch = Patch::Merge(json!({"status": status}));
    world
        .jobs
        .patch_status(job, &PatchParams::default(), &patch)
        .await
        .unwrap();
}

#[tokio::test]
async fn a_rebuild_has_an_indexed_job_of_its_own_under_restricted_pod_security() {
    let mut world = World::new().await;
    world.engine.load_by_hand();
    world.control_jobs();
    let replay = world.create("one", rebuild()).await;
    let job = job_of(&world, "one").await;
    let owner = &job.metadata.owner_references.as_ref().unwrap()[0];
    assert_eq!(
        (owner.kind.as_str(), owner.name.as_str()),
        ("Replay", "one")
    );
    assert_eq!(Some(&owner.uid), replay.metadata.uid.as_ref());
    assert_eq!(
        (owner.controller, owner.block_owner_deletion),
        (Some(true), Some(true))
    );
    let spec = job.spec.as_ref().unwrap();
    assert_eq!(spec.completion_mode.as_deref(), Some("Indexed"));
    assert_eq!(
        (spec.completions, spec.parallelism, spec.backoff_limit),
        (Some(2), Some(2), Some(3))
    );
    let pod = spec.template.spec.as_ref().unwrap();
    assert_eq!(pod.service_account_name.as_deref(), Some("rebuilder"));
    let container = &pod.containers[0];
    assert_eq!(container.image.as_deref(), Some("example.test/projector:1"));
    let value = |name: &str| {
        let variables = container.env.iter().flatten();
        variables
            .filter(|variable| variable.name == name)
            .find_map(|variable| variable.value.clone())
    };
    assert_eq!(value("MILLRACE_REBUILD_GENERATION").as_deref(), Some("g2"));
    assert_eq!(value("MILLRACE_REBUILD_WORKERS").as_deref(), Some("2"));

    // The API server itself judges the pod, in a namespace that lets in nothing else.
    let namespaces: kube::Api<k8s_openapi::api::core::v1::Namespace> =
        kube::Api::all(world.client.clone());
    let label =
        json!({"metadata": {"labels": {"pod-security.kubernetes.io/enforce": "restricted"}}});
    let namespace = &world.kubernetes.namespace;
    namespaces
        .patch(namespace, &PatchParams::default(), &Patch::Merge(label))
        .await
        .unwrap();
    let pods: kube::Api<k8s_openapi::api::core::v1::Pod> =
        kube::Api::namespaced(world.client.clone(), namespace);
    let mut made = k8s_openapi::api::core::v1::Pod::default();
    made.metadata.name = Some("judged".to_owned());
    made.spec.clone_from(&spec.template.spec);
    pods.create(&Default::default(), &made).await.unwrap();
}

#[tokio::test]
async fn a_job_is_held_resumed_and_ends_with_the_work() {
    let mut world = World::new().await;
    world.engine.load_by_hand();
    world.control_jobs();
    world.create("one", rebuild()).await;
    let job = job_of(&world, "one").await.metadata.name.unwrap();
    world.patch("one", json!({"suspend": true})).await.unwrap();
    suspended(&world, &job, true).await;
    world.until_status("one", "Suspended").await;
    world.patch("one", json!({"suspend": false})).await.unwrap();
    suspended(&world, &job, false).await;
    world.engine.load("orders", EVENTS);
    end(&world, &job, &["SuccessCriteriaMet", "Complete"]).await;
    assert!(succeeded(&world.until_ended("one").await));
    assert!(
        world.jobs.get_opt(&job).await.unwrap().is_some(),
        "its logs are kept for a while"
    );
}

#[tokio::test]
async fn a_job_that_is_deleted_is_made_again() {
    let mut world = World::new().await;
    world.engine.load_by_hand();
    world.control_jobs();
    world.create("one", rebuild()).await;
    let first = job_of(&world, "one").await;
    let name = first.metadata.name.clone().unwrap();
    world
        .jobs
        .delete(&name, &kube::api::DeleteParams::background())
        .await
        .unwrap();
    eventually("another Job", BOUND, || async {
        let job = world.jobs.get_opt(&name).await.ok()??;
        (job.metadata.uid != first.metadata.uid).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_job_that_fails_for_good_fails_the_replay_and_leaves_nothing() {
    let mut world = World::new().await;
    world.engine.load_by_hand();
    world.control_jobs();
    world.create("one", rebuild()).await;
    let job = job_of(&world, "one").await.metadata.name.unwrap();
    end(&world, &job, &["FailureTarget", "Failed"]).await;
    let done = world.until_ended("one").await;
    assert_eq!(shown(&done), "BackoffLimitExceeded");
    let status = done.status.unwrap();
    assert!(status.last_error.unwrap().contains("pods failed"));
    assert_eq!(world.engine.generations("orders"), ["g1"]);
    assert!(world.jobs.get_opt(&job).await.unwrap().is_none());
}

#[tokio::test]
async fn a_cancel_ends_the_job() {
    let mut world = World::new().await;
    world.engine.load_by_hand();
    world.control_jobs();
    world.create("one", rebuild()).await;
    let job = job_of(&world, "one").await.metadata.name.unwrap();
    world.patch("one", json!({"cancel": true})).await.unwrap();
    assert_eq!(shown(&world.until_ended("one").await), "Cancelled");
    assert!(world.jobs.get_opt(&job).await.unwrap().is_none());
}
