//! What the queries of every context share: how a read is made as fresh as it was asked to be, from
//! a read model or from the event log, and what its failures mean to a client.

mod history;
mod log;
mod model;

pub use history::{HistoryEvent, history_page};
pub use log::{head_token, same_log, wait_for_log};
pub use model::{Found, facts_of_others, from_dynamodb, from_postgres, observe, unreadable};

use millrace_http::{FieldError, PageRequest, Part, Problem};

pub(crate) const EPOCH_OVER: &str = "is of an earlier life of the log, whose end was lost; read without it and check what became \
     of the write";
pub(crate) const FOREIGN_CONTEXT: &str = "is of a context that this query does not read";

/// 422 for `at_least`.
pub(crate) fn invalid_token(reason: &'static str) -> Problem {
    invalid_parameter("at_least", reason)
}

/// 422 for one parameter of the query string.
#[must_use]
pub fn invalid_parameter(name: &str, reason: impl Into<String>) -> Problem {
    let pointer = format!("/{name}");
    Problem::invalid(vec![FieldError::new(Part::Query, pointer, reason.into())])
}

/// How many rows to ask PostgreSQL for: one more than the page has shows whether there is another.
#[must_use]
pub fn more_than(page: &PageRequest) -> i64 {
    i64::try_from(page.limit)
        .unwrap_or(i64::MAX)
        .saturating_add(1)
}
