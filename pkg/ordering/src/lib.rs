//! The ordering context: orders, from their creation to their delivery, cancellation or deletion.

pub mod order;
