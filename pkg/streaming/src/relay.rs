mod flight;
pub(crate) mod inspect;
mod meters;
mod session;

use std::{sync::Arc, time::Duration};

use millrace_es::{Context, Position};
use millrace_eventlog::{Backoff, EventFeed, EventLog, LogError, LogFeed, LogHead};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::{
    client::Lifetime,
    error::{NatsError, chain},
    lease::{Leases, Standing},
    names::InvalidToken,
    signals::Signals,
    topology::{StreamIdentity, StreamState, Topology},
};
pub use flight::ContinueTrace;
use flight::FlightError;
use inspect::{Depth, Fault, InspectError, Inspection, Verdict, inspect};
use meters::Meters;
use session::Ended;

/// How often a relay looks at the log's head when nobody signals an append, in milliseconds.
pub const POLL_MS: u64 = 1_000;
/// How often a relay compares an idle stream with the log, in milliseconds.
pub const AUDIT_MS: u64 = 5_000;
/// How many of the newest events a stream is filled with when it has to be made anew, so that
/// the newest do not wait behind the whole log; who is further behind reads the log.
pub const REFILL_EVENTS: u64 = 100_000;
/// How long messages on their way may take to arrive before the stream is looked at, in
/// milliseconds.
const DRAIN_MS: u64 = 1_000;
/// The pause before a look at a stream is believed that says to delete it, in milliseconds.
const CONFIRM_PAUSE_MS: u64 = 50;
/// The shortest and the longest pause after a failure, in milliseconds.
const BACKOFF_MIN_MS: u64 = 20;
const BACKOFF_MAX_MS: u64 = 2_000;
/// Failures in a row after which an operator should hear of it.
const FAILURES_TO_WARN: u32 = 3;

/// How a relay works; the defaults are the named constants of this module.
#[derive(Debug, Clone, Copy)]
pub struct RelayOptions {
    /// How often the log's head is looked at when nobody signals an append. Default [`POLL_MS`].
    pub poll_every: Duration,
    /// How often an idle stream is compared with the log. Default [`AUDIT_MS`].
    pub audit_every: Duration,
    /// How many of the newest events a stream gets when it is made anew. Default
    /// [`REFILL_EVENTS`].
    pub refill_events: u64,
    /// Makes the span of a publication continue the event's trace; the default does nothing.
    /// Only events whose trace is sampled get a span.
    pub continue_trace: ContinueTrace,
}

impl Default for RelayOptions {
    fn default() -> Self {
        Self {
            poll_every: Duration::from_millis(POLL_MS),
            audit_every: Duration::from_millis(AUDIT_MS),
            refill_events: REFILL_EVENTS,
            continue_trace: |_, _| {},
        }
    }
}

/// Publishes one context's log to its stream: position n as sequence n.
///
/// Every command process runs one; the one that holds the lease works, the others stand by and
/// pass on that they appended. Two at work at once do no harm, because the stream takes position
/// n only after n-1.
///
/// When the stream does not take an event, or is silent, the relay looks at it and compares it
/// with the log:
/// - It is behind: publishing goes on from there, whether it never had the rest or lost it.
/// - It is missing, was emptied, holds somebody else's message, or is of an earlier epoch: it is
///   made anew from the log.
/// - It has events of this log that the log itself lacks: the log was restored to an earlier
///   point. The log is halted, and the relay waits until `millrace log recover` has decided.
///
/// Every repair is said in the log and in `millrace_relay_repairs_total`.
pub struct Relay {
    log: Arc<dyn EventLog>,
    /// Where the events to publish are read.
    feed: Arc<dyn EventFeed>,
    topology: Topology,
    leases: Leases,
    signals: Signals,
    options: RelayOptions,
    meters: Meters,
    /// What this relay last knew of the stream, to tell a loss from a late start.
    known: Option<(StreamIdentity, Position)>,
    /// Why the log was found behind its stream, while it is.
    behind: Option<String>,
    /// How much of the stream has to be compared before publishing goes on.
    depth: Depth,
}

