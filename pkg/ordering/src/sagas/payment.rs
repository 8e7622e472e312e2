//! The payment of an order from a bank account: money is withdrawn, then the order is confirmed; what
//! the bank refuses cancels the order; what was paid for an order that is called off is given back.
//!
//! What came of a step, state, next, decisions, in that order, all of it pure. The saga never
//! guesses: as long as no answer said whether money moved, it asks again under the same id, which
//! banking keeps for ever, and when it no longer wants to wait it voids the id first and goes on from
//! what the void found. [`port`] is what it touches, [`table`] where its payments stand, [`routes`]
//! what is shown of them.

use std::{convert::Infallible, fmt, sync::Arc};

use millrace_es::{Aggregate, Metadata, Saga, StreamId};
use millrace_eventlog::{
    EventLog, ExecuteError, ExpectedVersion, Repository, RepositoryOptions, StreamAppend,
    encode_events,
};
use millrace_kernel::Timestamp;
use millrace_sagas::Pump;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::order::{OrderCreated, OrderEvent, OrderId};

mod events;
mod ids;
mod owner;
pub mod port;
pub mod routes;
pub mod stored;
pub mod table;
#[cfg(test)]
mod tests;

pub use events::{
    PaymentCalledOff, PaymentEvent, PaymentPaid, PaymentRefunded, PaymentRefused, PaymentRequested,
    PaymentVoided, RefundRefused, WithdrawalUnanswered,
};
pub use ids::TransactionId;
pub use owner::OwnerBank;
pub use port::{Bank, PaymentPort};
pub use table::{PaymentRow, Payments, PaymentsTable};

/// So many withdrawals without an answer, and the saga voids instead of asking again.
pub const MAX_UNANSWERED_WITHDRAWALS: u32 = 5;

// ----------------------------------------------------------------------------------- commands

/// What a payment is told: what came of a step, or what the world did. That it begins is told by the
/// append of its order ([`begin_beside`]).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PaymentCommand {
    /// Now.
    pub at: Timestamp,
    /// What.
    pub news: News,
}

/// What there is to tell a payment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum News {
    /// A withdrawal got no answer.
    NoAnswer {
        /// What was seen instead.
        reason: String,
    },
    /// The order is not wanted any more.
    CalledOff,
    /// The money was withdrawn.
    Withdrawn {
        /// Whether the order is wanted still.
        wanted: bool,
    },
    /// The bank refused.
    Refused {
        /// Why, in a sentence.
        reason: String,
    },
    /// The withdrawal never happened and never will.
    Voided,
    /// The money was given back.
    Refunded,
    /// It cannot be given back.
    RefundRefused {
        /// Why, in a sentence.
        reason: String,
    },
}

// -------------------------------------------------------------------------------------- state

/// A payment as its events made it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Payment {
    /// Nobody asked for it.
    #[default]
    Absent,
    /// The money is to be withdrawn; whether it was is not known.
    Withdrawing {
        /// As it was asked for.
        requested: Box<PaymentRequested>,
        /// How many withdrawals got no answer.
        unanswered: u32,
    },
    /// The withdrawal is to be voided; whether it was made is not known.
    Voiding {
        /// As it was asked for.
        requested: Box<PaymentRequested>,
        /// Whether the order is not wanted any more.
        called_off: bool,
    },
    /// The money was withdrawn and the order confirmed.
    Paid(Box<PaymentRequested>),
    /// The money was withdrawn and is to be given back.
    Refunding(Box<PaymentRequested>),
    /// It came to its end.
    Ended {
        /// As it was asked for.
        requested: Box<PaymentRequested>,
        /// Which.
        end: End,
    },
}

/// How a payment ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum End {
    /// The bank refused.
    Refused,
    /// The withdrawal was voided.
    Voided,
    /// The money was given back.
    Refunded,
    /// The money is owed.
    RefundRefused,
}

