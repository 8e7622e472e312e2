//! Values that every part of Millrace shares: money, identifiers, time, paging.
//!
//! Nothing in here does I/O, reads a clock or knows about events.

mod id;
mod money;
#[cfg(any(feature = "json-schema", feature = "openapi"))]
mod schema;
mod time;

pub use id::{EntityId, InvalidId, MAX_ID_BYTES};
pub use money::{EXACT_NUMBER, Money, MoneyError};
#[cfg(feature = "openapi")]
pub use schema::{IdInput, MoneyInput};
pub use time::{TimeBound, TimeBoundError, Timestamp, TimestampError};
