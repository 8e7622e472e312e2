//! A log, read over HTTP: the pages of [`EventLog`], as bounded as they are there.

use std::sync::Arc;

use axum::{
    Json, Router,
    extract::{Path, Query, State, rejection::QueryRejection},
    response::{IntoResponse, Response},
    routing::get,
};
use millrace_es::{Partition, PartitionCount, Position, RecordedEvent, StreamId, StreamVersion};
use millrace_eventlog::{EventLog, LogError, MAX_PAGE_EVENTS};
use millrace_http::{Problem, types};
use serde::{Deserialize, Serialize};

use crate::problems::of_log;

/// A page on its way.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct EventPage {
    pub events: Vec<RecordedEvent>,
}

/// Which page of the log.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct LogPage {
    pub after: Position,
    pub limit: usize,
}

/// Which page of some partitions.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct PartitionPage {
    pub after: Position,
    pub through: Position,
    pub limit: usize,
}

/// Which page of a stream. The stream is named in the query: a path cannot hold one called `..`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct StreamPage {
    pub stream: StreamId,
    pub after: StreamVersion,
    pub limit: usize,
}

type Log = State<Arc<dyn EventLog>>;
type Asked<T> = Result<Query<T>, QueryRejection>;

/// The routes, below a context's prefix.
pub(crate) fn routes(log: Arc<dyn EventLog>) -> Router {
    Router::new()
        .route("/log/head", get(read_head))
        .route("/log", get(read_log))
        .route("/partitions/{partitions}", get(read_partitions))
        .route("/streams", get(read_stream))
        .with_state(log)
}

async fn read_head(State(log): Log) -> Result<Response, Problem> {
    let head = log.head().await.map_err(of_log)?;
    Ok(Json(head).into_response())
}

async fn read_log(State(log): Log, page: Asked<LogPage>) -> Result<Response, Problem> {
    let page = asked(page)?;
    answer(log.read_log(page.after, bounded(page.limit)?).await)
}

/// One partition, or several separated by commas.
async fn read_partitions(
    State(log): Log,
    Path(numbers): Path<String>,
    page: Asked<PartitionPage>,
) -> Result<Response, Problem> {
    let page = asked(page)?;
    let limit = bounded(page.limit)?;
    let partitions = partitions(&numbers)?;
    let (after, through) = (page.after, page.through);
    answer(match *partitions.as_slice() {
        [one] => log.read_partition(one, after, through, limit).await,
        _ => {
            log.read_partitions(&partitions, after, through, limit)
                .await
        }
    })
}

async fn read_stream(State(log): Log, page: Asked<StreamPage>) -> Result<Response, Problem> {
    let page = asked(page)?;
    let limit = bounded(page.limit)?;
    answer(log.read_stream(&page.stream, page.after, limit).await)
}

fn answer(page: Result<Vec<RecordedEvent>, LogError>) -> Result<Response, Problem> {
    let events = page.map_err(of_log)?;
    Ok(Json(EventPage { events }).into_response())
}

fn asked<T>(query: Asked<T>) -> Result<T, Problem> {
    query
        .map(|Query(page)| page)
        .map_err(|rejection| invalid(rejection.body_text()))
}

fn bounded(limit: usize) -> Result<usize, Problem> {
    if (1..=MAX_PAGE_EVENTS).contains(&limit) {
        return Ok(limit);
    }
    Err(invalid(format!("limit must be 1 to {MAX_PAGE_EVENTS}")))
}

fn partitions(text: &str) -> Result<Vec<Partition>, Problem> {
    let number = |part: &str| part.parse().ok().filter(|&n| n < PartitionCount::MAX);
    let numbers: Option<Vec<u16>> = text.split(',').map(number).collect();
    match numbers {
        Some(numbers) if numbers.len() <= usize::from(PartitionCount::MAX) => {
            Ok(numbers.into_iter().map(Partition::new).collect())
        }
        _ => Err(invalid(format!(
            "partitions must be at most {} numbers from 0 to {}, separated by commas",
            PartitionCount::MAX,
            PartitionCount::MAX - 1
        ))),
    }
}

fn invalid(detail: String) -> Problem {
    Problem::new(&types::INVALID_REQUEST, detail)
}
