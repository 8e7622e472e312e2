//! Contexts share contracts and nothing else: no context's crate depends on another's.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
    process::Command,
};

use serde_json::Value;

/// The crates of the workspace, each with those of the workspace it needs.
struct Graph {
    /// To run.
    needs: BTreeMap<String, BTreeSet<String>>,
    /// To be tested or built.
    needs_beside: BTreeMap<String, BTreeSet<String>>,
    /// Those that are a context: their `lib.rs` names it.
    contexts: BTreeSet<String>,
}

impl Graph {
    fn read() -> Self {
        let output = Command::new(env!("CARGO"))
            .args(["metadata", "--format-version=1", "--no-deps", "--offline"])
            .current_dir(env!("CARGO_MANIFEST_DIR"))
            .output()
            .unwrap();
        assert!(output.status.success(), "{output:?}");
        let metadata: Value = serde_json::from_slice(&output.stdout).unwrap();
        let mut graph = Self {
            needs: BTreeMap::new(),
            needs_beside: BTreeMap::new(),
            contexts: BTreeSet::new(),
        };
        for package in metadata["packages"].as_array().unwrap() {
            graph.add(package);
        }
        graph
    }

    fn add(&mut self, package: &Value) {
        let name = package["name"].as_str().unwrap().to_owned();
        let folder = Path::new(package["manifest_path"].as_str().unwrap()).parent();
        let library = folder.unwrap().join("src/lib.rs");
        if fs::read_to_string(library).is_ok_and(|text| text.contains("\npub const CONTEXT: ")) {
            self.contexts.insert(name.clone());
        }
        let (mut needs, mut beside) = (BTreeSet::new(), BTreeSet::new());
        for dependency in package["dependencies"].as_array().unwrap() {
            // Only what lies in the workspace has a path.
            if dependency["path"].is_null() {
                continue;
            }
            let needed = dependency["name"].as_str().unwrap().to_owned();
            if dependency["kind"].is_null() {
                needs.insert(needed);
            } else {
                beside.insert(needed);
            }
        }
        self.needs.insert(name.clone(), needs);
        self.needs_beside.insert(name, beside);
    }

    /// Everything a crate needs, directly or not, to run and to be tested.
    fn all_needs(&self, name: &str) -> BTreeSet<String> {
        let mut found = BTreeSet::new();
        let mut open: Vec<&String> = self.needs[name]
            .iter()
            .chain(&self.needs_beside[name])
            .collect();
        while let Some(next) = open.pop() {
            if found.insert(next.clone()) {
                open.extend(&self.needs[next]);
            }
        }
        found
    }
}

#[test]
fn no_context_depends_on_another() {
    let graph = Graph::read();
    for known in [
        "millrace-banking",
        "millrace-customers",
        "millrace-ordering",
    ] {
        assert!(graph.contexts.contains(known), "{known} is no context");
    }
    for context in &graph.contexts {
        let needs = graph.all_needs(context);
        let others: Vec<_> = graph
            .contexts
            .iter()
            .filter(|other| *other != context && needs.contains(*other))
            .collect();
        assert!(others.is_empty(), "{context} depends on {others:?}");
    }
}

#[test]
fn a_contract_is_made_of_values_only() {
    let graph = Graph::read();
    let needs: Vec<&str> = graph.needs["millrace-contracts"]
        .iter()
        .map(String::as_str)
        .collect();
    assert_eq!(needs, ["millrace-es", "millrace-kernel"]);
}
