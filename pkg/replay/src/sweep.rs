//! The sweep: generations whose replay is gone. A replay drops what it made before it vanishes;
//! what is left is that of a resource whose finalizer was taken off by hand, or whose definition was
//! deleted with all of them.

use std::collections::BTreeSet;
use std::time::Duration;

use crate::driver::DriverError;
use crate::engine::{Engine, Owner, Records};

/// How often a controller sweeps.
pub const SWEEP_INTERVAL: Duration = Duration::from_secs(300);

/// Drops the unfinished generations that belong to no replay of any of these places, and gives
/// their names. The generations are read first: whose replay is not there afterwards has none.
///
/// # Errors
/// See [`DriverError`]. As long as one of the places does not answer whole, nothing is dropped.
pub async fn sweep(
    engine: &dyn Engine,
    places: &[&dyn Records],
) -> Result<Vec<String>, DriverError> {
    let unfinished = engine
        .unfinished()
        .await
        .map_err(|error| DriverError::Engine {
            replay: "(none: looking for what replays left)".to_owned(),
            message: error.to_string(),
        })?;
    if unfinished.is_empty() {
        return Ok(Vec::new());
    }
    let mut owners: BTreeSet<Owner> = BTreeSet::new();
    for place in places {
        owners.extend(place.owners().await?);
    }
    let mut dropped = Vec::new();
    for one in unfinished {
        if owners.contains(&one.owner) {
            continue;
        }
        let (projection, generation) = (&one.projection, &one.generation);
        engine
            .discard(projection, generation)
            .await
            .map_err(|error| DriverError::Engine {
                replay: format!("{} (gone)", one.owner.0),
                message: error.to_string(),
            })?;
        tracing::warn!(
            projection,
            generation,
            owner = one.owner.0,
            "dropped a generation whose replay is gone"
        );
        dropped.push(one.generation);
    }
    Ok(dropped)
}
