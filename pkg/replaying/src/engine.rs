//! The read stores' rebuilds and dead letters, as the driver knows an engine.

use std::num::NonZeroU32;

use async_trait::async_trait;
use millrace_es::{Position, StreamId};
use millrace_kernel::Timestamp;
use millrace_projecting::{
    Action, DeadLetters, Generation, GenerationId, GenerationStatus, LetterRun,
    Owner as StoreOwner, PositionRange, Reason, Rebuilds, RunState, RunStatus, StoreError,
};
use millrace_replay::{
    Body, Engine, EngineError, LetterSelector, OnFailure, Outline, Owner, ReasonClass,
    RedriveAction, RedriveSpec, ReplaySpec, RollbackSpec, Unfinished, VerifyMode, VerifySpec,
    status::{PlanSummary, RedriveStatus, Target, VerificationStatus},
    world::{Pace, RebuildView, RedriveState, RedriveView, Stage},
};
use tokio_util::sync::CancellationToken;

/// What a refusal is called whose reason the store says in words only.
const REFUSED: &str = "Refused";

/// The read stores of an installation, as an [`Engine`].
#[derive(Clone)]
pub struct ReadStores {
    rebuilds: Rebuilds,
    letters: DeadLetters,
}

impl ReadStores {
    /// Speaks for the views of `rebuilds` and `letters`.
    #[must_use]
    pub const fn new(rebuilds: Rebuilds, letters: DeadLetters) -> Self {
        Self { rebuilds, letters }
    }

    async fn generation(
        &self,
        projection: &str,
        name: &str,
    ) -> Result<Option<Generation>, EngineError> {
        let id = generation_id(name)?;
        let known = self.rebuilds.generations(projection).await;
        let found = known.map_err(engine_error)?;
        Ok(found.into_iter().find(|one| one.id == id))
    }

    /// The generation of this name, which has to be there.
    async fn known(&self, projection: &str, name: &str) -> Result<Generation, EngineError> {
        let found = self.generation(projection, name).await?;
        found.ok_or_else(|| refused("UnknownGeneration", unknown(projection, name)))
    }

    async fn outline_rollback(&self, spec: &RollbackSpec) -> Result<Outline, EngineError> {
        let (projection, name) = (&spec.projection, &spec.to_generation);
        let plan = self.rebuilds.plan(projection).await.map_err(engine_error)?;
        let to = self.known(projection, name).await?;
        let live = plan.live.map(|live| live.id.to_string());
        let summary = match &live {
            Some(live) if *live == *name => format!("{name} of {projection} answers already"),
            Some(live) => format!("switch {projection} from {live} back to {name}"),
            None => format!("let {name} of {projection} answer, where none does"),
        };
        Ok(Outline {
            targets: Vec::new(),
            summary: PlanSummary {
                summary,
                version: Some(to.version),
                store: Some(plan.store.as_str().to_owned()),
                ..PlanSummary::default()
            },
            live,
        })
    }

    async fn outline_redrive(&self, spec: &RedriveSpec) -> Result<Outline, EngineError> {
        let projection = &spec.projection;
        let plan = self.rebuilds.plan(projection).await.map_err(engine_error)?;
        let contexts = plan.targets.iter().map(|target| target.context.as_str());
        check_context(spec, &contexts.collect::<Vec<_>>())?;
        let matching = self.letters.count_run(&letter_run(spec)?).await;
        let matching = matching.map_err(engine_error)?;
        let what = match spec.action {
            RedriveAction::Redrive => "fold",
            RedriveAction::Discard => "give up",
        };
        Ok(Outline {
            targets: Vec::new(),
            summary: PlanSummary {
                summary: format!("{what} {matching} dead letters of {projection}"),
                version: Some(plan.version),
                store: Some(plan.store.as_str().to_owned()),
                letters: Some(matching),
                ..PlanSummary::default()
            },
            live: plan.live.map(|live| live.id.to_string()),
        })
    }

    async fn outline_rebuild(&self, projection: &str) -> Result<Outline, EngineError> {
        let plan = self.rebuilds.plan(projection).await.map_err(engine_error)?;
        let live = plan.live.map(|live| live.id.to_string());
        let replaced = live.as_deref().unwrap_or("none");
        Ok(Outline {
            summary: PlanSummary {
                summary: format!(
                    "fold {} events of {} partitions into a new generation of {projection}, and \
                     switch to it from {replaced}",
                    plan.events_total, plan.lanes_total
                ),
                version: Some(plan.version),
                store: Some(plan.store.as_str().to_owned()),
                events: Some(plan.events_total),
                partitions: Some(plan.lanes_total),
                letters: None,
            },
            targets: plan.targets.iter().map(target).collect(),
            live,
        })
    }

