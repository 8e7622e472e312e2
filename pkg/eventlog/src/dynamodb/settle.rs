//! Finding out what became of a transaction that was not answered.

use std::time::{Duration, Instant};

use tokio::time::{sleep, timeout};

use super::{
    calls::{Expression, Table},
    failure::Failure,
    items::{self, GUARD},
    store::Store,
    values::{PK, number},
};
use crate::lane::plan::Plan;

/// How long an open transaction is looked after before its appends are told that it is not known.
const SETTLE_MS: u64 = 10_000;
/// The pause between two looks.
const SETTLE_PAUSE_MS: u64 = 200;

impl Store {
    /// Finds out whether a batch whose transaction was not answered is there. First the head's guard
    /// is moved: a transaction still on its way then finds its condition broken, and one in the
    /// middle is waited for. What is read after that stays so.
    pub(super) async fn settle(&mut self, plan: &Plan<'_>) -> Result<bool, Failure> {
        let deadline = Instant::now() + Duration::from_millis(SETTLE_MS);
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let failure = match timeout(left, self.is_there(plan)).await {
                Ok(Ok(there)) => return Ok(there),
                Ok(Err(fatal @ Failure::Fatal(_))) => return Err(fatal),
                Ok(Err(failure)) => failure,
                Err(_) => {
                    return Err(Failure::open(format!(
                        "settling a transaction took more than {SETTLE_MS} ms"
                    )));
                }
            };
            tracing::warn!(context = %self.context, ?failure, "a transaction's outcome is still open");
            sleep(Duration::from_millis(SETTLE_PAUSE_MS)).await;
        }
    }

    async fn is_there(&self, plan: &Plan<'_>) -> Result<bool, Failure> {
        fence(&self.table).await?;
        if let Some(first) = plan.rows.first() {
            let key = items::event_key(first.stream, first.version);
            let found = self.table.get_settled(vec![key]).await?;
            let Some(Some(item)) = found.first() else {
                return Ok(false);
            };
            return Ok(items::event_id(item)? == first.event.id);
        }
        if let Some(first) = plan.kept.first() {
            let key = items::answer_key(&first.key.key_hash);
            let found = self.table.get_settled(vec![key]).await?;
            let Some(Some(item)) = found.first() else {
                return Ok(false);
            };
            let (stored, _) = items::answer_from(item)?;
            return Ok(stored.key == *first.key
                && stored.answer == *first.answer
                && stored.token == first.token);
        }
        // Nothing was to be written, only held to the truth: that is done again.
        Ok(false)
    }
}

/// Makes sure that no transaction decided before can take effect after this.
async fn fence(table: &Table) -> Result<(), Failure> {
    let mut expression = Expression::default();
    let condition = format!("attribute_exists({})", expression.name(PK));
    let change = format!(
        "ADD {} {}",
        expression.name(GUARD),
        expression.value(number(1))
    );
    let update = table
        .updating(items::head_key())
        .update_expression(change)
        .condition_expression(condition)
        .set_expression_attribute_names(Some(expression.names))
        .set_expression_attribute_values(Some(expression.values));
    table.update(update).await.map(|_| ())
}
