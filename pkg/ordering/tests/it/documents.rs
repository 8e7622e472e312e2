//! The OpenAPI document names what the contract names.

use std::collections::BTreeSet;

use millrace_http::{Api, ApiOptions, CursorKey};
use millrace_ordering::{command_routes, query_routes};
use serde_json::Value;

fn document() -> Value {
    let api = Api::new(ApiOptions::new(CursorKey::of_this_process()))
        .document(command_routes())
        .document(query_routes());
    serde_json::to_value(api.openapi()).unwrap()
}

#[test]
fn every_route_of_the_contract_is_there() {
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
        "POST /orders",
        "PUT /orders/{id}/status",
        "DELETE /orders/{id}",
        "POST /api/orders",
        "POST /order-service/orders",
        "GET /api/orders/{userId}",
        "GET /orders",
        "GET /orders/{id}",
        "GET /orders/user/{userId}",
        "GET /orders/status/{status}",
        "GET /orders/user/{userId}/status/{status}",
        "GET /orders/date-range",
        "GET /orders/search/username",
        "GET /orders/amount-greater-than",
        "GET /orders/statistics",
        "GET /orders/{id}/events",
        "GET /orders/{id}/payment",
        "GET /orders/{id}/receipt",
    ];
    assert_eq!(found, contract.map(str::to_owned).into());
}

#[test]
fn the_order_has_every_field_of_the_contract() {
    let document = document();
    let order = &document["components"]["schemas"]["Order"];
    let fields = [
        "id",
        "user_id",
        "user_username",
        "user_email",
        "items",
        "items_count",
        "total_amount",
        "status",
        "shipping_address",
        "notes",
        "is_deleted",
        "created_at",
        "updated_at",
        "version",
    ];
    let properties: BTreeSet<&str> = order["properties"]
        .as_object()
        .unwrap()
        .keys()
        .map(String::as_str)
        .collect();
    assert_eq!(properties, BTreeSet::from(fields));
    let required = order["required"].as_array().unwrap();
    assert_eq!(required.len(), fields.len(), "{required:?}");
}

/// Everything that is referred to is there.
#[test]
fn no_reference_leads_nowhere() {
    fn walk(value: &Value, document: &Value, missing: &mut BTreeSet<String>) {
        match value {
            Value::Object(fields) => {
                if let Some(reference) = fields.get("$ref").and_then(Value::as_str) {
                    let pointer = reference.strip_prefix('#').unwrap();
                    if document.pointer(pointer).is_none() {
                        missing.insert(reference.to_owned());
                    }
                }
                fields
                    .values()
                    .for_each(|value| walk(value, document, missing));
            }
            Value::Array(items) => items.iter().for_each(|item| walk(item, document, missing)),
            _ => {}
        }
    }
    let document = document();
    let mut missing = BTreeSet::new();
    walk(&document, &document, &mut missing);
    assert_eq!(missing, BTreeSet::new());
}

/// The document repeats limits as literals; they have to be those of the code.
#[test]
fn documented_limits_are_the_real_ones() {
    use millrace_ordering::order as limits;
    let document = document();
    let schemas = &document["components"]["schemas"];
    let create = &schemas["CreateOrder"]["properties"];
    let line = &schemas["CreateOrderItem"]["properties"];
    for (documented, real) in [
        (&create["items"]["maxItems"], limits::MAX_ITEMS),
        (
            &create["shipping_address"]["maxLength"],
            limits::MAX_SHIPPING_ADDRESS_CHARS,
        ),
        (&create["notes"]["maxLength"], limits::MAX_NOTES_CHARS),
        (
            &line["description"]["maxLength"],
            limits::MAX_DESCRIPTION_CHARS,
        ),
        (&line["quantity"]["maximum"], limits::MAX_QUANTITY as usize),
        (
            &schemas["CreateDescribedOrder"]["properties"]["description"]["maxLength"],
            limits::MAX_DESCRIPTION_CHARS,
        ),
        (
            &schemas["UpdateOrderStatus"]["properties"]["reason"]["maxLength"],
            limits::MAX_REASON_CHARS,
        ),
    ] {
        assert_eq!(*documented, real);
    }
}
