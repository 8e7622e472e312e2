//! Read models: views fold events into rows, and queries read the rows.
//!
//! A view is a pure projection (`millrace_es`) plus how its rows go into a store ([`PgRows`],
//! [`PgTally`], [`DynamoRows`]), erased to a [`View`].

mod batch;
mod chain;
mod dead_letters;
mod dynamodb;
mod error;
mod folder;
mod generation;
mod letters;
mod postgres;
mod read;
mod runner;
mod store;
mod stores;
mod view;

pub use dead_letters::{DeadLetters, LetterFilter, MAX_LETTERS_PER_PAGE, Requested};
pub use dynamodb::{Descending, DynamoReadModel, DynamoReader, DynamoStore};
pub use error::StoreError;
pub use folder::{Folded, Folder};
pub use generation::{Checkpoint, ContextHead, Generation, GenerationId, GenerationStatus, Lane};
pub use letters::{Action, DeadLetter, LetterStatus, Reason, RequestId};
pub use postgres::{PgReadModel, PgReadOptions, PgReader, PgStore, bad_column, containing};
pub use read::{AtLeast, ReadError};
pub use runner::{MAX_BATCH_EVENTS_DYNAMODB, MAX_BATCH_EVENTS_POSTGRES, Runner, RunnerParts};
pub use stores::{
    BadItem, DynamoRows, GlobalIndex, Item, KeyAttribute, KeyKind, Loaded, LocalIndex,
    POSITION_ATTRIBUTE, PgRows, PgTally, TOMBSTONE_ATTRIBUTE, TableDefinition, attribute,
};
pub use view::{StoreKind, View};
