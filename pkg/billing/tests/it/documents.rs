//! The OpenAPI document names what the contract names.

use std::collections::BTreeSet;

use millrace_billing::query_routes;
use millrace_http::{Api, ApiOptions, CursorKey};
use serde_json::Value;

fn document() -> Value {
    let api = Api::new(ApiOptions::new(CursorKey::of_this_process())).document(query_routes());
    serde_json::to_value(api.openapi()).unwrap()
}

#[test]
fn every_query_of_the_contract_is_there() {
    let document = document();
    let paths: BTreeSet<&str> = document["paths"]
        .as_object()
        .unwrap()
        .keys()
        .map(String::as_str)
        .collect();
    assert_eq!(paths, ["/invoice-service/invoices", "/invoices"].into());
}

#[test]
fn an_invoice_has_every_field_of_the_contract_with_amounts_as_numbers() {
    let document = document();
    let schemas = &document["components"]["schemas"];
    for (schema, fields) in [
        (
            "Invoice",
            &[
                "email",
                "invoice_dt",
                "invoice_id",
                "orders",
                "shipping_address",
                "total",
                "user_id",
            ][..],
        ),
        (
            "InvoiceOrder",
            &["amount", "description", "order_id", "purchase_dt"],
        ),
    ] {
        let mut required: Vec<&str> = schemas[schema]["required"]
            .as_array()
            .unwrap()
            .iter()
            .map(|field| field.as_str().unwrap())
            .collect();
        required.sort_unstable();
        assert_eq!(required, fields, "{schema}");
    }
    for (schema, field) in [("Invoice", "total"), ("InvoiceOrder", "amount")] {
        assert_eq!(schemas[schema]["properties"][field]["type"], "number");
    }
    assert_eq!(
        schemas["InvoiceSummary"]["properties"]["total"]["$ref"],
        "#/components/schemas/Money"
    );
}
