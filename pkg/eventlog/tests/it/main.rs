//! The event log on a real PostgreSQL.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::print_stderr
)]

mod appending;
mod conforming;
mod counter;
mod executing;
mod support;
