use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use async_nats::Subscriber;
use bytes::Bytes;
use futures::StreamExt;
use millrace_es::{Partition, PartitionCount};
use millrace_eventlog::jittered;
use tokio::{
    sync::{Notify, mpsc},
    time::Instant,
};
use tokio_util::sync::{CancellationToken, DropGuard};

use super::{
    LeaseOptions, Leases, MemberId,
    bucket::{Bucket, Written},
    group::{Group, Holdings, Observations},
};
use crate::{
    error::{NatsError, chain},
    names::InvalidToken,
};

/// How often one turn is tried when other members write at the same time.
const MAX_WRITE_ATTEMPTS: u32 = 8;
/// The pause before another try, in milliseconds.
const CONFLICT_PAUSE_MS: u64 = 20;

/// What happened to this member's share.
#[derive(Debug)]
pub enum LeaseEvent {
    /// A partition is this member's. Whoever works on it holds the [`Ownership`] and drops it when
    /// the work is done.
    Gained(Ownership),
    /// A partition has to be given up; its [`Ownership`] says so too.
    Lost(Partition),
}

/// One partition in this member's hands. Dropping it says that nothing here works on the
/// partition any more; until then it is not handed to another member, for as long as the handover
/// may take.
#[derive(Debug)]
pub struct Ownership {
    partition: Partition,
    lost: CancellationToken,
    _done: DropGuard,
    _wake: WakeOnDrop,
}

impl Ownership {
    /// The partition.
    #[must_use]
    pub const fn partition(&self) -> Partition {
        self.partition
    }

    /// Whether the partition is still this member's, as far as it knows. A member that was
    /// stopped or cut off learns late; its checkpoint's compare-and-set is what stops it.
    #[must_use]
    pub fn is_held(&self) -> bool {
        !self.lost.is_cancelled()
    }

    /// Completes when the partition has to be given up.
    pub async fn lost(&self) {
        self.lost.cancelled().await;
    }

    /// A token that is cancelled when the partition has to be given up.
    #[must_use]
    pub fn lost_token(&self) -> CancellationToken {
        self.lost.clone()
    }
}

/// Declared after the drop guard, so that whoever is woken finds it dropped.
#[derive(Debug)]
struct WakeOnDrop(Arc<Notify>);

impl Drop for WakeOnDrop {
    fn drop(&mut self) {
        self.0.notify_one();
    }
}

/// This member's hold on a partition, as the group's keeper sees it.
#[derive(Debug)]
struct Hold {
    lost: CancellationToken,
    done: CancellationToken,
    lost_at: Option<Instant>,
}

/// One member's part in a group that spreads partitions evenly: shares move when a member dies
/// (after the time to live), leaves or joins, and a member that has too much finishes what it
/// works on before it gives it up.
///
/// While NATS is away everybody keeps what they have: nobody else could take it.
#[derive(Debug)]
pub struct PartitionLeases {
    bucket: Bucket,
    leases: Leases,
    signal: String,
    count: PartitionCount,
    events: mpsc::Sender<LeaseEvent>,
    holds: BTreeMap<Partition, Hold>,
    seen: Observations,
    wake: Arc<Notify>,
}

impl PartitionLeases {
    /// Prepares to take part in a group (one per projection generation and context). Events come
    /// through the receiver once [`PartitionLeases::run`] runs.
    ///
    /// # Errors
    /// When the group's name cannot be a key.
    pub fn new(
        leases: &Leases,
        group: &str,
        count: PartitionCount,
    ) -> Result<(Self, mpsc::Receiver<LeaseEvent>), InvalidToken> {
        // A partition is gained again only after its last ownership was dropped, so there are
        // never more than two events per partition on the way.
        let (events, receiver) = mpsc::channel(2 * usize::from(count.get()));
        let this = Self {
            bucket: leases.group_bucket(group)?,
            signal: leases.topology().names().lease_signal(group)?,
            leases: leases.clone(),
            count,
            events,
            holds: BTreeMap::new(),
            seen: Observations::default(),
            wake: Arc::new(Notify::new()),
        };
        Ok((this, receiver))
    }

    /// Takes part until told to stop; then gives everything up, waits for the work on it to end
    /// (as long as a handover may take), and leaves the group.
    pub async fn run(mut self, stop: CancellationToken) {
        let mut signals = None;
        let mut failing = false;
        while !stop.is_cancelled() {
            let turned = stop.run_until_cancelled(Box::pin(self.turn())).await;
            match turned {
                None => break,
                Some(Ok(())) => failing = false,
                Some(Err(error)) if !failing => {
                    failing = true;
                    tracing::warn!(
                        group = self.bucket.key(),
                        error = chain(&error),
                        "shares not settled"
                    );
                }
                Some(Err(_)) => {}
            }
            if stop
                .run_until_cancelled(self.pause(&mut signals))
                .await
                .is_none()
            {
                break;
            }
        }
        self.leave().await;
    }

