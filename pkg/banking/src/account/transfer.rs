//! Money that goes from one account to another: one decision on both, which happens to both or to
//! neither.

use super::{
    Account, AccountEvent, AccountId, AccountRefusal, Amount, Currency, TransactionId, TransferId,
    TransferReceived, TransferSent,
};

/// Asks for a transfer between two different accounts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Transfer {
    transfer_id: TransferId,
    from: Side,
    to: Side,
    amount: Amount,
    description: Option<String>,
}

/// One account of a transfer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Side {
    /// The account.
    pub account_id: AccountId,
    /// The id that the movement on it will have.
    pub transaction_id: TransactionId,
}

/// A transfer that is none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InvalidTransfer {
    /// It would lead to where it begins.
    #[error("must be another account than from_account_id")]
    ToItself,
}

/// Why two accounts refuse a transfer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TransferRefusal {
    /// The account that was to send refuses.
    #[error("{0}")]
    From(AccountRefusal),
    /// The account that was to receive refuses.
    #[error("{0}")]
    To(AccountRefusal),
    /// The accounts are kept in different currencies; nothing is exchanged here.
    #[error("the one account is kept in {from} and the other in {to}")]
    CurrenciesDiffer {
        /// What the sending account is kept in.
        from: Currency,
        /// What the receiving account is kept in.
        to: Currency,
    },
}

impl Transfer {
    /// Asks for an amount to go from one account to the other.
    ///
    /// # Errors
    /// [`InvalidTransfer`] when both are the same account.
    pub fn new(
        transfer_id: TransferId,
        from: Side,
        to: Side,
        amount: Amount,
        description: Option<String>,
    ) -> Result<Self, InvalidTransfer> {
        if from.account_id == to.account_id {
            return Err(InvalidTransfer::ToItself);
        }
        Ok(Self {
            transfer_id,
            from,
            to,
            amount,
            description,
        })
    }

    /// The transfer's id.
    #[must_use]
    pub const fn transfer_id(&self) -> &TransferId {
        &self.transfer_id
    }

    /// The account that sends.
    #[must_use]
    pub const fn from(&self) -> &Side {
        &self.from
    }

    /// The account that receives.
    #[must_use]
    pub const fn to(&self) -> &Side {
        &self.to
    }

    /// How much.
    #[must_use]
    pub const fn amount(&self) -> Amount {
        self.amount
    }

    /// What it is for.
    #[must_use]
    pub fn description(&self) -> Option<&str> {
        self.description.as_deref()
    }

    /// Decides on both accounts, the sending one first: the events of each, which belong together.
    /// What is wrong with the sending account is said before what is wrong with the receiving one.
    ///
    /// # Errors
    /// See [`TransferRefusal`].
    pub fn decide(
        &self,
        [from, to]: [&Account; 2],
    ) -> Result<[Vec<AccountEvent>; 2], TransferRefusal> {
        let sender = from.open().map_err(TransferRefusal::From)?;
        let receiver = to.open().map_err(TransferRefusal::To)?;
        let currencies = [sender, receiver].map(|account| account.opened.currency);
        if currencies[0] != currencies[1] {
            let [from, to] = currencies;
            return Err(TransferRefusal::CurrenciesDiffer { from, to });
        }
        let sent = TransferSent {
            account_id: self.from.account_id.clone(),
            transaction_id: self.from.transaction_id.clone(),
            transfer_id: self.transfer_id.clone(),
            to_account_id: self.to.account_id.clone(),
            amount: self.amount.get(),
            balance: sender.without(self.amount).map_err(TransferRefusal::From)?,
            description: self.description.clone(),
        };
        let received = TransferReceived {
            account_id: self.to.account_id.clone(),
            transaction_id: self.to.transaction_id.clone(),
            transfer_id: self.transfer_id.clone(),
            from_account_id: self.from.account_id.clone(),
            amount: self.amount.get(),
            balance: receiver.with(self.amount).map_err(TransferRefusal::To)?,
            description: self.description.clone(),
        };
        Ok([
            vec![AccountEvent::Sent(sent)],
            vec![AccountEvent::Received(received)],
        ])
    }
}
