use std::{sync::Arc, time::Duration};

use millrace_eventlog::EventLog;
use tokio_util::sync::CancellationToken;

use crate::{lease::Leases, topology::Topology};

/// How often a relay looks at the log when nobody signals an append, in milliseconds.
pub const POLL_MS: u64 = 1_000;
/// How many of the newest events a stream is filled with when it has to be made anew; who is
/// further behind reads the log.
pub const REFILL_EVENTS: u64 = 100_000;

/// How a relay works; the defaults are the named constants of this module.
#[derive(Debug, Clone, Copy)]
pub struct RelayOptions {
    /// How often the log is looked at when nobody signals an append. Default [`POLL_MS`].
    pub poll_every: Duration,
    /// How many of the newest events a stream gets when it is made anew. Default
    /// [`REFILL_EVENTS`].
    pub refill_events: u64,
}

impl Default for RelayOptions {
    fn default() -> Self {
        Self {
            poll_every: Duration::from_millis(POLL_MS),
            refill_events: REFILL_EVENTS,
        }
    }
}

/// Publishes one context's log to its stream: position n as sequence n.
///
/// Every command process runs one; the one that holds the lease works, the others stand by and
/// pass on that they appended. Two at work at once do no harm.
pub struct Relay {
    _log: Arc<dyn EventLog>,
    _topology: Topology,
    _leases: Leases,
    _options: RelayOptions,
}

impl Relay {
    /// A relay for a log.
    #[must_use]
    pub fn new(
        log: Arc<dyn EventLog>,
        topology: Topology,
        leases: Leases,
        options: RelayOptions,
    ) -> Self {
        Self {
            _log: log,
            _topology: topology,
            _leases: leases,
            _options: options,
        }
    }

    /// Works until told to stop. Whatever goes wrong is logged, counted and tried again.
    pub async fn run(self, stop: CancellationToken) {
        stop.cancelled().await;
    }
}
