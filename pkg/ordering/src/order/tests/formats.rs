//! What is stored may only grow. Two locks hold that: the JSON Schema of every event version in
//! `schemas/`, which the code must still have and may change only so that older and newer readers
//! both get along, and a written event of every version in `golden/`, which must decode.
//!
//! After a change that both locks allow, `UPDATE_SCHEMAS=1 cargo test -p millrace-ordering
//! formats` writes the schemas anew.

use std::{collections::BTreeMap, fs, path::PathBuf};

use millrace_es::{DecodeError, DomainEvent};
use millrace_kernel::{Money, Timestamp};
use schemars::{JsonSchema, schema_for};
use serde::{Deserialize, Serialize};
use serde_json::{Value, value::RawValue};

use crate::order::{
    AccountId, OrderCreated, OrderDeleted, OrderEvent, OrderId, OrderItem, OrderStatusUpdated,
    UserId,
    stored::{EVENT_TYPES, ORDER_CREATED, ORDER_DELETED, ORDER_STATUS_UPDATED},
};

/// `order.created` as version 1 wrote it.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
struct OrderCreatedV1 {
    order_id: OrderId,
    user_id: UserId,
    items: Vec<OrderItem>,
    total_amount: Money,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    shipping_address: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    notes: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    payment_account_id: Option<AccountId>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    description: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    purchase_dt: Option<Timestamp>,
    created_at: Timestamp,
}

/// Every event version ever written, with its schema as the code has it.
fn versions() -> BTreeMap<(&'static str, u16), Value> {
    fn schema<T: JsonSchema>() -> Value {
        // Descriptions may be reworded at will; they are no part of the format.
        let mut schema = schema_for!(T).to_value();
        strip(&mut schema, "description");
        schema
    }
    [
        ((ORDER_CREATED, 1), schema::<OrderCreatedV1>()),
        ((ORDER_CREATED, 2), schema::<OrderCreated>()),
        ((ORDER_STATUS_UPDATED, 1), schema::<OrderStatusUpdated>()),
        ((ORDER_DELETED, 1), schema::<OrderDeleted>()),
    ]
    .into()
}

/// Removes annotations, without touching a property of that name.
fn strip(schema: &mut Value, annotation: &str) {
    match schema {
        Value::Object(fields) => {
            fields.remove("title");
            fields.remove(annotation);
            for (name, value) in fields.iter_mut() {
                match value {
                    Value::Object(named) if name == "properties" || name == "$defs" => {
                        named
                            .values_mut()
                            .for_each(|value| strip(value, annotation));
                    }
                    _ => strip(value, annotation),
                }
            }
        }
        Value::Array(items) => items.iter_mut().for_each(|item| strip(item, annotation)),
        _ => {}
    }
}

fn folder(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(name)
}

/// Whether readers of either schema can read what was written under the other: nothing may
/// change but that an object gets another optional property.
fn compatible(old: &Value, new: &Value) -> Result<(), String> {
    let (Value::Object(old), Value::Object(new)) = (old, new) else {
        return (old == new)
            .then_some(())
            .ok_or_else(|| format!("{old} became {new}"));
    };
    for (name, was) in old {
        let is = new.get(name).ok_or_else(|| format!("{name} is gone"))?;
        match (name.as_str(), was, is) {
            ("properties" | "$defs", Value::Object(was), Value::Object(is)) => {
                for (property, was) in was {
                    let is = is
                        .get(property)
                        .ok_or_else(|| format!("property {property} is gone"))?;
                    compatible(was, is).map_err(|e| format!("{property}: {e}"))?;
                }
            }
            _ => compatible(was, is).map_err(|e| format!("{name}: {e}"))?,
        }
    }
    match new.keys().find(|name| !old.contains_key(*name)) {
        // Properties and definitions where there were none are optional ones: `required` is
        // compared above, or found here.
        Some(name) if name != "properties" && name != "$defs" => Err(format!("{name} is new")),
        _ => Ok(()),
    }
}