/// Where a payment stands, for tables and answers.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema, utoipa::ToSchema,
)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum PaymentStatus {
    /// The money is being withdrawn.
    Pending,
    /// The withdrawal is being voided.
    Voiding,
    /// The money was withdrawn, and the order is confirmed.
    Paid,
    /// The money is being given back.
    Refunding,
    /// The bank refused; no money moved, and the order is cancelled.
    Refused,
    /// The withdrawal was voided; no money moved, and the order is cancelled or deleted.
    Voided,
    /// The money was given back.
    Refunded,
    /// The money was withdrawn and could not be given back: it is owed.
    RefundRefused,
}

impl PaymentStatus {
    /// Every status.
    pub const ALL: [Self; 8] = [
        Self::Pending,
        Self::Voiding,
        Self::Paid,
        Self::Refunding,
        Self::Refused,
        Self::Voided,
        Self::Refunded,
        Self::RefundRefused,
    ];

    /// The status as it is stored and answered.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "PENDING",
            Self::Voiding => "VOIDING",
            Self::Paid => "PAID",
            Self::Refunding => "REFUNDING",
            Self::Refused => "REFUSED",
            Self::Voided => "VOIDED",
            Self::Refunded => "REFUNDED",
            Self::RefundRefused => "REFUND_REFUSED",
        }
    }

    /// Whether something is to be done.
    #[must_use]
    pub const fn is_unfinished(self) -> bool {
        matches!(self, Self::Pending | Self::Voiding | Self::Refunding)
    }
}

impl fmt::Display for PaymentStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl Payment {
    /// As it was asked for, unless nobody did.
    #[must_use]
    pub fn requested(&self) -> Option<&PaymentRequested> {
        match self {
            Self::Absent => None,
            Self::Withdrawing { requested, .. }
            | Self::Voiding { requested, .. }
            | Self::Paid(requested)
            | Self::Refunding(requested)
            | Self::Ended { requested, .. } => Some(requested),
        }
    }

    /// Where it stands, unless nobody asked for it.
    #[must_use]
    pub const fn status(&self) -> Option<PaymentStatus> {
        Some(match self {
            Self::Absent => return None,
            Self::Withdrawing { .. } => PaymentStatus::Pending,
            Self::Voiding { .. } => PaymentStatus::Voiding,
            Self::Paid(_) => PaymentStatus::Paid,
            Self::Refunding(_) => PaymentStatus::Refunding,
            Self::Ended { end, .. } => match end {
                End::Refused => PaymentStatus::Refused,
                End::Voided => PaymentStatus::Voided,
                End::Refunded => PaymentStatus::Refunded,
                End::RefundRefused => PaymentStatus::RefundRefused,
            },
        })
    }

    /// Whether it has to know when the order is called off.
    #[must_use]
    pub const fn may_be_called_off(&self) -> bool {
        matches!(
            self,
            Self::Withdrawing { .. }
                | Self::Paid(_)
                | Self::Voiding {
                    called_off: false,
                    ..
                }
        )
    }
}

// --------------------------------------------------------------------------------------- next

/// What is asked of the bank.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PaymentStep {
    /// Take the money.
    Withdraw,
    /// Make sure that it is never taken, and say whether it was.
    Void,
    /// Give it back.
    Refund,
}

impl Saga for Payment {
    const NAME: &'static str = "payment";

    type Step = PaymentStep;

    fn next(&self) -> Option<PaymentStep> {
        match self {
            Self::Withdrawing { .. } => Some(PaymentStep::Withdraw),
            Self::Voiding { .. } => Some(PaymentStep::Void),
            Self::Refunding(_) => Some(PaymentStep::Refund),
            Self::Absent | Self::Paid(_) | Self::Ended { .. } => None,
        }
    }
}

// ----------------------------------------------------------------------------------- decisions

