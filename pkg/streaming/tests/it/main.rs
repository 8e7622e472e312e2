//! The streaming crate against real nats-servers.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::print_stderr,
    clippy::disallowed_methods,
    clippy::large_futures,
    missing_docs
)]

mod consumer;
mod credentials;
mod dynamodb_relay;
mod dynamodb_scene;
mod dynamodb_streams;
mod leases;
mod memory_log;
mod recovery;
mod relay;
mod repairs;
mod scripted_streams;
mod side_streams;
mod world;
