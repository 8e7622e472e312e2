//! The bulk work of rebuilds in the projector's own process, where no Jobs can run.

use std::{collections::HashMap, time::Duration};

use millrace_projecting::{
    Generation, GenerationId, GenerationStatus, LoadEnd, Rebuilds, Share, StoreKind,
};
use sqlx::{Postgres, pool::PoolConnection};
use tokio::task::{Id, JoinSet};
use tokio_util::sync::CancellationToken;

use crate::table::ReplayTable;

/// How often generations to be loaded are looked for, in milliseconds.
const LOOK_MS: u64 = 1_000;

/// How many generations a process loads at once.
const MAX_LOADS: usize = 2;

/// What names a generation among those of all stores.
type Key = (StoreKind, GenerationId);

/// Loads every generation that a rebuild began, until told to stop. Several processes may do this:
/// a lock in the read database spreads the generations over them, and were two on one, the
/// checkpoints would fence them.
pub async fn load_what_is_asked(rebuilds: Rebuilds, table: ReplayTable, stop: CancellationToken) {
    let mut loads: JoinSet<()> = JoinSet::new();
    let mut taken: HashMap<Id, Key> = HashMap::new();
    while !stop.is_cancelled() {
        while let Some(ended) = loads.try_join_next_with_id() {
            let id = ended.map_or_else(|error| error.id(), |(id, ())| id);
            taken.remove(&id);
        }
        match rebuilds.loading().await {
            Ok(found) => {
                for (store, generation) in found {
                    let key = (store, generation.id);
                    if taken.len() >= MAX_LOADS || taken.values().any(|one| *one == key) {
                        continue;
                    }
                    let name = format!("millrace.load.{store:?}.{}", generation.id);
                    let turn = match table.try_turn(&name).await {
                        Ok(Some(turn)) => turn,
                        Ok(None) => continue,
                        Err(error) => {
                            tracing::debug!(%error, "no turn to load");
                            continue;
                        }
                    };
                    let work = load(rebuilds.clone(), generation, turn, stop.clone());
                    taken.insert(loads.spawn(work).id(), key);
                }
            }
            Err(error) => tracing::debug!(%error, "generations to load are not looked for"),
        }
        let pause = tokio::time::sleep(Duration::from_millis(LOOK_MS));
        stop.run_until_cancelled(pause).await;
    }
    while loads.join_next().await.is_some() {}
}

async fn load(
    rebuilds: Rebuilds,
    generation: Generation,
    // Held until the end: the turn is the connection's.
    _turn: PoolConnection<Postgres>,
    stop: CancellationToken,
) {
    let (projection, id) = (generation.projection.clone(), generation.id);
    debug_assert_eq!(generation.status, GenerationStatus::Loading);
    tracing::info!(projection, generation = %id, "loading a generation");
    match rebuilds.load(&generation, Share::WHOLE, stop).await {
        Ok(LoadEnd::Done) => tracing::info!(projection, generation = %id, "loaded"),
        Ok(LoadEnd::Stopped | LoadEnd::Gone) => {
            tracing::info!(projection, generation = %id, "not loaded to the end");
        }
        Err(error) => {
            tracing::warn!(projection, generation = %id, error = &error as &dyn std::error::Error, "a load failed; it is tried again");
        }
    }
}
