//! An engine and a place for replays that live in memory, for tests of what drives them: they
//! stand for the read database, and outlive the drivers that a test kills.

mod projection;
mod records;

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use tokio::sync::Notify;

use crate::engine::{Engine, EngineError, Outline, Owner, Unfinished};
use crate::resource::{Body, RedriveAction, RedriveSpec, ReplaySpec, VerifySpec};
use crate::status::{PlanSummary, RedriveStatus, VerificationStatus};
use crate::world::{Pace, RebuildView, RedriveState, RedriveView, Stage};

use projection::{Made, Projection, Run, target};

pub use records::MemoryRecords;

/// How many events a scripted projection has.
pub const EVENTS: u64 = 1_000;
/// In how many partitions.
pub const LANES: u32 = 16;

/// When a call is held for ever, so that the driver can be killed there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hold {
    /// Before it does anything.
    Before,
    /// After it did everything, before the driver hears of it.
    After,
}

/// An engine in memory that does what a test says.
#[derive(Debug, Default)]
pub struct ScriptedEngine {
    state: Mutex<State>,
    held: Notify,
}

#[derive(Debug, Default)]
struct State {
    projections: BTreeMap<String, Projection>,
    calls: Vec<&'static str>,
    hold: Option<(usize, Hold)>,
    faults: BTreeMap<&'static str, VecDeque<EngineError>>,
    switches: Vec<String>,
    by_hand: bool,
    violations: Vec<String>,
}

impl ScriptedEngine {
    /// An engine that knows one projection, whose live generation is `g1`.
    #[must_use]
    pub fn with(projection: &str) -> Self {
        let engine = Self::default();
        engine.add(projection);
        engine
    }

    /// Adds a projection whose live generation is `g1`.
    pub fn add(&self, projection: &str) {
        let first = Made {
            owner: None,
            stage: Stage::Active,
            replaced_by: None,
            pace: Pace::default(),
            done: EVENTS,
            lag: 0,
        };
        let made = Projection {
            live: Some("g1".to_owned()),
            made: 1,
            generations: BTreeMap::from([("g1".to_owned(), first)]),
            ..Projection::default()
        };
        self.state().projections.insert(projection.to_owned(), made);
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn change<T>(&self, projection: &str, change: impl FnOnce(&mut Projection) -> T) -> Option<T> {
        self.state().projections.get_mut(projection).map(change)
    }

    /// From now on generations are loaded only by [`ScriptedEngine::load`]; otherwise each look
    /// finds a third more.
    pub fn load_by_hand(&self) {
        self.state().by_hand = true;
    }

    /// Loads what is being loaded up to so many events.
    pub fn load(&self, projection: &str, done: u64) {
        self.change(projection, |projection| {
            for made in projection.generations.values_mut() {
                if made.stage == Stage::Loading {
                    made.done = done.min(EVENTS);
                }
            }
        });
    }

    /// Puts candidates so far behind.
    pub fn set_lag(&self, projection: &str, lag: u64) {
        self.change(projection, |projection| {
            for made in projection.generations.values_mut() {
                made.lag = lag;
            }
        });
    }

    /// Lets comparisons find so many differences.
    pub fn set_mismatches(&self, projection: &str, mismatches: u64) {
        self.change(projection, |projection| projection.mismatches = mismatches);
    }

    /// Puts so many dead letters there, the last `poison` of which fail again.
    pub fn set_letters(&self, projection: &str, letters: u64, poison: u64) {
        self.change(projection, |projection| {
            projection.letters = letters;
            projection.poison = poison;
        });
    }

    /// Lets the next call of this name fail.
    pub fn fail(&self, call: &'static str, error: EngineError) {
        self.state()
            .faults
            .entry(call)
            .or_default()
            .push_back(error);
    }

    /// Holds the call of this number, counted from 0, for ever; later ones too.
    pub fn hold(&self, call: usize, at: Hold) {
        let mut state = self.state();
        state.calls.clear();
        state.hold = Some((call, at));
    }

    /// Holds nothing any more.
    pub fn go_on(&self) {
        self.state().hold = None;
    }

    /// Returns when a call is held.
    pub async fn until_held(&self) {
        self.held.notified().await;
    }

    /// The calls so far, or since the last [`ScriptedEngine::hold`].
    #[must_use]
    pub fn calls(&self) -> Vec<&'static str> {
        self.state().calls.clone()
    }

