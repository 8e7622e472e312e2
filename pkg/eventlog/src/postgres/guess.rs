//! Deciding a batch without reading the log first.
//!
//! A process that writes alone knows where its last commit left the log, and an append says itself
//! which event its stream ends with. A batch that was decided on that is written by a statement that
//! checks all of it, so a wrong guess writes nothing and costs one statement. A right one, which is
//! the rule, saves the round trip of reading before writing: half of what an append alone costs.

use std::{collections::HashMap, time::Instant};

use millrace_es::{Epoch, Position};
use millrace_kernel::Timestamp;
use uuid::Uuid;

use super::plan::{Head, Plan, Probed, Wanted};
use crate::ExpectedVersion;

/// How long the server's clock is carried on by this process's own before it is read again.
const CLOCK_TRUST_MS: u128 = 1_000;

/// The server's clock at a moment of this process.
#[derive(Debug)]
pub(super) struct Clock {
    now: Timestamp,
    read: Instant,
}

impl Clock {
    /// The server's clock, read just now.
    pub(super) fn read(now: Timestamp) -> Self {
        Self {
            now,
            read: Instant::now(),
        }
    }

    fn now(&self) -> Option<Timestamp> {
        let since = self.read.elapsed();
        (since.as_millis() < CLOCK_TRUST_MS).then(|| Timestamp::new(self.now.get() + since))
    }
}

/// Where a commit of this process left the log.
#[derive(Debug)]
pub(super) struct Memory {
    epoch: Epoch,
    guard: i64,
    position: Position,
    partitions: Vec<Position>,
    recorded_at: Timestamp,
}

impl Memory {
    /// `None` after a plan that wrote nothing: it was decided, but nothing vouches that it still
    /// holds.
    pub(super) fn after(plan: &Plan<'_>) -> Option<Self> {
        (!plan.is_empty()).then(|| Self {
            epoch: plan.before.epoch,
            guard: plan.before.guard,
            position: plan.position,
            partitions: plan.partitions.clone(),
            recorded_at: plan.recorded_at,
        })
    }

    /// What a read would find if nobody else has written and every append expects what is there.
    /// `None` when it cannot be told: an append does not say what it expects exactly, or names are
    /// claimed.
    pub(super) fn guess(self, clock: &Clock, wanted: &Wanted<'_>) -> Option<Probed> {
        if !wanted.names.is_empty() {
            return None;
        }
        let mut streams = HashMap::with_capacity(wanted.streams.len());
        for (stream, expected) in &wanted.streams {
            match *expected {
                ExpectedVersion::NoStream => {}
                ExpectedVersion::Follows { version, event } => {
                    streams.insert((*stream).clone(), (version, event));
                }
                ExpectedVersion::Any | ExpectedVersion::Exact(_) => return None,
            }
        }
        Some(Probed {
            head: Head {
                position: self.position,
                epoch: self.epoch,
                guard: self.guard,
                halted: None,
                partitions: self.partitions,
                recorded_at: self.recorded_at,
                now: clock.now()?,
            },
            streams,
            answers: HashMap::new(),
            expired: Vec::new(),
            holders: HashMap::new(),
        })
    }
}

/// The version that a guess took a stream to be at.
pub(super) fn version(expected: ExpectedVersion) -> i64 {
    match expected {
        ExpectedVersion::Follows { version, .. } | ExpectedVersion::Exact(version) => {
            version.as_i64()
        }
        ExpectedVersion::NoStream | ExpectedVersion::Any => 0,
    }
}

/// The event that a guess took a stream to end with.
pub(super) fn event(expected: ExpectedVersion) -> Option<Uuid> {
    match expected {
        ExpectedVersion::Follows { event, .. } => Some(event.get()),
        _ => None,
    }
}
