//! How contexts reach each other beside the streams: the internal endpoint of a context's owner.
//!
//! The owner of a log (a command process) serves the log to read, and the internal commands of the
//! context, on a port of its own that is never behind the ingress ([`InternalService`]). Who needs a
//! context and has no log of it asks its owner ([`OwnerClient`]); [`RemoteLog`] makes the owner's log
//! one that can be read like any other.

mod client;
mod log_routes;
mod owners;
mod problems;
mod remote;
mod service;

pub use client::{MAX_ANSWER_BYTES, OwnerClient, OwnerError, OwnerProblem};
pub use owners::{InvalidOwner, Owner, Owners};
pub use problems::types;
pub use remote::RemoteLog;
pub use service::{DEFAULT_MAX_INTERNAL_REQUESTS, InternalService};
