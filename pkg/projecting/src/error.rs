use crate::{
    generation::{GenerationId, Lane},
    owner::Owner,
};

/// What went wrong between a projector (or a query) and the store of its views.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// Another process moved the checkpoint, or the store was restored: what the caller believes
    /// about the lane is no longer so. Begin again at the stored checkpoint.
    #[error("the checkpoint of {lane} in generation {generation} is not where this owner left it")]
    Fenced {
        /// The generation.
        generation: GenerationId,
        /// A lane whose checkpoint differs.
        lane: Lane,
    },
    /// The store cannot be reached, or refuses for a time: the same call may succeed later.
    #[error("the read store is not available")]
    Unavailable(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The store is not as this release needs it (a table or right is missing): an operator has
    /// to act, and until then nothing is skipped.
    #[error("the read store is not usable")]
    Unusable(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// A verification holds the generation for a moment: what the batch has beyond the holds has to
    /// wait until they move or go.
    #[error("generation {generation} is held for a verification; what is beyond waits")]
    Held {
        /// The generation.
        generation: GenerationId,
        /// The lanes of the batch that would pass their hold, and how far each may go.
        holds: Vec<(Lane, millrace_es::Position)>,
    },
    /// Effects of the batch cannot be performed now: what lies beyond them in their lanes has to
    /// wait. What was performed is remembered.
    #[error("effects cannot be performed now; what follows them waits")]
    Waiting {
        /// The lanes that wait, and how far each is done.
        holds: Vec<(Lane, millrace_es::Position)>,
        /// Why one of them waits.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The work was told to stop before it was done. Nothing of it counts; it can be begun again.
    #[error("told to stop before it was done; it can be begun again")]
    Stopped,
    /// The generation is gone: retired and dropped.
    #[error("generation {0} does not exist")]
    Gone(GenerationId),
    /// A candidate is behind the generation it would replace.
    #[error("generation {candidate} is behind in {lane}: at {at}, needs {needed}")]
    Behind {
        /// The candidate.
        candidate: GenerationId,
        /// A lane that is behind.
        lane: Lane,
        /// Where it is.
        at: millrace_es::Position,
        /// Where it would have to be.
        needed: millrace_es::Position,
    },
    /// Another rebuild of the projection is not done yet: one at a time, whoever asks.
    #[error(
        "generation {generation} of {projection} is being rebuilt for another replay ({owner}), \
         which comes first: wait for it, or cancel it"
    )]
    Busy {
        /// The projection.
        projection: String,
        /// The generation that is not done.
        generation: GenerationId,
        /// Whose it is.
        owner: Owner,
    },
    /// A view or a request that can never work.
    #[error("{0}")]
    Invalid(String),
}

pub(crate) fn unavailable(
    error: impl Into<Box<dyn std::error::Error + Send + Sync>>,
) -> StoreError {
    StoreError::Unavailable(error.into())
}

/// What an error of PostgreSQL means for a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum PgClass {
    /// Try again: connection, serialization, resources, shutdown.
    Transient,
    /// Some row of the batch is refused for good.
    Data,
    /// The schema or the rights are not as the code needs them.
    Setup,
}

/// Sorts an error by its SQLSTATE class. What is not known to be a matter of the data is never
/// taken for one: a batch that is tried again costs time, a letter too many costs trust.
pub(crate) fn classify(error: &sqlx::Error) -> PgClass {
    match error {
        sqlx::Error::Database(database) => {
            let code = database.code().unwrap_or_default();
            match code.get(..2) {
                // Data exception, integrity violation, program limit (a value too long to index).
                Some("22" | "23") => PgClass::Data,
                Some("54") if code != "54001" => PgClass::Data,
                // Syntax error, missing table, missing right; wrong catalogue or schema name.
                Some("42" | "3D" | "3F" | "28") => PgClass::Setup,
                _ => PgClass::Transient,
            }
        }
        sqlx::Error::Encode(_)
        | sqlx::Error::Decode(_)
        | sqlx::Error::ColumnDecode { .. }
        | sqlx::Error::InvalidArgument(_) => PgClass::Data,
        sqlx::Error::ColumnNotFound(_)
        | sqlx::Error::ColumnIndexOutOfBounds { .. }
        | sqlx::Error::TypeNotFound { .. }
        | sqlx::Error::Configuration(_) => PgClass::Setup,
        _ => PgClass::Transient,
    }
}

impl From<sqlx::Error> for StoreError {
    fn from(error: sqlx::Error) -> Self {
        match classify(&error) {
            PgClass::Transient => Self::Unavailable(Box::new(error)),
            PgClass::Data | PgClass::Setup => Self::Unusable(Box::new(error)),
        }
    }
}
