//! What is to happen in the world because of orders.

pub mod notifications;
pub mod receipts;

use millrace_contracts::ordering::OrderingEvent;
use millrace_es::{DecodeError, RecordedEvent};

use crate::order::stored::order_event;

/// Reads what others may know of an event of this context. Of an event that this release does not
/// know it says so: an effect must not be left out because the reader is old. What happens to a
/// payment is nobody else's affair.
fn public(event: &RecordedEvent) -> Result<Option<OrderingEvent>, DecodeError> {
    if order_event(event)?.is_none() {
        return Ok(None);
    }
    OrderingEvent::decode(event)
}
