//! Events as they are stored: types, schema versions, and the steps that lift old versions.

use millrace_es::{DecodeError, DomainEvent, RecordedEvent, Upcast, newest_version, upcast};
use serde_json::{Value, json, value::RawValue};

use super::AccountEvent;
use crate::instruction;

/// The public type of [`AccountEvent::Opened`].
pub const ACCOUNT_OPENED: &str = "account.opened";
/// The public type of [`AccountEvent::Deposited`].
pub const MONEY_DEPOSITED: &str = "money.deposited";
/// The public type of [`AccountEvent::Withdrawn`].
pub const MONEY_WITHDRAWN: &str = "money.withdrawn";
/// The public type of [`AccountEvent::Sent`].
pub const TRANSFER_SENT: &str = "transfer.sent";
/// The public type of [`AccountEvent::Received`].
pub const TRANSFER_RECEIVED: &str = "transfer.received";
/// The public type of [`AccountEvent::Closed`].
pub const ACCOUNT_CLOSED: &str = "account.closed";

/// `account.opened`: version 2 calls `holder` `holder_name` and added `currency`.
const OPENED_STEPS: &[Upcast] = &[opened_1_to_2];
/// Of the types that have had one version only.
const NO_STEPS: &[Upcast] = &[];

/// Every event type with the newest schema version, which is the one that is written.
pub const EVENT_TYPES: [(&str, u16); 6] = [
    (ACCOUNT_OPENED, newest_version(OPENED_STEPS)),
    (MONEY_DEPOSITED, newest_version(NO_STEPS)),
    (MONEY_WITHDRAWN, newest_version(NO_STEPS)),
    (TRANSFER_SENT, newest_version(NO_STEPS)),
    (TRANSFER_RECEIVED, newest_version(NO_STEPS)),
    (ACCOUNT_CLOSED, newest_version(NO_STEPS)),
];

/// All accounts of version 1 were kept in dollars.
fn opened_1_to_2(mut payload: Value) -> Value {
    if let Some(fields) = payload.as_object_mut() {
        if let Some(holder) = fields.remove("holder") {
            fields.insert("holder_name".to_owned(), holder);
        }
        fields.insert("currency".to_owned(), json!("USD"));
    }
    payload
}

/// Reads what the log of banking holds of an account; `None` for what happened to an instruction,
/// whose movement is an event of the account beside it.
///
/// # Errors
/// See [`DecodeError`].
pub fn account_event(event: &RecordedEvent) -> Result<Option<AccountEvent>, DecodeError> {
    if instruction::stored::is_type(&event.event_type) {
        return Ok(None);
    }
    AccountEvent::decode(&event.event_type, event.schema_version, &event.payload).map(Some)
}

impl DomainEvent for AccountEvent {
    fn event_type(&self) -> &'static str {
        match self {
            Self::Opened(_) => ACCOUNT_OPENED,
            Self::Deposited(_) => MONEY_DEPOSITED,
            Self::Withdrawn(_) => MONEY_WITHDRAWN,
            Self::Sent(_) => TRANSFER_SENT,
            Self::Received(_) => TRANSFER_RECEIVED,
            Self::Closed(_) => ACCOUNT_CLOSED,
        }
    }

    fn schema_version(&self) -> u16 {
        newest_version(match self {
            Self::Opened(_) => OPENED_STEPS,
            Self::Deposited(_)
            | Self::Withdrawn(_)
            | Self::Sent(_)
            | Self::Received(_)
            | Self::Closed(_) => NO_STEPS,
        })
    }

    fn encode(&self) -> Result<Box<RawValue>, serde_json::Error> {
        match self {
            Self::Opened(event) => serde_json::value::to_raw_value(event),
            Self::Deposited(event) => serde_json::value::to_raw_value(event),
            Self::Withdrawn(event) => serde_json::value::to_raw_value(event),
            Self::Sent(event) => serde_json::value::to_raw_value(event),
            Self::Received(event) => serde_json::value::to_raw_value(event),
            Self::Closed(event) => serde_json::value::to_raw_value(event),
        }
    }

    fn decode(
        event_type: &str,
        schema_version: u16,
        payload: &RawValue,
    ) -> Result<Self, DecodeError> {
        let version = schema_version;
        match event_type {
            ACCOUNT_OPENED => upcast(event_type, version, payload, OPENED_STEPS).map(Self::Opened),
            MONEY_DEPOSITED => upcast(event_type, version, payload, NO_STEPS).map(Self::Deposited),
            MONEY_WITHDRAWN => upcast(event_type, version, payload, NO_STEPS).map(Self::Withdrawn),
            TRANSFER_SENT => upcast(event_type, version, payload, NO_STEPS).map(Self::Sent),
            TRANSFER_RECEIVED => upcast(event_type, version, payload, NO_STEPS).map(Self::Received),
            ACCOUNT_CLOSED => upcast(event_type, version, payload, NO_STEPS).map(Self::Closed),
            _ => Err(DecodeError::UnknownType {
                event_type: event_type.to_owned(),
            }),
        }
    }
}
