//! Users over HTTP, on a real port: real PostgreSQL and NATS, the log, the view, and the routes of
//! both services.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::print_stderr
)]

mod addresses;
mod documents;
mod emails;
mod plans;
mod profiles;
mod system;
mod users;
