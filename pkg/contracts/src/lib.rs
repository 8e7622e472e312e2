//! What one context may know of another: the public part of its events, a module per owner.
//!
//! A contract pins only what others may rely on. It reads every schema version that its owner ever
//! wrote, and leaves out whatever else the owner's event says; a version newer than the contract
//! knows is [`DecodeError::NewerVersion`], so that a reader stops and waits for its newer release.
//! An event that is in no contract says nothing to others, and is no error.
//!
//! The JSON Schema of every contract is in `schemas/`; it may only get further optional fields. The
//! owner's tests prove that its events of every version satisfy it.

mod read;

pub mod banking;
pub mod customers;
pub mod ordering;

pub use millrace_es::DecodeError;
