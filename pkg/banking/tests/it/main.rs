//! Accounts over HTTP, on a real port: real PostgreSQL, NATS and DynamoDB, the log, the views,
//! and the routes of both services.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::print_stderr
)]

mod bank;
mod book;
mod converging;
mod documented_queries;
mod documents;
mod folders;
mod instructing;
mod listing;
mod moving;
mod opening;
mod plans;
mod reading;
mod rows;
mod snapshots;
mod strong;
mod system;
mod teller;
mod transferring;
