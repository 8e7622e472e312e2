//! Orders over HTTP, with everything between the POST and the GET: real PostgreSQL, NATS and
//! DynamoDB, the log, the relay, the projector, and the routes of both services on one port.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::print_stderr
)]

mod changing;
mod creating;
mod documents;
mod inline;
mod listing;
mod model_bank;
mod naming;
mod paying;
mod plans;
mod reacting;
mod reading;
mod statistics;
mod suffering;
mod system;
mod users;
