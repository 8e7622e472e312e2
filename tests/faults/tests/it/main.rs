//! Faults, each on a whole system of real processes.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::print_stderr
)]

millrace_testkit::dynamodb_process!();