    async fn view(
        &self,
        state: millrace_projecting::RebuildState,
    ) -> Result<Option<RebuildView>, EngineError> {
        let generation = &state.generation;
        let stage = match generation.status {
            GenerationStatus::Loading => Stage::Loading,
            GenerationStatus::Candidate => Stage::Candidate,
            GenerationStatus::Active => Stage::Active,
            GenerationStatus::Retained => Stage::Retained,
            GenerationStatus::Retired => return Ok(None),
        };
        let lag = match stage {
            Stage::Loading => None,
            _ => match self.rebuilds.lag(generation).await {
                Ok(lag) => Some(lag),
                Err(StoreError::Gone(_)) => return Ok(None),
                Err(error) => return Err(engine_error(error)),
            },
        };
        Ok(Some(RebuildView {
            generation: generation.id.to_string(),
            stage,
            live: self.live(&generation.projection).await?,
            events_total: state.targets.iter().map(|one| one.events()).sum(),
            targets: state.targets.iter().map(target).collect(),
            pace: Pace {
                max_events_per_second: state.pace.max_events_per_second.map(NonZeroU32::get),
                suspended: state.pace.suspended,
            },
            events_done: state.events_done,
            lanes_done: state.lanes_done,
            lanes_total: state.lanes_total,
            lag,
        }))
    }
}

#[async_trait]
impl Engine for ReadStores {
    async fn outline(&self, spec: &ReplaySpec) -> Result<Outline, EngineError> {
        match spec.body() {
            Some(Body::Rebuild(body)) => self.outline_rebuild(&body.projection).await,
            Some(Body::Rollback(body)) => self.outline_rollback(body).await,
            Some(Body::Redrive(body)) => self.outline_redrive(body).await,
            None => Err(refused("NoBody", "the body that its type names is missing")),
        }
    }

    async fn begin(
        &self,
        owner: &Owner,
        projection: &str,
        pace: Pace,
    ) -> Result<RebuildView, EngineError> {
        let owner = store_owner(owner)?;
        let begun = self
            .rebuilds
            .begin(&owner, projection, store_pace(pace))
            .await;
        let state = begun.map_err(engine_error)?;
        let id = state.generation.id;
        let view = self.view(state).await?;
        view.ok_or_else(|| EngineError::Failed(format!("generation {id} was dropped meanwhile")))
    }

    async fn find(
        &self,
        owner: &Owner,
        projection: &str,
    ) -> Result<Option<RebuildView>, EngineError> {
        let found = self.rebuilds.find(&store_owner(owner)?, projection).await;
        match found.map_err(engine_error)? {
            // Whoever dropped it was interrupted.
            Some(state) if state.generation.status == GenerationStatus::Retired => {
                let dropped = self.rebuilds.discard(&state.generation).await;
                dropped.map_err(engine_error).map(|()| None)
            }
            Some(state) => self.view(state).await,
            None => Ok(None),
        }
    }

    async fn set_pace(
        &self,
        projection: &str,
        generation: &str,
        pace: Pace,
    ) -> Result<(), EngineError> {
        let generation = self.known(projection, generation).await?;
        let told = self.rebuilds.set_pace(&generation, store_pace(pace)).await;
        told.map_err(engine_error)
    }

    async fn finish(&self, projection: &str, generation: &str) -> Result<(), EngineError> {
        let generation = self.known(projection, generation).await?;
        self.rebuilds
            .finish(&generation)
            .await
            .map_err(engine_error)
    }

    async fn verify(
        &self,
        projection: &str,
        generation: &str,
        options: &VerifySpec,
    ) -> Result<VerificationStatus, EngineError> {
        let generation = self.known(projection, generation).await?;
        let options = millrace_projecting::VerifyOptions {
            mode: match options.mode {
                VerifyMode::None => millrace_projecting::VerifyMode::None,
                VerifyMode::Counts => millrace_projecting::VerifyMode::Counts,
                VerifyMode::Checksum => millrace_projecting::VerifyMode::Checksum,
            },
            max_mismatches: u64::from(options.max_mismatches),
        };
        // Whoever gives it up drops this future, and what it holds expires by itself.
        let stop = CancellationToken::new();
        let _stopped = stop.clone().drop_guard();
        let found = self.rebuilds.verify(&generation, &options, &stop).await;
        let found = found.map_err(engine_error)?;
        Ok(VerificationStatus {
            compared: found.compared,
            mismatches: found.mismatches,
            sample_keys: found.sample_keys,
        })
    }

