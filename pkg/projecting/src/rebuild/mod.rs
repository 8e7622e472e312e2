//! Rebuilds: a whole new copy of a view's rows, loaded from the event log in bulk beside the one
//! that answers, and switched to when it is as far.
//!
//! A rebuild is a generation with an owner. It is `loading` while its workers fill it, each lane
//! from its checkpoint to its target; then it is a candidate, which projectors keep current from
//! exactly the next position on, and which waits for its owner to switch to it or to discard it.
//! The checkpoints are the fence throughout: whoever is killed, doubled or late does no harm.

mod lanes;
mod load;
mod pace;
mod state;
mod store;

use std::{sync::Arc, time::Duration};

use millrace_eventlog::EventLog;
use millrace_streaming::{ConsumerSpec, DeadLetterPublisher, Leases, PartitionConsumer, Topology};
use tokio_util::sync::CancellationToken;

pub use self::state::{LoadEnd, Pace, RebuildPlan, RebuildState, Share, Target};
pub(crate) use self::{
    load::LOAD_WRITERS,
    state::{LaneProgress, require_loaded},
    store::RebuildStore,
};
use self::{
    load::Load,
    state::{targets_at, targets_of},
};
use crate::{
    dynamodb::DynamoStore,
    error::StoreError,
    generation::{
        Activation, ContextHead, Generation, GenerationId, GenerationStatus, Switched, of_this_life,
    },
    heads::context_heads,
    owner::Owner,
    postgres::PgStore,
    runner::lease_group,
    verify::{Check, CheckOptions, Subjects, Verification, VerifyOptions},
    view::{StoreKind, View},
};

/// How long after the first time consumers are deleted once more, in milliseconds: a projector
/// that looked for its checkpoint just before that went may open one a moment later.
const CONSUMER_PAUSE_MS: u64 = 500;

/// Rebuilds of views: for the controller, the CLI and the workers.
#[derive(Clone)]
pub struct Rebuilds {
    views: Vec<View>,
    logs: Vec<Arc<dyn EventLog>>,
    postgres: Option<PgStore>,
    dynamodb: Option<DynamoStore>,
    topology: Option<Topology>,
}

impl Rebuilds {
    /// Speaks for views; reactions among them are refused by name. `logs` are the event logs of their contexts. With a topology, consumers
    /// of generations that are discarded are deleted, and copies of dead letters published.
    #[must_use]
    pub const fn new(
        views: Vec<View>,
        logs: Vec<Arc<dyn EventLog>>,
        postgres: Option<PgStore>,
        dynamodb: Option<DynamoStore>,
        topology: Option<Topology>,
    ) -> Self {
        Self {
            views,
            logs,
            postgres,
            dynamodb,
            topology,
        }
    }

    /// What a rebuild of a projection would do now. Nothing is changed.
    ///
    /// # Errors
    /// [`StoreError::Invalid`] for a projection that is not known here; else see [`StoreError`].
    pub async fn plan(&self, projection: &str) -> Result<RebuildPlan, StoreError> {
        let view = self.view(projection)?;
        let heads = self.heads(view).await?;
        let live = self.live(projection).await?;
        let targets = targets_at(&heads);
        Ok(RebuildPlan {
            projection: projection.to_owned(),
            version: view.version(),
            store: view.store(),
            live,
            events_total: targets.iter().map(Target::events).sum(),
            targets,
            lanes_total: counted(
                heads
                    .iter()
                    .map(|head| head.partition_positions.len())
                    .sum(),
            ),
        })
    }

    /// Makes a generation for an owner, to be loaded up to the present heads of the logs. For an
    /// owner that has one of this projection already it only says how that stands: its targets and
    /// its pace stay what they are.
    ///
    /// # Errors
    /// [`StoreError::Busy`] while another owner's generation of the projection is neither switched
    /// to nor discarded; else see [`StoreError`].
    pub async fn begin(
        &self,
        owner: &Owner,
        projection: &str,
        pace: Pace,
    ) -> Result<RebuildState, StoreError> {
        let view = self.view(projection)?;
        if let Some(found) = self.find(owner, projection).await? {
            return Ok(found);
        }
        let heads = self.heads(view).await?;
        let store = self.store(view)?;
        let generation = store.begin(view, owner, &heads, pace).await?;
        self.state(store, generation, owner).await
    }

