//! Views in PostgreSQL: a schema per generation, control tables in the schema `projections`.

mod apply;
mod columns;
mod dead_letters;
mod letters;
mod read;
mod store;
mod view;

pub(crate) use apply::PgGeneration;
pub use columns::{bad_column, containing};
pub use read::{PgReadModel, PgReadOptions, PgReader};
pub use store::PgStore;
pub(crate) use view::{PgView, RowsOf, TallyOf};
