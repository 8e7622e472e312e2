//! What a payment touches: the bank, and the order that it pays.

use std::{fmt, sync::Arc};

use async_trait::async_trait;
use millrace_contracts::banking::{
    MoveMoney, RefusalReason, TransactionAnswer, TransactionDone, TransactionRefused,
    VoidTransaction,
};
use millrace_es::{Aggregate, Metadata, StreamId, StreamVersion};
use millrace_eventlog::{
    Answer, AppendError, Execute, ExecuteError, ExpectedVersion, LoadError, Outcome, Repository,
    StreamAppend, encode_events,
};
use millrace_kernel::{EntityId, Timestamp};
use millrace_sagas::{NoAnswer, Port, RecordError, Recorded};

use super::{News, Payment, PaymentCommand, PaymentRequested, PaymentStep, TransactionId};
use crate::order::{Order, OrderCommand};

/// The longest reason that is kept of a withdrawal without an answer, in characters.
const MAX_KEPT_REASON_CHARS: usize = 300;

/// The bank, as `millrace_contracts::banking` has it. Everything that does not say what became of the
/// id is [`NoAnswer`].
#[async_trait]
pub trait Bank: Send + Sync {
    /// Withdraws, unless the id is decided already.
    ///
    /// # Errors
    /// [`NoAnswer`]: it may have been done or not.
    async fn withdraw(
        &self,
        id: &TransactionId,
        wanted: &MoveMoney,
    ) -> Result<TransactionAnswer, NoAnswer>;

    /// Pays in, unless the id is decided already.
    ///
    /// # Errors
    /// [`NoAnswer`]: it may have been done or not.
    async fn deposit(
        &self,
        id: &TransactionId,
        wanted: &MoveMoney,
    ) -> Result<TransactionAnswer, NoAnswer>;

    /// Makes sure that the id is decided, and never moves money if it did not.
    ///
    /// # Errors
    /// [`NoAnswer`]: it may have been done or not.
    async fn void(
        &self,
        id: &TransactionId,
        wanted: &VoidTransaction,
    ) -> Result<TransactionAnswer, NoAnswer>;
}

/// The answer is about another movement than was asked for.
#[derive(Debug, thiserror::Error)]
#[error("the bank answered for transaction {answered} when {asked} was asked for")]
struct OtherTransaction {
    answered: EntityId,
    asked: EntityId,
}

/// Performs the steps of payments, and keeps what came of them together with their orders.
pub struct PaymentPort {
    orders: Arc<Repository<Order>>,
    payments: Arc<Repository<Payment>>,
    bank: Arc<dyn Bank>,
}

impl fmt::Debug for PaymentPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PaymentPort").finish_non_exhaustive()
    }
}

impl PaymentPort {
    /// Orders and payments of one log, and the bank that moves the money.
    #[must_use]
    pub fn new(
        orders: Arc<Repository<Order>>,
        payments: Arc<Repository<Payment>>,
        bank: Arc<dyn Bank>,
    ) -> Self {
        Self {
            orders,
            payments,
            bank,
        }
    }

    /// Appends what only the payment has to know.
    async fn record_alone(
        &self,
        id: &EntityId,
        version: StreamVersion,
        command: PaymentCommand,
    ) -> Result<(), ExecuteError> {
        let execute = Execute {
            id,
            command,
            if_match: Some(version),
            metadata: metadata(id),
            key: None,
            new: false,
        };
        let respond = |_: Outcome<'_, Payment>| nothing();
        self.payments.execute(execute, respond).await.map(drop)
    }

    /// Appends what the payment came to together with what that makes of the order, so that "paid"
    /// and "CONFIRMED" are never seen apart.
    async fn record_with_order(
        &self,
        id: &EntityId,
        (payment, version): (&Payment, StreamVersion),
        command: PaymentCommand,
        settle: OrderCommand,
    ) -> Result<(), ExecuteError> {
        let metadata = Arc::new(metadata(id));
        let stream = StreamId::of(Payment::CATEGORY, id);
        let beside = |outcome: Outcome<'_, Order>| {
            let (Outcome::Done { state, .. } | Outcome::Refused { state, .. }) = outcome;
            let mut command = command.clone();
            if let News::Withdrawn { wanted } = &mut command.news {
                *wanted = state.is_wanted();
            }
            let Ok(events) = payment.decide(&command);
            Ok(vec![StreamAppend {
                stream: stream.clone(),
                expected: ExpectedVersion::Exact(version),
                events: encode_events(&events, &metadata)?,
            }])
        };
        let execute = Execute {
            id,
            command: settle,
            if_match: None,
            metadata: (*metadata).clone(),
            key: None,
            new: false,
        };
        let respond = |_: Outcome<'_, Order>| nothing();
        self.orders
            .execute_beside(execute, beside, respond)
            .await
            .map(drop)
    }
}

#[async_trait]
impl Port<Payment> for PaymentPort {
    async fn look(
        &self,
        id: &EntityId,
        payment: &Payment,
    ) -> Result<Option<PaymentCommand>, LoadError> {
        if !payment.may_be_called_off() {
            return Ok(None);
        }
        let (order, _) = self.orders.load(id).await?;
        Ok((!order.is_wanted()).then(|| now(News::CalledOff)))
    }

