//! What others may ask of the context `banking`: movements of money under ids that the asker
//! chooses, on banking's internal endpoint.
//!
//! `POST /transactions/<transaction id>/withdrawal` and `/deposit` take a [`MoveMoney`], `/void` a
//! [`VoidTransaction`], and each answers 200 with a [`TransactionAnswer`], which is final: banking
//! keeps what became of an id for ever. So all three may be sent again at any time, and the answer
//! is what became of the id the first time. The same id with another account, kind, amount or
//! currency is a mistake (409), and nothing happens.
//!
//! A void never undoes. It makes sure that an id of which nothing is known yet never moves money,
//! and says what became of one that is known.

use millrace_kernel::{EntityId, Money};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The owner.
pub const CONTEXT: &str = "banking";

/// The name of the contract of [`MoveMoney`].
pub const MOVE_MONEY: &str = "banking.move_money";
/// The name of the contract of [`VoidTransaction`].
pub const VOID_TRANSACTION: &str = "banking.void_transaction";
/// The name of the contract of [`TransactionAnswer`].
pub const TRANSACTION_ANSWER: &str = "banking.transaction_answer";

/// Every contract of this owner, with its version.
pub const COMMANDS: [(&str, u16); 3] = [
    (MOVE_MONEY, 1),
    (VOID_TRANSACTION, 1),
    (TRANSACTION_ANSWER, 1),
];

/// Asks for money to be paid out of an account, or into one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct MoveMoney {
    /// The account.
    pub account_id: EntityId,
    /// How much; above 0.
    pub amount: Money,
    /// What the amount is in: a code of ISO 4217. An account kept in another refuses.
    pub currency: String,
    /// What it is for, as the account's holder will read it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
}

/// Asks that an id never moves money, unless it has.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct VoidTransaction {
    /// The account that it was for.
    pub account_id: EntityId,
}

/// Which way money moved.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum TransactionKind {
    /// Out of the account.
    Withdrawal,
    /// Into the account.
    Deposit,
}

/// What became of an id.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "outcome", rename_all = "kebab-case")]
pub enum TransactionAnswer {
    /// The money moved.
    Done(TransactionDone),
    /// No money moved under this id, and none ever will.
    Refused(TransactionRefused),
}

/// Money moved.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct TransactionDone {
    /// The id.
    pub transaction_id: EntityId,
    /// The account.
    pub account_id: EntityId,
    /// Which way.
    pub kind: TransactionKind,
    /// How much.
    pub amount: Money,
    /// What the amount is in.
    pub currency: String,
    /// What was on the account directly after it.
    pub balance: Money,
}

/// No money moved.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct TransactionRefused {
    /// The id.
    pub transaction_id: EntityId,
    /// The account.
    pub account_id: EntityId,
    /// Why.
    pub reason: RefusalReason,
    /// The same in a sentence, for people.
    pub detail: String,
}

/// Why no money moved.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum RefusalReason {
    /// Less was on the account than was asked for.
    InsufficientFunds,
    /// The account is closed.
    Closed,
    /// There is no such account.
    UnknownAccount,
    /// The id was voided before.
    Voided,
    /// The account is kept in another currency, or its currency cannot express the amount.
    Currency,
    /// The account cannot hold that much.
    BalanceTooLarge,
    /// A reason that this release does not know; the refusal is as final.
    #[serde(other)]
    Other,
}

impl RefusalReason {
    /// The reason as it is written.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::InsufficientFunds => "insufficient-funds",
            Self::Closed => "closed",
            Self::UnknownAccount => "unknown-account",
            Self::Voided => "voided",
            Self::Currency => "currency",
            Self::BalanceTooLarge => "balance-too-large",
            Self::Other => "other",
        }
    }
}
