//! The contracts as committed, and who may know whom.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod graph;
mod reading;
mod schemas;
