use std::collections::BTreeMap;

use rust_decimal::Decimal;

use crate::check::log::LoggedEvent;

/// What an acknowledged command did to its order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// It was created.
    Created,
    /// It took a status.
    Status(&'static str),
    /// It was deleted.
    Deleted,
}

/// What was acknowledged of one order, in order. One worker owns an order, so this is all that
/// may be in the log.
#[derive(Debug, Clone)]
pub struct OrderHistory {
    /// Who ordered.
    pub user: String,
    /// What it costs.
    pub amount: Decimal,
    /// What happened.
    pub steps: Vec<Step>,
    /// `Log-Position` of the last write.
    pub token: String,
}

impl OrderHistory {
    /// The status it has now.
    #[must_use]
    pub fn status(&self) -> &'static str {
        self.steps
            .iter()
            .rev()
            .find_map(|step| match step {
                Step::Status(status) => Some(*status),
                Step::Created => Some("PENDING"),
                Step::Deleted => None,
            })
            .unwrap_or("PENDING")
    }

    /// Whether it is gone.
    #[must_use]
    pub fn deleted(&self) -> bool {
        self.steps.last() == Some(&Step::Deleted)
    }
}

/// What the workers of a [`crate::Load`] saw.
#[derive(Debug, Default)]
pub struct History {
    /// The orders whose creation was acknowledged.
    pub orders: BTreeMap<String, OrderHistory>,
    /// Answers that break a promise of the contract.
    pub violations: Vec<String>,
    /// Requests sent, repeats included.
    pub requests: u64,
    /// Outcomes that were not known at first: no answer, or a 5xx.
    pub unknown: u64,
    /// Answers that said `Idempotent-Replayed: true`.
    pub replayed: u64,
    /// Server errors (5xx) among the answers.
    pub server_errors: u64,
    /// Reads with `at_least` or `consistency=strong` that were answered with 200.
    pub reads: u64,
}

impl History {
    /// Takes in what another worker saw.
    pub fn merge(&mut self, other: Self) {
        self.orders.extend(other.orders);
        self.violations.extend(other.violations);
        self.requests += other.requests;
        self.unknown += other.unknown;
        self.replayed += other.replayed;
        self.server_errors += other.server_errors;
        self.reads += other.reads;
    }

    /// Forgets what is not in a log that was put back to an earlier point for good. Tokens become
    /// bare positions of that log.
    pub fn give_up_beyond(&mut self, events: &[LoggedEvent]) {
        let token = format!("ordering/{}", events.len());
        self.orders.retain(|id, order| {
            let stream = format!("order-{id}");
            let left = events.iter().filter(|event| event.stream == stream).count();
            order.steps.truncate(left);
            order.token.clone_from(&token);
            left > 0
        });
    }

    /// How many events the acknowledged commands made.
    #[must_use]
    pub fn events(&self) -> usize {
        self.orders.values().map(|order| order.steps.len()).sum()
    }
}
