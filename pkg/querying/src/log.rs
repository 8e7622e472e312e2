//! Reads from the event log.

use std::time::Duration;

use millrace_es::LogToken;
use millrace_eventlog::EventLog;
use millrace_http::{Consistency, Problem};
use tokio::time::Instant;

use crate::{EPOCH_OVER, FOREIGN_CONTEXT, invalid_token};

/// How often the log is asked again while a reader waits for a position, in milliseconds.
const WAIT_POLL_MS: u64 = 50;

/// Where the event log stands, as an answer from it says.
///
/// # Errors
/// 503 when the log cannot be reached.
pub async fn head_token(log: &dyn EventLog) -> Result<LogToken, Problem> {
    let head = log.head().await?;
    Ok(LogToken {
        context: log.context().clone(),
        position: head.position,
        epoch: Some(head.epoch),
        partitions: Vec::new(),
    })
}

/// Refuses a position of another log, or of a life of this one that is over.
///
/// # Errors
/// 422 for `at_least`.
pub fn same_log(head: &LogToken, wanted: &LogToken) -> Result<(), Problem> {
    if wanted.context != head.context {
        return Err(invalid_token(FOREIGN_CONTEXT));
    }
    match (wanted.epoch, head.epoch) {
        (Some(wanted), Some(current)) if wanted < current => Err(invalid_token(EPOCH_OVER)),
        _ => Ok(()),
    }
}

/// The log's head, once it is where the reader wants it: at once, unless the position is none that
/// this log ever gave.
///
/// # Errors
/// 504 when it did not get there in time, 422 for a position of another log, 503 when the log
/// cannot be reached.
pub async fn wait_for_log(
    log: &dyn EventLog,
    consistency: &Consistency,
) -> Result<LogToken, Problem> {
    let mut head = head_token(log).await?;
    let Consistency::AtLeast { token, wait } = consistency else {
        return Ok(head);
    };
    same_log(&head, token)?;
    let deadline = Instant::now() + *wait;
    while head.position < token.position {
        if Instant::now() >= deadline {
            return Err(Problem::not_yet_readable(token, Some(head.position), *wait));
        }
        tokio::time::sleep(Duration::from_millis(WAIT_POLL_MS)).await;
        head = head_token(log).await?;
    }
    Ok(head)
}
