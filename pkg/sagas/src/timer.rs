use std::{
    error::Error,
    pin::pin,
    sync::Arc,
    time::{Duration, Instant},
};

use async_trait::async_trait;
use futures::{Stream, StreamExt, stream};
use millrace_es::Saga;
use millrace_eventlog::jittered;
use millrace_kernel::EntityId;
use serde::{Serialize, de::DeserializeOwned};
use tokio_util::sync::CancellationToken;

use crate::{Pump, Pumped};

/// How many sagas are claimed at once.
pub const PAGE_SAGAS: usize = 32;
/// How many of them are pumped side by side.
const MAX_AT_ONCE: usize = 8;
/// The longest that one pump of one saga may take; less than a claim lives.
const MAX_PUMP: Duration = Duration::from_secs(40);
/// How long a claim lives: how long a saga waits when its process dies.
const CLAIM: Duration = Duration::from_secs(60);
/// The first pause before a saga is tried again; each is twice the one before it.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
/// The longest of them.
pub const MAX_PAUSE: Duration = Duration::from_secs(60);
/// How often the figures are taken.
const MEASURE_EVERY: Duration = Duration::from_secs(10);

/// A saga that is this process's to pump, for a while.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claimed {
    /// Which.
    pub id: EntityId,
    /// How often it was claimed since it last got on, this time included.
    pub attempts: u32,
    /// Names the claim, so that whoever was overtaken changes nothing.
    pub claim: String,
}

/// How the unfinished sagas of a kind stand.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Standing {
    /// How many there are.
    pub unfinished: u64,
    /// For how long the oldest of them has not got on.
    pub oldest: Duration,
    /// How many came to an end that only people can put right, and nobody did so far.
    pub left_to_people: u64,
}

/// The schedule could not be read or written.
#[derive(Debug, thiserror::Error)]
#[error("the schedule of sagas does not answer")]
pub struct ScheduleError(#[source] pub Box<dyn Error + Send + Sync>);

/// Where it stands which sagas are due.
#[async_trait]
pub trait Schedule: Send + Sync {
    /// Claims what is due, the longest due first, at most `limit`; what is claimed is due again when
    /// the claim has run out.
    ///
    /// # Errors
    /// [`ScheduleError`].
    async fn claim(&self, limit: usize, lives: Duration) -> Result<Vec<Claimed>, ScheduleError>;

    /// Nothing is to be done for a saga, unless somebody woke it meanwhile.
    ///
    /// # Errors
    /// [`ScheduleError`].
    async fn idle(&self, claimed: &Claimed) -> Result<(), ScheduleError>;

    /// A saga is due again after a pause, unless somebody woke it meanwhile.
    ///
    /// # Errors
    /// [`ScheduleError`].
    async fn later(&self, claimed: &Claimed, pause: Duration) -> Result<(), ScheduleError>;

    /// How the unfinished stand.
    ///
    /// # Errors
    /// [`ScheduleError`].
    async fn standing(&self) -> Result<Standing, ScheduleError>;
}

/// How a timer works.
#[derive(Debug, Clone, Copy)]
pub struct TimerOptions {
    /// How often it looks for what is due.
    pub poll_every: Duration,
    /// The first pause before a saga is tried again.
    pub first_pause: Duration,
    /// The longest.
    pub max_pause: Duration,
}

impl Default for TimerOptions {
    fn default() -> Self {
        Self {
            poll_every: Duration::from_millis(500),
            first_pause: FIRST_PAUSE,
            max_pause: MAX_PAUSE,
        }
    }
}

/// Pumps what is due, until told to stop. Run as many as there are processes.
pub struct Timer<S: Saga> {
    pump: Pump<S>,
    schedule: Arc<dyn Schedule>,
    options: TimerOptions,
}

impl<S: Saga> std::fmt::Debug for Timer<S> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Timer")
            .field("pump", &self.pump)
            .field("options", &self.options)
            .finish_non_exhaustive()
    }
}

impl<S: Saga + Serialize + DeserializeOwned> Timer<S> {
    /// Of a schedule.
    #[must_use]
    pub fn new(pump: Pump<S>, schedule: Arc<dyn Schedule>, options: TimerOptions) -> Self {
        Self {
            pump,
            schedule,
            options,
        }
    }

