//! What the queries answer from, and their routes.

use std::sync::Arc;

use millrace_eventlog::{EventLog, Repository};
use millrace_projecting::{DynamoReadModel, PgReadModel};
use utoipa_axum::router::OpenApiRouter;

use crate::{account::Account, history, strong_balance::StrongBalance, views};

/// What the routes of the query service work with.
#[derive(Clone)]
pub struct QueryState {
    /// The event log: the history of an account, and whatever has to be strong.
    pub log: Arc<dyn EventLog>,
    /// The accounts, folded from the log.
    pub repository: Arc<Repository<Account>>,
    /// The balances that the append's own transaction keeps.
    pub strong_balance: Arc<dyn StrongBalance>,
    /// The view `account-balance`.
    pub account_balance: DynamoReadModel,
    /// The view `transaction-history`.
    pub transaction_history: DynamoReadModel,
    /// The view `accounts`.
    pub accounts: PgReadModel,
    /// The view `transactions`.
    pub transactions: PgReadModel,
    /// The view `daily-balances`.
    pub daily_balances: PgReadModel,
    /// The view `account-summaries`.
    pub account_summaries: PgReadModel,
}

/// The routes of the query service.
pub fn query_routes() -> OpenApiRouter<QueryState> {
    views::account_balance::routes()
        .merge(views::transaction_history::routes())
        .merge(views::accounts::routes())
        .merge(views::transactions::routes())
        .merge(views::daily_balances::routes())
        .merge(views::account_summaries::routes())
        .merge(history::routes())
}
