//! One session of publishing: read ahead in the log's feed, publish, take acknowledgements, until the
//! lease ends or something does not fit.

use std::{collections::VecDeque, sync::Arc, time::Duration};

use futures::future::BoxFuture;
use millrace_es::{Position, RecordedEvent};
use millrace_eventlog::{Backoff, EventFeed, LogError, is_last};
use tokio::{
    sync::watch,
    time::{Instant, MissedTickBehavior},
};
use tokio_util::sync::CancellationToken;

use super::{
    DRAIN_MS, Relay, RelayError,
    flight::Flight,
    inspect::{Depth, Verdict},
};
use crate::{client::Lifetime, lease::Standing, topology::StreamState};

/// How many events are read at once.
const PAGE_EVENTS: usize = 1_000;
/// Below how many waiting events the next page is read.
const READ_AHEAD_EVENTS: usize = 1_000;

/// Why a session ended without an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ended {
    /// The relay was told to stop.
    Stopped,
    /// The lease is another's, or could not be renewed.
    LeaseLost,
    /// Stream and log have to be compared again.
    LookAgain,
}

/// The log's feed, read ahead of what is published.
struct Pages {
    feed: Arc<dyn EventFeed>,
    waiting: VecDeque<RecordedEvent>,
    read_to: Position,
    reading: Option<BoxFuture<'static, Result<Vec<RecordedEvent>, LogError>>>,
    /// Nothing more was there at the last look, and nobody has said otherwise since.
    at_head: bool,
}

impl Pages {
    fn after(feed: Arc<dyn EventFeed>, position: Position) -> Self {
        Self {
            feed,
            waiting: VecDeque::new(),
            read_to: position,
            reading: None,
            at_head: false,
        }
    }

    fn wants_page(&self) -> bool {
        !self.at_head && self.reading.is_none() && self.waiting.len() < READ_AHEAD_EVENTS
    }

    fn begin_page(&mut self) {
        let (feed, after) = (Arc::clone(&self.feed), self.read_to);
        self.reading = Some(Box::pin(async move { feed.next(after, PAGE_EVENTS).await }));
    }

    /// Waits for the page that is being read; for ever when none is.
    async fn page(&mut self) -> Result<(), LogError> {
        let Some(reading) = &mut self.reading else {
            return std::future::pending().await;
        };
        let page = reading.await;
        self.reading = None;
        let page = page?;
        self.at_head = is_last(&page, PAGE_EVENTS);
        for event in page {
            if event.position != self.read_to.next() {
                return Err(LogError::Corrupt(format!(
                    "after position {} comes {}",
                    self.read_to, event.position
                )));
            }
            self.read_to = event.position;
            self.waiting.push_back(event);
        }
        Ok(())
    }
}

/// Where a session stands.
struct Cursor {
    stream: StreamState,
    /// The last position acknowledged.
    published: Position,
    /// The highest position known of.
    head: Position,
}

impl Relay {
    pub(super) async fn publish_from(
        &mut self,
        stream: StreamState,
        head: Position,
        standing: &mut watch::Receiver<Standing>,
        stop: &CancellationToken,
        backoff: &mut Backoff,
    ) -> Result<Ended, RelayError> {
        let client = self.topology.jetstream().client();
        let names = self.topology.names().clone();
        let mut flight = Flight::begin(client, names, self.options.continue_trace).await?;
        let mut cursor = Cursor {
            stream,
            published: stream.last,
            head,
        };
        let ended = self
            .pump(&mut flight, &mut cursor, standing, stop, backoff)
            .await;
        if let Some(open) = flight.first_open() {
            self.depth = Depth::FlightFrom(open);
        }
        flight.drain(Duration::from_millis(DRAIN_MS)).await;
        ended
    }

    async fn pump(
        &mut self,
        flight: &mut Flight,
        cursor: &mut Cursor,
        standing: &mut watch::Receiver<Standing>,
        stop: &CancellationToken,
        backoff: &mut Backoff,
    ) -> Result<Ended, RelayError> {
        let lifetime = Lifetime::of(self.topology.jetstream().client());
        let mut grown = self.feed.grown();
        let mut signals = self.signals.on_appended(self.context()).await?;
        let mut suspicions = self.signals.on_foreign(self.context()).await?;
        let mut pages = Pages::after(Arc::clone(&self.feed), cursor.published);
        let mut polls = tokio::time::interval(self.options.poll_every);
        polls.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut audit_at = Instant::now() + self.options.audit_every;
        loop {
            if !standing.borrow_and_update().is_held() {
                return Ok(Ended::LeaseLost);
            }
            while flight.has_room()
                && let Some(event) = pages.waiting.pop_front()
            {
                flight.publish(&event).await?;
            }
            if pages.wants_page() {
                // What the feed gets from here on wakes again; all before is in the page.
                grown.borrow_and_update();
                pages.begin_page();
            }
            tokio::select! {
                () = stop.cancelled() => return Ok(Ended::Stopped),
                acknowledged = flight.acknowledged(), if !flight.is_empty() => {
                    if let Some(position) = acknowledged? {
                        self.advance(cursor, position);
                        backoff.reset();
                    }
                }
                read = pages.page(), if pages.reading.is_some() => {
                    read?;
                    cursor.head = cursor.head.max(pages.read_to);
                    self.meters.lag(cursor.head, cursor.published);
                }
                Ok(()) = grown.changed(), if pages.at_head => pages.at_head = false,
                Some(newest) = signals.next(), if pages.at_head => {
                    pages.at_head = newest <= pages.read_to;
                }
                Some(foreign) = suspicions.next() => {
                    if foreign <= cursor.published {
                        self.depth = Depth::FlightFrom(foreign);
                        return Ok(Ended::LookAgain);
                    }
                }
                _ = standing.changed() => {}
                _ = polls.tick() => {
                    let idle = flight.is_empty() && pages.waiting.is_empty();
                    let audit = idle && Instant::now() >= audit_at;
                    if audit {
                        audit_at = Instant::now() + self.options.audit_every;
                    }
                    let look = Box::pin(self.agrees(cursor, audit));
                    let Some(agrees) = stop.run_until_cancelled(lifetime.bound(look)).await else {
                        return Ok(Ended::Stopped);
                    };
                    if !agrees?? {
                        return Ok(Ended::LookAgain);
                    }
                    pages.at_head &= cursor.head <= pages.read_to;
                }
            }
        }
    }

    fn advance(&mut self, cursor: &mut Cursor, acknowledged: Position) {
        let events = acknowledged.get().saturating_sub(cursor.published.get());
        cursor.published = cursor.published.max(acknowledged);
        self.known = Some((cursor.stream.identity, cursor.published));
        self.meters.published(events);
        self.meters.lag(cursor.head, cursor.published);
    }

    /// Looks at the log's head, which must not be behind what was published; an audit also
    /// compares the idle stream with the log, since nothing else would tell of a stream that was
    /// emptied or written to meanwhile.
    async fn agrees(&self, cursor: &mut Cursor, audit: bool) -> Result<bool, RelayError> {
        if audit {
            let found = self.inspect(Depth::Newest).await?;
            cursor.head = found.head.position;
            return Ok(matches!(found.verdict, Verdict::GoOn(stream)
                if stream.identity == cursor.stream.identity && stream.last == cursor.published));
        }
        let head = self.log.head().await?;
        cursor.head = head.position;
        Ok(head.position >= cursor.published)
    }
}
