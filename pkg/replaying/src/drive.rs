//! One process at a time drives the replays of the table.

use std::{
    collections::HashMap,
    sync::Arc,
    time::{Duration, Instant},
};

use k8s_openapi::jiff::Timestamp;
use millrace_replay::{Driver, Engine, Owner, Record, Work};
use sqlx::{Postgres, pool::PoolConnection};
use tokio_util::sync::CancellationToken;

use crate::table::{ReplayTable, TableError};

/// The turn to drive.
const TURN: &str = "millrace.replays";

/// How often the table is looked at, in milliseconds: how soon a new replay begins.
const LOOK_MS: u64 = 500;

/// How often a process that does not drive tries to, in milliseconds.
const TRY_MS: u64 = 2_000;

/// How long a replay rests after a pass that failed, in milliseconds.
const FAILED_REST_MS: u64 = 2_000;

/// How long one pass may take, in seconds.
const MAX_PASS_S: u64 = 120;

/// Drives the replays of a table until told to stop, as long as no other process does. Every write
/// is compared with what was read and a switch is a compare-and-set, so two that believe to be the
/// only one do no harm.
pub async fn drive(
    table: ReplayTable,
    engine: Arc<dyn Engine>,
    work: Arc<dyn Work>,
    stop: CancellationToken,
) {
    let driving = async {
        loop {
            match table.try_turn(TURN).await {
                Ok(Some(turn)) => {
                    let driver = Driver::new(Arc::clone(&engine), Arc::clone(&work));
                    let error = drive_while(&table, &driver, turn).await;
                    tracing::warn!(%error, "replays are not driven from here any more");
                }
                Ok(None) => {}
                Err(error) => tracing::debug!(%error, "replays are not driven from here"),
            }
            tokio::time::sleep(Duration::from_millis(TRY_MS)).await;
        }
    };
    stop.run_until_cancelled(driving).await;
}

/// Drives until the table or the turn is lost, which it gives as an error.
async fn drive_while(
    table: &ReplayTable,
    driver: &Driver,
    mut turn: PoolConnection<Postgres>,
) -> TableError {
    tracing::info!("driving replays");
    let mut due: HashMap<Owner, (String, Instant)> = HashMap::new();
    loop {
        if let Err(error) = sqlx::query("SELECT 1").execute(&mut *turn).await {
            return error.into();
        }
        let replays = match table.list().await {
            Ok(replays) => replays,
            Err(error) => return error,
        };
        due.retain(|owner, _| {
            let there = replays.iter().any(|replay| replay.owner == *owner);
            if !there {
                driver.forget(owner);
            }
            there
        });
        for replay in &replays {
            // What was changed since the last pass is looked at at once.
            let rests = due
                .get(&replay.owner)
                .is_some_and(|(revision, at)| *revision == replay.revision && *at > Instant::now());
            if !rests {
                let pause = pass(table, driver, replay).await;
                due.insert(
                    replay.owner.clone(),
                    (replay.revision.clone(), Instant::now() + pause),
                );
            }
        }
        tokio::time::sleep(Duration::from_millis(LOOK_MS)).await;
    }
}

/// One pass of one replay, and how long the next may wait.
async fn pass(table: &ReplayTable, driver: &Driver, replay: &Record) -> Duration {
    let limit = Duration::from_secs(MAX_PASS_S);
    let passed = tokio::time::timeout(limit, driver.pass(table, replay, Timestamp::now())).await;
    match passed {
        Ok(Ok(pause)) => pause,
        Ok(Err(error)) if error.changed() => Duration::ZERO,
        Ok(Err(error)) => {
            tracing::warn!(replay = replay.name, %error, "a replay waits");
            Duration::from_millis(FAILED_REST_MS)
        }
        Err(_) => {
            tracing::warn!(
                replay = replay.name,
                "a pass took longer than {MAX_PASS_S} s"
            );
            Duration::from_millis(FAILED_REST_MS)
        }
    }
}
