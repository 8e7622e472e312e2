//! Where does the payment of an order stand? The row that the append's own transaction keeps.

use axum::{extract::State, response::Response};
use millrace_http::{NoQuery, PathId, Problem, Read, ReadParams};
use millrace_kernel::EntityId;
use millrace_querying::{observe, wait_for_log};
use utoipa_axum::{router::OpenApiRouter, routes};

use super::table::PaymentRow;
use crate::{order::OrderId, problems::no_payment, queries::QueryState};

/// The routes that answer from the table `payments`.
pub(crate) fn routes() -> OpenApiRouter<QueryState> {
    OpenApiRouter::new().routes(routes!(get_order_payment))
}

/// Read where an order's payment stands
///
/// Kept in the append's own transaction, so it is as new as what was acknowledged last, whatever
/// consistency is asked for. An order without a `payment_account_id` has no payment: 404.
#[utoipa::path(
    get, path = "/orders/{id}/payment", tag = "ordering",
    params(("id" = EntityId, Path, description = "The order."), ReadParams),
    responses((status = 200, description = "The payment.", body = PaymentRow)),
)]
async fn get_order_payment(
    State(state): State<QueryState>,
    PathId(id): PathId,
    read: Read<NoQuery>,
) -> Result<Response, Problem> {
    let token = wait_for_log(&*state.log, &read.consistency).await?;
    let started = std::time::Instant::now();
    let id = OrderId::new(id);
    let row = state.payments.of(&id).await;
    observe("log", "order_payment", started);
    let row = row?.ok_or_else(|| no_payment(&id))?;
    read.reading.entity(&row, row.version, Some(&token))
}
