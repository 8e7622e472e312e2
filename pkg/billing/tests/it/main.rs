//! Invoices on real servers.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod documents;
mod facts;
mod listing;
mod meeting;
mod plans;
mod reading;
mod system;
