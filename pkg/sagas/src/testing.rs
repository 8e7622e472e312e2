//! Tests of any saga: what can go wrong at a step goes wrong at every step, and in the end the saga's
//! author says whether the world is as it has to be.
//!
//! Everything here panics with a sentence when it fails: a test has nobody to hand an error to.
#![allow(clippy::panic, clippy::expect_used)]

use std::{
    future::pending,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use millrace_es::{Saga, StreamVersion};
use millrace_eventlog::{LoadError, Repository};
use millrace_kernel::EntityId;
use serde::{Serialize, de::DeserializeOwned};
use tokio::sync::Notify;

use crate::{NoAnswer, Port, Pump, Pumped, RecordError, Recorded};

/// The most pumps that a saga may need to come to its end, faults included.
const MAX_PUMPS: u32 = 100;
/// The most places at which a fault is tried; a saga with more steps is not tested whole.
const MAX_PLACES: u32 = 50;
/// How long a step of a test may take.
const MAX_STEP: Duration = Duration::from_secs(5);

/// What goes wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// A step is never performed, and gets no answer.
    NotPerformed,
    /// A step is performed, and its answer is lost.
    AnswerLost,
    /// A step is performed twice.
    PerformedTwice,
    /// The process dies before a step.
    DiesBeforeStep,
    /// The process dies after a step, before anything is kept of it.
    DiesAfterStep,
    /// The process dies when what came of a step was appended, before it knew.
    DiesAfterRecord,
    /// The world changes, as the scenario says, before a step.
    WorldChangesBefore,
    /// The world changes after a step, before anything is kept of it.
    WorldChangesAfter,
    /// The same, and the process dies when what came of the step was appended: nobody looks at the
    /// world again unless the append itself made sure.
    WorldChangesAndDies,
}

impl Fault {
    /// Every fault.
    pub const ALL: [Self; 9] = [
        Self::NotPerformed,
        Self::AnswerLost,
        Self::PerformedTwice,
        Self::DiesBeforeStep,
        Self::DiesAfterStep,
        Self::DiesAfterRecord,
        Self::WorldChangesBefore,
        Self::WorldChangesAfter,
        Self::WorldChangesAndDies,
    ];
}

/// A world in which one saga runs, made anew for every fault.
#[async_trait]
pub trait World<S: Saga>: Send + Sync {
    /// Which saga; it is begun already.
    fn id(&self) -> EntityId;

    /// The sagas as a process of its own would have them: nothing in memory.
    fn sagas(&self) -> Arc<Repository<S>>;

    /// What it touches, as a process of its own would have it.
    fn port(&self) -> Arc<dyn Port<S>>;

    /// Whether its schedule has it as due, so that somebody pumps it again. Nobody does otherwise,
    /// in this world as in the real one.
    async fn is_due(&self) -> bool;

    /// Something happens that the saga did not do, such as that somebody changes his mind. May be
    /// nothing.
    async fn change(&self);

    /// Panics when the world is not as it has to be once the saga has nothing to do.
    async fn check(&self, what: &str);
}

/// Runs a saga to its end once for every fault at every place, and checks the world each time. A
/// saga without faults is one of the runs.
pub async fn fault_at_every_step<S, W, M>(make: M)
where
    S: Saga + Serialize + DeserializeOwned,
    W: World<S>,
    M: AsyncFn() -> W,
{
    let mut struck = 0;
    for fault in Fault::ALL {
        for place in 0.. {
            assert!(place < MAX_PLACES, "the saga has no end under {fault:?}");
            let world = make().await;
            let what = format!("{fault:?} at place {place}");
            let plan = Plan::new(fault, place);
            run_to_end(&world, &plan, &what).await;
            world.check(&what).await;
            if !plan.has_struck() {
                break;
            }
            struck += 1;
        }
    }
    assert!(
        struck >= Fault::ALL.len(),
        "the saga has no step to fail at"
    );
}

/// Runs a saga by several pumps at once, each a process of its own, and checks the world.
pub async fn many_pumps_at_once<S, W, M>(pumps: usize, make: M)
where
    S: Saga + Serialize + DeserializeOwned,
    W: World<S>,
    M: AsyncFn() -> W,
{
    let world = make().await;
    let plan = Plan::new(Fault::NotPerformed, u32::MAX);
    let what = format!("{pumps} pumps at once");
    futures::future::join_all((0..pumps).map(|_| run_to_end(&world, &plan, &what))).await;
    world.check(&what).await;
}

