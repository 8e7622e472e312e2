//! The OpenAPI document names what the contract names.

use std::collections::BTreeSet;

use millrace_customers::{command_routes, query_routes, user as limits};
use millrace_http::{Api, ApiOptions, CursorKey};
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
        "POST /system-api/users",
        "PUT /system-api/users/{id}",
        "POST /system-api/accounts",
        "GET /users/{id}",
    ];
    assert_eq!(found, contract.map(str::to_owned).into());
}

#[test]
fn the_answers_have_every_field_of_the_contract() {
    let document = document();
    for (schema, fields) in [
        ("UserAfter", &["id", "name", "email"][..]),
        (
            "User",
            &[
                "id",
                "name",
                "email",
                "shipping_address",
                "orders_count",
                "version",
            ],
        ),
    ] {
        let schema = &document["components"]["schemas"][schema];
        let properties: BTreeSet<&str> = schema["properties"]
            .as_object()
            .unwrap()
            .keys()
            .map(String::as_str)
            .collect();
        assert_eq!(properties, fields.iter().copied().collect());
        assert_eq!(schema["required"].as_array().unwrap().len(), fields.len());
    }
}

/// The document repeats limits as literals; they have to be those of the code.
#[test]
fn documented_limits_are_the_real_ones() {
    let document = document();
    for (documented, real) in [
        ("CreateUser/properties/name", limits::MAX_USER_NAME_CHARS),
        ("CreateUser/properties/email", limits::MAX_EMAIL_CHARS),
        ("UpdateUser/properties/name", limits::MAX_USER_NAME_CHARS),
        ("UpdateUser/properties/email", limits::MAX_EMAIL_CHARS),
        ("SetUserAddress/properties/street", limits::MAX_PART_CHARS),
        ("SetUserAddress/properties/city", limits::MAX_PART_CHARS),
        ("SetUserAddress/properties/state", limits::MAX_PART_CHARS),
        ("SetUserAddress/properties/zip", limits::MAX_ZIP_CHARS),
        (
            "SetUserAddress/properties/address",
            limits::MAX_ADDRESS_CHARS,
        ),
    ] {
        let pointer = format!("/components/schemas/{documented}/maxLength");
        let found = document.pointer(&pointer).unwrap_or(&Value::Null);
        assert_eq!(*found, real, "{documented}");
    }
}
