//! The ordering context: orders, from their creation to their delivery, cancellation or deletion.

pub mod order;
#[cfg(test)]
mod testing;
pub mod views;

/// The name of this context: its log, its stream, its schema.
pub const CONTEXT: &str = "ordering";
