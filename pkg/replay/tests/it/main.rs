//! The driver over a scripted engine: whole replays, from the wish to the end, also when the driver
//! is killed at every call it makes.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod definition;
mod driving;
mod killing;
mod world;
