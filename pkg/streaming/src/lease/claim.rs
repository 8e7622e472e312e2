use bytes::Bytes;
use tokio::{
    sync::watch,
    time::{Instant, MissedTickBehavior},
};
use tokio_util::sync::CancellationToken;

use super::{
    LeaseOptions, MemberId,
    bucket::{Bucket, Revision, Written},
};
use crate::error::{NatsError, chain};

/// How one process stands with one lease.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// It is held until this moment of this machine's monotonic clock, and longer if it is
    /// renewed.
    Held {
        /// When it ends.
        until: Instant,
    },
    /// Another process has it, or it is not known who does.
    NotHeld,
}

impl Standing {
    /// Whether the lease is held now.
    #[must_use]
    pub fn is_held(self) -> bool {
        matches!(self, Self::Held { until } if Instant::now() < until)
    }
}

/// One process's claim on one lease.
#[derive(Debug)]
pub struct Claim {
    bucket: Bucket,
    member: MemberId,
    options: LeaseOptions,
    held: Option<Revision>,
    /// Another's revision, when it was first seen, and when last.
    watched: Option<Watched>,
}

#[derive(Debug, Clone, Copy)]
struct Watched {
    revision: Revision,
    since: Instant,
    looked: Instant,
}

impl Claim {
    pub(super) const fn new(bucket: Bucket, member: MemberId, options: LeaseOptions) -> Self {
        Self {
            bucket,
            member,
            options,
            held: None,
            watched: None,
        }
    }

    /// Renews the lease if it is held, takes it if it is free or its holder has not renewed it for
    /// the whole time to live, and says how it stands.
    ///
    /// # Errors
    /// [`NatsError`] when it is not known; what was held stays held until its time is over.
    pub async fn attempt(&mut self) -> Result<Standing, NatsError> {
        // The time to live counts from before the write: observers count from after it.
        let started = Instant::now();
        let value = Bytes::copy_from_slice(self.member.as_str().as_bytes());
        if let Some(revision) = self.held {
            match self.bucket.write(revision, value.clone()).await? {
                Written::Done(renewed) => return Ok(self.holding(renewed, started)),
                Written::Conflict => self.held = None,
            }
        }
        let (revision, holder) = self.bucket.read().await?;
        let free = holder.is_empty() || holder == value || self.has_expired(revision, started);
        if !free {
            return Ok(Standing::NotHeld);
        }
        match self.bucket.write(revision, value).await? {
            Written::Done(taken) => Ok(self.holding(taken, started)),
            Written::Conflict => Ok(Standing::NotHeld),
        }
    }

    /// Gives the lease back, so that another process gets it at its next look.
    ///
    /// # Errors
    /// [`NatsError`] when the server was not told; then the lease expires.
    pub async fn release(&mut self) -> Result<(), NatsError> {
        if let Some(revision) = self.held.take() {
            self.bucket.write(revision, Bytes::new()).await?;
        }
        Ok(())
    }

    /// Keeps the lease, or keeps trying to get it, until told to stop, and then gives it back.
    pub async fn keep(mut self, standing: watch::Sender<Standing>, stop: CancellationToken) {
        let mut ticks = tokio::time::interval(self.options.renew_every);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut failing = false;
        while stop.run_until_cancelled(ticks.tick()).await.is_some() {
            let Some(attempted) = stop.run_until_cancelled(Box::pin(self.attempt())).await else {
                break;
            };
            match attempted {
                Ok(now) => {
                    failing = false;
                    standing.send_replace(now);
                }
                // What was held stays so until its time is over; the reader of the standing sees.
                Err(error) if !failing => {
                    failing = true;
                    tracing::warn!(
                        lease = self.bucket.key(),
                        error = chain(&error),
                        "lease not renewed"
                    );
                }
                Err(_) => {}
            }
        }
        standing.send_replace(Standing::NotHeld);
        if let Err(error) = self.release().await {
            tracing::debug!(
                lease = self.bucket.key(),
                error = chain(&error),
                "lease not given back"
            );
        }
    }

    fn holding(&mut self, revision: Revision, started: Instant) -> Standing {
        self.held = Some(revision);
        self.watched = None;
        Standing::Held {
            until: started + self.options.ttl,
        }
    }

    /// Whether another's lease was seen unchanged for the whole time to live. Who could not look
    /// for a while, because it or the server stood still, begins again.
    fn has_expired(&mut self, revision: Revision, now: Instant) -> bool {
        let ttl = self.options.ttl;
        match &mut self.watched {
            Some(seen) if seen.revision == revision && now - seen.looked <= ttl / 2 => {
                seen.looked = now;
                now - seen.since >= ttl
            }
            _ => {
                self.watched = Some(Watched {
                    revision,
                    since: now,
                    looked: now,
                });
                false
            }
        }
    }
}