    async fn switch(
        &self,
        projection: &str,
        generation: &str,
    ) -> Result<Option<String>, EngineError> {
        let generation = self.known(projection, generation).await?;
        let switched = self
            .rebuilds
            .switch(&generation)
            .await
            .map_err(engine_error)?;
        Ok(switched.previous.map(|previous| previous.to_string()))
    }

    async fn roll_back(
        &self,
        projection: &str,
        generation: &str,
        force: bool,
    ) -> Result<Option<String>, EngineError> {
        let to = generation_id(generation)?;
        let switched = self.rebuilds.rollback(projection, to, force).await;
        let switched = switched.map_err(|error| match error {
            StoreError::Gone(_) => refused("UnknownGeneration", unknown(projection, generation)),
            error => engine_error(error),
        })?;
        Ok(switched.previous.map(|previous| previous.to_string()))
    }

    async fn discard(&self, projection: &str, generation: &str) -> Result<(), EngineError> {
        let Some(found) = self.generation(projection, generation).await? else {
            return Ok(());
        };
        if found.status == GenerationStatus::Active {
            return Err(EngineError::Active(generation.to_owned()));
        }
        self.rebuilds.discard(&found).await.map_err(engine_error)
    }

    async fn discard_replaced(
        &self,
        projection: &str,
        generation: &str,
        by: &str,
    ) -> Result<(), EngineError> {
        let Some(found) = self.generation(projection, generation).await? else {
            return Ok(());
        };
        if found.status == GenerationStatus::Active {
            return Err(EngineError::Active(generation.to_owned()));
        }
        let by = generation_id(by)?;
        let dropped = self.rebuilds.discard_replaced(&found, by).await;
        if !dropped.map_err(engine_error)? {
            tracing::info!(
                projection,
                generation,
                "the generation is kept for another replay"
            );
        }
        Ok(())
    }

    async fn unfinished(&self) -> Result<Vec<Unfinished>, EngineError> {
        let found = self.rebuilds.unfinished().await.map_err(engine_error)?;
        let named = found.into_iter().filter_map(|one| {
            Some(Unfinished {
                owner: Owner(one.owner?.as_str().to_owned()),
                projection: one.projection,
                generation: one.id.to_string(),
            })
        });
        Ok(named.collect())
    }

    async fn live(&self, projection: &str) -> Result<Option<String>, EngineError> {
        let live = self.rebuilds.live(projection).await.map_err(engine_error)?;
        Ok(live.map(|live| live.id.to_string()))
    }

    async fn begin_redrive(
        &self,
        owner: &Owner,
        spec: &RedriveSpec,
    ) -> Result<RedriveView, EngineError> {
        let begun = self
            .letters
            .begin_run(&store_owner(owner)?, &letter_run(spec)?)
            .await;
        Ok(redrive_view(&begun.map_err(engine_error)?))
    }

    async fn find_redrive(
        &self,
        owner: &Owner,
        _projection: &str,
    ) -> Result<Option<RedriveView>, EngineError> {
        let found = self
            .letters
            .run(&store_owner(owner)?)
            .await
            .map_err(engine_error)?;
        Ok(found.as_ref().map(redrive_view))
    }

    async fn advance_redrive(
        &self,
        owner: &Owner,
        projection: &str,
    ) -> Result<RedriveView, EngineError> {
        let advanced = self.letters.advance_run(&store_owner(owner)?).await;
        let state = advanced.map_err(engine_error)?.ok_or_else(|| {
            EngineError::Failed(format!("the run over dead letters of {projection} is gone"))
        })?;
        Ok(redrive_view(&state))
    }

    async fn cancel_redrive(&self, owner: &Owner, _projection: &str) -> Result<(), EngineError> {
        let cancelled = self.letters.cancel_run(&store_owner(owner)?).await;
        cancelled.map(drop).map_err(engine_error)
    }
}

#[expect(clippy::needless_pass_by_value, reason = "stands in `map_err`")]
fn engine_error(error: StoreError) -> EngineError {
    let said = describe(&error);
    match error {
        StoreError::Unavailable(_) | StoreError::Waiting { .. } => EngineError::Unavailable(said),
        StoreError::Behind { .. } | StoreError::Busy { .. } => EngineError::NotYet(said),
        StoreError::Invalid(_) => refused(REFUSED, said),
        StoreError::Gone(_) => refused("UnknownGeneration", said),
        StoreError::Unusable(_)
        | StoreError::Fenced { .. }
        | StoreError::Held { .. }
        | StoreError::Stopped => EngineError::Failed(said),
    }
}

/// An error with what it stems from.
fn describe(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let said = cause.to_string();
        if !text.contains(&said) {
            text = format!("{text}: {said}");
        }
        source = cause.source();
    }
    text
}

