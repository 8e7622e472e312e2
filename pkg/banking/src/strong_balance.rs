//! Balances that the append's own transaction keeps: as new as the last append that was
//! acknowledged, and read without folding a stream.
//!
//! A transfer writes both its accounts in one transaction, so neither of them is ever seen alone
//! with its side of it. Each backend of the log keeps its own rows and gives a [`StrongBalance`]
//! that reads them: [`PgBalances`] where the log is in PostgreSQL, [`DynamoBalances`] where it is in
//! DynamoDB.
//!
//! [`DynamoBalances`]: crate::DynamoBalances

use async_trait::async_trait;
use millrace_eventlog::LogError;
use sqlx::PgPool;

use crate::{account::AccountId, inline::AccountsRow, views::account_balance::BalanceRow};

/// Where balances are read that no projection has to reach first.
#[async_trait]
pub trait StrongBalance: Send + Sync {
    /// What is on an account now, `None` when there is none: never less than nothing, and never
    /// older than what any append had been answered when this was called.
    ///
    /// # Errors
    /// [`LogError::Unreachable`] when the store does not answer, [`LogError::Corrupt`] when a row
    /// is not as it is written.
    async fn balance(&self, id: &AccountId) -> Result<Option<BalanceRow>, LogError>;
}

/// The rows of the write model's table `accounts`, in the database of the event log.
#[derive(Debug, Clone)]
pub struct PgBalances {
    pool: PgPool,
}

impl PgBalances {
    /// Reads through connections to the primary of the event log: a replica may be older than what
    /// was acknowledged.
    #[must_use]
    pub const fn new(pool: PgPool) -> Self {
        Self { pool }
    }
}

#[async_trait]
impl StrongBalance for PgBalances {
    async fn balance(&self, id: &AccountId) -> Result<Option<BalanceRow>, LogError> {
        let row = AccountsRow::by_id(&self.pool, id).await;
        let row = row.map_err(|error| match error {
            sqlx::Error::Decode(_) | sqlx::Error::ColumnDecode { .. } => {
                LogError::Corrupt(format!("the balance of account {id}: {error}"))
            }
            error => LogError::Unreachable(error.into()),
        })?;
        Ok(row.map(|row| BalanceRow {
            account_id: row.account_id,
            balance: row.balance,
            currency: row.currency,
            status: row.status,
            version: row.version,
        }))
    }
}
