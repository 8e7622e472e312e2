//! The event log on a real PostgreSQL and on a DynamoDB endpoint.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::print_stderr
)]

mod across;
mod appending;
mod breaking;
mod checks;
mod claiming;
mod conforming;
mod counter;
mod crashing;
mod dynamodb;
mod executing;
mod guarding;
mod inline;
mod proxy;
mod purse;
mod showing;
mod support;
