//! Somebody who asks for one replay after the other.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use kube::{
    Api,
    api::{DeleteParams, ListParams, Patch, PatchParams, PostParams},
};
use millrace_faults::Seed;
use millrace_replay::{Replay, ReplaySpec, Throttle, VerifyMode, status::Generations};
use millrace_testkit::{Kubernetes, eventually};
use serde_json::{Value, json};

/// How long a replay may take, kills included.
const REPLAY_BOUND: Duration = Duration::from_secs(1_200);
/// How long a call may find no API server.
const API_BOUND: Duration = Duration::from_secs(90);
/// Slow enough that kills meet the load, in events per second.
const EVENTS_PER_SECOND: u32 = 700;
/// How long the generation before is kept, in seconds: time for a rollback.
const RETAIN_SECONDS: u32 = 120;

/// Asks for replays of one projection.
pub struct Asking {
    replays: Api<Replay>,
    projection: &'static str,
    seed: Seed,
    made: u32,
    counts: Counts,
}

/// What became of them.
#[derive(Debug, Clone, Copy, Default)]
pub struct Counts {
    pub succeeded: u32,
    pub cancelled: u32,
    pub rolled_back: u32,
    /// Rollbacks to a generation whose time was over before they came to it.
    pub too_late: u32,
    pub suspended: u32,
}

impl Counts {
    /// Both together.
    pub const fn and(self, other: Self) -> Self {
        Self {
            succeeded: self.succeeded + other.succeeded,
            cancelled: self.cancelled + other.cancelled,
            rolled_back: self.rolled_back + other.rolled_back,
            too_late: self.too_late + other.too_late,
            suspended: self.suspended + other.suspended,
        }
    }
}

async fn replays(kubernetes: &Kubernetes) -> Api<Replay> {
    Api::namespaced(kubernetes.client().await, &kubernetes.namespace)
}

impl Asking {
    pub async fn new(kubernetes: &Kubernetes, projection: &'static str, seed: Seed) -> Self {
        Self {
            replays: replays(kubernetes).await,
            projection,
            seed,
            made: 0,
            counts: Counts::default(),
        }
    }

    /// One after the other, until told to stop; the last one is waited for.
    pub async fn go_on(mut self, stop: Arc<AtomicBool>) -> Counts {
        while !stop.load(Ordering::SeqCst) {
            self.rebuild().await;
        }
        self.counts
    }

    async fn rebuild(&mut self) {
        let mut spec = ReplaySpec::rebuild(self.projection);
        // Kills are not what a limit is for.
        spec.backoff_limit = 1_000;
        spec.throttle = Some(Throttle {
            max_events_per_second: Some(EVENTS_PER_SECOND),
        });
        let body = spec.rebuild.as_mut().unwrap();
        body.parallelism = 2;
        body.verify.mode = VerifyMode::Checksum;
        body.cutover.timeout_seconds = 3_600;
        body.cutover.retain_previous_seconds = RETAIN_SECONDS;
        let name = self.create(spec).await;
        let cancelled = match self.seed.below(4) {
            0 => {
                tokio::time::sleep(self.seed.millis(0, 9_000)).await;
                self.patch(&name, json!({"cancel": true})).await
            }
            1 => {
                tokio::time::sleep(self.seed.millis(0, 4_000)).await;
                if self.patch(&name, json!({"suspend": true})).await {
                    tokio::time::sleep(self.seed.millis(100, 3_000)).await;
                    self.patch(&name, json!({"suspend": false})).await;
                    self.counts.suspended += 1;
                }
                false
            }
            _ => false,
        };
        let status = self.until_ended(&name).await.status.unwrap();
        if status.is_true("Succeeded") {
            self.counts.succeeded += 1;
        } else {
            let why = status.condition("Succeeded").unwrap();
            assert!(
                cancelled && why.reason == "Cancelled",
                "{name}: {status:#?}"
            );
            self.counts.cancelled += 1;
        }
        let generations = status.generations.unwrap_or_default();
        let previous = generations.previous.clone();
        if let Some(previous) = previous.filter(|_| self.seed.chance(0.4)) {
            self.roll_back(&previous, &generations).await;
        }
    }

    /// Goes back to the generation before; or is told that it is gone, if its time was over by then.
    async fn roll_back(&mut self, previous: &str, generations: &Generations) {
        let name = self
            .create(ReplaySpec::rollback(self.projection, previous))
            .await;
        let status = self.until_ended(&name).await.status.unwrap();
        if status.is_true("Succeeded") {
            self.counts.rolled_back += 1;
            return;
        }
        let why = status.condition("Succeeded").unwrap();
        let until = generations.previous_retained_until.as_ref();
        let over = until.is_some_and(|until| status.completion_time.as_ref() > Some(until));
        assert!(
            over && why.reason == "UnknownGeneration",
            "{name}: {status:#?}; before: {generations:#?}"
        );
        self.counts.too_late += 1;
    }

    async fn create(&mut self, spec: ReplaySpec) -> String {
        self.made += 1;
        let name = format!("{}-{}", self.projection, self.made);
        let replay = Replay::new(&name, spec);
        eventually(&format!("{name} to be created"), API_BOUND, async || {
            let params = PostParams::default();
            match self.replays.create(&params, &replay).await {
                Ok(_) => Some(()),
                // An answer that was lost.
                Err(kube::Error::Api(refused)) if refused.code == 409 => Some(()),
                Err(kube::Error::Api(refused)) if refused.code == 422 => panic!("{refused:?}"),
                Err(_) => None,
            }
        })
        .await;
        name
    }

    /// Changes the spec; `false` when the API server refuses that, the switch having begun.
    async fn patch(&self, name: &str, spec: Value) -> bool {
        let patch = Patch::Merge(json!({"spec": spec}));
        eventually(&format!("{name} to be changed"), API_BOUND, async || {
            let params = PatchParams::default();
            match self.replays.patch(name, &params, &patch).await {
                Ok(_) => Some(true),
                Err(kube::Error::Api(refused)) if refused.code == 422 => Some(false),
                Err(_) => None,
            }
        })
        .await
    }

    async fn until_ended(&self, name: &str) -> Replay {
        let looked = eventually_or(REPLAY_BOUND, async || {
            let replay = self.replays.get(name).await.ok()?;
            let status = replay.status.as_ref()?;
            status.ended().then_some(replay)
        });
        match looked.await {
            Some(replay) => replay,
            None => {
                let replay = self.replays.get(name).await;
                panic!("{name} did not end in {REPLAY_BOUND:?}: {replay:#?}");
            }
        }
    }
}

async fn eventually_or<T>(bound: Duration, look: impl AsyncFn() -> Option<T>) -> Option<T> {
    let looking = async {
        loop {
            if let Some(found) = look().await {
                return found;
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    };
    tokio::time::timeout(bound, looking).await.ok()
}

/// Deletes every Replay, and waits until all are gone with what they kept.
pub async fn delete_all(kubernetes: &Kubernetes) {
    let replays = replays(kubernetes).await;
    let (params, all) = (DeleteParams::default(), ListParams::default());
    replays.delete_collection(&params, &all).await.unwrap();
    eventually("the Replays to be gone", API_BOUND, async || {
        let left = replays.list(&all).await.ok()?;
        left.items.is_empty().then_some(())
    })
    .await;
}
