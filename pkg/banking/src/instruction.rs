//! What became of a movement that another context asked for, under the id that it chose.
//!
//! An instruction has a stream of its own, `transaction-<id>`, of one event that is never followed
//! by another: its movement was made, was refused, or was voided before it was ever asked for. The
//! event is appended together with what it did to the account, expecting that the stream is empty,
//! so an id moves money at most once, whoever asks and however often, for as long as the log lives.
//! An account's own state does not grow by it.
//!
//! Events, commands, refusals, state, decisions, in that order. What an account says to an
//! instruction is decided by the account ([`crate::account`]); here is only what is kept of it.

use millrace_contracts::banking::{
    RefusalReason, TransactionAnswer, TransactionDone, TransactionKind, TransactionRefused,
};
use millrace_es::Aggregate;
use millrace_kernel::Money;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::account::{AccountId, AccountRefusal, Currency, TransactionId};

pub mod stored;
#[cfg(test)]
mod tests;

// ------------------------------------------------------------------------------------- events

/// Which way an instruction moves money. Stored format.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum Direction {
    /// Out of the account.
    Withdrawal,
    /// Into the account.
    Deposit,
}

/// Why an instruction was refused. Stored format.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum Reason {
    /// Less was on the account.
    InsufficientFunds,
    /// The account is closed.
    Closed,
    /// There is no such account.
    UnknownAccount,
    /// The account is kept in another currency, or its currency cannot express the amount.
    Currency,
    /// The account cannot hold that much.
    BalanceTooLarge,
}

/// An instruction's movement was made; it is an event of the account, too. Stored format
/// `transaction.settled` version 1.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct TransactionSettled {
    /// The instruction.
    pub transaction_id: TransactionId,
    /// The account.
    pub account_id: AccountId,
    /// Which way.
    pub direction: Direction,
    /// How much; above 0.
    pub amount: Money,
    /// What it is in.
    pub currency: Currency,
    /// The balance of the account after it.
    pub balance: Money,
}

/// An instruction was refused, for good. Stored format `transaction.refused` version 1.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct TransactionWasRefused {
    /// The instruction.
    pub transaction_id: TransactionId,
    /// The account that it named.
    pub account_id: AccountId,
    /// Which way.
    pub direction: Direction,
    /// How much was asked for; above 0.
    pub amount: Money,
    /// What it is in.
    pub currency: Currency,
    /// Why.
    pub reason: Reason,
    /// The same in a sentence.
    pub detail: String,
}

/// An instruction was voided before it was asked for: it never moves money. Stored format
/// `transaction.voided` version 1.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct TransactionVoided {
    /// The instruction.
    pub transaction_id: TransactionId,
    /// The account that it would have been for.
    pub account_id: AccountId,
}

/// What can happen to an instruction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum InstructionEvent {
    /// Its movement was made.
    Settled(TransactionSettled),
    /// It was refused.
    Refused(TransactionWasRefused),
    /// It was voided.
    Voided(TransactionVoided),
}

// ----------------------------------------------------------------------------------- commands

/// A movement that is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Instructed {
    /// Its id, which the asker chose.
    pub transaction_id: TransactionId,
    /// The account.
    pub account_id: AccountId,
    /// Which way.
    pub direction: Direction,
    /// How much.
    pub amount: Money,
    /// What it is in.
    pub currency: Currency,
}

impl Instructed {
    /// What is kept of it when the account took it, and this was on the account then.
    #[must_use]
    pub fn settled(&self, balance: Money) -> InstructionEvent {
        InstructionEvent::Settled(TransactionSettled {
            transaction_id: self.transaction_id.clone(),
            account_id: self.account_id.clone(),
            direction: self.direction,
            amount: self.amount,
            currency: self.currency,
            balance,
        })
    }

    /// What is kept of it when the account refused it; `None` for a refusal that no movement gets.
    #[must_use]
    pub fn refused(&self, refusal: AccountRefusal) -> Option<InstructionEvent> {
        let reason = match refusal {
            AccountRefusal::NotFound => Reason::UnknownAccount,
            AccountRefusal::Closed => Reason::Closed,
            AccountRefusal::TooManyDecimals { .. } | AccountRefusal::OtherCurrency { .. } => {
                Reason::Currency
            }
            AccountRefusal::InsufficientFunds { .. } => Reason::InsufficientFunds,
            AccountRefusal::BalanceTooLarge { .. } => Reason::BalanceTooLarge,
            AccountRefusal::AlreadyExists | AccountRefusal::NotEmpty { .. } => return None,
        };
        Some(InstructionEvent::Refused(TransactionWasRefused {
            transaction_id: self.transaction_id.clone(),
            account_id: self.account_id.clone(),
            direction: self.direction,
            amount: self.amount,
            currency: self.currency,
            reason,
            detail: refusal.to_string(),
        }))
    }
}

