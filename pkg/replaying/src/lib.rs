//! Replays without Kubernetes, and what both doors share: the engine of the read stores as the
//! driver of `millrace-replay` knows it, replays as rows of the read database, and the bulk work in
//! the projector's own process.

mod drive;
mod engine;
mod loading;
mod table;

pub use drive::drive;
pub use engine::ReadStores;
pub use loading::load_what_is_asked;
pub use table::{Change, MAX_NAME_CHARS, MAX_REPLAYS, ReplayTable, TableError};