    /// Works until told to stop; what it has claimed then is finished, or due again later.
    pub async fn run(self, stop: CancellationToken) {
        self.run_woken_by(stream::pending(), stop).await;
    }

    /// The same, woken before its time by hints, each of which says that something may be due now.
    /// Nothing depends on them but how soon that is looked at: they may be lost, come twice, or end.
    pub async fn run_woken_by(self, hints: impl Stream<Item = ()> + Send, stop: CancellationToken) {
        let mut hints = pin!(hints.fuse());
        let mut measured: Option<Instant> = None;
        while !stop.is_cancelled() {
            if measured.is_none_or(|at| at.elapsed() >= MEASURE_EVERY) {
                measured = Some(Instant::now());
                self.measure().await;
            }
            let more = match self.turn().await {
                Ok(claimed) => claimed == PAGE_SAGAS,
                Err(error) => {
                    let error = &error as &dyn Error;
                    tracing::warn!(saga = S::NAME, error, "due sagas cannot be claimed now");
                    false
                }
            };
            if more {
                continue;
            }
            tokio::select! {
                () = stop.cancelled() => {}
                Some(()) = hints.next() => {}
                () = tokio::time::sleep(jittered(self.options.poll_every)) => {}
            }
        }
    }

    /// Claims one page of what is due and pumps it; how many these were.
    ///
    /// # Errors
    /// [`ScheduleError`] when nothing could be claimed.
    pub async fn turn(&self) -> Result<usize, ScheduleError> {
        let page = self.schedule.claim(PAGE_SAGAS, CLAIM).await?;
        let count = page.len();
        futures::stream::iter(page)
            .for_each_concurrent(MAX_AT_ONCE, |claimed| self.one(claimed))
            .await;
        Ok(count)
    }

    async fn one(&self, claimed: Claimed) {
        let pumped = tokio::time::timeout(MAX_PUMP, self.pump.pump(&claimed.id)).await;
        let pause = self.pause(claimed.attempts);
        let (outcome, error): (_, Option<Box<dyn Error + Send + Sync>>) = match pumped {
            Ok(Ok(Pumped::Idle)) => ("idle", None),
            Ok(Ok(Pumped::Later(leftover))) => ("later", Some(leftover.into())),
            Ok(Err(error)) => ("failed", Some(error.into())),
            Err(elapsed) => ("failed", Some(elapsed.into())),
        };
        metrics::counter!("millrace_saga_pumps_total", "saga" => S::NAME, "outcome" => outcome)
            .increment(1);
        let scheduled = match error {
            None => self.schedule.idle(&claimed).await,
            Some(error) => {
                tracing::warn!(
                    saga = S::NAME,
                    id = %claimed.id,
                    attempts = claimed.attempts,
                    error = &*error as &dyn Error,
                    "a saga did not get on; it is tried again in {} ms",
                    pause.as_millis(),
                );
                self.schedule.later(&claimed, pause).await
            }
        };
        if let Err(error) = scheduled {
            let error = &error as &dyn Error;
            tracing::warn!(saga = S::NAME, id = %claimed.id, error, "it is due when its claim ends");
        }
    }

    fn pause(&self, attempts: u32) -> Duration {
        let doublings = attempts.saturating_sub(1).min(16);
        let pause = self.options.first_pause.saturating_mul(1 << doublings);
        jittered(pause.min(self.options.max_pause))
    }

    async fn measure(&self) {
        match self.schedule.standing().await {
            Ok(standing) => {
                metrics::gauge!("millrace_sagas_unfinished", "saga" => S::NAME)
                    .set(figure(standing.unfinished));
                metrics::gauge!("millrace_saga_oldest_unfinished_seconds", "saga" => S::NAME)
                    .set(standing.oldest.as_secs_f64());
                metrics::gauge!("millrace_sagas_left_to_people", "saga" => S::NAME)
                    .set(figure(standing.left_to_people));
            }
            Err(error) => {
                let error = &error as &dyn Error;
                tracing::debug!(saga = S::NAME, error, "unfinished sagas were not counted");
            }
        }
    }
}

#[expect(clippy::cast_precision_loss, reason = "a figure for people")]
const fn figure(count: u64) -> f64 {
    count as f64
}
