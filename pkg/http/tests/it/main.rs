//! The rules for all routes, through a real TCP port, on a service with a few made-up routes.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::print_stderr
)]

mod bodies;
mod demo;
mod documents;
mod edges;
mod forwarding;
mod headers;
mod lists;
mod observed;
mod problems;
mod raw;
mod reads;
mod server;
mod writes;
