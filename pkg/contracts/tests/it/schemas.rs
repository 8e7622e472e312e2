//! A contract may only grow: its schemas are committed, and held by [`StoredFormats`].

use millrace_contracts::{banking, customers, ordering};
use millrace_testkit::{StoredFormats, payload_schema};

fn formats() -> StoredFormats {
    let versions = [
        (
            (ordering::ORDER_CREATED, 1),
            payload_schema::<ordering::OrderCreated>(),
        ),
        (
            (ordering::ORDER_STATUS_UPDATED, 1),
            payload_schema::<ordering::OrderStatusUpdated>(),
        ),
        (
            (ordering::ORDER_DELETED, 1),
            payload_schema::<ordering::OrderDeleted>(),
        ),
        (
            (customers::USER_CREATED, 1),
            payload_schema::<customers::UserCreated>(),
        ),
        (
            (customers::USER_UPDATED, 1),
            payload_schema::<customers::UserUpdated>(),
        ),
        (
            (customers::ACCOUNT_CREATED, 1),
            payload_schema::<customers::AccountCreated>(),
        ),
        (
            (customers::ACCOUNT_UPDATED, 1),
            payload_schema::<customers::AccountUpdated>(),
        ),
        (
            (banking::MOVE_MONEY, 1),
            payload_schema::<banking::MoveMoney>(),
        ),
        (
            (banking::VOID_TRANSACTION, 1),
            payload_schema::<banking::VoidTransaction>(),
        ),
        (
            (banking::TRANSACTION_ANSWER, 1),
            payload_schema::<banking::TransactionAnswer>(),
        ),
    ];
    StoredFormats {
        folder: env!("CARGO_MANIFEST_DIR"),
        versions: versions.into(),
        // Of a contract, not of its owner's events: those may have had several versions since.
        written: ordering::EVENT_TYPES
            .into_iter()
            .chain(customers::EVENT_TYPES)
            .chain(banking::COMMANDS)
            .map(|(event_type, _)| (event_type, 1))
            .collect(),
        renamed: Vec::new(),
    }
}

#[test]
fn schemas_are_committed_and_change_compatibly() {
    formats().check_schemas();
}

#[test]
fn everything_public_has_a_schema() {
    formats().check_versions();
}
