//! Events as they are stored: types and schema versions.

use millrace_es::{DecodeError, DomainEvent, Upcast, newest_version, upcast};
use serde_json::value::RawValue;

use super::InstructionEvent;

/// The public type of [`InstructionEvent::Settled`].
pub const TRANSACTION_SETTLED: &str = "transaction.settled";
/// The public type of [`InstructionEvent::Refused`].
pub const TRANSACTION_REFUSED: &str = "transaction.refused";
/// The public type of [`InstructionEvent::Voided`].
pub const TRANSACTION_VOIDED: &str = "transaction.voided";

/// Of the types that have had one version only.
const NO_STEPS: &[Upcast] = &[];

/// Every event type with the newest schema version, which is the one that is written.
pub const EVENT_TYPES: [(&str, u16); 3] = [
    (TRANSACTION_SETTLED, newest_version(NO_STEPS)),
    (TRANSACTION_REFUSED, newest_version(NO_STEPS)),
    (TRANSACTION_VOIDED, newest_version(NO_STEPS)),
];

/// Whether an event is one of an instruction.
#[must_use]
pub fn is_type(event_type: &str) -> bool {
    EVENT_TYPES.iter().any(|(known, _)| *known == event_type)
}

impl DomainEvent for InstructionEvent {
    fn event_type(&self) -> &'static str {
        match self {
            Self::Settled(_) => TRANSACTION_SETTLED,
            Self::Refused(_) => TRANSACTION_REFUSED,
            Self::Voided(_) => TRANSACTION_VOIDED,
        }
    }

    fn schema_version(&self) -> u16 {
        newest_version(NO_STEPS)
    }

    fn encode(&self) -> Result<Box<RawValue>, serde_json::Error> {
        match self {
            Self::Settled(event) => serde_json::value::to_raw_value(event),
            Self::Refused(event) => serde_json::value::to_raw_value(event),
            Self::Voided(event) => serde_json::value::to_raw_value(event),
        }
    }

    fn decode(
        event_type: &str,
        schema_version: u16,
        payload: &RawValue,
    ) -> Result<Self, DecodeError> {
        let version = schema_version;
        match event_type {
            TRANSACTION_SETTLED => {
                upcast(event_type, version, payload, NO_STEPS).map(Self::Settled)
            }
            TRANSACTION_REFUSED => {
                upcast(event_type, version, payload, NO_STEPS).map(Self::Refused)
            }
            TRANSACTION_VOIDED => upcast(event_type, version, payload, NO_STEPS).map(Self::Voided),
            _ => Err(DecodeError::UnknownType {
                event_type: event_type.to_owned(),
            }),
        }
    }
}
