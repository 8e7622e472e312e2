//! Read models: views fold events into rows, and queries read the rows.
//!
//! A view is a pure projection (`millrace_es`) plus how its rows go into a store ([`PgRows`],
//! [`PgTally`], [`DynamoRows`]), erased to a [`View`].

mod dynamodb;
mod postgres;
mod stores;
mod view;

pub use stores::{
    BadItem, DynamoRows, GlobalIndex, Item, KeyAttribute, KeyKind, LocalIndex, POSITION_ATTRIBUTE,
    PgRows, PgTally, TOMBSTONE_ATTRIBUTE, TableDefinition,
};
pub use view::{StoreKind, View};