    async fn perform(
        &self,
        id: &EntityId,
        payment: &Payment,
        step: &PaymentStep,
    ) -> Result<PaymentCommand, NoAnswer> {
        let Some(requested) = payment.requested() else {
            // A payment that nobody asked for has no step.
            return Err(NoAnswer("the payment was never asked for".into()));
        };
        let news = match step {
            PaymentStep::Withdraw => {
                let wanted = movement(requested, format!("Order {id}"));
                let asked = &requested.transaction_id;
                withdrawn(about(asked, self.bank.withdraw(asked, &wanted).await?)?)
            }
            PaymentStep::Void => {
                let wanted = VoidTransaction {
                    account_id: requested.account_id.get().clone(),
                };
                let asked = &requested.transaction_id;
                withdrawn(about(asked, self.bank.void(asked, &wanted).await?)?)
            }
            PaymentStep::Refund => {
                let wanted = movement(requested, format!("Refund of order {id}"));
                let asked = &requested.refund_transaction_id;
                refunded(about(asked, self.bank.deposit(asked, &wanted).await?)?)
            }
        };
        Ok(now(news))
    }

    fn unanswered(&self, _: &Payment, step: &PaymentStep, reason: &str) -> Option<PaymentCommand> {
        match step {
            PaymentStep::Withdraw => Some(now(News::NoAnswer {
                reason: reason.chars().take(MAX_KEPT_REASON_CHARS).collect(),
            })),
            // These are asked until they are answered, however long that takes.
            PaymentStep::Void | PaymentStep::Refund => None,
        }
    }

    async fn record(
        &self,
        id: &EntityId,
        (payment, version): (&Payment, StreamVersion),
        command: PaymentCommand,
    ) -> Result<Recorded, RecordError> {
        let settle = settles(payment, &command);
        let recorded = match settle {
            Some(settle) => {
                self.record_with_order(id, (payment, version), command, settle)
                    .await
            }
            None => self.record_alone(id, version, command).await,
        };
        match recorded {
            Ok(()) => Ok(Recorded::Taken),
            Err(
                ExecuteError::VersionMismatch { .. }
                | ExecuteError::Append(AppendError::Conflict { .. }),
            ) => Ok(Recorded::Overtaken),
            Err(error) => Err(error.into()),
        }
    }
}

/// What news of a payment make of its order, if they make anything.
fn settles(payment: &Payment, command: &PaymentCommand) -> Option<OrderCommand> {
    payment.in_doubt()?;
    let at = command.at;
    let cancelled = |reason: String| OrderCommand::Settle {
        paid: false,
        reason: Some(reason),
        at,
    };
    match &command.news {
        News::Withdrawn { .. } => Some(OrderCommand::Settle {
            paid: true,
            reason: None,
            at,
        }),
        News::Refused { reason } => Some(cancelled(format!("payment refused: {reason}"))),
        News::Voided => Some(cancelled(
            "payment not made: the bank did not answer in time".to_owned(),
        )),
        News::NoAnswer { .. } | News::CalledOff | News::Refunded | News::RefundRefused { .. } => {
            None
        }
    }
}

fn movement(requested: &PaymentRequested, description: String) -> MoveMoney {
    MoveMoney {
        account_id: requested.account_id.get().clone(),
        amount: requested.amount,
        currency: requested.currency.as_str().to_owned(),
        description: Some(description),
    }
}

/// An answer about what was asked for.
fn about(asked: &TransactionId, answer: TransactionAnswer) -> Result<TransactionAnswer, NoAnswer> {
    let (TransactionAnswer::Done(TransactionDone { transaction_id, .. })
    | TransactionAnswer::Refused(TransactionRefused { transaction_id, .. })) = &answer;
    if transaction_id == asked.get() {
        return Ok(answer);
    }
    let other = OtherTransaction {
        answered: transaction_id.clone(),
        asked: asked.get().clone(),
    };
    Err(NoAnswer(other.into()))
}

fn withdrawn(answer: TransactionAnswer) -> News {
    match answer {
        // Whether the order is wanted is looked up with the append.
        TransactionAnswer::Done(_) => News::Withdrawn { wanted: true },
        TransactionAnswer::Refused(refused) if refused.reason == RefusalReason::Voided => {
            News::Voided
        }
        TransactionAnswer::Refused(refused) => News::Refused {
            reason: sentence(&refused),
        },
    }
}

fn refunded(answer: TransactionAnswer) -> News {
    match answer {
        TransactionAnswer::Done(_) => News::Refunded,
        TransactionAnswer::Refused(refused) => News::RefundRefused {
            reason: sentence(&refused),
        },
    }
}

fn sentence(refused: &TransactionRefused) -> String {
    format!("{} ({})", refused.detail, refused.reason.as_str())
}

pub(super) fn now(news: News) -> PaymentCommand {
    PaymentCommand {
        at: Timestamp::now(),
        news,
    }
}

/// The metadata of what a payment does by itself.
fn metadata(id: &EntityId) -> Metadata {
    Metadata {
        correlation_id: StreamId::of(Payment::CATEGORY, id).to_string(),
        actor: Some("payment".to_owned()),
        ..Metadata::default()
    }
}

/// Nobody is answered: what came of it is in the log.
fn nothing() -> Answer {
    Answer {
        status: 204,
        headers: Vec::new(),
        body: Vec::new().into(),
    }
}
