//! The command line as people and scripts use it: the real binary against real servers.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::print_stderr
)]

mod apart;
mod bench;
mod completions;
mod credentials;
mod dead_letters;
mod endpoints;
mod events;
mod lag;
mod log;
mod migrate;
mod postman;
mod replay;
mod roles;
mod run;
mod up;
mod verify;
mod world;