/// Asks that an instruction never moves money, unless it has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Void {
    /// The instruction.
    pub transaction_id: TransactionId,
    /// The account that it is for.
    pub account_id: AccountId,
}

// ----------------------------------------------------------------------------------- refusals

/// The id is in use for something else.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the id was used for another account, direction, amount or currency")]
pub struct Mismatch;

// -------------------------------------------------------------------------------------- state

/// An instruction as its one event made it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Instruction {
    /// Nobody asked for it yet.
    #[default]
    Unknown,
    /// Its movement was made.
    Settled(TransactionSettled),
    /// It was refused.
    Refused(TransactionWasRefused),
    /// It was voided.
    Voided(TransactionVoided),
}

impl Instruction {
    /// What whoever asks for this is told; `None` when it is not decided yet.
    ///
    /// # Errors
    /// [`Mismatch`] when the id was used for something else.
    pub fn answer_to(&self, wanted: &Instructed) -> Result<Option<TransactionAnswer>, Mismatch> {
        let known = match self {
            Self::Settled(it) => (&it.account_id, it.direction, it.amount, it.currency),
            Self::Refused(it) => (&it.account_id, it.direction, it.amount, it.currency),
            Self::Voided(it) => {
                let of_any = (wanted.direction, wanted.amount, wanted.currency);
                (&it.account_id, of_any.0, of_any.1, of_any.2)
            }
            Self::Unknown => return Ok(None),
        };
        let asked = (
            &wanted.account_id,
            wanted.direction,
            wanted.amount,
            wanted.currency,
        );
        if known == asked {
            Ok(self.answer())
        } else {
            Err(Mismatch)
        }
    }

    /// What became of it; `None` when nothing did.
    #[must_use]
    pub fn answer(&self) -> Option<TransactionAnswer> {
        let refused = |id: &TransactionId, account: &AccountId, reason, detail: &str| {
            TransactionAnswer::Refused(TransactionRefused {
                transaction_id: id.get().clone(),
                account_id: account.get().clone(),
                reason,
                detail: detail.to_owned(),
            })
        };
        Some(match self {
            Self::Unknown => return None,
            Self::Settled(it) => TransactionAnswer::Done(TransactionDone {
                transaction_id: it.transaction_id.get().clone(),
                account_id: it.account_id.get().clone(),
                kind: match it.direction {
                    Direction::Withdrawal => TransactionKind::Withdrawal,
                    Direction::Deposit => TransactionKind::Deposit,
                },
                amount: it.amount,
                currency: it.currency.to_string(),
                balance: it.balance,
            }),
            Self::Refused(it) => {
                let reason = match it.reason {
                    Reason::InsufficientFunds => RefusalReason::InsufficientFunds,
                    Reason::Closed => RefusalReason::Closed,
                    Reason::UnknownAccount => RefusalReason::UnknownAccount,
                    Reason::Currency => RefusalReason::Currency,
                    Reason::BalanceTooLarge => RefusalReason::BalanceTooLarge,
                };
                refused(&it.transaction_id, &it.account_id, reason, &it.detail)
            }
            Self::Voided(it) => refused(
                &it.transaction_id,
                &it.account_id,
                RefusalReason::Voided,
                "the transaction was voided before it was asked for",
            ),
        })
    }

    const fn account_id(&self) -> Option<&AccountId> {
        match self {
            Self::Unknown => None,
            Self::Settled(it) => Some(&it.account_id),
            Self::Refused(it) => Some(&it.account_id),
            Self::Voided(it) => Some(&it.account_id),
        }
    }
}

// ----------------------------------------------------------------------------------- decisions

impl Aggregate for Instruction {
    const CATEGORY: &'static str = "transaction";
    const SNAPSHOT_VERSION: u16 = 1;

    type Command = Void;
    type Event = InstructionEvent;
    type Refusal = Mismatch;

    /// A void of what is decided already changes nothing.
    fn decide(&self, command: &Void) -> Result<Vec<InstructionEvent>, Mismatch> {
        match self.account_id() {
            None => Ok(vec![InstructionEvent::Voided(TransactionVoided {
                transaction_id: command.transaction_id.clone(),
                account_id: command.account_id.clone(),
            })]),
            Some(account) if *account == command.account_id => Ok(Vec::new()),
            Some(_) => Err(Mismatch),
        }
    }

    fn evolve(self, event: &InstructionEvent) -> Self {
        match (self, event) {
            (Self::Unknown, InstructionEvent::Settled(it)) => Self::Settled(it.clone()),
            (Self::Unknown, InstructionEvent::Refused(it)) => Self::Refused(it.clone()),
            (Self::Unknown, InstructionEvent::Voided(it)) => Self::Voided(it.clone()),
            // No decision leads here; what became of an id stays.
            (state, _) => state,
        }
    }
}