/// The payment of an order, if it is to be paid from an account.
#[must_use]
pub fn payment_of(order: &OrderCreated) -> Option<PaymentRequested> {
    let account_id = order.payment_account_id.clone()?;
    Some(PaymentRequested {
        order_id: order.order_id.clone(),
        account_id,
        amount: order.total_amount,
        currency: order.currency,
        transaction_id: TransactionId::of_payment(&order.order_id),
        refund_transaction_id: TransactionId::of_refund(&order.order_id),
        requested_at: order.created_at,
    })
}

/// The payments of a log of ordering, to be brought on by a bank.
#[must_use]
pub fn payments(log: &Arc<dyn EventLog>, bank: Arc<dyn Bank>) -> Pump<Payment> {
    let options = RepositoryOptions::default();
    let orders = Arc::new(Repository::new(Arc::clone(log), options));
    let payments = Arc::new(Repository::new(Arc::clone(log), options));
    let port = PaymentPort::new(orders, Arc::clone(&payments), bank);
    Pump::new(payments, Arc::new(port))
}

/// What is appended beside what happened to an order: when it is created and is to be paid, its
/// payment begins in the same append, and no order waits for somebody to notice it.
///
/// # Errors
/// [`ExecuteError::Encode`] when the event has no JSON form, which is a defect.
pub fn begin_beside(
    events: &[OrderEvent],
    metadata: &Arc<Metadata>,
) -> Result<Vec<StreamAppend>, ExecuteError> {
    let created = events.iter().find_map(|event| match event {
        OrderEvent::Created(order) => payment_of(order),
        OrderEvent::StatusUpdated(_) | OrderEvent::Deleted(_) => None,
    });
    let Some(requested) = created else {
        return Ok(Vec::new());
    };
    let stream = StreamId::of(Payment::CATEGORY, requested.order_id.get());
    Ok(vec![StreamAppend {
        stream,
        expected: ExpectedVersion::NoStream,
        events: encode_events(&[PaymentEvent::Requested(requested)], metadata)?,
    }])
}

impl Aggregate for Payment {
    const CATEGORY: &'static str = "payment";
    const SNAPSHOT_VERSION: u16 = 1;

    type Command = PaymentCommand;
    type Event = PaymentEvent;
    /// Nothing is refused: news that a payment has no use for changes nothing.
    type Refusal = Infallible;

    fn decide(&self, command: &PaymentCommand) -> Result<Vec<PaymentEvent>, Infallible> {
        let at = command.at;
        Ok(match (self, &command.news) {
            (
                Self::Withdrawing {
                    requested,
                    unanswered,
                },
                News::NoAnswer { reason },
            ) => vec![unanswered_again(requested, *unanswered, reason, at)],
            (state, News::CalledOff) if state.may_be_called_off() => state.called_off(at),
            (state, News::Withdrawn { wanted }) => state.withdrawn(*wanted, at),
            (state, News::Refused { reason }) => state.refused(reason, at),
            (state, News::Voided) => state.voided(at),
            (Self::Refunding(requested), News::Refunded) => {
                vec![PaymentEvent::Refunded(PaymentRefunded {
                    order_id: requested.order_id.clone(),
                    at,
                })]
            }
            (Self::Refunding(requested), News::RefundRefused { reason }) => {
                vec![PaymentEvent::RefundRefused(RefundRefused {
                    order_id: requested.order_id.clone(),
                    reason: reason.clone(),
                    at,
                })]
            }
            _ => Vec::new(),
        })
    }

