//! Read models: views fold events into rows, and queries read the rows.
//!
//! A view is a pure projection (`millrace_es`) plus how its rows go into a store ([`PgRows`],
//! [`PgTally`], [`DynamoRows`]), erased to a [`View`]. A [`React`] performs effects instead, as a
//! view without rows.

mod applying;
mod backoff;
mod batch;
mod chain;
mod checking;
mod dead_letters;
mod dynamodb;
mod error;
mod folder;
mod generation;
mod heads;
mod letter_runs;
mod letters;
mod owner;
mod postgres;
mod reacting;
mod read;
mod rebuild;
mod runner;
mod store;
mod stores;
mod verify;
mod view;

pub use checking::show_checks;
pub use dead_letters::{DeadLetters, LetterFilter, MAX_LETTERS_PER_PAGE, Requested};
pub use dynamodb::{Descending, DynamoReadModel, DynamoReader, DynamoStore};
pub use error::StoreError;
pub use folder::{Folded, Folder};
pub use generation::{
    Checkpoint, ContextHead, Generation, GenerationId, GenerationStatus, Lane, Switched,
};
pub use letter_runs::{
    LetterRun, LetterSelector, MAX_OPEN_STREAMS, MAX_SELECTOR_ENTRIES, OnFailure, PositionRange,
    RunState, RunStatus,
};
pub use letters::{Action, DeadLetter, LetterStatus, Reason, RequestId};
pub use owner::Owner;
pub use postgres::{
    KeptCheck, PgReadModel, PgReadOptions, PgReader, PgStore, bad_column, containing,
};
pub use reacting::{EFFECT_TIMEOUT_MS, EffectError, React};
pub use read::{AtLeast, ReadError};
pub use rebuild::{LoadEnd, Pace, RebuildPlan, RebuildState, Rebuilds, Share, Target};
pub use runner::{MAX_BATCH_EVENTS_DYNAMODB, MAX_BATCH_EVENTS_POSTGRES, Runner, RunnerParts};
pub use stores::{
    BadItem, DynamoRows, GlobalIndex, Item, KeyAttribute, KeyKind, Loaded, LocalIndex, Origin,
    Origins, POSITION_ATTRIBUTE, PgRows, PgTally, TOMBSTONE_ATTRIBUTE, TableDefinition,
    UnchangedColumns, attribute,
};
pub use verify::{
    Check, CheckOptions, Checked, Difference, DifferenceKind, MAX_CHECKED_KEYS, MAX_DIFFERENCES,
    MAX_SAMPLE_KEYS, Subjects, Verification, VerifyMode, VerifyOptions,
};
pub use view::{StoreKind, View};