fn refused(reason: &str, message: impl Into<String>) -> EngineError {
    EngineError::Refused {
        reason: reason.to_owned(),
        message: message.into(),
    }
}

fn unknown(projection: &str, generation: &str) -> String {
    format!(
        "{projection} has no generation {generation}: it was dropped, or never was; `millrace lag` \
         shows those that are kept"
    )
}

fn generation_id(name: &str) -> Result<GenerationId, EngineError> {
    let digits = name.strip_prefix('g').unwrap_or_default();
    digits.parse().map(GenerationId::new).map_err(|_| {
        refused(
            "InvalidGeneration",
            format!("{name:?} is no generation, such as g12"),
        )
    })
}

fn store_owner(owner: &Owner) -> Result<StoreOwner, EngineError> {
    StoreOwner::new(&owner.0).map_err(engine_error)
}

fn store_pace(pace: Pace) -> millrace_projecting::Pace {
    millrace_projecting::Pace {
        max_events_per_second: pace.max_events_per_second.and_then(NonZeroU32::new),
        suspended: pace.suspended,
    }
}

/// The resource counts from the first position, the store from the one before it.
fn target(target: &millrace_projecting::Target) -> Target {
    Target {
        context: target.context.to_string(),
        from_position: target.from.next().get(),
        to_position: target.to.get(),
    }
}

/// Positions are of a context; where a projection reads several, a range of them says too little.
fn check_context(spec: &RedriveSpec, contexts: &[&str]) -> Result<(), EngineError> {
    let Some(range) = &spec.selector.positions else {
        return Ok(());
    };
    let said = range.context.as_deref();
    if said.is_some_and(|name| !contexts.contains(&name)) || contexts.len() > 1 {
        return Err(refused(
            "InvalidSelector",
            format!(
                "letters of {} are not chosen by positions of {}: it reads {}; choose them by key \
                 or time",
                spec.projection,
                said.unwrap_or("one context"),
                contexts.join(", ")
            ),
        ));
    }
    Ok(())
}

fn letter_run(spec: &RedriveSpec) -> Result<LetterRun, EngineError> {
    Ok(LetterRun {
        projection: spec.projection.clone(),
        selector: selector(&spec.selector)?,
        action: match spec.action {
            RedriveAction::Redrive => Action::Redrive,
            RedriveAction::Discard => Action::Discard,
        },
        on_failure: match spec.on_failure {
            OnFailure::Park => millrace_projecting::OnFailure::Park,
            OnFailure::Stop => millrace_projecting::OnFailure::Stop,
        },
        max_messages: spec.max_messages.map(u64::from),
    })
}

fn selector(selector: &LetterSelector) -> Result<millrace_projecting::LetterSelector, EngineError> {
    let invalid = |what: String| refused("InvalidSelector", what);
    let range = selector.positions.as_ref();
    let time = |time: &Option<k8s_openapi::apimachinery::pkg::apis::meta::v1::Time>| {
        let text = time.as_ref().map(|time| time.0.to_string());
        text.map(|text| {
            text.parse::<Timestamp>()
                .map_err(|error| invalid(format!("{text}: {error}")))
        })
        .transpose()
    };
    let keys = selector.keys.iter().map(|key| {
        StreamId::new(key).map_err(|error| invalid(format!("{key:?} is no key: {error}")))
    });
    Ok(millrace_projecting::LetterSelector {
        positions: range
            .filter(|range| range.from.is_some() || range.to.is_some())
            .map(|range| PositionRange {
                from: Position::new(range.from.unwrap_or(1)),
                to: Position::new(range.to.unwrap_or(i64::MAX as u64)),
            })
            .into_iter()
            .collect(),
        since: time(&selector.since)?,
        until: time(&selector.until)?,
        reason: selector.reason_class.map(|class| match class {
            ReasonClass::Malformed => Reason::Malformed,
            ReasonClass::Fold => Reason::Fold,
            ReasonClass::Store => Reason::Store,
            ReasonClass::Follows => Reason::Follows,
        }),
        keys: keys.collect::<Result<_, _>>()?,
    })
}

fn redrive_view(run: &RunState) -> RedriveView {
    RedriveView {
        counts: RedriveStatus {
            matched: run.matched,
            redriven: run.redriven,
            discarded: run.discarded,
            failed: run.failed,
        },
        state: match run.status {
            RunStatus::Running => RedriveState::Running,
            RunStatus::Done => RedriveState::Done,
            RunStatus::Stopped => RedriveState::Stopped,
            RunStatus::Cancelled => RedriveState::Cancelled,
        },
    }
}
