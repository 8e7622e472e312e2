//! What happened to an account? Its history, straight from the event log.

use std::time::Instant;

use axum::{extract::State, response::Response};
use millrace_es::{Aggregate, StreamId};
use millrace_http::{List, ListParams, NoQuery, Page, PathId, Problem};
use millrace_kernel::EntityId;
use millrace_querying::{HistoryEvent, history_page, observe, wait_for_log};
use utoipa_axum::{router::OpenApiRouter, routes};

use crate::{
    account::{Account, AccountId},
    problems::not_found,
    queries::QueryState,
};

/// The routes that answer from the event log.
pub(crate) fn routes() -> OpenApiRouter<QueryState> {
    OpenApiRouter::new().routes(routes!(list_account_events))
}

/// Read an account's history
///
/// Every event, newest first, as the event log has it; a closed account keeps its history.
#[utoipa::path(
    get, path = "/accounts/{id}/events", tag = "banking",
    params(("id" = EntityId, Path, description = "The account."), ListParams),
    responses((status = 200, description = "A page of events.", body = Page<HistoryEvent>)),
)]
async fn list_account_events(
    State(state): State<QueryState>,
    PathId(id): PathId,
    list: List<NoQuery>,
) -> Result<Response, Problem> {
    let token = wait_for_log(&*state.log, &list.consistency).await?;
    let started = Instant::now();
    let stream = StreamId::of(Account::CATEGORY, &id);
    let page = history_page(&*state.log, &stream, &list.page).await;
    observe("log", "account_events", started);
    let page = page?.ok_or_else(|| not_found(&AccountId::new(id)))?;
    list.reading.page(&page, Some(&token))
}