    /// The generations that were switched to, in order, each time that something changed.
    #[must_use]
    pub fn switches(&self) -> Vec<String> {
        self.state().switches.clone()
    }

    /// What should never have happened.
    #[must_use]
    pub fn violations(&self) -> Vec<String> {
        self.state().violations.clone()
    }

    /// The names of the generations that are there.
    #[must_use]
    pub fn generations(&self, projection: &str) -> Vec<String> {
        self.change(projection, |projection| {
            projection.generations.keys().cloned().collect()
        })
        .unwrap_or_default()
    }

    /// The generation that answers queries.
    #[must_use]
    pub fn live_now(&self, projection: &str) -> Option<String> {
        self.change(projection, |projection| projection.live.clone())
            .flatten()
    }

    /// The pace of a generation.
    #[must_use]
    pub fn pace(&self, projection: &str, generation: &str) -> Option<Pace> {
        self.change(projection, |p| {
            p.generations.get(generation).map(|made| made.pace)
        })
        .flatten()
    }

    async fn call<T>(
        &self,
        name: &'static str,
        does: impl FnOnce(&mut State) -> Result<T, EngineError> + Send,
    ) -> Result<T, EngineError> {
        let hold = {
            let mut state = self.state();
            let number = state.calls.len();
            state.calls.push(name);
            if let Some(error) = state.faults.get_mut(name).and_then(VecDeque::pop_front) {
                return Err(error);
            }
            state
                .hold
                .filter(|(held, _)| number >= *held)
                .map(|(_, at)| at)
        };
        if hold == Some(Hold::Before) {
            self.wait_for_ever().await;
        }
        let done = does(&mut self.state());
        if hold == Some(Hold::After) {
            self.wait_for_ever().await;
        }
        done
    }

    async fn wait_for_ever(&self) {
        self.held.notify_one();
        std::future::pending::<()>().await;
    }
}

impl State {
    fn projection(&mut self, name: &str) -> Result<&mut Projection, EngineError> {
        self.projections
            .get_mut(name)
            .ok_or_else(|| EngineError::Refused {
                reason: "UnknownProjection".to_owned(),
                message: format!("there is no projection {name}"),
            })
    }

    fn switch_to(
        &mut self,
        projection: &str,
        generation: &str,
        max_lag: u64,
    ) -> Result<Option<String>, EngineError> {
        let found = self.projection(projection)?;
        let Some(made) = found.generations.get_mut(generation) else {
            return Err(EngineError::Refused {
                reason: "UnknownGeneration".to_owned(),
                message: format!("there is no generation {generation} of {projection}"),
            });
        };
        if made.stage == Stage::Active {
            return Ok(None);
        }
        if made.stage == Stage::Loading {
            return Err(EngineError::Failed(format!("{generation} is not loaded")));
        }
        if made.lag > max_lag {
            return Err(EngineError::NotYet(format!("{generation} is behind")));
        }
        made.stage = Stage::Active;
        let previous = found.live.replace(generation.to_owned());
        if let Some(old) = previous
            .as_ref()
            .and_then(|name| found.generations.get_mut(name))
        {
            old.stage = Stage::Retained;
            old.replaced_by = Some(generation.to_owned());
        }
        self.switches.push(generation.to_owned());
        Ok(previous)
    }
}

