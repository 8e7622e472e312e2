use std::sync::Arc;

use async_trait::async_trait;

use super::state::{LaneProgress, Pace};
use crate::{
    error::StoreError,
    generation::{Activation, ContextHead, Generation, GenerationId, GenerationStatus, Switched},
    owner::Owner,
    store::GenerationStore,
    view::View,
};

/// How a rebuild's generation is kept, whatever the store.
#[async_trait]
pub(crate) trait RebuildStore: Send + Sync {
    /// The generations of a projection, newest first.
    async fn generations(&self, projection: &str) -> Result<Vec<Generation>, StoreError>;

    /// Makes an owner's generation, empty and loading, unless it has one.
    async fn begin(
        &self,
        view: &View,
        owner: &Owner,
        heads: &[ContextHead],
        pace: Pace,
    ) -> Result<Generation, StoreError>;

    /// How far the load is, by lane; nothing of a generation that is gone.
    async fn progress(&self, generation: GenerationId) -> Result<Vec<LaneProgress>, StoreError>;

    /// What a generation is for now, and how fast it may be loaded; none when it is gone.
    async fn standing(
        &self,
        generation: &Generation,
    ) -> Result<Option<(GenerationStatus, Pace)>, StoreError>;

    /// Says how fast it may be loaded.
    async fn set_pace(&self, generation: &Generation, pace: Pace) -> Result<(), StoreError>;

    /// Opens it for its load, which counts what it folds.
    fn open(
        &self,
        generation: &Generation,
        view: &View,
    ) -> Result<Arc<dyn GenerationStore>, StoreError>;

    /// Makes a candidate of a generation whose lanes are all at their targets.
    async fn finish(&self, generation: &Generation, view: &View) -> Result<(), StoreError>;

    /// Makes it the one that answers.
    async fn activate(
        &self,
        generation: &Generation,
        heads: &[ContextHead],
        how: Activation,
    ) -> Result<Switched, StoreError>;

    /// Retires it and drops its rows, its checkpoints and its letters; one that answers is
    /// refused. With `kept_for`, only if that is the one that took over from it last, or nobody
    /// knows; false when it is not, and nothing was done.
    async fn clear(
        &self,
        generation: &Generation,
        kept_for: Option<GenerationId>,
    ) -> Result<bool, StoreError>;

    /// Forgets one that is retired and cleared.
    async fn forget(&self, generation: &Generation) -> Result<(), StoreError>;
}
