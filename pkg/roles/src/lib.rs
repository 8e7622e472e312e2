//! What the roles have in common: the settings of the stores, opening them with patience, the
//! questions behind `/readyz`, and the order of an end.
//!
//! A role starts with its admin port, so that it can be asked what it waits for; then it opens
//! what it needs, trying again for as long as a store does not answer; then it serves.

mod contexts;
mod effects;
mod frame;
mod logs;
mod migrate;
mod models;
mod open;
mod serving;
mod settings;

pub use contexts::{
    Around, CONTEXTS, KnownContext, OwnLog, Running, Work, known_reactions, reactions, views,
};
pub use effects::Effects;
pub use frame::Frame;
pub use logs::{LogPlaces, LogStore, LogUse, Logs, OpenedLog, PgPlaces};
pub use migrate::{migrate_streams, migrate_views};
pub use models::{Opened, ReadModels};
pub use open::{Late, check_nats, patiently, topology};
pub use serving::{bind, bind_internal, serve_internal};
pub use settings::{
    ArchiveSettings, DynamoSettings, EffectSettings, LogSettings, NatsSettings, OwnerSettings,
    ReadStoreSettings, RebuildBy,
};