    /// How an owner's rebuild of a projection stands; none when it never began, or is discarded to
    /// the end. One whose discard was interrupted is found as retired, to be discarded again.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub async fn find(
        &self,
        owner: &Owner,
        projection: &str,
    ) -> Result<Option<RebuildState>, StoreError> {
        let store = self.store(self.view(projection)?)?;
        let known = store.generations(projection).await?;
        let own = known
            .into_iter()
            .find(|one| one.owner.as_ref() == Some(owner));
        match own {
            None => Ok(None),
            Some(generation) => self.state(store, generation, owner).await.map(Some),
        }
    }

    async fn state(
        &self,
        store: &dyn RebuildStore,
        generation: Generation,
        owner: &Owner,
    ) -> Result<RebuildState, StoreError> {
        let lanes = store.progress(generation.id).await?;
        let standing = store.standing(&generation).await?;
        let pace = standing.map(|(_, pace)| pace).unwrap_or_default();
        Ok(RebuildState {
            generation,
            owner: owner.clone(),
            targets: targets_of(&lanes),
            pace,
            events_done: lanes.iter().map(|one| one.events).sum(),
            lanes_done: counted(lanes.iter().filter(|one| one.is_done()).count()),
            lanes_total: counted(lanes.len()),
        })
    }

    /// Says how fast a generation may be loaded. Workers that run follow within a second.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub async fn set_pace(&self, generation: &Generation, pace: Pace) -> Result<(), StoreError> {
        self.store_of(generation)?.set_pace(generation, pace).await
    }

    /// Loads a share of the lanes up to their targets, from wherever their checkpoints are. Several
    /// workers on one share do no harm, only the work of one.
    ///
    /// # Errors
    /// [`StoreError::Invalid`] when it can never go on: the log began a new life, or an event needs
    /// a newer release; [`StoreError::Unavailable`] when a store stayed away for long. What is
    /// written stays.
    pub async fn load(
        &self,
        generation: &Generation,
        share: Share,
        stop: CancellationToken,
    ) -> Result<LoadEnd, StoreError> {
        share.check()?;
        let view = self.view_of(generation)?;
        let letters = self.topology.as_ref().map(|topology| {
            DeadLetterPublisher::new(topology.jetstream().clone(), topology.names().clone())
        });
        let load = Load {
            view: view.clone(),
            logs: self.logs.clone(),
            store: self.store(view)?,
            generation,
            share,
            letters,
            stop,
        };
        load.run().await
    }

    /// Ends a load whose lanes are all at their targets: makes the indexes, tells the planner what
    /// is there, and makes the generation a candidate. From here on projectors keep it current,
    /// from exactly the next position. A generation that is one already is left as it is.
    ///
    /// # Errors
    /// [`StoreError::Behind`] when a lane is not at its target; [`StoreError::Gone`] for a
    /// generation that is retired; else see [`StoreError`].
    pub async fn finish(&self, generation: &Generation) -> Result<(), StoreError> {
        let view = self.view_of(generation)?;
        self.store(view)?.finish(generation, view).await
    }

    /// How many positions the lane that lacks the most is behind the head of its log. Events of
    /// other lanes in between count too, so it is an upper bound that ends at 0.
    ///
    /// # Errors
    /// [`StoreError::Gone`] for a generation that is discarded; else see [`StoreError`].
    pub async fn lag(&self, generation: &Generation) -> Result<u64, StoreError> {
        let view = self.view_of(generation)?;
        let lanes = self.store(view)?.progress(generation.id).await?;
        if lanes.is_empty() {
            return Err(StoreError::Gone(generation.id));
        }
        let heads = self.heads(view).await?;
        let behind = heads.iter().flat_map(ContextHead::lanes).map(|(lane, at)| {
            let own = lanes.iter().find(|one| one.lane == lane);
            let own = own.map_or(0, |one| one.position.get());
            at.get().saturating_sub(own)
        });
        Ok(behind.max().unwrap_or(0))
    }

    /// Compares a candidate with the generation that answers. Where none does there is nothing to
    /// compare with, and nothing differs.
    ///
    /// # Errors
    /// [`StoreError::Stopped`] when told to stop; [`StoreError::Behind`] and
    /// [`StoreError::Unavailable`] when it may succeed later; [`StoreError::Invalid`] when they
    /// cannot be compared at all; else see [`StoreError`].
    pub async fn verify(
        &self,
        generation: &Generation,
        options: &VerifyOptions,
        stop: &CancellationToken,
    ) -> Result<Verification, StoreError> {
        let view = self.view_of(generation)?;
        let Some(live) = &self.live(view.name()).await? else {
            return Ok(Verification::of_nothing());
        };
        let subjects = Subjects {
            candidate: generation,
            live,
            view,
            logs: &self.logs,
        };
        match (view.store(), &self.postgres, &self.dynamodb) {
            (StoreKind::Postgres, Some(store), _) => {
                store.of(view.name()).verify(subjects, options, stop).await
            }
            (StoreKind::DynamoDb, _, Some(store)) => store.verify(subjects, options, stop).await,
            _ => Err(view.no_store()),
        }
    }

    /// Compares rows of the generation of a projection that answers now with a fold of the logs.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] when a store or a log does not answer; [`StoreError::Invalid`] for
    /// a projection that is not known here; else see [`StoreError`].
    pub async fn check(
        &self,
        projection: &str,
        options: &CheckOptions,
    ) -> Result<Check, StoreError> {
        let view = self.view(projection)?;
        match (view.store(), &self.postgres, &self.dynamodb) {
            (StoreKind::Postgres, Some(store), _) => {
                let store = store.of(view.name());
                Box::pin(store.check(view, &self.logs, options)).await
            }
            (StoreKind::DynamoDb, _, Some(store)) => {
                Box::pin(store.check(view, &self.logs, options)).await
            }
            _ => Err(view.no_store()),
        }
    }

    /// The generation of a projection that answers now, to code of this release.
    ///
    /// # Errors
    /// [`StoreError::Invalid`] for a projection that is not known here; else see [`StoreError`].
    pub async fn live(&self, projection: &str) -> Result<Option<Generation>, StoreError> {
        let version = self.view(projection)?.version();
        let known = self.generations(projection).await?;
        Ok(Generation::answering(&known, version).cloned())
    }

    /// The generations of a projection, newest first.
    ///
    /// # Errors
    /// [`StoreError::Invalid`] for a projection that is not known here; else see [`StoreError`].
    pub async fn generations(&self, projection: &str) -> Result<Vec<Generation>, StoreError> {
        let store = self.store(self.view(projection)?)?;
        store.generations(projection).await
    }

    /// The generations that are to be loaded with this release's code, of all projections, each
    /// with its store.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub async fn loading(&self) -> Result<Vec<(StoreKind, Generation)>, StoreError> {
        let mut found = Vec::new();
        for view in self.views.iter().filter(|view| !view.is_reaction()) {
            let known = self.store(view)?.generations(view.name()).await?;
            let loading = known.into_iter().filter(|one| {
                one.status == GenerationStatus::Loading && one.version == view.version()
            });
            found.extend(loading.map(|one| (view.store(), one)));
        }
        Ok(found)
    }

    /// The generations of all projections that a rebuild made and nobody switched to yet, or
    /// dropped to the end, of whichever version.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub async fn unfinished(&self) -> Result<Vec<Generation>, StoreError> {
        let mut found = Vec::new();
        for view in &self.views {
            let known = self.store(view)?.generations(view.name()).await?;
            let left = |one: &Generation| {
                let retired = one.status == GenerationStatus::Retired && one.owner.is_some();
                retired || one.is_unfinished()
            };
            found.extend(known.into_iter().filter(left));
        }
        Ok(found)
    }

    /// Makes a candidate answer queries, by compare-and-set; for the generation that answers
    /// already it only says what it replaced. The live one is held still for at most a few
    /// seconds, until the candidate is nowhere behind it. What answered before is retained: kept
    /// current, so that a rollback is another switch.
    ///
    /// # Errors
    /// [`StoreError::Behind`] when the candidate is not far enough: try again later.
    /// [`StoreError::Invalid`] for one that is not a candidate, or of an earlier life of its log;
    /// [`StoreError::Gone`] for one that is discarded; else see [`StoreError`].
    pub async fn switch(&self, generation: &Generation) -> Result<Switched, StoreError> {
        let view = self.view_of(generation)?;
        let heads = self.heads(view).await?;
        self.activate(view, generation, &heads, Activation::Switch)
            .await
    }

    /// Makes a retained generation answer again. Without `force` it has to be one that is kept
    /// current: of the running version, of the present life of its log, and nowhere behind the
    /// live one, so that no reader goes back.
    ///
    /// With `force` readers may go back to where it stands. One of another version stays there for
    /// as long as no release of that version runs, and the running release makes itself a new
    /// generation and switches to it when that has caught up, unless it is rolled back too.
    ///
    /// # Errors
    /// [`StoreError::Invalid`] with the reason when it is frozen or was never live;
    /// [`StoreError::Behind`] when it lags; [`StoreError::Gone`] when there is none of that id.
    pub async fn rollback(
        &self,
        projection: &str,
        to: GenerationId,
        force: bool,
    ) -> Result<Switched, StoreError> {
        let view = self.view(projection)?;
        let known = self.store(view)?.generations(projection).await?;
        let generation = known
            .into_iter()
            .find(|one| one.id == to)
            .ok_or(StoreError::Gone(to))?;
        if generation.version != view.version() && !force {
            return Err(StoreError::Invalid(format!(
                "generation {to} of {projection} is frozen: it is of version {}, and this release \
                 keeps version {} current. Force the rollback to answer from it all the same",
                generation.version,
                view.version()
            )));
        }
        let heads = self.heads(view).await?;
        let how = Activation::Rollback {
            force,
            running: view.version(),
        };
        self.activate(view, &generation, &heads, how).await
    }

    async fn activate(
        &self,
        view: &View,
        generation: &Generation,
        heads: &[ContextHead],
        how: Activation,
    ) -> Result<Switched, StoreError> {
        let store = self.store(view)?;
        if !how.is_forced() && generation.status != GenerationStatus::Active {
            let lanes = store.progress(generation.id).await?;
            let checkpoints: Vec<_> = lanes.iter().map(LaneProgress::checkpoint).collect();
            if !of_this_life(&checkpoints, heads) {
                return Err(StoreError::Invalid(format!(
                    "generation {} of {} is of an earlier life of its log, and stays where it is",
                    generation.id, generation.projection
                )));
            }
        }
        store.activate(generation, heads, how).await
    }

    /// Retires a generation and drops all there is of it: rows, checkpoints, letters, consumers,
    /// leases.
    /// For a rebuild that is given up, and for a retained generation whose time is over. One that
    /// is gone already is fine, and what was interrupted is done to the end.
    ///
    /// # Errors
    /// [`StoreError::Invalid`] for the generation that answers; else see [`StoreError`].
    pub async fn discard(&self, generation: &Generation) -> Result<(), StoreError> {
        self.drop_kept_for(generation, None).await.map(|_| ())
    }

    /// As [`Rebuilds::discard`], for a generation that is kept for the one that took over from it:
    /// if it answered again since and yet another one took over, it is kept for that one, and nothing
    /// is done. Says whether it is gone.
    ///
    /// # Errors
    /// See [`Rebuilds::discard`].
    pub async fn discard_replaced(
        &self,
        generation: &Generation,
        by: GenerationId,
    ) -> Result<bool, StoreError> {
        self.drop_kept_for(generation, Some(by)).await
    }

    async fn drop_kept_for(
        &self,
        generation: &Generation,
        kept_for: Option<GenerationId>,
    ) -> Result<bool, StoreError> {
        let view = self.view_of(generation)?;
        let store = self.store(view)?;
        if !store.clear(generation, kept_for).await? {
            return Ok(false);
        }
        if let Some(topology) = &self.topology {
            self.clear_streams(topology, view, generation).await?;
            tokio::time::sleep(Duration::from_millis(CONSUMER_PAUSE_MS)).await;
            self.clear_streams(topology, view, generation).await?;
        }
        store.forget(generation).await?;
        Ok(true)
    }

    /// Deletes its consumers, and the record of who works on which of its partitions.
    async fn clear_streams(
        &self,
        topology: &Topology,
        view: &View,
        generation: &Generation,
    ) -> Result<(), StoreError> {
        let heads = self.heads(view).await?;
        for (lane, _) in heads.iter().flat_map(ContextHead::lanes) {
            let spec = ConsumerSpec {
                context: lane.context,
                partition: lane.partition,
                projection: generation.projection.clone(),
                generation: generation.id.to_string(),
            };
            PartitionConsumer::delete(topology, &spec)
                .await
                .map_err(|error| StoreError::Unavailable(Box::new(error)))?;
        }
        for context in view.contexts() {
            Leases::forget_group(topology, &lease_group(view.name(), generation.id, context))
                .await
                .map_err(|error| StoreError::Unavailable(Box::new(error)))?;
        }
        Ok(())
    }

    async fn heads(&self, view: &View) -> Result<Vec<ContextHead>, StoreError> {
        context_heads(&self.logs, view.contexts()).await
    }

    fn view(&self, projection: &str) -> Result<&View, StoreError> {
        let view = View::named(&self.views, projection)?;
        view.require_rows()?;
        Ok(view)
    }

    fn view_of(&self, generation: &Generation) -> Result<&View, StoreError> {
        self.view(&generation.projection)
    }

    fn store(&self, view: &View) -> Result<&dyn RebuildStore, StoreError> {
        match (view.store(), &self.postgres, &self.dynamodb) {
            (StoreKind::Postgres, Some(store), _) => Ok(store.of(view.name())),
            (StoreKind::DynamoDb, _, Some(store)) => Ok(store),
            _ => Err(view.no_store()),
        }
    }

    fn store_of(&self, generation: &Generation) -> Result<&dyn RebuildStore, StoreError> {
        self.store(self.view_of(generation)?)
    }
}

fn counted(count: usize) -> u32 {
    u32::try_from(count).unwrap_or(u32::MAX)
}
