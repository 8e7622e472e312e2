use std::{fmt, sync::Arc};

use millrace_es::{Context, Projection};

use crate::{
    dynamodb::{self, DynamoView},
    error::StoreError,
    postgres::{self, PgView},
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

/// A projection with its types erased: what a context lists and a runner runs.
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
        Self::of::<P>(ViewStore::DynamoDb(Arc::new(dynamodb::RowsOf::<P>::new())))
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
        }
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
        }
    }

    /// Where its rows are kept.
    #[must_use]
    pub const fn store(&self) -> StoreKind {
        match self.store {
            ViewStore::Postgres(_) => StoreKind::Postgres,
            ViewStore::DynamoDb(_) => StoreKind::DynamoDb,
        }
    }
}

impl fmt::Debug for View {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} v{} ({:?})", self.name, self.version, self.store())
    }
}
