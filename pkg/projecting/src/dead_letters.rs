use millrace_es::{Context, Position, StreamId};
use millrace_kernel::Timestamp;
use serde::{Deserialize, Serialize};

use crate::{
    dynamodb::DynamoStore,
    error::StoreError,
    generation::{GenerationId, Lane},
    letter_runs::{LetterSelector, PositionRange},
    letters::{Action, DeadLetter, LetterStatus, Reason, RequestId},
    postgres::PgStore,
    view::{StoreKind, View},
};

/// The most letters of one page.
pub const MAX_LETTERS_PER_PAGE: usize = 500;

/// The most streams that one call asks something for; what is beyond needs another call.
pub const MAX_REQUESTS_PER_CALL: usize = 1_000;

/// Which letters are meant. What is not set does not matter.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LetterFilter {
    /// The projection.
    pub projection: Option<String>,
    /// The event's context.
    pub context: Option<Context>,
    /// The event's stream.
    pub stream: Option<StreamId>,
    /// The event's position.
    pub position: Option<Position>,
    /// The class of the reason.
    pub reason: Option<Reason>,
    /// Failed first at or after.
    pub from: Option<Timestamp>,
    /// Failed first before.
    pub to: Option<Timestamp>,
    /// Where they stand; those that wait, if not set.
    pub status: Option<LetterStatus>,
}

impl LetterFilter {
    pub(crate) fn matches(&self, letter: &DeadLetter) -> bool {
        self.context
            .as_ref()
            .is_none_or(|context| *context == letter.lane.context)
            && letter.status == self.status.unwrap_or(LetterStatus::Pending)
            && self.selector().matches(letter)
    }

    /// What it says about a letter's event and failure.
    pub(crate) fn selector(&self) -> LetterSelector {
        LetterSelector {
            positions: self.position.map(PositionRange::only).into_iter().collect(),
            since: self.from,
            until: self.to,
            reason: self.reason,
            keys: self.stream.clone().into_iter().collect(),
        }
    }
}

/// Something asked for, which the owner of the partition does within seconds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Requested {
    /// The request.
    pub id: RequestId,
    /// The projection.
    pub projection: String,
    /// The generation.
    pub generation: i64,
    /// The event's context.
    pub context: Context,
    /// The stream whose letters it is about.
    pub stream: StreamId,
    /// What was asked.
    pub action: Action,
}

/// Dead letters of all views, for the CLI and the admin port. Redrive and discard are only asked
/// for here: the owner of the partition does them between two batches, in the order of the stream.
#[derive(Clone)]
pub struct DeadLetters {
    views: Vec<View>,
    pub(crate) postgres: Option<PgStore>,
    pub(crate) dynamodb: Option<DynamoStore>,
}

impl DeadLetters {
    /// Speaks for views.
    #[must_use]
    pub const fn new(
        views: Vec<View>,
        postgres: Option<PgStore>,
        dynamodb: Option<DynamoStore>,
    ) -> Self {
        Self {
            views,
            postgres,
            dynamodb,
        }
    }

    /// Letters of every generation that is worked on, by projection, generation and position, at
    /// most `limit` and [`MAX_LETTERS_PER_PAGE`].
    ///
    /// # Errors
    /// See [`StoreError`].
    pub async fn list(
        &self,
        filter: &LetterFilter,
        limit: usize,
    ) -> Result<Vec<DeadLetter>, StoreError> {
        let limit = limit.min(MAX_LETTERS_PER_PAGE);
        let mut found = Vec::new();
        for view in self.chosen(filter)? {
            let left = limit - found.len();
            if left == 0 {
                break;
            }
            found.extend(match (view.store(), &self.postgres, &self.dynamodb) {
                (StoreKind::Postgres, Some(store), _) => {
                    store
                        .of(view.name())
                        .letters(view.name(), filter, left)
                        .await?
                }
                (StoreKind::DynamoDb, _, Some(store)) => {
                    store.letters(view.name(), filter, left).await?
                }
                _ => return Err(view.no_store()),
            });
        }
        Ok(found)
    }

    /// Asks to fold the waiting letters of every stream that has one matching the filter, oldest
    /// first. What fails again waits again. A reaction's are performed, and only where the filter
    /// names it.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub async fn redrive(&self, filter: &LetterFilter) -> Result<Vec<Requested>, StoreError> {
        self.request(filter, Action::Redrive).await
    }

    /// Asks to give letters up: the one at the filter's position, or all of every stream that has
    /// one matching the filter; those of a reaction only where the filter names it. A stream is
    /// released when it has no letter left; letters behind a discarded one wait for their redrive.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub async fn discard(&self, filter: &LetterFilter) -> Result<Vec<Requested>, StoreError> {
        self.request(filter, Action::Discard).await
    }

    /// What a request came to; `None` while it is open.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub async fn outcome(&self, request: &Requested) -> Result<Option<String>, StoreError> {
        let view = self.named(&request.projection)?;
        match (view.store(), &self.postgres, &self.dynamodb) {
            (StoreKind::Postgres, Some(store), _) => {
                store.of(view.name()).request_outcome(request).await
            }
            (StoreKind::DynamoDb, _, Some(store)) => store.request_outcome(request).await,
            _ => Err(view.no_store()),
        }
    }

    async fn request(
        &self,
        filter: &LetterFilter,
        action: Action,
    ) -> Result<Vec<Requested>, StoreError> {
        let waiting = LetterFilter {
            status: Some(LetterStatus::Pending),
            ..filter.clone()
        };
        let mut made = Vec::new();
        for view in self.chosen(&waiting)? {
            // Effects are performed again when they are asked for by name, never by the way.
            if view.is_reaction() && waiting.projection.is_none() {
                continue;
            }
            let found = match (view.store(), &self.postgres, &self.dynamodb) {
                (StoreKind::Postgres, Some(store), _) => {
                    store
                        .of(view.name())
                        .request(view.name(), &waiting, action)
                        .await?
                }
                (StoreKind::DynamoDb, _, Some(store)) => {
                    store.request(view.name(), &waiting, action).await?
                }
                _ => return Err(view.no_store()),
            };
            made.extend(found);
        }
        Ok(made)
    }

    /// The views that a filter means.
    fn chosen(&self, filter: &LetterFilter) -> Result<Vec<&View>, StoreError> {
        match &filter.projection {
            None => Ok(self.views.iter().collect()),
            Some(name) => Ok(vec![self.named(name)?]),
        }
    }

    pub(crate) fn named(&self, name: &str) -> Result<&View, StoreError> {
        View::named(&self.views, name)
    }
}

/// The stream of a lane that a request is about.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Subject {
    pub(crate) generation: GenerationId,
    pub(crate) lane: Lane,
    pub(crate) stream: StreamId,
}

impl Subject {
    pub(crate) fn requested(self, id: RequestId, projection: &str, action: Action) -> Requested {
        Requested {
            id,
            projection: projection.to_owned(),
            generation: self.generation.get(),
            context: self.lane.context,
            stream: self.stream,
            action,
        }
    }
}