/// Pumps for as long as the schedule says so, by a new process after each death.
async fn run_to_end<S, W>(world: &W, plan: &Arc<Plan>, what: &str)
where
    S: Saga + Serialize + DeserializeOwned,
    W: World<S>,
{
    let id = world.id();
    for _ in 0..MAX_PUMPS {
        let port = Faulty {
            port: world.port(),
            plan: Arc::clone(plan),
        };
        let pump = Pump::new(world.sagas(), Arc::new(port)).with_max_step(MAX_STEP);
        tokio::select! {
            biased;
            () = plan.death.notified() => {
                if !world.is_due().await {
                    return;
                }
            }
            () = async {
                plan.change.notified().await;
                world.change().await;
                plan.changed.notify_one();
                pending::<()>().await;
            } => {}
            pumped = pump.pump(&id) => match pumped {
                Ok(Pumped::Idle) => {
                    if !world.is_due().await {
                        return;
                    }
                }
                Ok(Pumped::Later(_)) => {}
                Err(error) => panic!("{what}: the pump failed: {error:?}"),
            }
        }
    }
    panic!("{what}: the saga did not come to its end in {MAX_PUMPS} pumps");
}

/// Which fault strikes where.
struct Plan {
    fault: Fault,
    place: u32,
    steps: AtomicU32,
    records: AtomicU32,
    struck: AtomicU32,
    /// Whether the process dies with its next append.
    doomed: AtomicBool,
    death: Notify,
    change: Notify,
    changed: Notify,
}

impl Plan {
    fn new(fault: Fault, place: u32) -> Arc<Self> {
        Arc::new(Self {
            fault,
            place,
            steps: AtomicU32::new(0),
            records: AtomicU32::new(0),
            struck: AtomicU32::new(0),
            doomed: AtomicBool::new(false),
            death: Notify::new(),
            change: Notify::new(),
            changed: Notify::new(),
        })
    }

    fn has_struck(&self) -> bool {
        self.struck.load(Ordering::SeqCst) > 0
    }

    /// The fault of the next step, if it is its turn.
    fn at_step(&self) -> Option<Fault> {
        self.turn(&self.steps, self.fault != Fault::DiesAfterRecord)
    }

    /// The same of the next record.
    fn at_record(&self) -> Option<Fault> {
        self.turn(&self.records, self.fault == Fault::DiesAfterRecord)
    }

    fn turn(&self, count: &AtomicU32, mine: bool) -> Option<Fault> {
        let place = count.fetch_add(1, Ordering::SeqCst);
        if !mine || place != self.place {
            return None;
        }
        self.struck.fetch_add(1, Ordering::SeqCst);
        Some(self.fault)
    }

    /// Whoever awaits this is dropped, as a process that died.
    async fn die<T>(&self) -> T {
        self.death.notify_one();
        pending().await
    }

    async fn change_the_world(&self) {
        self.change.notify_one();
        self.changed.notified().await;
    }
}

/// A port with a fault in it.
struct Faulty<S: Saga> {
    port: Arc<dyn Port<S>>,
    plan: Arc<Plan>,
}

fn lost() -> NoAnswer {
    NoAnswer("the test lost it".into())
}

#[async_trait]
impl<S: Saga> Port<S> for Faulty<S> {
    async fn look(&self, id: &EntityId, saga: &S) -> Result<Option<S::Command>, LoadError> {
        self.port.look(id, saga).await
    }

    async fn perform(
        &self,
        id: &EntityId,
        saga: &S,
        step: &S::Step,
    ) -> Result<S::Command, NoAnswer> {
        let (port, plan) = (&self.port, &self.plan);
        match plan.at_step() {
            None | Some(Fault::DiesAfterRecord) => port.perform(id, saga, step).await,
            Some(Fault::NotPerformed) => Err(lost()),
            Some(Fault::AnswerLost) => {
                port.perform(id, saga, step).await?;
                Err(lost())
            }
            Some(Fault::PerformedTwice) => {
                port.perform(id, saga, step).await?;
                port.perform(id, saga, step).await
            }
            Some(Fault::DiesBeforeStep) => plan.die().await,
            Some(Fault::DiesAfterStep) => {
                port.perform(id, saga, step).await?;
                plan.die().await
            }
            Some(Fault::WorldChangesBefore) => {
                plan.change_the_world().await;
                port.perform(id, saga, step).await
            }
            Some(fault @ (Fault::WorldChangesAfter | Fault::WorldChangesAndDies)) => {
                let performed = port.perform(id, saga, step).await;
                plan.change_the_world().await;
                let dies = fault == Fault::WorldChangesAndDies;
                plan.doomed.store(dies, Ordering::SeqCst);
                performed
            }
        }
    }

    fn unanswered(&self, saga: &S, step: &S::Step, reason: &str) -> Option<S::Command> {
        self.port.unanswered(saga, step, reason)
    }

    async fn record(
        &self,
        id: &EntityId,
        saga: (&S, StreamVersion),
        command: S::Command,
    ) -> Result<Recorded, RecordError> {
        let recorded = self.port.record(id, saga, command).await?;
        let doomed = self.plan.doomed.swap(false, Ordering::SeqCst);
        if doomed || self.plan.at_record().is_some() {
            return self.plan.die().await;
        }
        Ok(recorded)
    }
}
