use millrace_replay::replay_crd;
use serde_json::Value;

fn definition() -> Value {
    serde_json::to_value(replay_crd().unwrap()).unwrap()
}

fn schema(path: &str) -> Value {
    let definition = definition();
    let schema = &definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"];
    schema
        .pointer(path)
        .unwrap_or_else(|| panic!("no {path}"))
        .clone()
}

/// Every object of the schema, with its path.
fn each(value: &Value, path: &str, look: &mut dyn FnMut(&str, &serde_json::Map<String, Value>)) {
    match value {
        Value::Object(fields) => {
            look(path, fields);
            for (name, field) in fields {
                each(field, &format!("{path}/{name}"), look);
            }
        }
        Value::Array(items) => {
            for (number, item) in items.iter().enumerate() {
                each(item, &format!("{path}/{number}"), look);
            }
        }
        _ => {}
    }
}

#[test]
fn the_definition_names_the_resource_as_people_call_it() {
    let definition = definition();
    let names = &definition["spec"]["names"];
    assert_eq!(definition["metadata"]["name"], "replays.millrace.dev");
    assert_eq!(names["kind"], "Replay");
    assert_eq!(names["shortNames"], serde_json::json!(["rpl"]));
    assert_eq!(names["categories"], serde_json::json!(["millrace"]));
    assert_eq!(definition["spec"]["scope"], "Namespaced");
    let version = &definition["spec"]["versions"][0];
    assert_eq!(version["name"], "v1alpha1");
    assert!(version["subresources"]["status"].is_object());
    let columns: Vec<_> = version["additionalPrinterColumns"]
        .as_array()
        .unwrap()
        .iter()
        .map(|column| column["name"].as_str().unwrap().to_owned())
        .collect();
    let expected = [
        "Type",
        "Projection",
        "Status",
        "Progress",
        "Lag",
        "Age",
        "ETA",
        "Generation",
    ];
    assert_eq!(columns, expected);
}

#[test]
fn every_field_is_described_and_nothing_is_nullable() {
    let schema = schema("");
    each(&schema, "", &mut |path, fields| {
        assert_ne!(fields.get("nullable"), Some(&Value::Bool(true)), "{path}");
        let format = fields.get("format").and_then(Value::as_str);
        assert!(
            !format.is_some_and(|format| format.starts_with("uint")),
            "{path}: {format:?}"
        );
        if let Some(Value::Object(properties)) = fields.get("properties") {
            for (name, property) in properties {
                let standard = ["/apiVersion", "/kind", "/metadata", "/spec", "/status"];
                let known = path.is_empty() && standard.contains(&format!("/{name}").as_str());
                assert!(
                    known || property["description"].is_string(),
                    "{path}/{name} is not described"
                );
            }
        }
    });
}

#[test]
fn what_must_have_a_default_has_one() {
    let spec = |name: &str| schema(&format!("/properties/spec/properties/{name}/default"));
    for one_way in ["approve", "cancel", "dryRun", "suspend"] {
        assert_eq!(spec(one_way), false, "{one_way}");
    }
    assert_eq!(spec("onConflict"), "Queue");
    assert_eq!(spec("backoffLimit"), 6);
    assert_eq!(schema("/properties/status/default/observedGeneration"), -1);
    assert_eq!(
        schema("/properties/status/properties/conditions/x-kubernetes-list-map-keys/0"),
        "type"
    );
}

#[test]
fn every_number_that_is_asked_for_fits_the_type_that_reads_it() {
    let spec = schema("/properties/spec");
    each(&spec, "", &mut |path, fields| {
        // Positions are as long as the API server's own numbers.
        let position = path.ends_with("/from") || path.ends_with("/to");
        if fields.get("type") == Some(&Value::from("integer")) && !position {
            let most = fields.get("maximum").and_then(Value::as_f64);
            assert!(
                most.is_some_and(|most| most <= f64::from(u32::MAX)),
                "{path} has no bound"
            );
        }
    });
}
