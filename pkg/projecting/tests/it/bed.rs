//! What loads are tried on: a log and a read database without a projector, so that nothing moves by
//! itself.

use std::{collections::BTreeMap, num::NonZeroU32, sync::Arc};

use millrace_eventlog::EventLog;
use millrace_projecting::{
    Generation, LoadEnd, Owner, Pace, PgReadModel, PgReadOptions, PgStore, RebuildState, Rebuilds,
    Share, StoreError, View,
};
use millrace_testkit::{Database, postgres};
use sqlx::Row;
use tokio_util::sync::CancellationToken;

use crate::{
    log::MemoryLog,
    runner::BOUND,
    views::{ItemRow, items, sums},
};

/// As fast as it can.
pub const FREELY: Pace = Pace {
    max_events_per_second: None,
    suspended: false,
};

/// No faster than this.
pub fn at_most(events_per_second: u32) -> Pace {
    Pace {
        max_events_per_second: NonZeroU32::new(events_per_second),
        suspended: false,
    }
}

/// Who asks for a rebuild or for a run over letters.
pub fn owner(name: &str) -> Owner {
    Owner::new(name).unwrap()
}

/// The one log, as those take it that read several.
pub fn logs_of(log: &Arc<MemoryLog>) -> Vec<Arc<dyn EventLog>> {
    vec![Arc::clone(log) as Arc<dyn EventLog>]
}

/// A log, a read database, and the rebuilds of what is in them.
pub struct Bed {
    pub log: Arc<MemoryLog>,
    pub database: Database,
    pub store: PgStore,
    pub rebuilds: Rebuilds,
}

impl Bed {
    /// With both views that are kept in PostgreSQL.
    pub async fn new() -> Self {
        Self::of(vec![items(), sums()]).await
    }

    pub async fn of(views: Vec<View>) -> Self {
        let database = postgres().await;
        let store = crate::postgres::store(&database).await;
        let log = MemoryLog::new();
        let rebuilds = Rebuilds::new(views, logs_of(&log), Some(store.clone()), None, None);
        Self {
            log,
            database,
            store,
            rebuilds,
        }
    }

    /// Begins a rebuild for the owner `one`, or finds the one that it began.
    pub async fn begin(&self, projection: &str, pace: Pace) -> RebuildState {
        let begun = self.rebuilds.begin(&owner("one"), projection, pace).await;
        begun.unwrap()
    }

    pub async fn load(&self, generation: &Generation) -> LoadEnd {
        load(&self.rebuilds, generation).await.unwrap()
    }

    /// How far the rebuild of the owner `one` is.
    pub async fn state(&self, projection: &str) -> RebuildState {
        let found = self.rebuilds.find(&owner("one"), projection).await;
        found.unwrap().unwrap()
    }

    pub async fn rows(&self, generation: &Generation) -> BTreeMap<String, ItemRow> {
        crate::postgres::rows(&self.database.pool, &generation.place).await
    }

    pub async fn total(&self, generation: &Generation) -> (i64, i64) {
        crate::postgres::total(&self.database.pool, &generation.place).await
    }

    /// The one number that a query gives.
    pub async fn count(&self, sql: &str) -> i64 {
        let row = sqlx::query(sqlx::AssertSqlSafe(sql.to_owned()))
            .fetch_one(&self.database.pool)
            .await
            .unwrap();
        row.get(0)
    }

    /// The live generation, filled by hand.
    pub async fn live(&self, view: &View) -> Generation {
        let heads = self.log.heads();
        let live = self.store.ensure_generation(view, &heads).await.unwrap();
        let mut folder = self.store.folder(&live, view).await.unwrap();
        folder.fold(self.log.events()).await.unwrap();
        live
    }

    /// The query side of a view. Nobody signals to it what was folded.
    pub fn model(&self, view: &View, options: PgReadOptions) -> PgReadModel {
        PgReadModel::open(&self.database.url, view, logs_of(&self.log), None, options).unwrap()
    }
}

/// Loads what a generation lacks, all lanes in one worker.
pub async fn load(rebuilds: &Rebuilds, generation: &Generation) -> Result<LoadEnd, StoreError> {
    let stop = CancellationToken::new();
    let loading = rebuilds.load(generation, Share::WHOLE, stop);
    tokio::time::timeout(BOUND, loading).await.unwrap()
}
