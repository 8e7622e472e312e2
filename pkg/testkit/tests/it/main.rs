//! The kit itself: servers start, are shared, survive what tests do to them, and leave nothing.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stderr
)]

mod servers;

millrace_testkit::dynamodb_process!();
