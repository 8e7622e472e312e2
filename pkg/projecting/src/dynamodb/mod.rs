//! Views in DynamoDB: a table per generation, and the table `<namespace>_projections` for the
//! projector's own records.

mod actions;
mod apply;
mod control;
mod dead_letters;
mod items;
mod keys;
mod letters;
mod read;
mod tables;
mod values;
mod view;

pub use control::DynamoStore;
pub use read::{Descending, DynamoReadModel, DynamoReader};
pub(crate) use view::{DynamoView, RowsOf};
