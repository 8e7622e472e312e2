//! What is stored may only grow: the schemas and golden files of every event version, held by
//! [`StoredFormats`].

use millrace_contracts::ordering::{self, OrderingEvent};
use millrace_es::DomainEvent;
use millrace_kernel::{Money, Timestamp};
use millrace_testkit::{StoredFormats, payload_schema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::order::{
    AccountId, OrderCreated, OrderDeleted, OrderEvent, OrderId, OrderItem, OrderStatusUpdated,
    UserId,
    stored::{EVENT_TYPES, ORDER_CREATED, ORDER_DELETED, ORDER_STATUS_UPDATED},
};

/// `order.created` as version 1 wrote it.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
struct OrderCreatedV1 {
    order_id: OrderId,
    user_id: UserId,
    items: Vec<OrderItem>,
    total_amount: Money,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    shipping_address: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    notes: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    payment_account_id: Option<AccountId>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    description: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    purchase_dt: Option<Timestamp>,
    created_at: Timestamp,
}

fn formats() -> StoredFormats {
    StoredFormats {
        folder: env!("CARGO_MANIFEST_DIR"),
        versions: [
            ((ORDER_CREATED, 1), payload_schema::<OrderCreatedV1>()),
            ((ORDER_CREATED, 2), payload_schema::<OrderCreated>()),
            (
                (ORDER_STATUS_UPDATED, 1),
                payload_schema::<OrderStatusUpdated>(),
            ),
            ((ORDER_DELETED, 1), payload_schema::<OrderDeleted>()),
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
    formats().check_golden::<OrderEvent>();
}

#[test]
fn what_every_version_wrote_satisfies_the_contract() {
    formats().check_contract(&ordering::EVENT_TYPES, OrderingEvent::read);
}

#[test]
fn version_1_orders_get_their_count_and_currency() {
    let counts: Vec<u32> = formats()
        .golden(ORDER_CREATED, 1)
        .iter()
        .map(|payload| {
            serde_json::from_str::<OrderCreatedV1>(payload.get()).unwrap();
            let event = OrderEvent::decode(ORDER_CREATED, 1, payload).unwrap();
            let OrderEvent::Created(event) = event else {
                panic!("{event:?}")
            };
            event.items_count
        })
        .collect();
    assert_eq!(counts, [2, 0]);
}

#[test]
fn what_a_newer_release_wrote_is_never_called_malformed() {
    formats().check_refusals::<OrderEvent>();
}