/// What kept a relay from working; it tries again.
#[derive(Debug, thiserror::Error)]
enum RelayError {
    #[error(transparent)]
    Nats(#[from] NatsError),
    #[error(transparent)]
    Log(#[from] LogError),
    #[error(transparent)]
    Flight(#[from] FlightError),
}

impl From<InspectError> for RelayError {
    fn from(error: InspectError) -> Self {
        match error {
            InspectError::Nats(error) => Self::Nats(error),
            InspectError::Log(error) => Self::Log(error),
        }
    }
}

impl Relay {
    /// A relay for a log, which reads its events from the log itself. Its lease goes by the
    /// context's name.
    #[must_use]
    pub fn new(
        log: Arc<dyn EventLog>,
        topology: Topology,
        leases: Leases,
        options: RelayOptions,
    ) -> Self {
        let client = topology.jetstream().client();
        let signals = Signals::new(client, topology.names().clone());
        let meters = Meters::new(log.context());
        Self {
            feed: Arc::new(LogFeed::new(Arc::clone(&log))),
            log,
            topology,
            leases,
            signals,
            options,
            meters,
            known: None,
            behind: None,
            depth: Depth::LastFlight,
        }
    }

    /// Reads the events to publish from a feed of the log. What the relay does with them, and what
    /// it compares and repairs its stream with, stays the same.
    #[must_use]
    pub fn fed_by(mut self, feed: Arc<dyn EventFeed>) -> Self {
        self.feed = feed;
        self
    }

    /// Works until told to stop. Whatever goes wrong is logged, counted and tried again.
    ///
    /// # Errors
    /// When the context's name cannot name a lease, which no context's name does.
    pub async fn run(mut self, stop: CancellationToken) -> Result<(), InvalidToken> {
        let claim = self.leases.claim(&format!("relay-{}", self.context()))?;
        let (held, standing) = watch::channel(Standing::NotHeld);
        let (log, signals) = (Arc::clone(&self.log), self.signals.clone());
        // The lease outlives the work by a moment, so that the next relay does not meet the end
        // of this one.
        let work_done = CancellationToken::new();
        let keeper = Box::pin(claim.keep(held, work_done.clone()));
        let work = Box::pin(async {
            self.work(standing.clone(), &stop).await;
            work_done.cancel();
        });
        let pass_on = pass_on_appends(&*log, &signals, standing.clone(), &stop);
        tokio::join!(keeper, work, pass_on);
        Ok(())
    }

    fn context(&self) -> &Context {
        self.log.context()
    }

    async fn work(&mut self, mut standing: watch::Receiver<Standing>, stop: &CancellationToken) {
        let mut backoff = Backoff::new(
            Duration::from_millis(BACKOFF_MIN_MS),
            Duration::from_millis(BACKOFF_MAX_MS),
        );
        loop {
            let held = standing.borrow_and_update().is_held();
            self.meters.leading(held);
            if !held {
                let changed = stop.run_until_cancelled(standing.changed()).await;
                if !matches!(changed, Some(Ok(()))) {
                    return;
                }
                continue;
            }
            match self.lead(&mut standing, stop, &mut backoff).await {
                Ok(Ended::Stopped) => break,
                Ok(Ended::LeaseLost) => {
                    // Whoever works meanwhile may end at any moment.
                    self.depth = Depth::LastFlight;
                    tracing::info!(context = %self.context(), "this relay stands by: its lease is over");
                }
                Ok(Ended::LookAgain) => {}
                Err(error) => {
                    let pause = backoff.pause();
                    self.report(&error, backoff.failures());
                    if stop
                        .run_until_cancelled(tokio::time::sleep(pause))
                        .await
                        .is_none()
                    {
                        break;
                    }
                }
            }
        }
        self.meters.leading(false);
    }

    fn report(&self, error: &RelayError, failures: u32) {
        let context = self.context();
        let error = chain(error);
        if failures == FAILURES_TO_WARN {
            tracing::warn!(%context, error, "the relay does not get on; it keeps trying");
        } else {
            tracing::debug!(%context, error, failures, "the relay starts over");
        }
    }

    /// Looks at the stream, repairs it if need be, and publishes until something happens.
    async fn lead(
        &mut self,
        standing: &mut watch::Receiver<Standing>,
        stop: &CancellationToken,
        backoff: &mut Backoff,
    ) -> Result<Ended, RelayError> {
        let lifetime = Lifetime::of(self.topology.jetstream().client());
        let put_right = Box::pin(self.put_right(standing, stop));
        match lifetime.bound(put_right).await?? {
            Ok((stream, head)) => {
                self.publish_from(stream, head, standing, stop, backoff)
                    .await
            }
            Err(ended) => Ok(ended),
        }
    }

    /// Looks at the stream and repairs it if need be: the stream and the log's head when
    /// publishing may go on.
    async fn put_right(
        &mut self,
        standing: &watch::Receiver<Standing>,
        stop: &CancellationToken,
    ) -> Result<Result<(StreamState, Position), Ended>, RelayError> {
        let Inspection { verdict, head } = self.inspect(self.depth).await?;
        let stream = match verdict {
            Verdict::LogBehind(why) => {
                return Ok(Err(self.wait_for_recovery(&head, why, stop).await?));
            }
            Verdict::GoOn(stream) => stream,
            Verdict::Rebuild(fault, why) => {
                if !self.confirm(fault).await? || !standing.borrow().is_held() {
                    return Ok(Err(Ended::LookAgain));
                }
                self.rebuild(fault, &why, &head).await?
            }
        };
        if self.behind.take().is_some() {
            tracing::info!(
                context = %self.context(), head = %head.position,
                "log and stream agree again; the relay goes on"
            );
            self.meters.repaired("recovered");
        }
        self.note_loss(&stream, head.position);
        if stream.epoch.is_none() {
            self.topology.label(self.context(), head.epoch).await?;
        }
        self.known = Some((stream.identity, stream.last));
        self.depth = Depth::Newest;
        Ok(Ok((stream, head.position)))
    }

    async fn inspect(&self, depth: Depth) -> Result<Inspection, InspectError> {
        let refill_events = self.options.refill_events;
        inspect(&*self.log, &self.topology, refill_events, depth).await
    }

    /// Looks a second time before a stream is deleted.
    async fn confirm(&self, fault: Fault) -> Result<bool, InspectError> {
        tokio::time::sleep(Duration::from_millis(CONFIRM_PAUSE_MS)).await;
        let again = self.inspect(self.depth).await?.verdict;
        Ok(matches!(again, Verdict::Rebuild(found, _) if found == fault))
    }

    /// Makes the stream anew, so that its next sequence is the position where it is to begin.
    async fn rebuild(
        &mut self,
        fault: Fault,
        why: &str,
        head: &LogHead,
    ) -> Result<StreamState, RelayError> {
        let kept = head.position.get().min(self.options.refill_events);
        let first = Position::new(head.position.get() - kept).next();
        let context = self.context();
        if fault != Fault::Missing {
            self.topology.delete(context).await?;
        }
        let stream = self.topology.create(context, first, head.epoch).await?;
        if fault == Fault::Missing {
            // A server that lost one stream with its data lost the others too.
            self.topology.ensure(std::slice::from_ref(context)).await?;
        }
        if head.position == Position::ZERO && fault == Fault::Missing {
            tracing::info!(%context, "the stream was made");
        } else {
            tracing::warn!(
                %context, why, %first, head = %head.position, kind = fault.kind(),
                "the stream was made anew from the log"
            );
            self.meters.repaired(fault.kind());
        }
        // What was known of the stream before is gone with it.
        self.known = None;
        Ok(stream)
    }

    /// Says when a stream has less than this relay put into it.
    fn note_loss(&self, stream: &StreamState, head: Position) {
        let Some((identity, last)) = self.known else {
            return;
        };
        if stream.last >= last {
            return;
        }
        let kind = if stream.identity == identity {
            "tail_lost"
        } else {
            Fault::Emptied.kind()
        };
        tracing::warn!(
            context = %self.context(), kind, had = %last, has = %stream.last, %head,
            "the stream lost events; they are published again"
        );
        self.meters.repaired(kind);
    }

    /// Halts the log and waits a moment; the next look says whether somebody has decided.
    async fn wait_for_recovery(
        &mut self,
        head: &LogHead,
        why: String,
        stop: &CancellationToken,
    ) -> Result<Ended, RelayError> {
        if self.behind.as_ref() != Some(&why) {
            tracing::error!(
                context = %self.context(), why,
                "the log lacks what its stream has: appends and relay stop; run `millrace log recover`"
            );
            self.meters.repaired("log_behind");
        }
        if head.halted.is_none() {
            self.log.halt(&why).await?;
        }
        self.behind = Some(why);
        let pause = tokio::time::sleep(self.options.poll_every);
        match stop.run_until_cancelled(pause).await {
            Some(()) => Ok(Ended::LookAgain),
            None => Ok(Ended::Stopped),
        }
    }
}

/// Tells the relays of other processes that this one appended, while this one's stands by.
async fn pass_on_appends(
    log: &dyn EventLog,
    signals: &Signals,
    standing: watch::Receiver<Standing>,
    stop: &CancellationToken,
) {
    let mut appended = log.appended();
    while let Some(Ok(())) = stop.run_until_cancelled(appended.changed()).await {
        let position = *appended.borrow_and_update();
        if standing.borrow().is_held() {
            continue;
        }
        let sent = signals.appended(log.context(), position);
        // While the connection is down and its queue is full, stopping must not wait for it.
        if let Some(Err(error)) = stop.run_until_cancelled(sent).await {
            tracing::debug!(error = chain(&error), "append not signalled");
        }
    }
}
