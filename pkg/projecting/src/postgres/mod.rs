//! Views in PostgreSQL: a schema per generation, control tables in the schema `projections`.

mod apply;
mod checks;
mod columns;
mod dead_letters;
pub(crate) mod holds;
mod letters;
mod reaction;
mod read;
mod rebuild;
mod runs;
mod store;
mod switch;
mod view;

pub(crate) use apply::PgGeneration;
pub use checks::KeptCheck;
pub use columns::{bad_column, containing};
pub use read::{PgReadModel, PgReadOptions, PgReader};
pub use store::PgStore;
pub(crate) use store::{lock_checkpoints, read_checkpoints};
pub(crate) use view::{PgView, RowsOf, TallyOf};
