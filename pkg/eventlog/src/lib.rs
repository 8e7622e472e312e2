//! The event log: one per context, every event at a gapless position in commit order.
//!
//! [`EventLog`] is the contract; `postgres` is the backend that keeps it in PostgreSQL, and
//! `conformance` the suite that every backend passes whole.

mod contract;

pub use contract::{
    Answer, AnswerKey, AppendError, AppendRequest, Appended, EventLog, ExpectedVersion, LogError,
    LogHead, Reservation, SnapshotRecord, StoredAnswer, StreamAppend,
};