#[async_trait]
impl Engine for ScriptedEngine {
    async fn outline(&self, spec: &ReplaySpec) -> Result<Outline, EngineError> {
        self.call("outline", |state| {
            let projection = state.projection(spec.projection())?;
            if let Some(Body::Rollback(body)) = spec.body()
                && !projection.generations.contains_key(&body.to_generation)
            {
                return Err(EngineError::Refused {
                    reason: "UnknownGeneration".to_owned(),
                    message: format!("there is no generation {}", body.to_generation),
                });
            }
            let redrive = spec.redrive.is_some();
            Ok(Outline {
                targets: if spec.rebuild.is_some() {
                    vec![target()]
                } else {
                    Vec::new()
                },
                summary: PlanSummary {
                    summary: format!("a replay of {}", spec.projection()),
                    version: Some(1),
                    store: Some("PostgreSQL".to_owned()),
                    events: spec.rebuild.as_ref().map(|_| EVENTS),
                    partitions: spec.rebuild.as_ref().map(|_| LANES),
                    letters: redrive.then_some(projection.letters),
                },
                live: projection.live.clone(),
            })
        })
        .await
    }

    async fn begin(
        &self,
        owner: &Owner,
        projection: &str,
        pace: Pace,
    ) -> Result<RebuildView, EngineError> {
        self.call("begin", |state| {
            let found = state.projection(projection)?;
            let lost = || EngineError::Failed("the generation is gone".to_owned());
            if let Some(name) = found.name_of(owner) {
                return found.view(&name).ok_or_else(lost);
            }
            let busy = |made: &&Made| matches!(made.stage, Stage::Loading | Stage::Candidate);
            let busy = found.generations.values().any(|made| busy(&made));
            found.made += 1;
            let name = format!("g{}", found.made);
            let made = Made {
                replaced_by: None,
                owner: Some(owner.clone()),
                stage: Stage::Loading,
                pace,
                done: 0,
                lag: 0,
            };
            found.generations.insert(name.clone(), made);
            let view = found.view(&name).ok_or_else(lost);
            if busy {
                state
                    .violations
                    .push(format!("two rebuilds of {projection} at once"));
            }
            view
        })
        .await
    }

    async fn find(
        &self,
        owner: &Owner,
        projection: &str,
    ) -> Result<Option<RebuildView>, EngineError> {
        self.call("find", |state| {
            let by_hand = state.by_hand;
            let projection = state.projection(projection)?;
            let Some(name) = projection.name_of(owner) else {
                return Ok(None);
            };
            let view = projection.view(&name);
            if let Some(made) = projection.generations.get_mut(&name)
                && made.stage == Stage::Loading
                && !made.pace.suspended
                && !by_hand
            {
                made.done = (made.done + EVENTS / 3 + 1).min(EVENTS);
            }
            Ok(view)
        })
        .await
    }

    async fn set_pace(
        &self,
        projection: &str,
        generation: &str,
        pace: Pace,
    ) -> Result<(), EngineError> {
        self.call("set_pace", |state| {
            let made = state
                .projection(projection)?
                .generations
                .get_mut(generation);
            if let Some(made) = made {
                made.pace = pace;
            }
            Ok(())
        })
        .await
    }

    async fn finish(&self, projection: &str, generation: &str) -> Result<(), EngineError> {
        self.call("finish", |state| {
            let made = state
                .projection(projection)?
                .generations
                .get_mut(generation);
            if let Some(made) = made.filter(|made| made.stage == Stage::Loading) {
                made.stage = Stage::Candidate;
            }
            Ok(())
        })
        .await
    }

    async fn verify(
        &self,
        projection: &str,
        _: &str,
        _: &VerifySpec,
    ) -> Result<VerificationStatus, EngineError> {
        self.call("verify", |state| {
            let mismatches = state.projection(projection)?.mismatches;
            let sample = (0..mismatches.min(20)).map(|number| format!("order-{number}"));
            Ok(VerificationStatus {
                compared: EVENTS,
                mismatches,
                sample_keys: sample.collect(),
            })
        })
        .await
    }

    async fn switch(
        &self,
        projection: &str,
        generation: &str,
    ) -> Result<Option<String>, EngineError> {
        self.call("switch", |state| state.switch_to(projection, generation, 0))
            .await
    }

    async fn roll_back(
        &self,
        projection: &str,
        generation: &str,
        _: bool,
    ) -> Result<Option<String>, EngineError> {
        self.call("roll_back", |state| {
            state.switch_to(projection, generation, u64::MAX)
        })
        .await
    }

