//! What the events that move money have in common, for those to whom it is all one.

use std::{fmt, str::FromStr};

use millrace_kernel::Money;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{AccountEvent, AccountId, TransactionId, TransferId};

/// What kind of movement it is. The names are in tables and answers.
#[derive(
    Debug,
    Clone,
    Copy,
    PartialEq,
    Eq,
    Hash,
    PartialOrd,
    Ord,
    Serialize,
    Deserialize,
    JsonSchema,
    utoipa::ToSchema,
)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum MovementKind {
    /// Paid in.
    Deposit,
    /// Paid out.
    Withdrawal,
    /// Sent to another account.
    TransferSent,
    /// Received from another account.
    TransferReceived,
}

impl MovementKind {
    /// Every kind.
    pub const ALL: [Self; 4] = [
        Self::Deposit,
        Self::Withdrawal,
        Self::TransferSent,
        Self::TransferReceived,
    ];

    /// The kind as it is stored and answered.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Deposit => "DEPOSIT",
            Self::Withdrawal => "WITHDRAWAL",
            Self::TransferSent => "TRANSFER_SENT",
            Self::TransferReceived => "TRANSFER_RECEIVED",
        }
    }

    /// Whether the balance rises by it; else it falls.
    #[must_use]
    pub const fn is_credit(self) -> bool {
        matches!(self, Self::Deposit | Self::TransferReceived)
    }
}

impl fmt::Display for MovementKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A text that is no kind of movement.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("must be DEPOSIT, WITHDRAWAL, TRANSFER_SENT or TRANSFER_RECEIVED")]
pub struct InvalidMovementKind;

impl FromStr for MovementKind {
    type Err = InvalidMovementKind;
    fn from_str(text: &str) -> Result<Self, InvalidMovementKind> {
        Self::ALL
            .into_iter()
            .find(|kind| kind.as_str() == text)
            .ok_or(InvalidMovementKind)
    }
}

/// What is the same in every event that moves money, for those to whom it is all one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Movement<'a> {
    /// What kind it is.
    pub kind: MovementKind,
    /// The account it is on.
    pub account_id: &'a AccountId,
    /// Its id.
    pub transaction_id: &'a TransactionId,
    /// How much moved; above 0, whichever way.
    pub amount: Money,
    /// The account's balance after it.
    pub balance: Money,
    /// The transfer that it is one side of.
    pub transfer_id: Option<&'a TransferId>,
    /// The other account of a transfer.
    pub counterparty: Option<&'a AccountId>,
    /// What it was for.
    pub description: Option<&'a str>,
}

macro_rules! movement {
    ($event:ident, $kind:ident, $transfer_id:expr, $counterparty:expr) => {
        Some(Movement {
            kind: MovementKind::$kind,
            account_id: &$event.account_id,
            transaction_id: &$event.transaction_id,
            amount: $event.amount,
            balance: $event.balance,
            transfer_id: $transfer_id,
            counterparty: $counterparty,
            description: $event.description.as_deref(),
        })
    };
}

impl AccountEvent {
    /// The movement that it is, if money moved.
    #[must_use]
    pub fn movement(&self) -> Option<Movement<'_>> {
        match self {
            Self::Opened(_) | Self::Closed(_) => None,
            Self::Deposited(event) => movement!(event, Deposit, None, None),
            Self::Withdrawn(event) => movement!(event, Withdrawal, None, None),
            Self::Sent(event) => movement!(
                event,
                TransferSent,
                Some(&event.transfer_id),
                Some(&event.to_account_id)
            ),
            Self::Received(event) => movement!(
                event,
                TransferReceived,
                Some(&event.transfer_id),
                Some(&event.from_account_id)
            ),
        }
    }
}
