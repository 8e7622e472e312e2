//! Events as they are stored: types, schema versions, and the steps that lift old versions.

use millrace_es::{DecodeError, DomainEvent, RecordedEvent, Upcast, newest_version, upcast};
use serde_json::{Value, json, value::RawValue};

use super::OrderEvent;
use crate::sagas::payment;

/// The public type of [`OrderEvent::Created`].
pub const ORDER_CREATED: &str = "order.created";
/// The public type of [`OrderEvent::StatusUpdated`].
pub const ORDER_STATUS_UPDATED: &str = "order.status_updated";
/// The public type of [`OrderEvent::Deleted`].
pub const ORDER_DELETED: &str = "order.deleted";

/// `order.created`: version 2 added `items_count` and `currency`.
const CREATED_STEPS: &[Upcast] = &[created_1_to_2];
const STATUS_UPDATED_STEPS: &[Upcast] = &[];
const DELETED_STEPS: &[Upcast] = &[];

/// Every event type with the newest schema version, which is the one that is written.
pub const EVENT_TYPES: [(&str, u16); 3] = [
    (ORDER_CREATED, newest_version(CREATED_STEPS)),
    (ORDER_STATUS_UPDATED, newest_version(STATUS_UPDATED_STEPS)),
    (ORDER_DELETED, newest_version(DELETED_STEPS)),
];

/// All orders of version 1 were in dollars, and their lines were not counted.
fn created_1_to_2(mut payload: Value) -> Value {
    let lines = payload["items"].as_array().map_or(0, Vec::len);
    if let Some(fields) = payload.as_object_mut() {
        fields.insert("items_count".to_owned(), json!(lines));
        fields.insert("currency".to_owned(), json!("USD"));
    }
    payload
}

/// Reads what the log of ordering holds of an order; `None` for what happened to its payment.
///
/// # Errors
/// See [`DecodeError`].
pub fn order_event(event: &RecordedEvent) -> Result<Option<OrderEvent>, DecodeError> {
    if payment::stored::is_type(&event.event_type) {
        return Ok(None);
    }
    OrderEvent::decode(&event.event_type, event.schema_version, &event.payload).map(Some)
}

impl DomainEvent for OrderEvent {
    fn event_type(&self) -> &'static str {
        match self {
            Self::Created(_) => ORDER_CREATED,
            Self::StatusUpdated(_) => ORDER_STATUS_UPDATED,
            Self::Deleted(_) => ORDER_DELETED,
        }
    }

    fn schema_version(&self) -> u16 {
        newest_version(match self {
            Self::Created(_) => CREATED_STEPS,
            Self::StatusUpdated(_) => STATUS_UPDATED_STEPS,
            Self::Deleted(_) => DELETED_STEPS,
        })
    }

    fn encode(&self) -> Result<Box<RawValue>, serde_json::Error> {
        match self {
            Self::Created(event) => serde_json::value::to_raw_value(event),
            Self::StatusUpdated(event) => serde_json::value::to_raw_value(event),
            Self::Deleted(event) => serde_json::value::to_raw_value(event),
        }
    }

    fn decode(
        event_type: &str,
        schema_version: u16,
        payload: &RawValue,
    ) -> Result<Self, DecodeError> {
        let version = schema_version;
        match event_type {
            ORDER_CREATED => upcast(event_type, version, payload, CREATED_STEPS).map(Self::Created),
            ORDER_STATUS_UPDATED => {
                upcast(event_type, version, payload, STATUS_UPDATED_STEPS).map(Self::StatusUpdated)
            }
            ORDER_DELETED => upcast(event_type, version, payload, DELETED_STEPS).map(Self::Deleted),
            _ => Err(DecodeError::UnknownType {
                event_type: event_type.to_owned(),
            }),
        }
    }
}
