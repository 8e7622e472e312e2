//! An account, from its opening to its closing, and the money that moves on it.
//!
//! Ids, events, commands, refusals, state, decisions, in that order. Everything is pure: generated
//! ids come in with the command, and when something happened is what the log says. Events are
//! stored formats: their fields may only be added to, as optional ones, and everything else is a
//! new schema version with a step in [`stored`] that lifts the old one (a check over `schemas/` and
//! `golden/` holds this).

use std::{fmt, str::FromStr, sync::Arc};

use millrace_es::Aggregate;
use millrace_kernel::{Money, id_type};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

#[cfg(test)]
pub(crate) mod fixtures;
mod movement;
pub mod stored;
#[cfg(test)]
mod tests;
mod transfer;
mod values;

pub use movement::{InvalidMovementKind, Movement, MovementKind};
pub use transfer::{InvalidTransfer, Side, Transfer, TransferRefusal};
pub use values::{
    Amount, Currency, InvalidAmount, InvalidCurrency, MAX_BALANCE, MAX_DESCRIPTION_CHARS,
    MAX_HOLDER_NAME_CHARS, MAX_MOVEMENT, MAX_REASON_CHARS,
};

// ---------------------------------------------------------------------------------------- ids

id_type! {
    /// Names an account.
    AccountId
}
id_type! {
    /// Names whose account it is. Users live in another context; here they are a name only.
    UserId
}
id_type! {
    /// Names one movement on one account.
    TransactionId
}
id_type! {
    /// Names a transfer: a movement on each of two accounts.
    TransferId
}

// ------------------------------------------------------------------------------------- events

/// Whether an account takes movements. Stored format: the names are in tables and answers.
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
#[serde(rename_all = "UPPERCASE")]
pub enum AccountStatus {
    /// It does.
    Open,
    /// It was closed, with nothing on it.
    Closed,
}

impl AccountStatus {
    /// Every status.
    pub const ALL: [Self; 2] = [Self::Open, Self::Closed];

    /// The status as it is stored and answered.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Open => "OPEN",
            Self::Closed => "CLOSED",
        }
    }
}

impl fmt::Display for AccountStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A text that is no status.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("must be OPEN or CLOSED")]
pub struct InvalidAccountStatus;

impl FromStr for AccountStatus {
    type Err = InvalidAccountStatus;
    fn from_str(text: &str) -> Result<Self, InvalidAccountStatus> {
        Self::ALL
            .into_iter()
            .find(|status| status.as_str() == text)
            .ok_or(InvalidAccountStatus)
    }
}

/// An account was opened. Stored format `account.opened` version 2. Its balance is nothing: money
/// that it was opened with is the deposit that follows in the same append.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct AccountOpened {
    /// The account.
    pub account_id: AccountId,
    /// Who holds it, by name. Called `holder` in version 1.
    pub holder_name: String,
    /// The user who holds it, where it is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user_id: Option<UserId>,
    /// What it is kept in. Since version 2.
    pub currency: Currency,
}

/// Money was paid in. Stored format `money.deposited` version 1.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct MoneyDeposited {
    /// The account.
    pub account_id: AccountId,
    /// The movement.
    pub transaction_id: TransactionId,
    /// How much was paid in; above 0.
    pub amount: Money,
    /// The balance after it.
    pub balance: Money,
    /// What it was for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
}

/// Money was paid out. Stored format `money.withdrawn` version 1.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct MoneyWithdrawn {
    /// The account.
    pub account_id: AccountId,
    /// The movement.
    pub transaction_id: TransactionId,
    /// How much was paid out; above 0.
    pub amount: Money,
    /// The balance after it.
    pub balance: Money,
    /// What it was for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
}

/// Money went to another account. Stored format `transfer.sent` version 1.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct TransferSent {
    /// The account that it went from.
    pub account_id: AccountId,
    /// The movement on this account.
    pub transaction_id: TransactionId,
    /// The transfer, the same on both accounts.
    pub transfer_id: TransferId,
    /// The account that it went to.
    pub to_account_id: AccountId,
    /// How much went; above 0.
    pub amount: Money,
    /// The balance of this account after it.
    pub balance: Money,
    /// What it was for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
}

/// Money came from another account. Stored format `transfer.received` version 1.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct TransferReceived {
    /// The account that it came to.
    pub account_id: AccountId,
    /// The movement on this account.
    pub transaction_id: TransactionId,
    /// The transfer, the same on both accounts.
    pub transfer_id: TransferId,
    /// The account that it came from.
    pub from_account_id: AccountId,
    /// How much came; above 0.
    pub amount: Money,
    /// The balance of this account after it.
    pub balance: Money,
    /// What it was for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
}

/// An account was closed; its balance was nothing. Stored format `account.closed` version 1.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct AccountClosed {
    /// The account.
    pub account_id: AccountId,
    /// Why, where it was said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// What can happen to an account.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AccountEvent {
    /// It was opened.
    Opened(AccountOpened),
    /// Money was paid in.
    Deposited(MoneyDeposited),
    /// Money was paid out.
    Withdrawn(MoneyWithdrawn),
    /// Money went to another account.
    Sent(TransferSent),
    /// Money came from another account.
    Received(TransferReceived),
    /// It was closed.
    Closed(AccountClosed),
}

