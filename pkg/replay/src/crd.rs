//! The resource's definition, as the API server takes it.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::CustomResourceExt as _;
use serde_json::{Map, Value, json};

use crate::resource::Replay;

/// The formats that the API server knows; it warns everybody who applies one it does not.
const KNOWN_FORMATS: [&str; 6] = ["int32", "int64", "float", "double", "date-time", "byte"];

/// Why there is no definition.
#[derive(Debug, thiserror::Error)]
#[error("the definition of the Replay resource cannot be written down")]
pub struct CrdError(#[from] serde_json::Error);

/// The definition of the Replay resource, made from its types.
///
/// What the types cannot say is put right here: a field that is null counts as one that is not
/// there, so that rules about presence hold; formats that only Rust knows go; a status is there
/// from the beginning, so that tools see that nobody answered yet.
///
/// # Errors
/// Never for the types as they are.
pub fn replay_crd() -> Result<CustomResourceDefinition, CrdError> {
    let mut definition = serde_json::to_value(Replay::crd())?;
    let versions = definition
        .pointer_mut("/spec/versions")
        .and_then(Value::as_array_mut);
    for version in versions.into_iter().flatten() {
        let Some(schema) = version.pointer_mut("/schema/openAPIV3Schema") else {
            continue;
        };
        straighten(schema);
        if let Some(status) = schema
            .pointer_mut("/properties/status")
            .and_then(Value::as_object_mut)
        {
            status.insert("default".to_owned(), json!({"observedGeneration": -1}));
            // A default that holds nothing is one more thing to read.
            forget_empty_defaults(status);
        }
    }
    Ok(serde_json::from_value(definition)?)
}

fn straighten(schema: &mut Value) {
    match schema {
        Value::Object(fields) => {
            if fields.get("nullable") == Some(&Value::Bool(true)) {
                fields.remove("nullable");
            }
            let format = fields.get("format").and_then(Value::as_str);
            if format.is_some_and(|format| !KNOWN_FORMATS.contains(&format)) {
                fields.remove("format");
            }
            if fields.get("default") == Some(&Value::Null) {
                fields.remove("default");
            }
            fields.values_mut().for_each(straighten);
        }
        Value::Array(items) => items.iter_mut().for_each(straighten),
        _ => {}
    }
}

fn forget_empty_defaults(status: &mut Map<String, Value>) {
    let Some(fields) = status.get_mut("properties").and_then(Value::as_object_mut) else {
        return;
    };
    for (name, field) in fields {
        if name != "observedGeneration"
            && let Some(field) = field.as_object_mut()
        {
            field.remove("default");
        }
    }
}
