//! Values that every part of Millrace shares: money, identifiers, time, paging.
//!
//! Nothing in here does I/O, reads a clock or knows about events.

mod id;
mod money;
mod time;

pub use id::{EntityId, InvalidId, MAX_ID_BYTES};
pub use money::{Money, MoneyError};
pub use time::{Timestamp, TimestampError};
