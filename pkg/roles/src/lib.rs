//! What the roles have in common: the settings of the stores, opening them with patience, the
//! questions behind `/readyz`, and the order of an end.
//!
//! A role starts with its admin port, so that it can be asked what it waits for; then it opens
//! what it needs, trying again for as long as a store does not answer; then it serves.

mod frame;
mod migrate;
mod open;
mod serving;
mod settings;

pub use frame::Frame;
pub use migrate::{migrate_log, migrate_streams, migrate_views};
pub use open::{Late, check_log, check_nats, open_log, patiently, pool, topology};
pub use serving::bind;
pub use settings::{DynamoSettings, LogSettings, NatsSettings, ReadStoreSettings};
