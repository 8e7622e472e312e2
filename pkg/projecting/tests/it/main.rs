//! Views over real PostgreSQL, DynamoDB and NATS.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::print_stderr
)]

mod apart;
mod bed;
mod checking;
mod dynamodb;
mod keeping;
mod letter_runs;
mod letters;
mod log;
mod postgres;
mod reacting;
mod reading;
mod rebuilding;
mod replacing;
mod runner;
mod verifying;
mod verifying_items;
mod views;

millrace_testkit::dynamodb_process!();
