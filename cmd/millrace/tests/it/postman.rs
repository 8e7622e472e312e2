//! The Postman collection and the OpenAPI document speak of the same routes. That the requests
//! work is shown by `tests/postman/run`.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

fn document(path: &str) -> Value {
    let path = format!("{}/../../docs/{path}", env!("CARGO_MANIFEST_DIR"));
    let text = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path}: {error}"));
    serde_json::from_str(&text).unwrap()
}

/// Every operation of the OpenAPI document, as its method and the segments of its path.
fn operations() -> BTreeSet<(String, Vec<String>)> {
    let openapi = document("openapi.json");
    let mut operations = BTreeSet::new();
    for (path, methods) in openapi["paths"].as_object().unwrap() {
        let segments: Vec<_> = path.split('/').skip(1).map(str::to_owned).collect();
        for method in methods.as_object().unwrap().keys() {
            if ["get", "post", "put", "patch", "delete"].contains(&method.as_str()) {
                operations.insert((method.to_uppercase(), segments.clone()));
            }
        }
    }
    operations
}

fn requests<'a>(items: &'a Value, found: &mut Vec<&'a Value>) {
    for item in items.as_array().unwrap() {
        match item.get("item") {
            Some(inner) => requests(inner, found),
            None => found.push(item),
        }
    }
}

/// A segment in braces stands for anything; a literal one goes before it.
fn fits(segments: &[String], asked: &[String]) -> Option<usize> {
    let literal = |(segment, asked): (&String, &String)| {
        let open = segment.starts_with('{');
        (open || segment == asked).then_some(usize::from(!open))
    };
    let same = segments.len() == asked.len();
    let all: Option<Vec<usize>> = segments.iter().zip(asked).map(literal).collect();
    all.filter(|_| same).map(|all| all.into_iter().sum())
}

#[test]
fn the_collection_has_every_route_of_the_document_and_no_other() {
    let collection = document("postman/millrace.postman_collection.json");
    let mut items = Vec::new();
    requests(&collection["item"], &mut items);
    let operations = operations();
    let mut asked: BTreeMap<&(String, Vec<String>), usize> = BTreeMap::new();
    for item in &items {
        let (name, request) = (&item["name"], &item["request"]);
        let method = request["method"].as_str().unwrap();
        let path: Vec<String> = serde_json::from_value(request["url"]["path"].clone()).unwrap();
        let found = operations
            .iter()
            .filter(|(wanted, _)| wanted == method)
            .filter_map(|one| fits(&one.1, &path).map(|literal| (literal, one)))
            .max_by_key(|(literal, _)| *literal);
        match found {
            Some((_, operation)) => *asked.entry(operation).or_default() += 1,
            // The document itself, and a method that is none.
            None if path == ["openapi.json"] || method == "PATCH" => {}
            None => panic!("{name}: the document has no {method} {path:?}"),
        }
        let scripts = item["event"].as_array().unwrap();
        let tested = scripts.iter().any(|event| {
            let lines = event["script"]["exec"].as_array().unwrap();
            let asserts = |line: &Value| line.as_str().unwrap().contains("pm.test(");
            event["listen"] == "test" && lines.iter().any(asserts)
        });
        assert!(tested, "{name} asserts nothing");
        let examples = item["response"].as_array().map_or(0, Vec::len);
        assert!(examples > 0, "{name} has no example");
    }
    let missing: Vec<_> = operations
        .iter()
        .filter(|operation| !asked.contains_key(operation))
        .collect();
    assert!(missing.is_empty(), "not in the collection: {missing:?}");
}

#[test]
fn every_request_has_a_name_of_its_own() {
    let collection = document("postman/millrace.postman_collection.json");
    let mut items = Vec::new();
    requests(&collection["item"], &mut items);
    // Requests that are asked again are found by their names.
    let names: BTreeSet<&str> = items
        .iter()
        .filter_map(|item| item["name"].as_str())
        .collect();
    assert_eq!(names.len(), items.len());
}
