use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::jiff::{SignedDuration, Timestamp};
use millrace_replay::testing::{MemoryRecords, ScriptedEngine};
use millrace_replay::{Driver, DriverError, Owner, ProjectorWorks, Record, Replay, ReplaySpec};

pub const START: i64 = 1_800_000_000;
/// No replay of these tests takes more passes.
const MAX_PASSES: usize = 400;

/// A time of these tests, so many seconds after their beginning.
pub fn at(seconds: i64) -> Timestamp {
    Timestamp::from_second(START + seconds).unwrap()
}

/// A replay that was made a second after the others before it.
pub fn record(name: &str, number: i64, spec: ReplaySpec) -> Record {
    let replay = Replay::new(name, spec);
    Record {
        name: name.to_owned(),
        owner: Owner(format!("uid-{name}")),
        generation: 1,
        created: at(number),
        deleting: false,
        held: false,
        spec: replay.spec,
        status: replay.status.unwrap_or_default(),
        revision: "r".to_owned(),
    }
}

/// An engine with the projection `orders`, a place for replays, and a driver between them.
pub struct World {
    pub engine: Arc<ScriptedEngine>,
    pub records: MemoryRecords,
    pub driver: Driver,
    pub now: Timestamp,
    /// A pass moves the clock by no more than this, so that one replay's long wait is not the end
    /// of another's bound.
    pub stride: Duration,
}

impl World {
    pub fn new() -> Self {
        let engine = Arc::new(ScriptedEngine::with("orders"));
        Self {
            driver: Driver::new(Arc::clone(&engine) as _, Arc::new(ProjectorWorks)),
            records: MemoryRecords::default(),
            engine,
            now: at(60),
            stride: Duration::MAX,
        }
    }

    pub fn with(spec: ReplaySpec) -> Self {
        let world = Self::new();
        world.records.put(record("one", 0, spec));
        world
    }

    /// The driver dies, and another one takes over.
    pub fn restart(&mut self) {
        self.driver = Driver::new(Arc::clone(&self.engine) as _, Arc::new(ProjectorWorks));
    }

    pub fn get(&self, name: &str) -> Record {
        self.records.get(name).expect("the replay is there")
    }

    /// One pass, after which the clock stands where the next one is due.
    pub async fn pass(&mut self, name: &str) -> Result<Duration, DriverError> {
        let passed = self
            .driver
            .pass(&self.records, &self.get(name), self.now)
            .await;
        let wait = passed.as_ref().map_or(Duration::from_secs(1), |wait| *wait);
        let wait = SignedDuration::try_from(wait.min(self.stride)).unwrap();
        self.now = self.now.checked_add(wait).unwrap();
        // What runs beside the steps gets its turn.
        tokio::task::yield_now().await;
        passed
    }

    /// Passes until the replay stands where it is wanted. Errors that pass are passed over.
    pub async fn until(&mut self, name: &str, wanted: impl Fn(&Record) -> bool) -> Record {
        for _ in 0..MAX_PASSES {
            match self.records.get(name) {
                Some(record) if wanted(&record) => return record,
                Some(_) => drop(self.pass(name).await),
                None => panic!("{name} is gone"),
            }
        }
        panic!("{name} stands still: {:#?}", self.get(name).status);
    }

    pub async fn until_ended(&mut self, name: &str) -> Record {
        self.until(name, |record| record.status.ended()).await
    }

    pub async fn until_phase(&mut self, name: &str, phase: &str) -> Record {
        let wanted = |record: &Record| reason(record) == phase;
        self.until(name, wanted).await
    }
}

/// Where a replay stands, as `kubectl get` shows it.
pub fn reason(record: &Record) -> String {
    let ready = record.status.condition("Ready");
    ready.map(|ready| ready.reason.clone()).unwrap_or_default()
}
