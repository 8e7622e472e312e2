//! Invoices on real servers.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod documents;
mod facts;
mod listing;
mod meeting;
mod reading;
mod system;
