//! The event log on a DynamoDB endpoint.

mod appending;
mod breaking;
mod conforming;
mod crashing;
mod leading;
mod reading;
mod script;
pub mod support;
