//! Events as they are stored: types and schema versions.

use millrace_es::{DecodeError, DomainEvent, Upcast, newest_version, upcast};
use serde_json::value::RawValue;

use super::PaymentEvent;

/// The public type of [`PaymentEvent::Requested`].
pub const PAYMENT_REQUESTED: &str = "payment.requested";
/// The public type of [`PaymentEvent::Unanswered`].
pub const PAYMENT_UNANSWERED: &str = "payment.withdrawal_unanswered";
/// The public type of [`PaymentEvent::CalledOff`].
pub const PAYMENT_CALLED_OFF: &str = "payment.called_off";
/// The public type of [`PaymentEvent::Paid`].
pub const PAYMENT_PAID: &str = "payment.paid";
/// The public type of [`PaymentEvent::Refused`].
pub const PAYMENT_REFUSED: &str = "payment.refused";
/// The public type of [`PaymentEvent::Voided`].
pub const PAYMENT_VOIDED: &str = "payment.voided";
/// The public type of [`PaymentEvent::Refunded`].
pub const PAYMENT_REFUNDED: &str = "payment.refunded";
/// The public type of [`PaymentEvent::RefundRefused`].
pub const REFUND_REFUSED: &str = "payment.refund_refused";

/// Of the types that have had one version only.
const NO_STEPS: &[Upcast] = &[];

/// Every event type with the newest schema version, which is the one that is written.
pub const EVENT_TYPES: [(&str, u16); 8] = [
    (PAYMENT_REQUESTED, newest_version(NO_STEPS)),
    (PAYMENT_UNANSWERED, newest_version(NO_STEPS)),
    (PAYMENT_CALLED_OFF, newest_version(NO_STEPS)),
    (PAYMENT_PAID, newest_version(NO_STEPS)),
    (PAYMENT_REFUSED, newest_version(NO_STEPS)),
    (PAYMENT_VOIDED, newest_version(NO_STEPS)),
    (PAYMENT_REFUNDED, newest_version(NO_STEPS)),
    (REFUND_REFUSED, newest_version(NO_STEPS)),
];

/// Whether an event is one of a payment.
#[must_use]
pub fn is_type(event_type: &str) -> bool {
    EVENT_TYPES.iter().any(|(known, _)| *known == event_type)
}

impl DomainEvent for PaymentEvent {
    fn event_type(&self) -> &'static str {
        match self {
            Self::Requested(_) => PAYMENT_REQUESTED,
            Self::Unanswered(_) => PAYMENT_UNANSWERED,
            Self::CalledOff(_) => PAYMENT_CALLED_OFF,
            Self::Paid(_) => PAYMENT_PAID,
            Self::Refused(_) => PAYMENT_REFUSED,
            Self::Voided(_) => PAYMENT_VOIDED,
            Self::Refunded(_) => PAYMENT_REFUNDED,
            Self::RefundRefused(_) => REFUND_REFUSED,
        }
    }

    fn schema_version(&self) -> u16 {
        newest_version(NO_STEPS)
    }

    fn encode(&self) -> Result<Box<RawValue>, serde_json::Error> {
        match self {
            Self::Requested(event) => serde_json::value::to_raw_value(event),
            Self::Unanswered(event) => serde_json::value::to_raw_value(event),
            Self::CalledOff(event) => serde_json::value::to_raw_value(event),
            Self::Paid(event) => serde_json::value::to_raw_value(event),
            Self::Refused(event) => serde_json::value::to_raw_value(event),
            Self::Voided(event) => serde_json::value::to_raw_value(event),
            Self::Refunded(event) => serde_json::value::to_raw_value(event),
            Self::RefundRefused(event) => serde_json::value::to_raw_value(event),
        }
    }

    fn decode(
        event_type: &str,
        schema_version: u16,
        payload: &RawValue,
    ) -> Result<Self, DecodeError> {
        let version = schema_version;
        match event_type {
            PAYMENT_REQUESTED => {
                upcast(event_type, version, payload, NO_STEPS).map(Self::Requested)
            }
            PAYMENT_UNANSWERED => {
                upcast(event_type, version, payload, NO_STEPS).map(Self::Unanswered)
            }
            PAYMENT_CALLED_OFF => {
                upcast(event_type, version, payload, NO_STEPS).map(Self::CalledOff)
            }
            PAYMENT_PAID => upcast(event_type, version, payload, NO_STEPS).map(Self::Paid),
            PAYMENT_REFUSED => upcast(event_type, version, payload, NO_STEPS).map(Self::Refused),
            PAYMENT_VOIDED => upcast(event_type, version, payload, NO_STEPS).map(Self::Voided),
            PAYMENT_REFUNDED => upcast(event_type, version, payload, NO_STEPS).map(Self::Refunded),
            REFUND_REFUSED => {
                upcast(event_type, version, payload, NO_STEPS).map(Self::RefundRefused)
            }
            _ => Err(DecodeError::UnknownType {
                event_type: event_type.to_owned(),
            }),
        }
    }
}
