//! What is stored may only grow: the schemas and golden files of every event version, held by
//! [`StoredFormats`].

use millrace_contracts::customers::{self, CustomersEvent};
use millrace_testkit::{StoredFormats, payload_schema};

use crate::user::{
    AccountCreated, AccountUpdated, UserCreated, UserEvent, UserUpdated,
    stored::{ACCOUNT_CREATED, ACCOUNT_UPDATED, EVENT_TYPES, USER_CREATED, USER_UPDATED},
};

fn formats() -> StoredFormats {
    StoredFormats {
        folder: env!("CARGO_MANIFEST_DIR"),
        versions: [
            ((USER_CREATED, 1), payload_schema::<UserCreated>()),
            ((USER_UPDATED, 1), payload_schema::<UserUpdated>()),
            ((ACCOUNT_CREATED, 1), payload_schema::<AccountCreated>()),
            ((ACCOUNT_UPDATED, 1), payload_schema::<AccountUpdated>()),
        ]
        .into(),
        written: EVENT_TYPES.to_vec(),
        renamed: Vec::new(),
    }
}

#[test]
fn schemas_are_committed_and_change_compatibly() {
    formats().check_schemas();
}

#[test]
fn every_version_is_known_and_the_newest_is_written() {
    formats().check_versions();
}

#[test]
fn what_every_version_wrote_decodes() {
    formats().check_golden::<UserEvent>();
}

#[test]
fn what_every_version_wrote_satisfies_the_contract() {
    formats().check_contract(&customers::EVENT_TYPES, CustomersEvent::read);
    assert_eq!(customers::EVENT_TYPES, EVENT_TYPES, "all of it is public");
}

#[test]
fn what_a_newer_release_wrote_is_never_called_malformed() {
    formats().check_refusals::<UserEvent>();
}
