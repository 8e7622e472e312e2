//! A bank that keeps the contract of banking, in memory, and can be told to misbehave. The real one
//! is met where both contexts may be known.

use std::{collections::HashMap, sync::Mutex};

use async_trait::async_trait;
use millrace_contracts::banking::{
    MoveMoney, RefusalReason, TransactionAnswer, TransactionDone, TransactionKind,
    TransactionRefused, VoidTransaction,
};
use millrace_kernel::Money;
use millrace_ordering::sagas::payment::{Bank, TransactionId};
use millrace_sagas::NoAnswer;

/// How the bank answers withdrawals.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Withdrawals {
    /// As it should.
    Answered,
    /// They are made, and nobody hears of it.
    MadeInSilence,
    /// They are not made, and nobody hears of it.
    Ignored,
}

struct Book {
    balance: Money,
    open: bool,
    withdrawals: Withdrawals,
    /// Whether nothing is answered at all.
    down: bool,
    known: HashMap<TransactionId, TransactionAnswer>,
    moves: u32,
}

/// The bank, with one account.
pub struct ModelBank(Mutex<Book>);

fn silence() -> NoAnswer {
    NoAnswer("the bank says nothing".into())
}

impl ModelBank {
    /// An account with this on it.
    pub fn holding(balance: &str, withdrawals: Withdrawals) -> Self {
        Self(Mutex::new(Book {
            balance: balance.parse().unwrap(),
            open: true,
            withdrawals,
            down: false,
            known: HashMap::new(),
            moves: 0,
        }))
    }

    pub fn balance(&self) -> String {
        self.0.lock().unwrap().balance.to_string()
    }

    /// How often money moved.
    pub fn moves(&self) -> u32 {
        self.0.lock().unwrap().moves
    }

    pub fn close(&self) {
        self.0.lock().unwrap().open = false;
    }

    pub fn set_down(&self, down: bool) {
        self.0.lock().unwrap().down = down;
    }

    fn take(
        &self,
        id: &TransactionId,
        wanted: &MoveMoney,
        kind: TransactionKind,
    ) -> TransactionAnswer {
        let mut book = self.0.lock().unwrap();
        if let Some(known) = book.known.get(id) {
            return known.clone();
        }
        let after = match kind {
            TransactionKind::Withdrawal => book.balance.checked_sub(wanted.amount),
            TransactionKind::Deposit => book.balance.checked_add(wanted.amount),
        };
        let refused = |reason| {
            TransactionAnswer::Refused(TransactionRefused {
                transaction_id: id.get().clone(),
                account_id: wanted.account_id.clone(),
                reason,
                detail: format!("refused: {reason:?}"),
            })
        };
        let answer = match after.filter(|after| *after >= Money::ZERO) {
            _ if !book.open => refused(RefusalReason::Closed),
            None => refused(RefusalReason::InsufficientFunds),
            Some(balance) => {
                book.balance = balance;
                book.moves += 1;
                TransactionAnswer::Done(TransactionDone {
                    transaction_id: id.get().clone(),
                    account_id: wanted.account_id.clone(),
                    kind,
                    amount: wanted.amount,
                    currency: wanted.currency.clone(),
                    balance,
                })
            }
        };
        book.known.insert(id.clone(), answer.clone());
        answer
    }

    fn is_down(&self) -> bool {
        self.0.lock().unwrap().down
    }
}

#[async_trait]
impl Bank for ModelBank {
    async fn withdraw(
        &self,
        id: &TransactionId,
        wanted: &MoveMoney,
    ) -> Result<TransactionAnswer, NoAnswer> {
        let withdrawals = self.0.lock().unwrap().withdrawals;
        if self.is_down() || withdrawals == Withdrawals::Ignored {
            return Err(silence());
        }
        let answer = self.take(id, wanted, TransactionKind::Withdrawal);
        match withdrawals {
            Withdrawals::Answered => Ok(answer),
            Withdrawals::MadeInSilence | Withdrawals::Ignored => Err(silence()),
        }
    }

    async fn deposit(
        &self,
        id: &TransactionId,
        wanted: &MoveMoney,
    ) -> Result<TransactionAnswer, NoAnswer> {
        if self.is_down() {
            return Err(silence());
        }
        Ok(self.take(id, wanted, TransactionKind::Deposit))
    }

    async fn void(
        &self,
        id: &TransactionId,
        wanted: &VoidTransaction,
    ) -> Result<TransactionAnswer, NoAnswer> {
        if self.is_down() {
            return Err(silence());
        }
        let mut book = self.0.lock().unwrap();
        let voided = TransactionAnswer::Refused(TransactionRefused {
            transaction_id: id.get().clone(),
            account_id: wanted.account_id.clone(),
            reason: RefusalReason::Voided,
            detail: "voided".to_owned(),
        });
        Ok(book.known.entry(id.clone()).or_insert(voided).clone())
    }
}
