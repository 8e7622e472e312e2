//! Events as they are stored: types, schema versions, and the steps that lift old versions.

pub use millrace_contracts::customers::{
    ACCOUNT_CREATED, ACCOUNT_UPDATED, USER_CREATED, USER_UPDATED,
};
use millrace_es::{DecodeError, DomainEvent, Upcast, newest_version, upcast};
use serde_json::value::RawValue;

use super::UserEvent;

/// Of the types that have had one version only.
const NO_STEPS: &[Upcast] = &[];

/// Every event type with the newest schema version, which is the one that is written.
pub const EVENT_TYPES: [(&str, u16); 4] = [
    (USER_CREATED, newest_version(NO_STEPS)),
    (USER_UPDATED, newest_version(NO_STEPS)),
    (ACCOUNT_CREATED, newest_version(NO_STEPS)),
    (ACCOUNT_UPDATED, newest_version(NO_STEPS)),
];

impl DomainEvent for UserEvent {
    fn event_type(&self) -> &'static str {
        match self {
            Self::Created(_) => USER_CREATED,
            Self::Updated(_) => USER_UPDATED,
            Self::AccountCreated(_) => ACCOUNT_CREATED,
            Self::AccountUpdated(_) => ACCOUNT_UPDATED,
        }
    }

    fn schema_version(&self) -> u16 {
        newest_version(NO_STEPS)
    }

    fn encode(&self) -> Result<Box<RawValue>, serde_json::Error> {
        match self {
            Self::Created(event) => serde_json::value::to_raw_value(event),
            Self::Updated(event) => serde_json::value::to_raw_value(event),
            Self::AccountCreated(event) => serde_json::value::to_raw_value(event),
            Self::AccountUpdated(event) => serde_json::value::to_raw_value(event),
        }
    }

    fn decode(
        event_type: &str,
        schema_version: u16,
        payload: &RawValue,
    ) -> Result<Self, DecodeError> {
        let version = schema_version;
        match event_type {
            USER_CREATED => upcast(event_type, version, payload, NO_STEPS).map(Self::Created),
            USER_UPDATED => upcast(event_type, version, payload, NO_STEPS).map(Self::Updated),
            ACCOUNT_CREATED => {
                upcast(event_type, version, payload, NO_STEPS).map(Self::AccountCreated)
            }
            ACCOUNT_UPDATED => {
                upcast(event_type, version, payload, NO_STEPS).map(Self::AccountUpdated)
            }
            _ => Err(DecodeError::UnknownType {
                event_type: event_type.to_owned(),
            }),
        }
    }
}
