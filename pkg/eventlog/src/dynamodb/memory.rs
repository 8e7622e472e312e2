//! What this process remembers of the log, so that a hot stream costs no read.
//!
//! Every append of events moves the head. So as long as the head is where this process last saw it,
//! every stream end that it has read or written since is still right, and a transaction that holds
//! the head to that place holds all of them. A wrong guess writes nothing and costs one call.

use std::collections::HashMap;

use millrace_es::{EventId, StreamId, StreamVersion};
use millrace_kernel::Timestamp;

use crate::lane::plan::{Head, Plan};

/// How many stream ends are remembered; then all are forgotten.
const MAX_REMEMBERED_STREAMS: usize = 20_000;

/// A stream's newest event; `None` without one.
pub(super) type End = Option<(StreamVersion, EventId)>;

/// The head and stream ends of one moment.
#[derive(Debug, Default)]
pub(super) struct Memory {
    head: Option<Head>,
    ends: HashMap<StreamId, End>,
}

impl Memory {
    /// Nothing is known any more.
    pub(super) fn forget(&mut self) {
        self.head = None;
        self.ends.clear();
    }

    /// The head as it was seen last, with this process's clock as it is now.
    pub(super) fn head(&self) -> Option<Head> {
        self.head.clone().map(|head| Head {
            now: Timestamp::now(),
            ..head
        })
    }

    /// A head was read: what was known of another is not right any more.
    pub(super) fn read(&mut self, head: &Head) {
        self.ends.clear();
        self.head = Some(head.clone());
    }

    pub(super) fn end(&self, stream: &StreamId) -> Option<End> {
        self.ends.get(stream).copied()
    }

    /// A stream's end was read, after the head.
    pub(super) fn learn(&mut self, stream: &StreamId, end: End) {
        if self.head.is_none() {
            return;
        }
        if self.ends.len() >= MAX_REMEMBERED_STREAMS {
            self.ends.clear();
        }
        self.ends.insert(stream.clone(), end);
    }

    /// This process's batch is durable.
    pub(super) fn committed(&mut self, plan: &Plan<'_>) {
        if let Some(head) = plan.after() {
            self.head = Some(head);
        }
        for row in &plan.rows {
            self.learn(row.stream, Some((row.version, row.event.id)));
        }
    }
}