    async fn discard(&self, projection: &str, generation: &str) -> Result<(), EngineError> {
        self.call("discard", |state| {
            let projection = state.projection(projection)?;
            if projection.live.as_deref() == Some(generation) {
                return Err(EngineError::Active(generation.to_owned()));
            }
            projection.generations.remove(generation);
            Ok(())
        })
        .await
    }

    async fn discard_replaced(
        &self,
        projection: &str,
        generation: &str,
        by: &str,
    ) -> Result<(), EngineError> {
        self.call("discard", |state| {
            let projection = state.projection(projection)?;
            if projection.live.as_deref() == Some(generation) {
                return Err(EngineError::Active(generation.to_owned()));
            }
            let kept = projection.generations.get(generation);
            if kept.is_some_and(|kept| kept.replaced_by.as_deref().is_none_or(|one| one == by)) {
                projection.generations.remove(generation);
            }
            Ok(())
        })
        .await
    }

    async fn unfinished(&self) -> Result<Vec<Unfinished>, EngineError> {
        self.call("unfinished", |state| {
            let mut found = Vec::new();
            for (projection, one) in &state.projections {
                let made = one.generations.iter();
                found.extend(made.filter_map(|(generation, made)| {
                    let open = matches!(made.stage, Stage::Loading | Stage::Candidate);
                    let owner = made.owner.clone().filter(|_| open)?;
                    Some(Unfinished {
                        owner,
                        projection: projection.clone(),
                        generation: generation.clone(),
                    })
                }));
            }
            Ok(found)
        })
        .await
    }

    async fn live(&self, projection: &str) -> Result<Option<String>, EngineError> {
        self.call("live", |state| {
            Ok(state
                .projections
                .get(projection)
                .and_then(|found| found.live.clone()))
        })
        .await
    }

    async fn begin_redrive(
        &self,
        owner: &Owner,
        spec: &RedriveSpec,
    ) -> Result<RedriveView, EngineError> {
        self.call("begin_redrive", |state| {
            let projection = state.projection(&spec.projection)?;
            let counts = RedriveStatus {
                matched: projection.letters,
                ..RedriveStatus::default()
            };
            let run = projection.runs.entry(owner.clone()).or_insert_with(|| Run {
                spec: spec.clone(),
                view: RedriveView {
                    counts,
                    state: RedriveState::Running,
                },
            });
            Ok(run.view)
        })
        .await
    }

    async fn find_redrive(
        &self,
        owner: &Owner,
        projection: &str,
    ) -> Result<Option<RedriveView>, EngineError> {
        self.call("find_redrive", |state| {
            let projection = state.projection(projection)?;
            Ok(projection.runs.get(owner).map(|run| run.view))
        })
        .await
    }

    async fn advance_redrive(
        &self,
        owner: &Owner,
        projection: &str,
    ) -> Result<RedriveView, EngineError> {
        self.call("advance_redrive", |state| {
            let projection = state.projection(projection)?;
            let poison = projection.poison;
            let Some(run) = projection.runs.get_mut(owner) else {
                return Err(EngineError::Failed("there is no run".to_owned()));
            };
            let counts = &mut run.view.counts;
            let left = counts.matched - counts.redriven - counts.discarded - counts.failed;
            if run.view.state == RedriveState::Running && left > 0 {
                if run.spec.action == RedriveAction::Discard {
                    counts.discarded += 1;
                } else if left <= poison {
                    counts.failed += 1;
                    if run.spec.on_failure == crate::resource::OnFailure::Stop {
                        run.view.state = RedriveState::Stopped;
                    }
                } else {
                    counts.redriven += 1;
                }
                projection.letters -= 1;
            }
            if left <= 1 && run.view.state == RedriveState::Running {
                run.view.state = RedriveState::Done;
            }
            Ok(run.view)
        })
        .await
    }

    async fn cancel_redrive(&self, owner: &Owner, projection: &str) -> Result<(), EngineError> {
        self.call("cancel_redrive", |state| {
            if let Some(run) = state.projection(projection)?.runs.get_mut(owner) {
                run.view.state = RedriveState::Cancelled;
            }
            Ok(())
        })
        .await
    }
}
