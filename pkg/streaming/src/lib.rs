//! The way of events through NATS JetStream: topology, relay, consumers, leases, dead letters.
//!
//! One number names an event everywhere: position n of a context's log is sequence n of the
//! context's stream. The [`Relay`] sees to that with the expected last sequence, so that nothing
//! can be skipped, doubled or reordered, and repairs a stream that does not agree with its log.
//! [`PartitionConsumer`] delivers a partition's events; the projection's checkpoint, not the
//! consumer's place on the server, says where it goes on. Everything here may be repeated: NATS
//! holds nothing that the log could not give again.

mod advisories;
mod audit;
mod client;
mod consumer;
mod dead_letters;
mod error;
mod lease;
mod names;
mod recover;
mod relay;
mod signals;
mod topology;
pub mod wire;

pub use advisories::AdvisoryCounter;
pub use audit::{
    MAX_AUDITED_POSITIONS, MAX_NAMED_POSITIONS, StreamAudit, StreamDifference, audit_stream,
};
pub use client::{connect, connect_once, jetstream};
pub use consumer::{
    ACK_WAIT_MS, ConsumeError, ConsumerOptions, ConsumerSpec, MAX_ACK_PENDING_EVENTS,
    PartitionConsumer,
};
pub use dead_letters::{DeadLetter, DeadLetterPublisher};
pub use error::{ConnectError, NatsError};
pub use lease::{
    Claim, HANDOVER_MS, LEASE_RENEW_MS, LEASE_TTL_MS, LeaseEvent, LeaseOptions, Leases, MemberId,
    Ownership, PartitionLeases, Standing,
};
pub use names::{InvalidToken, Names};
pub use recover::{
    ImportedTail, LogCheck, MAX_TAIL_EVENTS, RecoverError, check_log_against_stream,
    import_tail_from_stream, new_epoch,
};
pub use relay::{AUDIT_MS, ContinueTrace, POLL_MS, REFILL_EVENTS, Relay, RelayOptions};
pub use signals::{PositionSignals, Progress, ProgressSignals, Signals};
pub use topology::{StreamIdentity, StreamState, Topology, TopologyOptions};
