//! What is to happen in the world because of orders.

pub mod notifications;
pub mod receipts;

use millrace_contracts::ordering::OrderingEvent;
use millrace_es::{DecodeError, DomainEvent, RecordedEvent};

use crate::order::OrderEvent;

/// Reads what others may know of an event of this context. Of an event that this release does not
/// know it says so: an effect must not be left out because the reader is old.
fn public(event: &RecordedEvent) -> Result<Option<OrderingEvent>, DecodeError> {
    OrderEvent::decode(&event.event_type, event.schema_version, &event.payload)?;
    OrderingEvent::decode(event)
}