    fn evolve(self, event: &PaymentEvent) -> Self {
        match (self, event) {
            (Self::Absent, PaymentEvent::Requested(requested)) => Self::Withdrawing {
                requested: Box::new(requested.clone()),
                unanswered: 0,
            },
            (Self::Withdrawing { requested, .. }, PaymentEvent::Unanswered(event)) => {
                if event.gives_up {
                    Self::Voiding {
                        requested,
                        called_off: false,
                    }
                } else {
                    Self::Withdrawing {
                        requested,
                        unanswered: event.attempt,
                    }
                }
            }
            (
                Self::Withdrawing { requested, .. } | Self::Voiding { requested, .. },
                PaymentEvent::CalledOff(_),
            ) => Self::Voiding {
                requested,
                called_off: true,
            },
            (Self::Paid(requested), PaymentEvent::CalledOff(_)) => Self::Refunding(requested),
            (
                Self::Withdrawing { requested, .. } | Self::Voiding { requested, .. },
                PaymentEvent::Paid(event),
            ) => {
                if event.refund {
                    Self::Refunding(requested)
                } else {
                    Self::Paid(requested)
                }
            }
            (
                Self::Withdrawing { requested, .. } | Self::Voiding { requested, .. },
                PaymentEvent::Refused(_),
            ) => ended(requested, End::Refused),
            (
                Self::Withdrawing { requested, .. } | Self::Voiding { requested, .. },
                PaymentEvent::Voided(_),
            ) => ended(requested, End::Voided),
            (Self::Refunding(requested), PaymentEvent::Refunded(_)) => {
                ended(requested, End::Refunded)
            }
            (Self::Refunding(requested), PaymentEvent::RefundRefused(_)) => {
                ended(requested, End::RefundRefused)
            }
            // No decision leads here; a fact that cannot be placed changes nothing.
            (state, _) => state,
        }
    }
}

fn ended(requested: Box<PaymentRequested>, end: End) -> Payment {
    Payment::Ended { requested, end }
}

fn unanswered_again(
    requested: &PaymentRequested,
    before: u32,
    reason: &str,
    at: Timestamp,
) -> PaymentEvent {
    let attempt = before.saturating_add(1);
    PaymentEvent::Unanswered(WithdrawalUnanswered {
        order_id: requested.order_id.clone(),
        attempt,
        gives_up: attempt >= MAX_UNANSWERED_WITHDRAWALS,
        reason: reason.to_owned(),
        at,
    })
}

impl Payment {
    /// The order of a payment of which it is not known whether its money moved.
    pub(crate) fn in_doubt(&self) -> Option<&OrderId> {
        match self {
            Self::Withdrawing { requested, .. } | Self::Voiding { requested, .. } => {
                Some(&requested.order_id)
            }
            Self::Absent | Self::Paid(_) | Self::Refunding(_) | Self::Ended { .. } => None,
        }
    }

    fn called_off(&self, at: Timestamp) -> Vec<PaymentEvent> {
        let event = |requested: &PaymentRequested| {
            PaymentEvent::CalledOff(PaymentCalledOff {
                order_id: requested.order_id.clone(),
                refund: matches!(self, Self::Paid(_)),
                at,
            })
        };
        self.requested().map(event).into_iter().collect()
    }

    fn withdrawn(&self, wanted: bool, at: Timestamp) -> Vec<PaymentEvent> {
        let called_off = matches!(
            self,
            Self::Voiding {
                called_off: true,
                ..
            }
        );
        let event = |order_id: &OrderId| {
            PaymentEvent::Paid(PaymentPaid {
                order_id: order_id.clone(),
                refund: called_off || !wanted,
                at,
            })
        };
        self.in_doubt().map(event).into_iter().collect()
    }

    fn refused(&self, reason: &str, at: Timestamp) -> Vec<PaymentEvent> {
        let event = |order_id: &OrderId| {
            PaymentEvent::Refused(PaymentRefused {
                order_id: order_id.clone(),
                reason: reason.to_owned(),
                at,
            })
        };
        self.in_doubt().map(event).into_iter().collect()
    }

    fn voided(&self, at: Timestamp) -> Vec<PaymentEvent> {
        let reason = match self {
            Self::Voiding {
                called_off: true, ..
            } => "the order was called off before it was paid",
            _ => "the bank did not answer in time; nothing was paid",
        };
        let event = |order_id: &OrderId| {
            PaymentEvent::Voided(PaymentVoided {
                order_id: order_id.clone(),
                reason: reason.to_owned(),
                at,
            })
        };
        self.in_doubt().map(event).into_iter().collect()
    }
}
