//! What the API server makes of the resource: defaults, the status apart from the spec, columns,
//! selectable fields, the samples.

use std::path::Path;

use kube::api::ListParams;
use millrace_replay::ReplaySpec;
use serde_json::{Value, json};

use crate::world::World;

#[tokio::test]
async fn a_replay_gets_the_defaults_that_the_code_has() {
    let world = World::new().await;
    let spec = json!({"type": "Rebuild", "rebuild": {"projection": "orders"}});
    let rebuild = world.post("one", spec).await.unwrap();
    assert_eq!(rebuild.spec, ReplaySpec::rebuild("orders"));
    assert_eq!(rebuild.status.unwrap().observed_generation, -1);
    let spec = json!({"type": "Redrive", "redrive": {"projection": "orders"}});
    assert_eq!(
        world.post("two", spec).await.unwrap().spec,
        ReplaySpec::redrive("orders")
    );
    let spec = json!({"type": "Rebuild", "rebuild": {
        "projection": "orders", "cutover": {"maxLag": 5}, "verify": {"mode": "Checksum"}
    }});
    let partly = world
        .post("three", spec)
        .await
        .unwrap()
        .spec
        .rebuild
        .unwrap();
    assert_eq!(
        (partly.cutover.max_lag, partly.cutover.timeout_seconds),
        (5, 300)
    );
}

#[tokio::test]
async fn the_status_is_written_apart_from_the_spec() {
    let world = World::new().await;
    let made = world.create("one", ReplaySpec::rebuild("orders")).await;
    let mut changed = made.clone();
    changed.status.get_or_insert_default().attempts = 7;
    changed.spec.suspend = true;
    let params = kube::api::PostParams::default();
    let spec_only = world
        .replays
        .replace("one", &params, &changed)
        .await
        .unwrap();
    assert!(spec_only.spec.suspend);
    assert_eq!(spec_only.status.unwrap().attempts, 0);
    let generation = spec_only.metadata.generation;
    let status_only = world
        .patch_status("one", json!({"attempts": 7}))
        .await
        .unwrap();
    assert_eq!(status_only.status.unwrap().attempts, 7);
    assert_eq!(status_only.metadata.generation, generation);
}

#[tokio::test]
async fn replays_are_selected_by_projection() {
    let world = World::new().await;
    world.create("one", ReplaySpec::rebuild("orders")).await;
    world.create("two", ReplaySpec::rebuild("others")).await;
    world.create("three", ReplaySpec::redrive("orders")).await;
    for (field, expected) in [("rebuild", "one"), ("redrive", "three")] {
        let params = ListParams::default().fields(&format!("spec.{field}.projection=orders"));
        let found = world.replays.list(&params).await.unwrap().items;
        let names: Vec<_> = found
            .iter()
            .filter_map(|r| r.metadata.name.as_deref())
            .collect();
        assert_eq!(names, [expected]);
    }
}

#[tokio::test]
async fn people_see_columns() {
    let mut world = World::new().await;
    world.control();
    world.create("one", ReplaySpec::rebuild("orders")).await;
    world.until_ended("one").await;
    let path = format!(
        "/apis/millrace.dev/v1alpha1/namespaces/{}/replays",
        world.kubernetes.namespace
    );
    let request = http::Request::get(path)
        .header("accept", "application/json;as=Table;v=v1;g=meta.k8s.io")
        .body(Vec::new())
        .unwrap();
    let table: Value = world.client.request(request).await.unwrap();
    let columns: Vec<_> = table["columnDefinitions"]
        .as_array()
        .unwrap()
        .iter()
        .collect();
    let names: Vec<_> = columns
        .iter()
        .map(|column| column["name"].as_str().unwrap())
        .collect();
    assert_eq!(
        names,
        [
            "Name",
            "Type",
            "Projection",
            "Status",
            "Progress",
            "Lag",
            "Age",
            "ETA",
            "Generation"
        ]
    );
    let wide: Vec<_> = columns
        .iter()
        .filter(|column| column["priority"] == 1)
        .collect();
    assert_eq!(wide.len(), 2);
    let cells = table["rows"][0]["cells"].as_array().unwrap();
    assert_eq!(
        cells[..6],
        [
            json!("one"),
            json!("Rebuild"),
            json!("orders"),
            json!("Succeeded"),
            json!(100),
            json!(0)
        ]
    );
    assert_eq!(cells[8], "g2");
}

#[tokio::test]
async fn the_samples_are_taken() {
    let world = World::new().await;
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../k8s/samples");
    let mut names = Vec::new();
    for file in std::fs::read_dir(folder).unwrap() {
        let file = file.unwrap().path();
        let text = std::fs::read_to_string(&file).unwrap();
        let sample: Value = serde_saphyr::from_str(&text).unwrap();
        let name = sample["metadata"]["name"].as_str().unwrap();
        let posted = world.post(name, sample["spec"].clone()).await;
        posted.unwrap_or_else(|said| panic!("{}: {said}", file.display()));
        names.push(file.file_stem().unwrap().to_string_lossy().into_owned());
    }
    names.sort();
    assert_eq!(names, ["dry-run", "rebuild", "redrive", "rollback"]);
}

#[tokio::test]
async fn the_definition_that_is_kept_is_the_one_of_the_code() {
    let kept = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../k8s/crds/replays.yaml");
    let kept: Value = serde_saphyr::from_str(&std::fs::read_to_string(kept).unwrap()).unwrap();
    let made = serde_json::to_value(millrace_replay::replay_crd().unwrap()).unwrap();
    assert_eq!(
        kept, made,
        "run `cargo run -- crds > k8s/crds/replays.yaml`"
    );
}