impl AccountEvent {
    /// The account it happened to.
    #[must_use]
    pub const fn account_id(&self) -> &AccountId {
        match self {
            Self::Opened(event) => &event.account_id,
            Self::Deposited(event) => &event.account_id,
            Self::Withdrawn(event) => &event.account_id,
            Self::Sent(event) => &event.account_id,
            Self::Received(event) => &event.account_id,
            Self::Closed(event) => &event.account_id,
        }
    }
}

// ----------------------------------------------------------------------------------- commands

/// Asks for a movement on one account.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MoveMoney {
    /// The id it will have.
    pub transaction_id: TransactionId,
    /// How much.
    pub amount: Amount,
    /// What the amount is in, where that is said; else whatever the account is kept in.
    pub currency: Option<Currency>,
    /// What it is for.
    pub description: Option<String>,
}

/// Asks for a new account.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OpenAccount {
    /// Its id, chosen or generated.
    pub account_id: AccountId,
    /// Who holds it, by name.
    pub holder_name: String,
    /// The user who holds it, where it is one.
    pub user_id: Option<UserId>,
    /// What it is kept in.
    pub currency: Currency,
    /// What it is opened with.
    pub initial_deposit: Option<MoveMoney>,
}

/// What may be asked of one account. What is asked of two is a [`Transfer`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AccountCommand {
    /// Be opened.
    Open(Box<OpenAccount>),
    /// Take money.
    Deposit(MoveMoney),
    /// Give money.
    Withdraw(MoveMoney),
    /// Be closed.
    Close {
        /// Why, where it is said.
        reason: Option<String>,
    },
}

// ----------------------------------------------------------------------------------- refusals

/// Why an account refuses a command.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum AccountRefusal {
    /// There is no such account.
    #[error("there is no such account")]
    NotFound,
    /// An account of this id exists, or existed.
    #[error("an account with this id exists already")]
    AlreadyExists,
    /// The account was closed; no money moves on it any more.
    #[error("the account is closed")]
    Closed,
    /// The amount has decimals that the account's currency does not have.
    #[error("an amount in {currency} has at most {} decimals", .currency.decimals())]
    TooManyDecimals {
        /// What the account is kept in.
        currency: Currency,
    },
    /// The amount is in another currency than the account.
    #[error("the account is kept in {currency} and the amount is in {asked}")]
    OtherCurrency {
        /// What the account is kept in.
        currency: Currency,
        /// What the amount is in.
        asked: Currency,
    },
    /// There is less on the account than was asked for.
    #[error("{requested} was asked for and {balance} is there")]
    InsufficientFunds {
        /// What is there.
        balance: Money,
        /// What was asked for.
        requested: Money,
    },
    /// The account would hold more than an account can.
    #[error("the balance would be above {MAX_BALANCE}")]
    BalanceTooLarge {
        /// What is there.
        balance: Money,
        /// What was to come.
        requested: Money,
    },
    /// There is money on the account that was to be closed.
    #[error("{balance} is still on the account")]
    NotEmpty {
        /// What is there.
        balance: Money,
    },
}

// -------------------------------------------------------------------------------------- state

/// An account as its events made it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Account {
    /// Nothing happened yet.
    #[default]
    Absent,
    /// Money moves on it.
    Open(AccountDetails),
    /// It was closed, and is kept as it was.
    Closed(AccountDetails),
}

/// What is known about an account that exists or existed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AccountDetails {
    /// As it was opened. Shared, since a state is copied with every decision.
    pub opened: Arc<AccountOpened>,
    /// What is on it; never below 0.
    pub balance: Money,
}

impl Account {
    /// What is known about it, unless it never existed.
    #[must_use]
    pub const fn details(&self) -> Option<&AccountDetails> {
        match self {
            Self::Absent => None,
            Self::Open(details) | Self::Closed(details) => Some(details),
        }
    }

    /// Whether money moves on it; `None` when it never existed.
    #[must_use]
    pub const fn status(&self) -> Option<AccountStatus> {
        match self {
            Self::Absent => None,
            Self::Open(_) => Some(AccountStatus::Open),
            Self::Closed(_) => Some(AccountStatus::Closed),
        }
    }

    /// The account, on which money is to move.
    const fn open(&self) -> Result<&AccountDetails, AccountRefusal> {
        match self {
            Self::Absent => Err(AccountRefusal::NotFound),
            Self::Open(details) => Ok(details),
            Self::Closed(_) => Err(AccountRefusal::Closed),
        }
    }
}

// ----------------------------------------------------------------------------------- decisions

impl Aggregate for Account {
    const CATEGORY: &'static str = "account";
    const SNAPSHOT_VERSION: u16 = 1;

    type Command = AccountCommand;
    type Event = AccountEvent;
    type Refusal = AccountRefusal;

