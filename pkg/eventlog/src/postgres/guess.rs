//! Deciding a batch without reading the log first.
//!
//! A process that writes alone knows where its last commit left the log, and an append says itself
//! which event its stream ends with. A batch that was decided on that is written by a statement that
//! checks all of it, so a wrong guess writes nothing and costs one statement. A right one, which is
//! the rule, saves the round trip of reading before writing: half of what an append alone costs.

use std::{collections::HashMap, time::Instant};

use millrace_kernel::Timestamp;
use uuid::Uuid;

use crate::{
    ExpectedVersion,
    lane::plan::{Head, Probed, Wanted},
};

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

/// What a read would find if nobody else has written since `head` and every append expects what is
/// there. `None` when it cannot be told: the clock was not read lately, an append does not say what
/// it expects exactly, or names are claimed.
pub(super) fn guess(head: Head, clock: &Clock, wanted: &Wanted<'_>) -> Option<Probed> {
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
    let now = clock.now()?;
    Some(Probed {
        head: Head { now, ..head },
        streams,
        answers: HashMap::new(),
        expired: Vec::new(),
        holders: HashMap::new(),
    })
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
