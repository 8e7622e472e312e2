//! What the queries answer from, and their routes.

use std::sync::Arc;

use millrace_effects::Archive;
use millrace_eventlog::{EventLog, Repository};
use millrace_projecting::{DynamoReadModel, PgReadModel};
use utoipa_axum::router::OpenApiRouter;

use crate::{
    history,
    order::Order,
    reactions,
    sagas::payment::{self, Payments},
    views,
};

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
    /// Where receipts are archived, if they are.
    pub receipts: Option<Archive>,
    /// The write model's table `payments`.
    pub payments: Payments,
}

/// The routes of the query service.
pub fn query_routes() -> OpenApiRouter<QueryState> {
    views::orders_by_user::routes()
        .merge(views::order_read_models::routes())
        .merge(views::order_statistics::routes())
        .merge(history::routes())
        .merge(reactions::receipts::routes())
        .merge(payment::routes::routes())
}
