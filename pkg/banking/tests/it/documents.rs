//! The OpenAPI document names what the contract names.

use std::collections::BTreeSet;

use millrace_banking::{account as limits, command_routes};
use millrace_http::{Api, ApiOptions, CursorKey};
use serde_json::Value;

fn document() -> Value {
    let api = Api::new(ApiOptions::new(CursorKey::of_this_process())).document(command_routes());
    serde_json::to_value(api.openapi()).unwrap()
}

#[test]
fn every_write_of_the_contract_is_there() {
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
        "POST /accounts",
        "POST /accounts/{id}/deposits",
        "POST /accounts/{id}/withdrawals",
        "POST /transfers",
        "POST /accounts/{id}/close",
    ];
    assert_eq!(found, contract.map(str::to_owned).into());
    let close = &document["paths"]["/accounts/{id}/close"]["post"]["requestBody"];
    assert_ne!(close["required"], true, "it may be left out: {close}");
}

#[test]
fn the_answers_have_every_field_of_the_contract() {
    let document = document();
    for (schema, fields) in [
        (
            "AccountAfter",
            &["account_id", "balance", "status", "version"][..],
        ),
        (
            "MovementAfter",
            &["account_id", "balance", "version", "transaction_id"],
        ),
        ("TransferAfter", &["transfer_id"]),
    ] {
        let schema = &document["components"]["schemas"][schema];
        let required = schema["required"].as_array().unwrap();
        let all = schema["properties"].as_object().unwrap();
        assert_eq!(required.len(), all.len(), "{required:?}");
        for field in fields {
            assert!(all.contains_key(*field), "{field}");
        }
    }
}

/// The document repeats limits as literals; they have to be those of the code.
#[test]
fn documented_limits_are_the_real_ones() {
    let document = document();
    let of = |pointer: &str| {
        let pointer = format!("/components/schemas/{pointer}");
        document.pointer(&pointer).unwrap_or(&Value::Null)
    };
    for (documented, real) in [
        (
            "OpenAccount/properties/holder_name/maxLength",
            limits::MAX_HOLDER_NAME_CHARS,
        ),
        (
            "MoveMoney/properties/description/maxLength",
            limits::MAX_DESCRIPTION_CHARS,
        ),
        (
            "Transfer/properties/description/maxLength",
            limits::MAX_DESCRIPTION_CHARS,
        ),
        (
            "CloseAccount/properties/reason/maxLength",
            limits::MAX_REASON_CHARS,
        ),
    ] {
        assert_eq!(*of(documented), real, "{documented}");
    }
    let text = of("OpenAccount/properties/currency/description")
        .as_str()
        .unwrap();
    for (currency, decimals) in limits::Currency::TAKEN {
        assert!(text.contains(currency.as_str()), "{currency}");
        let (two, none) = text.split_once("at most 2 decimals").unwrap();
        let place = if decimals == 2 { two } else { none };
        assert!(
            place.contains(currency.as_str()),
            "{currency} has {decimals}"
        );
    }
    let maximum = limits::MAX_MOVEMENT.to_string();
    for field in [
        "OpenAccount/properties/initial_deposit",
        "MoveMoney/properties/amount",
        "Transfer/properties/amount",
    ] {
        assert!(of(field).to_string().contains(&maximum), "{field}");
    }
}
