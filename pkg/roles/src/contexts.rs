//! The contexts of this release, one entry each: what a role builds of a context, and nothing a
//! role has to know of it.

use std::sync::Arc;

use millrace_es::Context;
use millrace_eventlog::{EventLog, Migration, PgInlineTable, Repository, RepositoryOptions};
use millrace_http::Api;
use millrace_projecting::{StoreError, View};
use utoipa_axum::router::OpenApiRouter;

use crate::{OpenedLog, ReadModels};

/// What a context brings along.
#[derive(Debug)]
pub struct KnownContext {
    /// Its name.
    pub name: &'static str,
    /// The stream category of its main aggregate.
    pub category: &'static str,
    /// Its read models.
    pub views: fn() -> Vec<View>,
    /// The tables that are kept in the append's own transaction.
    pub inline_tables: fn() -> Vec<Arc<dyn PgInlineTable>>,
    /// The migrations of its own tables beside its log.
    pub migrations: fn() -> &'static [Migration],
    /// The routes of the command service on its log.
    pub commands: fn(&OpenedLog, RepositoryOptions) -> OpenApiRouter,
    /// The routes of the query service on its log and its read models.
    pub queries: fn(&OpenedLog, &ReadModels) -> Result<OpenApiRouter, StoreError>,
    /// Adds all its routes to the OpenAPI document.
    pub document: fn(Api) -> Api,
}

/// Every context of this release.
pub static CONTEXTS: [KnownContext; 1] = [KnownContext {
    name: millrace_ordering::CONTEXT,
    category: "order",
    views: millrace_ordering::projections,
    inline_tables: millrace_ordering::inline_tables,
    migrations: millrace_ordering::migrations,
    commands: |log, options| {
        let orders = Arc::new(Repository::new(log.shared(), options));
        millrace_ordering::command_routes().with_state(millrace_ordering::CommandState { orders })
    },
    queries: |log, models| {
        let state = millrace_ordering::QueryState {
            log: log.shared(),
            orders: Arc::new(reading(log.shared())),
            orders_by_user: models.dynamodb("orders-by-user")?,
            order_read_models: models.postgres("order-read-models")?,
            order_statistics: models.postgres("order-statistics")?,
        };
        Ok(millrace_ordering::query_routes().with_state(state))
    },
    document: |api| {
        api.document(millrace_ordering::command_routes())
            .document(millrace_ordering::query_routes())
    },
}];

/// Aggregates of a process that only reads: it writes no snapshots.
fn reading<A>(log: Arc<dyn EventLog>) -> Repository<A>
where
    A: millrace_es::Aggregate + serde::Serialize + serde::de::DeserializeOwned,
{
    let options = RepositoryOptions {
        snapshot_every: 0,
        ..RepositoryOptions::default()
    };
    Repository::new(log, options)
}

impl KnownContext {
    /// Its name as a context's. A name of this list that is none is a mistake that the first start
    /// shows.
    ///
    /// # Errors
    /// When it is no name for a context.
    pub fn context(&self) -> anyhow::Result<Context> {
        Ok(Context::new(self.name)?)
    }
}

/// The views of these contexts.
pub fn views(contexts: &[&'static KnownContext]) -> Vec<View> {
    contexts
        .iter()
        .flat_map(|context| (context.views)())
        .collect()
}
