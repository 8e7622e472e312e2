//! What the shards' readers and the relay share.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use millrace_es::{Position, RecordedEvent};
use millrace_kernel::Timestamp;
use tokio::{
    sync::{Notify, watch},
    time::Instant,
};

use super::{
    StreamsOptions,
    buffer::{Bounds, Buffer, Gap, Put, Taken},
    meters::Meters,
};
use crate::{EventFeed, EventLog, LogError, is_last};

/// The events of a log as DynamoDB Streams gives them, in order. What the shards do not give, or
/// not in time, is read from the log.
pub(super) struct StreamFeed {
    pub(super) log: Arc<dyn EventLog>,
    pub(super) meters: Meters,
    state: Mutex<State>,
    /// Tells the relay that asking may give more. As long as somebody holds a receiver, the shards
    /// are read.
    grown: watch::Sender<Position>,
    /// Tells that there is a receiver.
    listened: Notify,
    /// Tells the readers of idle shards that there is something to read.
    hurry: watch::Sender<()>,
    /// Tells that a hole has appeared or gone.
    stirred: Notify,
}

struct State {
    buffer: Buffer,
    /// When the newest record was written that was read.
    newest: Option<Timestamp>,
}

impl StreamFeed {
    pub(super) fn new(log: Arc<dyn EventLog>, options: &StreamsOptions) -> Self {
        let buffer = Buffer::new(Bounds {
            events: options.buffer_events,
            bytes: options.buffer_bytes,
            hole_patience: options.hole_patience,
        });
        Self {
            meters: Meters::new(log.context()),
            log,
            state: Mutex::new(State {
                buffer,
                newest: None,
            }),
            grown: watch::Sender::new(Position::ZERO),
            listened: Notify::new(),
            hurry: watch::Sender::new(()),
            stirred: Notify::new(),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Nothing is left half done by whoever panicked: every method of the buffer is whole.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a page of a shard, as far as it is events.
    pub(super) fn put(&self, events: Vec<RecordedEvent>, newest: Option<Timestamp>) {
        let (now, mut state) = (Instant::now(), self.state());
        let (all, mut duplicates) = (events.len(), 0);
        for event in events {
            duplicates += u64::from(state.buffer.put(event, now) == Put::Duplicate);
        }
        state.newest = state.newest.max(newest);
        self.meters.events(all as u64, duplicates);
        self.changed(&state, now);
    }

    /// Notes that the log has a position.
    pub(super) fn know(&self, position: Position) {
        let (now, mut state) = (Instant::now(), self.state());
        if state.buffer.know(position, now) {
            self.hurry.send_replace(());
            self.changed(&state, now);
        }
    }

    /// Looks at the log's head.
    pub(super) async fn look(&self) -> Result<Position, LogError> {
        let known = self.state().buffer.known();
        let head = self.log.head().await?.position;
        let (now, mut state) = (Instant::now(), self.state());
        state.buffer.look(known, head, now);
        if state.buffer.has_hole() {
            self.hurry.send_replace(());
        }
        self.changed(&state, now);
        Ok(head)
    }

    /// What is missing up to a position is read from the log without waiting for the shards.
    pub(super) fn give_up(&self, through: Position) {
        let (now, mut state) = (Instant::now(), self.state());
        state.buffer.give_up(through, Gap::Past);
        self.changed(&state, now);
    }

    /// When the relay can be given something, as far as that is known.
    pub(super) fn due_at(&self) -> Option<Instant> {
        self.state().buffer.due_at(Instant::now())
    }

    pub(super) async fn stirred(&self) {
        self.stirred.notified().await;
    }

    /// Wakes the relay.
    pub(super) fn wake(&self) {
        let known = self.state().buffer.known();
        self.grown.send_replace(known);
    }

    pub(super) fn fed(&self) -> Position {
        self.state().buffer.fed()
    }

    /// Whether what comes next is waited for.
    pub(super) fn has_hole(&self) -> bool {
        self.state().buffer.has_hole()
    }

    pub(super) fn hurry(&self) -> watch::Receiver<()> {
        self.hurry.subscribe()
    }

    /// Waits until somebody listens.
    pub(super) async fn wanted(&self) {
        while self.grown.is_closed() {
            self.listened.notified().await;
        }
    }

    /// Waits until nobody has listened for a while.
    pub(super) async fn abandoned(&self, linger: std::time::Duration) {
        loop {
            self.grown.closed().await;
            let back = tokio::time::timeout(linger, self.wanted()).await;
            if back.is_err() {
                return;
            }
        }
    }

    /// Forgets what waits, while nobody reads the shards.
    pub(super) fn rest(&self) {
        self.state().buffer.clear();
        self.meters.rests();
    }

    fn changed(&self, state: &State, now: Instant) {
        self.meters.buffer(&state.buffer, state.newest);
        match state.buffer.due_at(now) {
            Some(due) if due <= now => {
                self.grown.send_replace(state.buffer.known());
            }
            Some(_) => self.stirred.notify_one(),
            None => {}
        }
    }

    fn take(&self, after: Position, limit: usize) -> Taken {
        let (now, mut state) = (Instant::now(), self.state());
        let taken = state.buffer.take(after, limit, now);
        match &taken {
            // A short page ends the relay's asking, though more may be due.
            Taken::Events(page) if is_last(page, limit) => self.changed(&state, now),
            Taken::Events(_) | Taken::Gap(..) => {}
            // Whoever asks has reason to think that there is something.
            Taken::Nothing => {
                self.hurry.send_replace(());
                self.changed(&state, now);
            }
        }
        taken
    }
}

#[async_trait]
impl EventFeed for StreamFeed {
    async fn next(&self, after: Position, limit: usize) -> Result<Vec<RecordedEvent>, LogError> {
        let (through, why) = match self.take(after, limit) {
            Taken::Events(events) => return Ok(events),
            Taken::Nothing => return Ok(Vec::new()),
            Taken::Gap(through, why) => (through, why),
        };
        let mut page = self.log.read_log(after, limit).await?;
        page.retain(|event| event.position <= through);
        self.meters.gap(why, page.len());
        let now = Instant::now();
        self.state().buffer.asked_log(page.len(), now);
        if page.is_empty() {
            self.stirred.notify_one();
        } else {
            // There may be more behind it, of the log or of the shards.
            self.wake();
        }
        Ok(page)
    }

    fn grown(&self) -> watch::Receiver<Position> {
        let receiver = self.grown.subscribe();
        self.listened.notify_one();
        receiver
    }
}
