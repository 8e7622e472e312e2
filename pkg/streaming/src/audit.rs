//! Comparing a context's stream with its log at sampled positions, for whoever wants to know whether
//! they say the same. The relay compares what it publishes; this looks at what lies behind.

use std::collections::BTreeSet;

use millrace_es::Position;
use millrace_eventlog::{EventLog, LogHead};
use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};
use tokio::time::{Duration, Instant};

use crate::{
    recover::RecoverError,
    relay::inspect::same_at,
    topology::{StreamState, Topology},
};

/// The most positions that one comparison looks at.
pub const MAX_AUDITED_POSITIONS: usize = 10_000;

/// The most differences that are named; all are counted.
pub const MAX_NAMED_POSITIONS: usize = 100;

/// How often a comparison begins again because the stream was made anew meanwhile.
const MAX_ATTEMPTS: u32 = 3;

/// The longest rest after a look, in milliseconds: it rests as long as it worked.
const MAX_REST_MS: u64 = 250;

/// A place where log and stream do not agree.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StreamDifference {
    /// The position in the log, and sequence in the stream.
    pub position: Position,
    /// What is there instead.
    pub what: String,
}

/// What a comparison of a stream with its log found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StreamAudit {
    /// The log's newest position.
    pub head: Position,
    /// The stream's last sequence; none where there is no stream.
    pub last: Option<Position>,
    /// How many positions were compared.
    pub compared: u64,
    /// How many of them differ; a stream that goes on beyond its log counts as one.
    pub differences: u64,
    /// Some of those, at most [`MAX_NAMED_POSITIONS`].
    pub named: Vec<StreamDifference>,
}

impl StreamAudit {
    fn differs(&mut self, position: Position, what: String) {
        self.differences += 1;
        if self.named.len() < MAX_NAMED_POSITIONS {
            self.named.push(StreamDifference { position, what });
        }
    }
}

/// Compares a stream with its log: whether it ends where the log ends or before, and whether both
/// have the same event at some positions: the first and the last that both have, `also`, and as many
/// as `positions` that a seed draws. A stream that is behind its log is no difference.
///
/// # Errors
/// When NATS or the log does not answer, or the stream is made anew all the time.
pub async fn audit_stream(
    log: &dyn EventLog,
    topology: &Topology,
    positions: usize,
    seed: u64,
    also: &[Position],
) -> Result<StreamAudit, RecoverError> {
    for _ in 0..MAX_ATTEMPTS {
        // The stream before the log, so that a healthy one is never ahead.
        let state = topology.state(log.context()).await?;
        let head = log.head().await?;
        let Some(stream) = state else {
            return Ok(StreamAudit {
                head: head.position,
                last: None,
                compared: 0,
                differences: 0,
                named: Vec::new(),
            });
        };
        let drawn = draw(stream, &head, positions, seed, also);
        let found = look(log, topology, (stream, &head), drawn).await?;
        let now = topology.state(log.context()).await?;
        if now.is_some_and(|now| now.identity == stream.identity) {
            return Ok(found);
        }
    }
    Err(RecoverError::DoesNotContinue(format!(
        "the stream was made anew {MAX_ATTEMPTS} times while it was compared"
    )))
}

/// The positions to look at, of those that both have.
fn draw(
    stream: StreamState,
    head: &LogHead,
    positions: usize,
    seed: u64,
    also: &[Position],
) -> BTreeSet<Position> {
    let (first, last) = (stream.first, stream.last.min(head.position));
    if stream.events == 0 || first > last {
        return BTreeSet::new();
    }
    let both = first.get()..=last.get();
    let mut drawn = BTreeSet::from([first, last]);
    drawn.extend(also.iter().filter(|at| both.contains(&at.get())));
    if last.get() - first.get() < positions as u64 {
        drawn.extend(both.map(Position::new));
        return drawn;
    }
    let mut random = StdRng::seed_from_u64(seed);
    for _ in 0..positions.min(MAX_AUDITED_POSITIONS) {
        drawn.insert(Position::new(random.random_range(both.clone())));
    }
    drawn
}

async fn look(
    log: &dyn EventLog,
    topology: &Topology,
    (stream, head): (StreamState, &LogHead),
    drawn: BTreeSet<Position>,
) -> Result<StreamAudit, RecoverError> {
    let mut found = StreamAudit {
        head: head.position,
        last: Some(stream.last),
        compared: 0,
        differences: 0,
        named: Vec::new(),
    };
    if stream.last > head.position {
        let what = format!("the log ends here, its stream goes on to {}", stream.last);
        found.differs(head.position, what);
    }
    for at in drawn {
        let began = Instant::now();
        found.compared += 1;
        if let Err(what) = same_at(log, topology, stream, head, at).await? {
            // Where the stream keeps events for a time only, this one's may just have ended.
            let now = topology.state(log.context()).await?;
            if now.is_some_and(|now| now.first <= at) {
                found.differs(at, what);
            }
        }
        let rest = began.elapsed().min(Duration::from_millis(MAX_REST_MS));
        tokio::time::sleep(rest).await;
    }
    Ok(found)
}
