//! The lock on stored formats: what is stored may only grow. The JSON Schema of every event version
//! is committed in a context's `schemas/`, which the code must still have and may change only so
//! that older and newer readers both get along; and a written event of every version lies in its
//! `golden/`, which must decode.
//!
//! After a change that both allow, `UPDATE_SCHEMAS=1 cargo test -p <crate> formats` writes the
//! schemas anew.

use std::{collections::BTreeMap, fs, path::Path};

use millrace_es::{DecodeError, DomainEvent};
use schemars::{JsonSchema, schema_for};
use serde::Serialize;
use serde_json::{Value, value::RawValue};

use crate::OrFail;

/// The schema of a payload as the code has it. Descriptions may be reworded at will; they are no
/// part of the format.
#[must_use]
pub fn payload_schema<T: JsonSchema>() -> Value {
    let mut schema = schema_for!(T).to_value();
    strip(&mut schema);
    schema
}

/// A field that a version calls otherwise than the newest one does.
#[derive(Debug, Clone, Copy)]
pub struct Renamed {
    /// The event's type.
    pub event_type: &'static str,
    /// The version that has the old name.
    pub version: u16,
    /// The old name.
    pub from: &'static str,
    /// The name in the newest version.
    pub to: &'static str,
}

/// The stored formats of one context.
#[derive(Debug)]
pub struct StoredFormats {
    /// The crate's folder: `env!("CARGO_MANIFEST_DIR")`.
    pub folder: &'static str,
    /// Every event version ever written, with its schema as the code has it.
    pub versions: BTreeMap<(&'static str, u16), Value>,
    /// The event types with the version of each that is written.
    pub written: Vec<(&'static str, u16)>,
    /// The fields that are called otherwise by now.
    pub renamed: Vec<Renamed>,
}

impl StoredFormats {
    /// Every schema is committed, changed compatibly or not at all, and no committed one is left
    /// over.
    pub fn check_schemas(&self) {
        let folder = Path::new(self.folder).join("schemas");
        let update = std::env::var_os("UPDATE_SCHEMAS").is_some();
        for ((event_type, version), schema) in &self.versions {
            let path = folder.join(format!("{event_type}.v{version}.json"));
            let committed: Option<Value> = fs::read_to_string(&path)
                .ok()
                .map(|text| serde_json::from_str(&text).or_fail("a committed schema is no JSON"));
            if let Some(committed) = &committed
                && let Err(change) = compatible(committed, schema)
            {
                panic!(
                    "{event_type} version {version} changed so that stored events or older readers \
                     break ({change}): make it a new version with a step that lifts the old one"
                );
            }
            if update {
                let text = serde_json::to_string_pretty(schema).or_fail("a schema has no JSON");
                fs::write(&path, text + "\n").or_fail("a schema cannot be written");
            } else {
                assert_eq!(
                    committed.as_ref(),
                    Some(schema),
                    "{} is not what the code says; write it anew with UPDATE_SCHEMAS=1",
                    path.display()
                );
            }
        }
        for entry in fs::read_dir(&folder).or_fail("the schemas cannot be read") {
            let name = entry.or_fail("the schemas cannot be read").file_name();
            let known = self
                .versions
                .keys()
                .any(|(event_type, version)| *name == *format!("{event_type}.v{version}.json"));
            assert!(
                known,
                "schemas/{} has no event version in the code",
                name.display()
            );
        }
    }

    /// The versions of every type are 1, 2, 3… and the last of them is the one that is written.
    pub fn check_versions(&self) {
        let mut newest = BTreeMap::new();
        for (event_type, version) in self.versions.keys() {
            let expected = newest.get(event_type).copied().unwrap_or(0) + 1;
            assert_eq!(*version, expected, "{event_type} misses a version");
            newest.insert(*event_type, *version);
        }
        assert_eq!(newest, self.written.iter().copied().collect());
    }

    /// What every version wrote decodes, and nothing of it is lost.
    pub fn check_golden<E: DomainEvent>(&self) {
        for (event_type, version) in self.versions.keys() {
            for payload in self.golden(event_type, *version) {
                let event = E::decode(event_type, *version, &payload)
                    .or_fail(&format!("{event_type} version {version}"));
                let written: Value =
                    serde_json::from_str(payload.get()).or_fail("a golden file is no JSON");
                let again = event.encode().or_fail("an event has no JSON");
                let again: Value = serde_json::from_str(again.get()).or_fail("an event");
                if self.written.contains(&(event_type, *version)) {
                    assert_eq!(again, written, "{event_type} version {version}");
                    continue;
                }
                for (name, value) in written.as_object().into_iter().flatten() {
                    let now = self.name_now(event_type, *version, name);
                    assert_eq!(again[now], *value, "{event_type} version {version}: {name}");
                }
            }
        }
    }

    /// What only a newer release can have written is said to be that, and what no release wrote is
    /// malformed.
    pub fn check_refusals<E: DomainEvent>(&self) {
        let nothing = RawValue::from_string("{}".to_owned()).or_fail("an empty object");
        let refusal =
            |event_type: &str, version: u16| match E::decode(event_type, version, &nothing) {
                Ok(_) => panic!("{event_type} version {version} was read out of nothing"),
                Err(error) => error,
            };
        for (event_type, newest) in &self.written {
            let newer = refusal(event_type, newest + 1);
            assert!(newer.needs_newer_release(), "{event_type}: {newer:?}");
        }
        let unknown = refusal("nothing.known", 1);
        assert!(unknown.needs_newer_release(), "{unknown:?}");
        for (event_type, version) in self.versions.keys() {
            let malformed = refusal(event_type, *version);
            let is_malformed = matches!(malformed, DecodeError::Malformed { .. });
            assert!(
                is_malformed,
                "{event_type} version {version}: {malformed:?}"
            );
        }
    }

    /// What every version wrote satisfies a contract: `read` finds every event of a public type in
    /// it, and what it finds is what was written. `public` names the contract's types with the
    /// newest version it reads, which is the one that is written.
    pub fn check_contract<C: Serialize>(
        &self,
        public: &[(&str, u16)],
        read: impl Fn(&str, u16, &RawValue) -> Result<Option<C>, DecodeError>,
    ) {
        for (event_type, newest) in public {
            assert!(
                self.written.contains(&(event_type, *newest)),
                "the contract reads {event_type} up to version {newest}, which is not what is \
                 written"
            );
            for version in 1..=*newest {
                for payload in self.golden(event_type, version) {
                    let what = format!("{event_type} version {version}");
                    let Some(public) = read(event_type, version, &payload).or_fail(&what) else {
                        panic!("{what} is not in the contract");
                    };
                    let public = serde_json::to_value(&public).or_fail(&what);
                    let written: Value = serde_json::from_str(payload.get()).or_fail(&what);
                    for (name, value) in public.as_object().into_iter().flatten() {
                        assert_eq!(written[name], *value, "{what}: {name}");
                    }
                }
            }
        }
    }

    /// The events that a version wrote.
    #[must_use]
    pub fn golden(&self, event_type: &str, version: u16) -> Vec<Box<RawValue>> {
        let name = format!("golden/{event_type}.v{version}.json");
        let text = fs::read_to_string(Path::new(self.folder).join(&name)).or_fail(&name);
        let payloads: Vec<Box<RawValue>> = serde_json::from_str(&text).or_fail(&name);
        assert!(!payloads.is_empty(), "{name} has no event");
        payloads
    }

    fn name_now<'a>(&self, event_type: &str, version: u16, name: &'a str) -> &'a str {
        self.renamed
            .iter()
            .find(|r| r.event_type == event_type && r.version == version && r.from == name)
            .map_or(name, |renamed| renamed.to)
    }
}

/// Removes titles and descriptions, without touching a property of that name.
fn strip(schema: &mut Value) {
    match schema {
        Value::Object(fields) => {
            fields.remove("title");
            fields.remove("description");
            for (name, value) in fields.iter_mut() {
                match value {
                    Value::Object(named) if name == "properties" || name == "$defs" => {
                        named.values_mut().for_each(strip);
                    }
                    _ => strip(value),
                }
            }
        }
        Value::Array(items) => items.iter_mut().for_each(strip),
        _ => {}
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(JsonSchema)]
    #[expect(dead_code, reason = "only its schema is of interest")]
    struct Line {
        quantity: u32,
    }

    #[derive(JsonSchema)]
    #[expect(dead_code, reason = "only its schema is of interest")]
    struct Written {
        id: String,
        notes: Option<String>,
        lines: Vec<Line>,
    }

    #[test]
    fn an_incompatible_change_is_seen() {
        let schema = payload_schema::<Written>();
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
            |s: &mut Value| s["$defs"]["Line"]["properties"]["quantity"]["type"] = "string".into(),
        ] {
            assert!(with(breaking).is_err());
        }
    }
}
