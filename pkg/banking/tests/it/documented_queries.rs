//! The OpenAPI document names the queries that the contract names.

use std::collections::BTreeSet;

use millrace_banking::{command_routes, query_routes};
use millrace_http::{Api, ApiOptions, CursorKey};
use serde_json::Value;

fn document() -> Value {
    let api = Api::new(ApiOptions::new(CursorKey::of_this_process())).document(query_routes());
    serde_json::to_value(api.openapi()).unwrap()
}

fn fields(document: &Value, schema: &str) -> BTreeSet<String> {
    let properties = &document["components"]["schemas"][schema]["properties"];
    let properties = properties
        .as_object()
        .unwrap_or_else(|| panic!("no {schema}"));
    properties.keys().cloned().collect()
}

#[test]
fn every_query_of_the_contract_is_there() {
    let document = document();
    let found: BTreeSet<String> = document["paths"]
        .as_object()
        .unwrap()
        .iter()
        .flat_map(|(path, item)| {
            let methods = item.as_object().unwrap().keys();
            methods.map(move |method| format!("{} {path}", method.to_uppercase()))
        })
        .collect();
    let contract = [
        "GET /accounts",
        "GET /accounts/{id}",
        "GET /accounts/{id}/balance",
        "GET /accounts/{id}/transactions",
        "GET /accounts/{id}/statement",
        "GET /accounts/{id}/daily-balances",
        "GET /accounts/{id}/summary",
        "GET /accounts/{id}/events",
    ];
    assert_eq!(found, contract.map(str::to_owned).into());
}

#[test]
fn the_answers_have_the_fields_of_the_contract() {
    let document = document();
    let balance = ["account_id", "balance", "currency", "status", "version"];
    assert_eq!(
        fields(&document, "AccountBalance"),
        balance.map(str::to_owned).into()
    );
    let transaction = [
        "transaction_id",
        "type",
        "amount",
        "balance_after",
        "counterparty",
        "transfer_id",
        "description",
        "occurred_at",
    ];
    assert_eq!(
        fields(&document, "Transaction"),
        transaction.map(str::to_owned).into()
    );
    let required = &document["components"]["schemas"]["Transaction"]["required"];
    assert_eq!(required.as_array().unwrap().len(), 5, "{required}");
}

/// The document repeats limits as literals; they have to be those of the code.
#[test]
fn documented_limits_are_the_real_ones() {
    let document = document();
    let parameters = document["paths"]["/accounts"]["get"]["parameters"]
        .as_array()
        .unwrap();
    let holder = parameters
        .iter()
        .find(|one| one["name"] == "holder")
        .unwrap();
    let longest = millrace_banking::account::MAX_HOLDER_NAME_CHARS;
    assert_eq!(holder["schema"]["maxLength"], longest);
    let days = millrace_banking::views::daily_balances::MAX_DAYS.to_string();
    let route = &document["paths"]["/accounts/{id}/daily-balances"]["get"];
    assert!(route["description"].as_str().unwrap().contains(&days));
}

/// Everything that is referred to is there, also where the queries are served alone, and both
/// services together give no name twice.
#[test]
fn no_reference_leads_nowhere_and_no_name_has_two_meanings() {
    fn walk(value: &Value, document: &Value, missing: &mut BTreeSet<String>) {
        match value {
            Value::Object(fields) => {
                if let Some(reference) = fields.get("$ref").and_then(Value::as_str) {
                    let pointer = reference.strip_prefix('#').unwrap();
                    if document.pointer(pointer).is_none() {
                        missing.insert(reference.to_owned());
                    }
                }
                for value in fields.values() {
                    walk(value, document, missing);
                }
            }
            Value::Array(items) => items.iter().for_each(|item| walk(item, document, missing)),
            _ => {}
        }
    }
    let queries = document();
    let api = Api::new(ApiOptions::new(CursorKey::of_this_process()))
        .document(command_routes())
        .document(query_routes());
    let both = serde_json::to_value(api.openapi()).unwrap();
    for document in [&queries, &both] {
        let mut missing = BTreeSet::new();
        walk(document, document, &mut missing);
        assert_eq!(missing, BTreeSet::new());
    }
    let schemas = |document: &Value| document["components"]["schemas"].clone();
    for (name, schema) in schemas(&queries).as_object().unwrap() {
        assert_eq!(schemas(&both)[name], *schema, "{name}");
    }
}
