//! The stage on which the contexts' integration tests play: logs, what is between them and the read
//! models, and routes on a port. A context adds its own routes, and its own words for what happens.
//!
//! On a [`Stage`] without projectors nothing moves by itself: a test folds by hand. With them it has
//! all that an installation has: NATS, a relay of each log, projectors that share the partitions.
//! Its parts are there for tests that need only some of it.
//!
//! Everything here panics with a sentence when it fails: a test has nobody to hand an error to.
#![allow(clippy::panic, clippy::expect_used)]

pub mod facts;
mod foreign;
mod logs;
mod stage;
mod stores;
mod streams;
mod tasks;

use std::time::Duration;

use millrace_http::{Api, ApiOptions, CursorKey};

pub use foreign::Foreign;
pub use logs::{dynamo_log, events, head, pg_log, token};
pub use stage::Stage;
pub use stores::Stores;
pub use streams::Streams;
pub use tasks::Tasks;

/// How long a test waits for what has to come.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// A service that is to be given routes. Its cursors are those of this process.
#[must_use]
pub fn api() -> Api {
    Api::new(ApiOptions::new(CursorKey::of_this_process()))
}
