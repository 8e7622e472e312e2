use std::{fmt, sync::Arc};

use millrace_es::{Context, Projection, Reaction};

use crate::{
    dynamodb::{self, DynamoView},
    error::StoreError,
    postgres::{self, PgView},
    reacting::{AsProjection, Perform, React, ReactionView},
    stores::{DynamoRows, PgRows, PgTally},
};

/// Where a view's rows are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StoreKind {
    /// The read database.
    Postgres,
    /// DynamoDB.
    DynamoDb,
}

impl StoreKind {
    /// Its name, as settings and resources have it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Postgres => "postgres",
            Self::DynamoDb => "dynamodb",
        }
    }
}

/// A projection or a reaction with its types erased: what a context lists and a runner runs.
#[derive(Clone)]
pub struct View {
    pub(crate) name: &'static str,
    pub(crate) version: u32,
    pub(crate) contexts: Arc<[Context]>,
    pub(crate) store: ViewStore,
}

#[derive(Clone)]
pub(crate) enum ViewStore {
    Postgres(Arc<dyn PgView>),
    DynamoDb(Arc<dyn DynamoView>),
    Reaction(ReactionView),
}

impl View {
    /// A view of rows in PostgreSQL.
    #[must_use]
    pub fn postgres_rows<P: PgRows>() -> Self {
        Self::of::<P>(ViewStore::Postgres(Arc::new(postgres::RowsOf::<P>::new())))
    }

    /// A view of sums in PostgreSQL.
    #[must_use]
    pub fn postgres_tally<P: PgTally>() -> Self {
        Self::of::<P>(ViewStore::Postgres(Arc::new(postgres::TallyOf::<P>::new())))
    }

    /// A view of items in DynamoDB.
    #[must_use]
    pub fn dynamodb_rows<P: DynamoRows>() -> Self {
        const { assert!(!P::SHARED, "an item has one owner") };
        Self::of::<P>(ViewStore::DynamoDb(Arc::new(dynamodb::RowsOf::<P>::new())))
    }

    /// A reaction with its handler, which performs the effects. It has no rows and one generation
    /// for ever; its checkpoints and dead letters are in the read database.
    #[must_use]
    pub fn reaction<R: Reaction>(handler: Arc<dyn React<R>>) -> Self {
        Self::of::<AsProjection<R>>(ViewStore::Reaction(ReactionView::new(Some(handler))))
    }

    /// A reaction known by name: for whoever looks at its progress and its dead letters and
    /// performs nothing.
    #[must_use]
    pub fn named_reaction<R: Reaction>() -> Self {
        Self::of::<AsProjection<R>>(ViewStore::Reaction(ReactionView::new::<R>(None)))
    }

    fn of<P: Projection>(store: ViewStore) -> Self {
        // A name that is no context is a mistake in the projection's constant; a view without
        // contexts is refused by name when generations are made.
        let contexts: Option<Arc<[Context]>> = P::CONTEXTS
            .iter()
            .map(|name| Context::new(name).ok())
            .collect();
        Self {
            name: P::NAME,
            version: P::VERSION,
            contexts: contexts.unwrap_or_default(),
            store,
        }
    }

    /// The projection's name.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        self.name
    }

    /// The projection's version.
    #[must_use]
    pub const fn version(&self) -> u32 {
        self.version
    }

    /// The contexts whose events it reads.
    #[must_use]
    pub fn contexts(&self) -> &[Context] {
        &self.contexts
    }

    /// The view of a name.
    pub(crate) fn named<'a>(views: &'a [Self], name: &str) -> Result<&'a Self, StoreError> {
        views
            .iter()
            .find(|view| view.name() == name)
            .ok_or_else(|| StoreError::Invalid(format!("there is no projection {name:?}")))
    }

    /// Whether it performs effects and has no rows.
    #[must_use]
    pub const fn is_reaction(&self) -> bool {
        matches!(self.store, ViewStore::Reaction(_))
    }

    /// Refuses a reaction where only a view with rows makes sense.
    pub(crate) fn require_rows(&self) -> Result<(), StoreError> {
        if !self.is_reaction() {
            return Ok(());
        }
        Err(StoreError::Invalid(format!(
            "{0} is a reaction: its effects are performed once and never in a replay, so there is \
             nothing to rebuild, verify, switch or roll back. Its dead letters are performed again \
             by `millrace dead-letters redrive --projection {0}`",
            self.name
        )))
    }

    /// Says that the store of its rows was not given.
    pub(crate) fn no_store(&self) -> StoreError {
        StoreError::Invalid(format!("{} has no store here", self.name))
    }

    pub(crate) fn postgres(&self) -> Result<&Arc<dyn PgView>, StoreError> {
        match &self.store {
            ViewStore::Postgres(view) => Ok(view),
            ViewStore::DynamoDb(_) => Err(StoreError::Invalid(format!(
                "{} is not kept in PostgreSQL",
                self.name
            ))),
            ViewStore::Reaction(_) => Err(self.no_rows()),
        }
    }

    /// What its generations in PostgreSQL are made of; nothing for a reaction.
    pub(crate) fn tables(&self) -> Result<&Arc<dyn PgView>, StoreError> {
        match &self.store {
            ViewStore::Reaction(reaction) => Ok(&reaction.rows),
            _ => self.postgres(),
        }
    }

    pub(crate) fn reaction_view(&self) -> Result<&ReactionView, StoreError> {
        match &self.store {
            ViewStore::Reaction(reaction) => Ok(reaction),
            _ => Err(StoreError::Invalid(format!("{} is no reaction", self.name))),
        }
    }

    /// Who performs its effects.
    pub(crate) fn performed(&self) -> Result<Arc<dyn Perform>, StoreError> {
        self.reaction_view()?.perform.clone().ok_or_else(|| {
            StoreError::Invalid(format!(
                "{} is only known by name here: nobody performs its effects",
                self.name
            ))
        })
    }

    fn no_rows(&self) -> StoreError {
        StoreError::Invalid(format!("{} is a reaction and has no rows", self.name))
    }

    /// Refuses a view of several contexts too: an item is guarded by one position.
    pub(crate) fn dynamodb(&self) -> Result<&Arc<dyn DynamoView>, StoreError> {
        match &self.store {
            ViewStore::DynamoDb(view) if self.contexts.len() == 1 => Ok(view),
            ViewStore::DynamoDb(_) => Err(StoreError::Invalid(format!(
                "{} has to read exactly one context: an item is guarded by one position",
                self.name
            ))),
            ViewStore::Postgres(_) => Err(StoreError::Invalid(format!(
                "{} is not kept in DynamoDB",
                self.name
            ))),
            ViewStore::Reaction(_) => Err(self.no_rows()),
        }
    }

    /// Where its rows are kept, and its checkpoints; a reaction's are in PostgreSQL.
    #[must_use]
    pub const fn store(&self) -> StoreKind {
        match self.store {
            ViewStore::Postgres(_) | ViewStore::Reaction(_) => StoreKind::Postgres,
            ViewStore::DynamoDb(_) => StoreKind::DynamoDb,
        }
    }
}

impl fmt::Debug for View {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} v{} ({:?})", self.name, self.version, self.store())
    }
}
