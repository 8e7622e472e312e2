//! Parts from registries, and children that never outlive us. These tests use the network once;
//! afterwards the cache folder.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::print_stderr
)]

mod fetching;
mod guarding;
