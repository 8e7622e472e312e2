//! The event log on a real PostgreSQL.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::print_stderr
)]

mod appending;
mod breaking;
mod conforming;
mod counter;
mod crashing;
mod executing;
mod guarding;
mod inline;
mod proxy;
mod support;
