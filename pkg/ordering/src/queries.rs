//! What all queries share: what they answer from, how a read is made as fresh as asked, and what
//! its failures mean to a client.

use std::{sync::Arc, time::Instant};

use futures::future::BoxFuture;
use millrace_es::{Context, LogToken};
use millrace_eventlog::{EventLog, Repository};
use millrace_http::{Consistency, FieldError, Part, Problem};
use millrace_projecting::{
    AtLeast, DynamoReadModel, DynamoReader, PgReadModel, ReadError, StoreError,
};
use sqlx::PgConnection;
use utoipa_axum::router::OpenApiRouter;

use crate::{history, order::Order, views};

/// What the routes of the query service work with.
#[derive(Clone)]
pub struct QueryState {
    /// The event log: the history of an order, and whatever has to be strong.
    pub log: Arc<dyn EventLog>,
    /// The orders, folded from the log.
    pub orders: Arc<Repository<Order>>,
    /// The view `orders-by-user`.
    pub orders_by_user: DynamoReadModel,
    /// The view `order-read-models`.
    pub order_read_models: PgReadModel,
    /// The view `order-statistics`.
    pub order_statistics: PgReadModel,
}

/// The routes of the query service.
pub fn query_routes() -> OpenApiRouter<QueryState> {
    views::orders_by_user::routes()
        .merge(views::order_read_models::routes())
        .merge(views::order_statistics::routes())
        .merge(history::routes())
}

/// What was read, and how far the read model was.
pub(crate) type Found<T> = (T, Option<LogToken>);

/// Answers a query from PostgreSQL. `name` names it in the metric.
pub(crate) async fn from_postgres<T, F>(
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

/// A DynamoDB table to answer from, and how far it is.
pub(crate) async fn from_dynamodb(
    model: &DynamoReadModel,
    context: &Context,
    consistency: Consistency,
) -> Result<Found<DynamoReader>, Problem> {
    let at_least = at_least(consistency);
    let reader = model.read(at_least.as_ref()).await;
    let reader = reader.map_err(|error| unreadable(error, at_least.as_ref()))?;
    Ok((reader, reached(model.current(context), at_least)))
}

/// Where the event log stands, as an answer from it says.
pub(crate) async fn log_token(state: &QueryState) -> Result<LogToken, Problem> {
    let head = state.log.head().await?;
    Ok(LogToken {
        context: state.log.context().clone(),
        position: head.position,
        epoch: Some(head.epoch),
        partitions: Vec::new(),
    })
}

/// Refuses a position of another log, or of a life of this one that is over.
pub(crate) fn same_log(head: &LogToken, wanted: &LogToken) -> Result<(), Problem> {
    if wanted.context != head.context {
        return Err(invalid_token(FOREIGN_CONTEXT));
    }
    match (wanted.epoch, head.epoch) {
        (Some(wanted), Some(current)) if wanted < current => Err(invalid_token(EPOCH_OVER)),
        _ => Ok(()),
    }
}

/// Keeps how long a query took.
pub(crate) fn observe(store: &'static str, query: &'static str, started: Instant) {
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
/// that is farther.
fn reached(known: Option<LogToken>, at_least: Option<AtLeast>) -> Option<LogToken> {
    match (known, at_least) {
        (Some(known), Some(AtLeast { token, .. })) if known.position < token.position => {
            Some(token)
        }
        (known, at_least) => known.or_else(|| at_least.map(|at_least| at_least.token)),
    }
}

/// What a failed read means to a client.
fn unreadable(error: ReadError, at_least: Option<&AtLeast>) -> Problem {
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

const EPOCH_OVER: &str = "is of an earlier life of the log, whose end was lost; read without it \
                          and check what became of the write";
const FOREIGN_CONTEXT: &str = "is of a context that this query does not read";

fn invalid_token(reason: &'static str) -> Problem {
    Problem::invalid(vec![FieldError::new(Part::Query, "/at_least", reason)])
}

/// 422 for one parameter.
pub(crate) fn invalid_parameter(name: &str, reason: impl Into<String>) -> Problem {
    let pointer = format!("/{name}");
    Problem::invalid(vec![FieldError::new(Part::Query, pointer, reason.into())])
}
