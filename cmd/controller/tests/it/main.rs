//! The controller against a real API server and etcd, over a scripted engine: the resource's rules,
//! its life from the wish to the end, and everything that can be killed on the way.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stderr
)]

mod driving;
mod hurting;
mod jobs;
mod killing;
mod resource;
mod role;
mod rules;
mod settings;
mod world;
