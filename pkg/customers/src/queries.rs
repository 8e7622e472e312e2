//! What the queries answer from, and their routes.

use std::sync::Arc;

use millrace_eventlog::{EventLog, Repository};
use millrace_projecting::PgReadModel;
use utoipa_axum::router::OpenApiRouter;

use crate::{user::User, views};

/// What the routes of the query service work with.
#[derive(Clone)]
pub struct QueryState {
    /// The event log: whatever has to be strong.
    pub log: Arc<dyn EventLog>,
    /// The users, folded from the log.
    pub users: Arc<Repository<User>>,
    /// The view `user-profiles`.
    pub user_profiles: PgReadModel,
}

/// The routes of the query service.
pub fn query_routes() -> OpenApiRouter<QueryState> {
    views::user_profiles::routes()
}