    fn decide(&self, command: &AccountCommand) -> Result<Vec<AccountEvent>, AccountRefusal> {
        match (self, command) {
            (Self::Absent, AccountCommand::Open(wanted)) => wanted.open(),
            (Self::Open(_) | Self::Closed(_), AccountCommand::Open(_)) => {
                Err(AccountRefusal::AlreadyExists)
            }
            (_, AccountCommand::Deposit(wanted)) => Ok(vec![self.open()?.deposit(wanted)?]),
            (_, AccountCommand::Withdraw(wanted)) => Ok(vec![self.open()?.withdraw(wanted)?]),
            (Self::Absent, AccountCommand::Close { .. }) => Err(AccountRefusal::NotFound),
            (Self::Open(account), AccountCommand::Close { reason }) => {
                Ok(vec![account.close(reason.as_deref())?])
            }
            (Self::Closed(_), AccountCommand::Close { .. }) => Ok(Vec::new()),
        }
    }

    fn evolve(self, event: &AccountEvent) -> Self {
        match (self, event) {
            (_, AccountEvent::Opened(opened)) => Self::Open(AccountDetails {
                opened: Arc::new(opened.clone()),
                balance: Money::ZERO,
            }),
            (Self::Open(account), AccountEvent::Closed(_)) => Self::Closed(account),
            (Self::Open(account), event) => Self::Open(match event.movement() {
                Some(movement) => AccountDetails {
                    balance: movement.balance,
                    ..account
                },
                None => account,
            }),
            // No decision leads here; a fact that cannot be placed changes nothing.
            (state @ (Self::Absent | Self::Closed(_)), _) => state,
        }
    }
}

impl OpenAccount {
    fn open(&self) -> Result<Vec<AccountEvent>, AccountRefusal> {
        let account = AccountDetails {
            opened: Arc::new(AccountOpened {
                account_id: self.account_id.clone(),
                holder_name: self.holder_name.clone(),
                user_id: self.user_id.clone(),
                currency: self.currency,
            }),
            balance: Money::ZERO,
        };
        let deposit = self
            .initial_deposit
            .as_ref()
            .map(|wanted| account.deposit(wanted))
            .transpose()?;
        let mut events = vec![AccountEvent::Opened(AccountOpened::clone(&account.opened))];
        events.extend(deposit);
        Ok(events)
    }
}

impl AccountDetails {
    fn deposit(&self, wanted: &MoveMoney) -> Result<AccountEvent, AccountRefusal> {
        self.check_currency(wanted)?;
        Ok(AccountEvent::Deposited(MoneyDeposited {
            account_id: self.opened.account_id.clone(),
            transaction_id: wanted.transaction_id.clone(),
            amount: wanted.amount.get(),
            balance: self.with(wanted.amount)?,
            description: wanted.description.clone(),
        }))
    }

    fn withdraw(&self, wanted: &MoveMoney) -> Result<AccountEvent, AccountRefusal> {
        self.check_currency(wanted)?;
        Ok(AccountEvent::Withdrawn(MoneyWithdrawn {
            account_id: self.opened.account_id.clone(),
            transaction_id: wanted.transaction_id.clone(),
            amount: wanted.amount.get(),
            balance: self.without(wanted.amount)?,
            description: wanted.description.clone(),
        }))
    }

    fn close(&self, reason: Option<&str>) -> Result<AccountEvent, AccountRefusal> {
        let balance = self.balance;
        if balance > Money::ZERO {
            return Err(AccountRefusal::NotEmpty { balance });
        }
        Ok(AccountEvent::Closed(AccountClosed {
            account_id: self.opened.account_id.clone(),
            reason: reason.map(str::to_owned),
        }))
    }

    /// The balance with an amount more.
    fn with(&self, amount: Amount) -> Result<Money, AccountRefusal> {
        self.check_decimals(amount)?;
        self.balance
            .checked_add(amount.get())
            .filter(|after| *after <= MAX_BALANCE)
            .ok_or(AccountRefusal::BalanceTooLarge {
                balance: self.balance,
                requested: amount.get(),
            })
    }

    /// The balance with an amount less.
    fn without(&self, amount: Amount) -> Result<Money, AccountRefusal> {
        self.check_decimals(amount)?;
        self.balance
            .checked_sub(amount.get())
            .filter(|after| *after >= Money::ZERO)
            .ok_or(AccountRefusal::InsufficientFunds {
                balance: self.balance,
                requested: amount.get(),
            })
    }

    fn check_currency(&self, wanted: &MoveMoney) -> Result<(), AccountRefusal> {
        let currency = self.opened.currency;
        match wanted.currency {
            Some(asked) if asked != currency => {
                Err(AccountRefusal::OtherCurrency { currency, asked })
            }
            Some(_) | None => Ok(()),
        }
    }

    fn check_decimals(&self, amount: Amount) -> Result<(), AccountRefusal> {
        let currency = self.opened.currency;
        if currency.can_express(amount.get()) {
            Ok(())
        } else {
            Err(AccountRefusal::TooManyDecimals { currency })
        }
    }
}