#[test]
fn schemas_are_committed_and_change_compatibly() {
    let update = std::env::var_os("UPDATE_SCHEMAS").is_some();
    let versions = versions();
    for ((event_type, version), schema) in &versions {
        let path = folder("schemas").join(format!("{event_type}.v{version}.json"));
        let committed: Option<Value> = fs::read_to_string(&path)
            .ok()
            .map(|text| serde_json::from_str(&text).unwrap());
        if let Some(committed) = &committed
            && let Err(change) = compatible(committed, schema)
        {
            panic!(
                "{event_type} version {version} changed so that stored events or older readers \
                 break ({change}): make it a new version with a step that lifts the old one"
            );
        }
        if update {
            let text = serde_json::to_string_pretty(schema).unwrap();
            fs::write(&path, text + "\n").unwrap();
        } else {
            assert_eq!(
                committed.as_ref(),
                Some(schema),
                "{} is not what the code says; write it anew with UPDATE_SCHEMAS=1",
                path.display()
            );
        }
    }
    for entry in fs::read_dir(folder("schemas")).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        let known = versions
            .keys()
            .any(|(event_type, version)| name == format!("{event_type}.v{version}.json"));
        assert!(known, "schemas/{name} has no event version in the code");
    }
}

#[test]
fn an_incompatible_change_is_seen() {
    let schema = versions()[&(ORDER_CREATED, 1)].clone();
    let with = |change: fn(&mut Value)| {
        let mut changed = schema.clone();
        change(&mut changed);
        compatible(&schema, &changed)
    };
    assert_eq!(with(|_| {}), Ok(()));
    assert_eq!(
        with(|s| s["properties"]["gift"] = serde_json::json!({"type": ["string", "null"]})),
        Ok(())
    );
    for breaking in [
        |s: &mut Value| s["required"].as_array_mut().unwrap().clear(),
        |s: &mut Value| s["required"].as_array_mut().unwrap().push("notes".into()),
        |s: &mut Value| s["properties"]["notes"]["type"] = "string".into(),
        |s: &mut Value| {
            s["properties"].as_object_mut().unwrap().remove("notes");
        },
        |s: &mut Value| s["additionalProperties"] = false.into(),
        |s: &mut Value| s["$defs"]["OrderItem"]["properties"]["quantity"]["type"] = "string".into(),
    ] {
        assert!(with(breaking).is_err());
    }
}

#[test]
fn every_version_is_known_and_the_newest_is_written() {
    let mut newest = BTreeMap::new();
    for (event_type, version) in versions().into_keys() {
        let expected = newest.get(event_type).copied().unwrap_or(0) + 1;
        assert_eq!(version, expected, "{event_type} misses a version");
        newest.insert(event_type, version);
    }
    assert_eq!(newest, BTreeMap::from(EVENT_TYPES));
}

#[test]
fn what_every_version_wrote_decodes() {
    for (event_type, version) in versions().into_keys() {
        let path = folder("golden").join(format!("{event_type}.v{version}.json"));
        let text = fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        for payload in serde_json::from_str::<Vec<Box<RawValue>>>(&text).unwrap() {
            let event = OrderEvent::decode(event_type, version, &payload)
                .unwrap_or_else(|e| panic!("{} {e:?}", path.display()));
            let (_, newest) = EVENT_TYPES
                .into_iter()
                .find(|(name, _)| *name == event_type)
                .unwrap();
            let written: Value = serde_json::from_str(payload.get()).unwrap();
            let again: Value = serde_json::from_str(event.encode().unwrap().get()).unwrap();
            if version == newest {
                assert_eq!(
                    again, written,
                    "nothing is lost on the way through the code"
                );
            } else {
                let fields = written.as_object().unwrap();
                assert!(fields.iter().all(|(name, value)| again[name] == *value));
            }
        }
    }
}

#[test]
fn version_1_orders_get_their_count_and_currency() {
    let text = fs::read_to_string(folder("golden").join("order.created.v1.json")).unwrap();
    let payloads: Vec<Box<RawValue>> = serde_json::from_str(&text).unwrap();
    let counts: Vec<u32> = payloads
        .iter()
        .map(|payload| {
            serde_json::from_str::<OrderCreatedV1>(payload.get()).unwrap();
            let event = OrderEvent::decode(ORDER_CREATED, 1, payload).unwrap();
            let OrderEvent::Created(event) = event else {
                panic!("{event:?}")
            };
            event.items_count
        })
        .collect();
    assert_eq!(counts, [2, 0]);
}

#[test]
fn what_a_newer_release_wrote_is_never_called_malformed() {
    let payload = RawValue::from_string("{}".into()).unwrap();
    let newer = OrderEvent::decode(ORDER_CREATED, 3, &payload).unwrap_err();
    assert!(newer.needs_newer_release());
    let unknown = OrderEvent::decode("order.archived", 1, &payload).unwrap_err();
    assert!(unknown.needs_newer_release());
    let malformed = OrderEvent::decode(ORDER_CREATED, 1, &payload).unwrap_err();
    assert!(matches!(malformed, DecodeError::Malformed { .. }));
}
