//! The command line as people and scripts use it: the real binary against real servers.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::print_stderr
)]

mod completions;
mod events;
mod log;
mod run;
mod world;
