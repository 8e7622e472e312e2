//! A reaction in a new life of its log.
//!
//! When a log gives its lost tail up and begins a new life, a view is folded anew. A reaction is not:
//! its effects are in the world. It goes on in the new life from the newest event of each lane that
//! it had surely performed in the old one: one that the log took before the lane's checkpoint was
//! last moved. What the log took since is performed, although its positions may have been passed.

use std::time::Duration;

use millrace_es::{Epoch, Position};
use millrace_eventlog::EventLog;
use millrace_kernel::Timestamp;

use crate::{
    error::{StoreError, unavailable},
    generation::{Checkpoint, ContextHead, Lane},
};

/// How far the clocks of the log and of the read database may be apart, in milliseconds. Effects of
/// events that are not older than this before the checkpoint was moved are repeated.
const MAX_CLOCK_SKEW_MS: u64 = 60_000;

/// A checkpoint and when it was last moved.
#[derive(Debug, Clone)]
pub(crate) struct Moved {
    pub(crate) checkpoint: Checkpoint,
    pub(crate) at: Timestamp,
}

/// Where a lane goes on in a new life.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct GoesOn {
    pub(crate) lane: Lane,
    /// Where it stood, in which life.
    pub(crate) from: (Position, Epoch),
    /// Where it goes on, in which life.
    pub(crate) to: (Position, Epoch),
}

/// Where the lanes go on whose log began a new life since.
pub(crate) async fn lanes_that_go_on(
    moved: &[Moved],
    heads: &[ContextHead],
    log_of: impl Fn(&Lane) -> Result<std::sync::Arc<dyn EventLog>, StoreError>,
) -> Result<Vec<GoesOn>, StoreError> {
    let mut going_on = Vec::new();
    for one in moved {
        let lane = &one.checkpoint.lane;
        let Some(head) = heads.iter().find(|head| head.context == lane.context) else {
            continue;
        };
        if head.epoch <= one.checkpoint.epoch {
            continue;
        }
        let number = usize::from(lane.partition.get());
        let newest = head.partition_positions.get(number).copied();
        let through = one.checkpoint.position.min(newest.unwrap_or_default());
        let skew = Duration::from_millis(MAX_CLOCK_SKEW_MS);
        let before = Timestamp::new(one.at.get() - skew);
        let log = log_of(lane)?;
        going_on.push(GoesOn {
            lane: lane.clone(),
            from: (one.checkpoint.position, one.checkpoint.epoch),
            to: (
                newest_before(&*log, lane, through, before).await?,
                head.epoch,
            ),
        });
    }
    Ok(going_on)
}

/// The newest event of a lane, up to a position, that its log took before an instant. Events are
/// taken in the order of their positions, so halves are looked at.
async fn newest_before(
    log: &dyn EventLog,
    lane: &Lane,
    through: Position,
    before: Timestamp,
) -> Result<Position, StoreError> {
    let (mut found, mut low, mut high) = (Position::ZERO, 0, through.get());
    while low < high {
        let middle = low + (high - low) / 2;
        // The first event of the lane above the middle.
        let next = log
            .read_partition(
                lane.partition,
                Position::new(middle),
                Position::new(high),
                1,
            )
            .await
            .map_err(unavailable)?;
        match next.into_iter().next() {
            Some(event) if event.recorded_at < before => {
                found = event.position;
                low = event.position.get();
            }
            _ => high = middle,
        }
    }
    Ok(found)
}
