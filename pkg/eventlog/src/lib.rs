//! The event log: one per context, every event at a gapless position in commit order.
//!
//! [`EventLog`] is the contract; [`PgEventLog`] keeps it in PostgreSQL and
//! [`dynamodb::DynamoEventLog`] in DynamoDB, [`Repository`] runs aggregates on it, and
//! [`conformance`] is the suite that every backend passes whole.

mod backoff;
mod contract;
mod feed;
mod halted;
mod lane;
mod pages;
mod postgres;
mod repository;

pub mod conformance;
pub mod dynamodb;

pub use backoff::{Backoff, jittered};
pub use contract::{
    Answer, AnswerKey, AppendError, AppendRequest, Appended, EventLog, ExpectedVersion, LogError,
    LogHead, SnapshotRecord, StoredAnswer, StreamAppend,
};
pub use feed::{EventFeed, LogFeed};
pub use lane::{
    Faults, LaneStep,
    limits::{MAX_APPEND_BYTES, MAX_APPEND_EVENTS, MAX_APPEND_STREAMS, MAX_PAYLOAD_BYTES},
};
pub use millrace_es::Reservation;
pub use pages::{MAX_PAGE_BYTES, MAX_PAGE_EVENTS, events_after, is_last, pages_after};
pub use postgres::{Migration, PgEventLog, PgInlineTable, PgLogOptions, log_head, migrate};
pub use repository::{
    DEFAULT_CACHED_AGGREGATES, DEFAULT_SNAPSHOT_EVERY, Execute, ExecuteAcross, ExecuteError,
    Executed, LoadError, MAX_EXECUTE_ATTEMPTS, Outcome, OutcomeAcross, Repository,
    RepositoryOptions, encode_events,
};
