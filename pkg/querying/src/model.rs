//! Reads from read models.

use std::time::{Duration, Instant};

use futures::future::BoxFuture;
use millrace_es::{Context, LogToken};
use millrace_http::{Consistency, Problem};
use millrace_projecting::{
    AtLeast, DynamoReadModel, DynamoReader, PgReadModel, ReadError, StoreError,
};
use sqlx::PgConnection;

use crate::{EPOCH_OVER, FOREIGN_CONTEXT, invalid_token};

/// What was read, and how far the read model was.
pub type Found<T> = (T, Option<LogToken>);

/// Answers a query from PostgreSQL. `name` names it in the metric.
///
/// # Errors
/// 422, 503 or 504, see [`unreadable`].
pub async fn from_postgres<T, F>(
    model: &PgReadModel,
    context: &Context,
    consistency: Consistency,
    name: &'static str,
    run: F,
) -> Result<Found<T>, Problem>
where
    F: for<'c> Fn(&'c mut PgConnection) -> BoxFuture<'c, Result<T, sqlx::Error>> + Send + Sync,
    T: Send,
{
    let at_least = at_least(consistency);
    let started = Instant::now();
    // Before the query: what it reads is this far, or farther.
    let before = model.current(context);
    let found = model.query(at_least.as_ref(), run).await;
    observe("postgres", name, started);
    let found = found.map_err(|error| unreadable(error, at_least.as_ref()))?;
    let before = if at_least.is_some() {
        model.current(context).or(before)
    } else {
        before
    };
    Ok((found, reached(before, at_least)))
}

/// How long an answer that needs no read model waits for what only a read model knows, in
/// milliseconds.
const FACTS_OF_OTHERS_MS: u64 = 1_000;

/// What a read model has of other contexts, for an answer whose own facts are strong. `None` when it
/// does not answer within [`FACTS_OF_OTHERS_MS`]: then the answer does without. `name` names the
/// query in the metric.
pub async fn facts_of_others<T, F>(model: &PgReadModel, name: &'static str, run: F) -> Option<T>
where
    F: for<'c> Fn(&'c mut PgConnection) -> BoxFuture<'c, Result<T, sqlx::Error>> + Send + Sync,
    T: Send,
{
    let started = Instant::now();
    let limit = Duration::from_millis(FACTS_OF_OTHERS_MS);
    let found = tokio::time::timeout(limit, model.query(None, run)).await;
    observe("postgres", name, started);
    match found {
        Ok(Ok(found)) => Some(found),
        Ok(Err(error)) => {
            tracing::warn!(query = name, %error, "an answer does without what other contexts know");
            None
        }
        Err(_) => {
            tracing::warn!(
                query = name,
                "an answer does without what other contexts know: the read model is too slow"
            );
            None
        }
    }
}

/// A DynamoDB table to answer from, and how far it is.
///
/// # Errors
/// 422, 503 or 504, see [`unreadable`].
pub async fn from_dynamodb(
    model: &DynamoReadModel,
    context: &Context,
    consistency: Consistency,
) -> Result<Found<DynamoReader>, Problem> {
    let at_least = at_least(consistency);
    let reader = model.read(at_least.as_ref()).await;
    let reader = reader.map_err(|error| unreadable(error, at_least.as_ref()))?;
    Ok((reader, reached(model.current(context), at_least)))
}

/// Keeps how long a query took.
pub fn observe(store: &'static str, query: &'static str, started: Instant) {
    metrics::histogram!("millrace_query_seconds", "store" => store, "query" => query)
        .record(started.elapsed().as_secs_f64());
}

fn at_least(consistency: Consistency) -> Option<AtLeast> {
    match consistency {
        Consistency::AtLeast { token, wait } => Some(AtLeast { token, wait }),
        // A strong read does not come here; it has no read model to wait for.
        Consistency::Eventual | Consistency::Strong => None,
    }
}

/// How far an answer is known to be: the read model's own lower bound, or what it waited for where
/// that is farther. Positions of different contexts do not compare; the query's own goes first.
fn reached(known: Option<LogToken>, at_least: Option<AtLeast>) -> Option<LogToken> {
    match (known, at_least) {
        (Some(known), Some(AtLeast { token, .. }))
            if known.context == token.context && known.position < token.position =>
        {
            Some(token)
        }
        (known, at_least) => known.or_else(|| at_least.map(|at_least| at_least.token)),
    }
}

/// What a failed read means to a client; `at_least` is what it waited for.
#[must_use]
pub fn unreadable(error: ReadError, at_least: Option<&AtLeast>) -> Problem {
    match &error {
        ReadError::Behind { wanted, reached } => {
            let waited = at_least.map(|at_least| at_least.wait).unwrap_or_default();
            Problem::not_yet_readable(wanted, Some(*reached), waited)
        }
        ReadError::EpochOver { .. } => invalid_token(EPOCH_OVER),
        ReadError::ForeignContext { .. } => invalid_token(FOREIGN_CONTEXT),
        ReadError::Busy { .. } => {
            Problem::unavailable("Too many readers wait for positions; try again").caused_by(error)
        }
        ReadError::NotReady { .. } => {
            Problem::unavailable("The read model is not there yet; try again").caused_by(error)
        }
        ReadError::Store(store) => match store {
            StoreError::Unavailable(_) | StoreError::Gone(_) => {
                Problem::unavailable("The read store cannot be reached; try again").caused_by(error)
            }
            _ => Problem::internal(error),
        },
    }
}