    /// Until the next turn: the time to renew, another member's signal, or an ownership dropped.
    async fn pause(&self, signals: &mut Option<Subscriber>) {
        if signals.is_none() {
            let client = self.leases.topology().jetstream().client();
            *signals = client.subscribe(self.signal.clone()).await.ok();
        }
        let signalled = async {
            match signals {
                Some(subscriber) => drop(subscriber.next().await),
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = tokio::time::sleep(self.options().renew_every) => {}
            () = signalled => {}
            () = self.wake.notified() => {}
        }
    }

    fn options(&self) -> LeaseOptions {
        self.leases.options()
    }

    fn me(&self) -> &MemberId {
        self.leases.member()
    }

    /// One turn: read, decide, write, and act on what was written.
    async fn turn(&mut self) -> Result<(), NatsError> {
        for _ in 0..MAX_WRITE_ATTEMPTS {
            let now = Instant::now();
            let (revision, value) = self.bucket.read().await?;
            let before = Group::from_bytes(&value);
            let holdings = self.holdings(now);
            let me = self.leases.member().clone();
            // What others took while this member was silent is lost, whatever is written below.
            self.lose(&taken_by_others(&before, &me, &holdings));
            let holdings = self.holdings(now);
            let mut after = before.clone();
            let ttl = self.options().ttl;
            after.turn(&me, self.count, &holdings, &mut self.seen, now, ttl);
            if self.write(revision, &before, &after).await? {
                self.settle(&after);
                return Ok(());
            }
            tokio::time::sleep(jittered(Duration::from_millis(CONFLICT_PAUSE_MS))).await;
        }
        Ok(())
    }

    async fn write(
        &mut self,
        revision: super::bucket::Revision,
        before: &Group,
        after: &Group,
    ) -> Result<bool, NatsError> {
        let value = after
            .to_bytes()
            .map_err(|error| NatsError::new("take the group's state", error))?;
        if self.bucket.write(revision, Bytes::from(value)).await? == Written::Conflict {
            return Ok(false);
        }
        if after.differs_from(before) {
            // A lost signal costs the others one renewal's time.
            let client = self.leases.topology().jetstream().client();
            let _sent = client.publish(self.signal.clone(), Bytes::new()).await;
        }
        Ok(true)
    }

    /// Forgets what was dropped, and sorts the rest.
    fn holdings(&mut self, now: Instant) -> Holdings {
        self.holds.retain(|_, hold| !hold.done.is_cancelled());
        let handover = self.options().handover;
        let mut holdings = Holdings::default();
        for (partition, hold) in &self.holds {
            match hold.lost_at {
                None => holdings.working.insert(*partition),
                Some(at) if now < at + handover => holdings.draining.insert(*partition),
                Some(_) => holdings.stuck.insert(*partition),
            };
        }
        holdings
    }

    /// Begins work on what is newly owned, and asks back what is over the share.
    fn settle(&mut self, group: &Group) {
        let owned = group.owned_by(self.me());
        let gained: Vec<Partition> = owned
            .iter()
            .filter(|partition| !self.holds.contains_key(partition))
            .copied()
            .collect();
        for partition in gained {
            self.gain(partition);
        }
        let share = group.share(self.me(), self.count);
        let working: Vec<Partition> = owned
            .into_iter()
            .filter(|partition| {
                self.holds
                    .get(partition)
                    .is_some_and(|h| h.lost_at.is_none())
            })
            .collect();
        self.lose(&working.into_iter().skip(share).collect());
    }

    fn gain(&mut self, partition: Partition) {
        let hold = Hold {
            lost: CancellationToken::new(),
            done: CancellationToken::new(),
            lost_at: None,
        };
        let ownership = Ownership {
            partition,
            lost: hold.lost.clone(),
            _done: hold.done.clone().drop_guard(),
            _wake: WakeOnDrop(Arc::clone(&self.wake)),
        };
        self.holds.insert(partition, hold);
        tracing::debug!(group = self.bucket.key(), %partition, "partition gained");
        // Nobody listening any more drops the ownership, and with it the partition.
        let _sent = self.events.try_send(LeaseEvent::Gained(ownership));
    }

    fn lose(&mut self, partitions: &BTreeSet<Partition>) {
        for partition in partitions {
            let Some(hold) = self.holds.get_mut(partition) else {
                continue;
            };
            if hold.lost_at.is_none() {
                hold.lost_at = Some(Instant::now());
                hold.lost.cancel();
                tracing::debug!(group = self.bucket.key(), %partition, "partition given up");
                let _sent = self.events.try_send(LeaseEvent::Lost(*partition));
            }
        }
    }

    async fn leave(mut self) {
        let all = self.holds.keys().copied().collect();
        self.lose(&all);
        let deadline = Instant::now() + self.options().handover;
        while self.holds.values().any(|hold| !hold.done.is_cancelled()) {
            let dropped = tokio::time::timeout_at(deadline, self.wake.notified());
            if dropped.await.is_err() {
                break;
            }
        }
        if let Err(error) = self.sign_off().await {
            tracing::debug!(
                group = self.bucket.key(),
                error = chain(&error),
                "group not left; the share expires"
            );
        }
    }

    async fn sign_off(&mut self) -> Result<(), NatsError> {
        for _ in 0..MAX_WRITE_ATTEMPTS {
            let (revision, value) = self.bucket.read().await?;
            let before = Group::from_bytes(&value);
            let mut after = before.clone();
            after.leave(self.leases.member());
            if self.write(revision, &before, &after).await? {
                return Ok(());
            }
            tokio::time::sleep(jittered(Duration::from_millis(CONFLICT_PAUSE_MS))).await;
        }
        Ok(())
    }
}

/// What this member works on although the group says that another owns it.
fn taken_by_others(group: &Group, me: &MemberId, holdings: &Holdings) -> BTreeSet<Partition> {
    holdings
        .working
        .iter()
        .filter(|partition| group.is_owned_by_another(**partition, me))
        .copied()
        .collect()
}
