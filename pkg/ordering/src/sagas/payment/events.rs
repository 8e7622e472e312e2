//! What can happen to a payment. Stored formats, as the events of an order are.

use millrace_kernel::{Money, Timestamp};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{PaymentStatus, TransactionId};
use crate::order::{AccountId, Currency, OrderId};

/// A payment was asked for, with the order. Stored format `payment.requested` version 1.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct PaymentRequested {
    /// The order.
    pub order_id: OrderId,
    /// The account that is to pay.
    pub account_id: AccountId,
    /// How much.
    pub amount: Money,
    /// What it is in.
    pub currency: Currency,
    /// The id of the withdrawal in banking.
    pub transaction_id: TransactionId,
    /// The id of the deposit that would give it back.
    pub refund_transaction_id: TransactionId,
    /// When.
    pub requested_at: Timestamp,
}

/// A withdrawal got no answer. Stored format `payment.withdrawal_unanswered` version 1.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct WithdrawalUnanswered {
    /// The order.
    pub order_id: OrderId,
    /// The how many-th it was.
    pub attempt: u32,
    /// Whether it was the last: it is voided now.
    pub gives_up: bool,
    /// What was seen instead of an answer.
    pub reason: String,
    /// When.
    pub at: Timestamp,
}

/// The order is not wanted any more, and so neither is its payment. Stored format
/// `payment.called_off` version 1.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct PaymentCalledOff {
    /// The order.
    pub order_id: OrderId,
    /// Whether the money was taken before, and is to be given back.
    pub refund: bool,
    /// When it was seen.
    pub at: Timestamp,
}

/// The money was withdrawn. Stored format `payment.paid` version 1.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct PaymentPaid {
    /// The order.
    pub order_id: OrderId,
    /// Whether the order was called off before, so that the money is to be given back.
    pub refund: bool,
    /// When it was known.
    pub at: Timestamp,
}

/// The bank refused, and no money moved. Stored format `payment.refused` version 1.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct PaymentRefused {
    /// The order.
    pub order_id: OrderId,
    /// Why, in a sentence.
    pub reason: String,
    /// When it was known.
    pub at: Timestamp,
}

/// The withdrawal was voided before the bank ever took it: no money moved and none will. Stored
/// format `payment.voided` version 1.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct PaymentVoided {
    /// The order.
    pub order_id: OrderId,
    /// Why it was voided, in a sentence.
    pub reason: String,
    /// When it was known.
    pub at: Timestamp,
}

/// What was paid was given back. Stored format `payment.refunded` version 1.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct PaymentRefunded {
    /// The order.
    pub order_id: OrderId,
    /// When it was known.
    pub at: Timestamp,
}

/// What was paid could not be given back: it is owed, and a person has to see to it. Stored format
/// `payment.refund_refused` version 1.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct RefundRefused {
    /// The order.
    pub order_id: OrderId,
    /// Why, in a sentence.
    pub reason: String,
    /// When it was known.
    pub at: Timestamp,
}

/// What can happen to a payment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PaymentEvent {
    /// It was asked for.
    Requested(PaymentRequested),
    /// A withdrawal got no answer.
    Unanswered(WithdrawalUnanswered),
    /// It is not wanted any more.
    CalledOff(PaymentCalledOff),
    /// The money was withdrawn.
    Paid(PaymentPaid),
    /// The bank refused.
    Refused(PaymentRefused),
    /// The withdrawal was voided.
    Voided(PaymentVoided),
    /// The money was given back.
    Refunded(PaymentRefunded),
    /// It could not be given back.
    RefundRefused(RefundRefused),
}

impl PaymentEvent {
    /// The order it is about.
    #[must_use]
    pub const fn order_id(&self) -> &OrderId {
        match self {
            Self::Requested(event) => &event.order_id,
            Self::Unanswered(event) => &event.order_id,
            Self::CalledOff(event) => &event.order_id,
            Self::Paid(event) => &event.order_id,
            Self::Refused(event) => &event.order_id,
            Self::Voided(event) => &event.order_id,
            Self::Refunded(event) => &event.order_id,
            Self::RefundRefused(event) => &event.order_id,
        }
    }

    /// Where the payment stands after it, which every event says by itself.
    #[must_use]
    pub const fn status(&self) -> PaymentStatus {
        match self {
            Self::Requested(_) => PaymentStatus::Pending,
            Self::Unanswered(event) if event.gives_up => PaymentStatus::Voiding,
            Self::Unanswered(_) => PaymentStatus::Pending,
            Self::CalledOff(event) if event.refund => PaymentStatus::Refunding,
            Self::CalledOff(_) => PaymentStatus::Voiding,
            Self::Paid(event) if event.refund => PaymentStatus::Refunding,
            Self::Paid(_) => PaymentStatus::Paid,
            Self::Refused(_) => PaymentStatus::Refused,
            Self::Voided(_) => PaymentStatus::Voided,
            Self::Refunded(_) => PaymentStatus::Refunded,
            Self::RefundRefused(_) => PaymentStatus::RefundRefused,
        }
    }

    /// Why it ended as it did, where it did not end well.
    #[must_use]
    pub fn reason(&self) -> Option<&str> {
        match self {
            Self::Refused(event) => Some(&event.reason),
            Self::Voided(event) => Some(&event.reason),
            Self::RefundRefused(event) => Some(&event.reason),
            Self::Requested(_)
            | Self::Unanswered(_)
            | Self::CalledOff(_)
            | Self::Paid(_)
            | Self::Refunded(_) => None,
        }
    }

    /// When it happened.
    #[must_use]
    pub const fn at(&self) -> Timestamp {
        match self {
            Self::Requested(event) => event.requested_at,
            Self::Unanswered(event) => event.at,
            Self::CalledOff(event) => event.at,
            Self::Paid(event) => event.at,
            Self::Refused(event) => event.at,
            Self::Voided(event) => event.at,
            Self::Refunded(event) => event.at,
            Self::RefundRefused(event) => event.at,
        }
    }
}
