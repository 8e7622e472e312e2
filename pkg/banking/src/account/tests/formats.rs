//! What is stored may only grow: the schemas and golden files of every event version, held by
//! [`StoredFormats`].

use millrace_es::DomainEvent;
use millrace_testkit::{Renamed, StoredFormats, payload_schema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::account::{
    AccountClosed, AccountEvent, AccountId, AccountOpened, Currency, MoneyDeposited,
    MoneyWithdrawn, TransferReceived, TransferSent, UserId,
    stored::{
        ACCOUNT_CLOSED, ACCOUNT_OPENED, EVENT_TYPES, MONEY_DEPOSITED, MONEY_WITHDRAWN,
        TRANSFER_RECEIVED, TRANSFER_SENT,
    },
};

/// `account.opened` as version 1 wrote it.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
struct AccountOpenedV1 {
    account_id: AccountId,
    holder: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    user_id: Option<UserId>,
}

fn formats() -> StoredFormats {
    StoredFormats {
        folder: env!("CARGO_MANIFEST_DIR"),
        versions: [
            ((ACCOUNT_OPENED, 1), payload_schema::<AccountOpenedV1>()),
            ((ACCOUNT_OPENED, 2), payload_schema::<AccountOpened>()),
            ((MONEY_DEPOSITED, 1), payload_schema::<MoneyDeposited>()),
            ((MONEY_WITHDRAWN, 1), payload_schema::<MoneyWithdrawn>()),
            ((TRANSFER_SENT, 1), payload_schema::<TransferSent>()),
            ((TRANSFER_RECEIVED, 1), payload_schema::<TransferReceived>()),
            ((ACCOUNT_CLOSED, 1), payload_schema::<AccountClosed>()),
        ]
        .into(),
        written: EVENT_TYPES.to_vec(),
        renamed: vec![Renamed {
            event_type: ACCOUNT_OPENED,
            version: 1,
            from: "holder",
            to: "holder_name",
        }],
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
    formats().check_golden::<AccountEvent>();
}

#[test]
fn version_1_accounts_are_kept_in_dollars_and_keep_their_holder() {
    let opened: Vec<(String, Currency)> = formats()
        .golden(ACCOUNT_OPENED, 1)
        .iter()
        .map(|payload| {
            let was: AccountOpenedV1 = serde_json::from_str(payload.get()).unwrap();
            let event = AccountEvent::decode(ACCOUNT_OPENED, 1, payload).unwrap();
            let AccountEvent::Opened(event) = event else {
                panic!("{event:?}")
            };
            assert_eq!(event.holder_name, was.holder);
            (event.account_id.to_string(), event.currency)
        })
        .collect();
    let expected = [("acc-1", Currency::USD), ("2", Currency::USD)];
    assert_eq!(opened, expected.map(|(id, in_)| (id.to_owned(), in_)));
}

#[test]
fn what_a_newer_release_wrote_is_never_called_malformed() {
    formats().check_refusals::<AccountEvent>();
}
