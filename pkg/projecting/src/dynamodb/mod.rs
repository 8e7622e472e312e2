//! Views in DynamoDB: a table per generation, and the table `<namespace>_projections` for the
//! projector's own records.

mod actions;
mod apply;
mod control;
mod dead_letters;
mod items;
mod keys;
mod letter_walk;
mod letters;
mod read;
mod rebuild;
mod runs;
mod switch;
mod tables;
mod values;
mod view;

pub(crate) use apply::store_failure;
pub use control::DynamoStore;
pub(crate) use items::Table;
pub use read::{Descending, DynamoReadModel, DynamoReader};
pub(crate) use view::{DynamoView, ItemWrite, RowsOf, key_text};
