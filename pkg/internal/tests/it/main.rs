//! The internal endpoint over real logs.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod door;
mod reading;
mod support;
