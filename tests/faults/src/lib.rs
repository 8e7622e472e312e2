//! Faults that Millrace must survive, inflicted on real processes.
//!
//! A [`Cluster`] is a PostgreSQL, a nats-server, a DynamoDB endpoint and the role processes of one
//! test. A [`Load`] drives commands through the real HTTP port, repeats every request whose outcome
//! it does not know under the same idempotency key, and records what was acknowledged. The test
//! does its damage meanwhile. In the end [`check::everything`] reads the log's tables, the stream
//! and the read models, and proves them against each other and against the record, with a fold of
//! its own: it shares no code with what it judges.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "all of this crate is test code: what is not as expected ends the test"
)]

pub mod backup;
pub mod bank;
pub mod check;
mod client;
mod cluster;
pub mod dynamo_proxy;
mod history;
pub mod jobs;
mod load;
pub mod naming;
pub mod payments;
pub mod poison;
mod process;
mod seed;
pub mod tcp_proxy;

pub use client::{Client, Insistent, Reply};
pub use cluster::{Cluster, ClusterOptions, Servers};
pub use history::{History, OrderHistory, Step};
pub use load::{Load, LoadOptions};
pub use process::{Role, RoleProcess};
pub use seed::Seed;
