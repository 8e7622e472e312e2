//! What the queries answer from, and their routes.

use millrace_projecting::PgReadModel;
use utoipa_axum::router::OpenApiRouter;

use crate::views;

/// What the routes of the query service work with.
#[derive(Clone)]
pub struct QueryState {
    /// The view `invoices`.
    pub invoices: PgReadModel,
}

/// The routes of the query service.
pub fn query_routes() -> OpenApiRouter<QueryState> {
    views::invoices::routes()
}
