//! Reactions: effects that events have outside the read stores.
//!
//! To the runner a reaction is a view without rows: the same lanes, leases, chain, checkpoints,
//! parked streams and dead letters. Where a view folds a batch into rows, a reaction performs its
//! effects, in order per stream and different streams side by side, and moves the checkpoints when
//! they are done. It has one generation for ever, which begins at the log's first event.
//!
//! Leases spread the work and guard nothing: two processes may perform an effect at once, and a
//! process that dies repeats what it had performed and not yet written down. So an effect has to be
//! idempotent by a key of its own.

mod availability;
mod new_life;
mod performing;

use std::{error::Error, marker::PhantomData, sync::Arc};

use async_trait::async_trait;
use millrace_es::{DecodeError, Epoch, Position, Projection, Reaction, Recorded, RecordedEvent};
use sqlx::PgConnection;

pub use self::performing::EFFECT_TIMEOUT_MS;
pub(crate) use self::{
    availability::Availability,
    new_life::{GoesOn, Moved, lanes_that_go_on},
    performing::{Memory, Perform, Performance},
};
use crate::{
    batch::{Batch, Chunk, NewLetter, Parked},
    generation::Lane,
    postgres::PgView,
    stores::{Origins, UnchangedColumns},
};

/// The most events of one batch of effects: what a process that is killed repeats, and no more.
pub(crate) const MAX_BATCH_EFFECTS: usize = 64;

/// The most events of a reaction that a lane hands over at once, so that a batch has some of every
/// lane that is busy.
pub(crate) const MAX_CHUNK_EFFECTS: usize = 16;

/// The version of every reaction: its generation is for ever.
const VERSION: u32 = 1;

/// Performs the effects of a reaction.
#[async_trait]
pub trait React<R: Reaction>: Send + Sync + 'static {
    /// Performs what an event has for an effect. It may have been performed before, by this process
    /// or by another one, or be performed by another one at this moment: the effect's key, derived
    /// from the event, has to make a repeat a no-op. Events of one stream come one after the other,
    /// in order; a call that takes longer than [`crate::EFFECT_TIMEOUT_MS`] is dropped and counts
    /// as [`EffectError::Unavailable`].
    ///
    /// # Errors
    /// See [`EffectError`].
    async fn react(&self, event: Recorded<'_, R::Event>) -> Result<(), EffectError>;
}

/// Why an effect was not performed.
#[derive(Debug, thiserror::Error)]
pub enum EffectError {
    /// It may be another time: an endpoint is away, throttles or refuses the credentials. Tried
    /// again for ever; its lane waits and nothing is parked.
    #[error("the effect cannot be performed now")]
    Unavailable(#[source] Box<dyn Error + Send + Sync>),
    /// It never will be: the event becomes a dead letter, and what follows on its stream too.
    #[error("the effect is refused")]
    Refused(#[source] Box<dyn Error + Send + Sync>),
}

impl EffectError {
    /// It may be another time.
    pub fn unavailable(error: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self::Unavailable(error.into())
    }

    /// It never will be.
    pub fn refused(error: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self::Refused(error.into())
    }
}

/// A reaction as batches know it: a projection without rows.
pub(crate) struct AsProjection<R>(PhantomData<fn() -> R>);

impl<R: Reaction> Projection for AsProjection<R> {
    const NAME: &'static str = R::NAME;
    const VERSION: u32 = VERSION;
    const CONTEXTS: &'static [&'static str] = R::CONTEXTS;
    type Event = R::Event;

    fn decode(event: &RecordedEvent) -> Result<Option<R::Event>, DecodeError> {
        R::decode(event)
    }
}

/// The tables of a reaction: none. Its generation is kept in the control tables alone.
pub(crate) struct NoRows<R>(PhantomData<fn() -> R>);

impl<R> NoRows<R> {
    pub(crate) const fn new() -> Self {
        Self(PhantomData)
    }
}

#[async_trait]
impl<R: Reaction> PgView for NoRows<R> {
    fn tables(&self) -> &'static str {
        ""
    }

    fn indexes(&self) -> &'static str {
        ""
    }

    fn unchanged(&self) -> UnchangedColumns {
        &[]
    }

    fn origins(&self) -> Origins {
        &[]
    }

    fn is_by_key(&self) -> bool {
        true
    }

    async fn lock(&self, _: &mut PgConnection, _: &Batch, _: &Parked) -> Result<(), sqlx::Error> {
        Ok(())
    }

    fn decode(
        &self,
        lane: Lane,
        epoch: Epoch,
        previous: Position,
        events: Vec<RecordedEvent>,
    ) -> (Option<Chunk>, Option<DecodeError>) {
        Chunk::decode::<AsProjection<R>>(lane, epoch, previous, events)
    }

    /// Refuses: effects are not performed in a transaction, and folding them would skip them.
    async fn write(
        &self,
        _: &mut PgConnection,
        _: &Batch,
        _: std::ops::Range<usize>,
        _: &Parked,
    ) -> Result<Vec<NewLetter>, sqlx::Error> {
        let why = format!("{} is a reaction: it is performed, not folded", R::NAME);
        Err(sqlx::Error::Configuration(why.into()))
    }
}

/// What a view holds of a reaction.
#[derive(Clone)]
pub(crate) struct ReactionView {
    pub(crate) rows: Arc<dyn PgView>,
    /// Who performs it; none where the reaction is only known by name.
    pub(crate) perform: Option<Arc<dyn Perform>>,
}

impl ReactionView {
    pub(crate) fn new<R: Reaction>(handler: Option<Arc<dyn React<R>>>) -> Self {
        let perform = handler
            .map(|handler| Arc::new(performing::Performer::<R>::new(handler)) as Arc<dyn Perform>);
        Self {
            rows: Arc::new(NoRows::<R>::new()),
            perform,
        }
    }
}
