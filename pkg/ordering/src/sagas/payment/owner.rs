//! The bank behind banking's internal endpoint.

use async_trait::async_trait;
use millrace_contracts::banking::{MoveMoney, TransactionAnswer, VoidTransaction};
use millrace_internal::OwnerClient;
use millrace_sagas::NoAnswer;
use serde::Serialize;

use super::{Bank, TransactionId};

/// Asks the owner of banking. What it calls a mistake (another movement under the same id) says
/// nothing of whether money moved, and so is no answer: a person has to look at it.
#[derive(Debug, Clone)]
pub struct OwnerBank {
    owner: OwnerClient,
}

impl OwnerBank {
    /// Of this owner.
    #[must_use]
    pub const fn new(owner: OwnerClient) -> Self {
        Self { owner }
    }

    async fn ask(
        &self,
        id: &TransactionId,
        what: &str,
        body: &(impl Serialize + Sync),
    ) -> Result<TransactionAnswer, NoAnswer> {
        let path = ["transactions", id.as_str(), what];
        let answer = self.owner.post(&path, body).await;
        answer.map_err(|error| NoAnswer(error.into()))
    }
}

#[async_trait]
impl Bank for OwnerBank {
    async fn withdraw(
        &self,
        id: &TransactionId,
        wanted: &MoveMoney,
    ) -> Result<TransactionAnswer, NoAnswer> {
        self.ask(id, "withdrawal", wanted).await
    }

    async fn deposit(
        &self,
        id: &TransactionId,
        wanted: &MoveMoney,
    ) -> Result<TransactionAnswer, NoAnswer> {
        self.ask(id, "deposit", wanted).await
    }

    async fn void(
        &self,
        id: &TransactionId,
        wanted: &VoidTransaction,
    ) -> Result<TransactionAnswer, NoAnswer> {
        self.ask(id, "void", wanted).await
    }
}
