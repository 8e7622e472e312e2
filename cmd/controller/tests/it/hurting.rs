//! The API server is hurt, the definition goes and comes back, an object cannot be read.

use std::sync::Arc;

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use k8s_openapi::jiff::Timestamp;
use kube::api::{Api, DeleteParams, Patch, PatchParams};
use millrace_replay::status::ReplayStatus;
use millrace_replay::testing::{EVENTS, MemoryRecords};
use millrace_replay::world::Pace;
use millrace_replay::{Engine, Owner, ProjectorWorks, Record, Replay, ReplaySpec, replay_crd};
use millrace_testkit::{eventually, own_kubernetes};
use serde_json::{Value, json};

use crate::world::{BOUND, World, succeeded};

fn rebuild() -> ReplaySpec {
    ReplaySpec::rebuild("orders")
}

#[tokio::test]
async fn an_api_server_that_goes_and_comes_back_is_waited_for() {
    let mut server = own_kubernetes().await;
    let mut world = World::on(server.namespace().await).await;
    world.engine.load_by_hand();
    let watching = world.control();
    world.create("one", rebuild()).await;
    world.until_status("one", "Loading").await;
    server.kill().await;
    eventually("readiness to go", BOUND, || async {
        watching.ready().is_err().then_some(())
    })
    .await;
    watching.alive().unwrap();
    world.engine.load("orders", EVENTS);
    server.restart().await;
    assert!(succeeded(&world.until_ended("one").await));
    eventually("readiness to come", BOUND, || async {
        watching.ready().is_ok().then_some(())
    })
    .await;
    world.create("two", ReplaySpec::redrive("orders")).await;
    assert!(succeeded(&world.until_ended("two").await));
}

#[tokio::test]
async fn the_definition_may_come_late_go_and_come_back() {
    let server = own_kubernetes().await;
    let mut world = World::bare(server.namespace().await).await;
    let watching = world.control();
    let missing = async || {
        eventually("the definition to be missed", BOUND, || async {
            let reason = watching.ready().err()?;
            reason
                .contains("is not defined in the cluster")
                .then_some(())
        })
        .await;
    };
    missing().await;
    watching.alive().unwrap();
    eventually("an event about it", BOUND, || async {
        let events = world.events("controller-0").await;
        events
            .contains(&"ReplayResourceMissing".to_owned())
            .then_some(())
    })
    .await;
    world.define().await;
    world.create("one", rebuild()).await;
    assert!(succeeded(&world.until_ended("one").await));

    world.engine.load_by_hand();
    world.create("two", rebuild()).await;
    world.until_status("two", "Loading").await;
    let definitions: Api<CustomResourceDefinition> = Api::all(world.client.clone());
    definitions
        .delete("replays.millrace.dev", &DeleteParams::default())
        .await
        .unwrap();
    // The definition goes when the controller has let its objects go.
    missing().await;
    assert_eq!(world.engine.generations("orders"), ["g2"]);
    world.define().await;
    world.create("three", rebuild()).await;
    world.until_status("three", "Loading").await;
    world.engine.load("orders", EVENTS);
    assert!(succeeded(&world.until_ended("three").await));
    let about = world.events("controller-0").await;
    assert!(about.iter().all(|reason| reason == "ReplayResourceMissing"));
}

#[tokio::test]
async fn an_object_that_cannot_be_read_leaves_the_others_alone() {
    let server = own_kubernetes().await;
    let mut world = World::bare(server.namespace().await).await;
    // The definition of another version, which knows a kind of replay that this one does not.
    let mut definition = serde_json::to_value(replay_crd().unwrap()).unwrap();
    let schema = &mut definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"];
    let kinds = &mut schema["properties"]["spec"]["properties"]["type"]["enum"];
    kinds.as_array_mut().unwrap().push(Value::from("Rewind"));
    world
        .define_as(serde_json::from_value(definition).unwrap())
        .await;
    let created: Result<Replay, _> = {
        let path = format!(
            "/apis/millrace.dev/v1alpha1/namespaces/{}/replays",
            world.kubernetes.namespace
        );
        let object = json!({
            "apiVersion": "millrace.dev/v1alpha1", "kind": "Replay",
            "metadata": {"name": "strange"}, "spec": {"type": "Rewind"},
        });
        let request = http::Request::post(path)
            .header("content-type", "application/json")
            .body(serde_json::to_vec(&object).unwrap())
            .unwrap();
        world.client.request(request).await
    };
    assert!(
        matches!(created, Err(kube::Error::SerdeError(_))),
        "{created:?}"
    );
    let watching = world.control();
    world.create("good", rebuild()).await;
    assert!(succeeded(&world.until_ended("good").await));
    eventually("an event about it", BOUND, || async {
        let events = world.events("strange").await;
        events.contains(&"Undecodable".to_owned()).then_some(())
    })
    .await;
    watching.alive().unwrap();
    watching.ready().unwrap();
}

#[tokio::test]
async fn what_a_replay_left_that_is_gone_is_dropped() {
    let mut server = own_kubernetes().await;
    let mut world = World::on(server.namespace().await).await;
    for projection in ["accounts", "balances"] {
        world.engine.add(projection);
    }
    world.engine.load_by_hand();
    world.control();
    world.create("stays", ReplaySpec::rebuild("accounts")).await;
    world.until_status("stays", "Loading").await;
    world.create("goes", rebuild()).await;
    world.until_status("goes", "Loading").await;
    // Somebody takes it away without letting the controller know.
    world.kill().await;
    let freed = Patch::Merge(json!({"metadata": {"finalizers": null}}));
    let params = PatchParams::default();
    let patched = world.replays.patch("goes", &params, &freed).await;
    patched.unwrap();
    world.delete("goes").await;
    world.until_gone("goes").await;
    // One that was asked for without Kubernetes.
    let by_hand = Record {
        name: "by-hand".to_owned(),
        owner: Owner("0a1b".to_owned()),
        generation: 1,
        created: Timestamp::now(),
        deleting: false,
        held: true,
        spec: ReplaySpec::rebuild("balances"),
        status: ReplayStatus::default(),
        revision: "1".to_owned(),
    };
    let engine: &dyn Engine = &*world.engine;
    let begun = engine.begin(&by_hand.owner, "balances", Pace::default());
    begun.await.unwrap();
    let elsewhere = Arc::new(MemoryRecords::default());
    elsewhere.put(by_hand);

    let controller = world.controller(Arc::new(ProjectorWorks), vec![elsewhere]);
    assert_eq!(world.engine.generations("orders"), ["g1", "g2"]);
    assert_eq!(controller.sweep().await.unwrap(), ["g2"]);
    assert_eq!(world.engine.generations("orders"), ["g1"]);
    for projection in ["accounts", "balances"] {
        assert_eq!(world.engine.generations(projection), ["g1", "g2"]);
    }
    assert!(controller.sweep().await.unwrap().is_empty());
    // As long as it is not known which Replays there are, nothing is dropped.
    let controller = world.controller(Arc::new(ProjectorWorks), Vec::new());
    server.kill().await;
    controller.sweep().await.unwrap_err();
    server.restart().await;
    assert_eq!(world.engine.generations("balances"), ["g1", "g2"]);
    assert_eq!(controller.sweep().await.unwrap(), ["g2"]);
    assert_eq!(world.engine.generations("balances"), ["g1"]);
}
