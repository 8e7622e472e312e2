//! What happened to an order? Its history, straight from the event log.

use std::time::{Duration, Instant};

use axum::{extract::State, response::Response};
use millrace_es::Aggregate;
use millrace_es::{EventId, Position, RecordedEvent, StreamId, StreamVersion};
use millrace_http::{Consistency, List, ListParams, NoQuery, Page, PathId, Problem};
use millrace_kernel::{EntityId, Timestamp};
use serde::Serialize;
use serde_json::value::RawValue;
use utoipa::ToSchema;
use utoipa_axum::{router::OpenApiRouter, routes};

use crate::{
    order::{Order, OrderId},
    problems::not_found,
    queries::{QueryState, log_token, observe},
};

/// The most events of an order that its history is read from. An order has at most five: its
/// creation, three steps, its deletion.
const MAX_EVENTS: usize = 1_000;

/// How often the log is asked again while a reader waits for a position, in milliseconds.
const WAIT_POLL_MS: u64 = 50;

/// An event of an order's history.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = OrderHistoryEvent)]
struct HistoryEvent {
    /// The place in the order's history, from 1.
    #[schema(value_type = u64)]
    version: StreamVersion,
    /// What happened.
    #[schema(example = "order.created")]
    r#type: String,
    /// The version of the schema that `data` was written under.
    schema_version: u16,
    /// When the log took it.
    time: Timestamp,
    /// The event's name for ever.
    #[schema(value_type = uuid::Uuid)]
    event_id: EventId,
    /// The place in the log.
    #[schema(value_type = u64)]
    position: Position,
    /// Joins everything that one request set off.
    correlation_id: String,
    /// What this event was caused by, where it is known.
    #[schema(required)]
    causation_id: Option<String>,
    /// Who asked for it, where it is known.
    #[schema(required)]
    actor: Option<String>,
    /// What is known about it, as it was stored.
    #[schema(value_type = Object)]
    data: Box<RawValue>,
}

impl From<RecordedEvent> for HistoryEvent {
    fn from(event: RecordedEvent) -> Self {
        Self {
            version: event.version,
            r#type: event.event_type.into_owned(),
            schema_version: event.schema_version,
            time: event.recorded_at,
            event_id: event.id,
            position: event.position,
            correlation_id: event.metadata.correlation_id.clone(),
            causation_id: event.metadata.causation_id.clone(),
            actor: event.metadata.actor.clone(),
            data: event.payload,
        }
    }
}

/// The routes that answer from the event log.
pub(crate) fn routes() -> OpenApiRouter<QueryState> {
    OpenApiRouter::new().routes(routes!(list_order_events))
}

/// Read an order's history
///
/// Every event, newest first, as the event log has it; a deleted order keeps its history.
#[utoipa::path(
    get, path = "/orders/{id}/events", tag = "ordering",
    params(("id" = EntityId, Path, description = "The order."), ListParams),
    responses((status = 200, description = "A page of events.", body = Page<HistoryEvent>)),
)]
async fn list_order_events(
    State(state): State<QueryState>,
    PathId(id): PathId,
    list: List<NoQuery>,
) -> Result<Response, Problem> {
    let token = wait(&state, &list.consistency).await?;
    let started = Instant::now();
    let stream = StreamId::of(Order::CATEGORY, &id);
    let events = state
        .log
        .read_stream(&stream, StreamVersion::ZERO, MAX_EVENTS);
    let events = events.await?;
    observe("log", "order_events", started);
    if events.is_empty() {
        return Err(not_found(&OrderId::new(id)));
    }
    let before = list.page.after::<StreamVersion>()?;
    let items: Vec<HistoryEvent> = events
        .into_iter()
        .rev()
        .filter(|event| before.is_none_or(|before| event.version < before))
        .take(list.page.limit + 1)
        .map(HistoryEvent::from)
        .collect();
    let page = list.page.page(items, |event| event.version)?;
    list.reading.page(&page, Some(&token))
}

/// The log's head, once it is where the reader wants it: at once, unless the position is none that
/// this log ever gave.
async fn wait(
    state: &QueryState,
    consistency: &Consistency,
) -> Result<millrace_es::LogToken, Problem> {
    let head = log_token(state).await?;
    let Consistency::AtLeast { token, wait } = consistency else {
        return Ok(head);
    };
    crate::queries::same_log(&head, token)?;
    let deadline = tokio::time::Instant::now() + *wait;
    let mut head = head;
    while head.position < token.position {
        if tokio::time::Instant::now() >= deadline {
            return Err(Problem::not_yet_readable(token, Some(head.position), *wait));
        }
        tokio::time::sleep(Duration::from_millis(WAIT_POLL_MS)).await;
        head = log_token(state).await?;
    }
    Ok(head)
}
