//! The contexts of this release, one entry each: what a role builds of a context, and nothing a
//! role has to know of it.

use std::sync::Arc;

use futures::future::BoxFuture;
use millrace_banking::{DynamoBalances, InternalState, PgBalances, StrongBalance};
use millrace_es::Context;
use millrace_eventlog::{
    EventLog, Migration, PgInlineTable, Repository, RepositoryOptions, dynamodb::DynamoInline,
};
use millrace_http::Api;
use millrace_internal::Owners;
use millrace_ordering::{
    Payments,
    sagas::payment::{self, stored::PAYMENT_REQUESTED},
};
use millrace_projecting::{StoreError, View};
use millrace_sagas::{Timer, TimerOptions};
use millrace_streaming::Signals;
use sqlx::PgPool;
use tokio_util::sync::CancellationToken;
use utoipa_axum::router::OpenApiRouter;

use crate::{Effects, LogStore, OpenedLog, ReadModels};

/// What a context brings along.
#[derive(Debug)]
pub struct KnownContext {
    /// Its name.
    pub name: &'static str,
    /// Its read models.
    pub views: fn() -> Vec<View>,
    /// Its reactions, by name.
    pub reactions: fn() -> Vec<View>,
    /// Those of them whose effects have somewhere to go, with their handlers.
    pub performed: fn(&Effects) -> Vec<View>,
    /// Its log and what works on it, or that it has none.
    pub work: Work,
    /// Adds all its routes to the OpenAPI document.
    pub document: fn(Api) -> Api,
}

/// What a context does.
#[derive(Debug)]
pub enum Work {
    /// It decides, and owns the log of what it decided.
    Decides(OwnLog),
    /// It only listens to others: the routes of the query service on its read models.
    Listens(fn(&ReadModels) -> Result<OpenApiRouter, StoreError>),
}

/// A context's log, and what works on it.
#[derive(Debug)]
pub struct OwnLog {
    /// The stream category of its main aggregate.
    pub category: &'static str,
    /// Where its log is kept, given where that of banking is.
    pub log_store: fn(LogStore) -> LogStore,
    /// The tables that are kept in the append's own transaction, in PostgreSQL.
    pub inline_tables: fn() -> Vec<Arc<dyn PgInlineTable>>,
    /// The same in DynamoDB.
    pub inline_items: fn() -> Vec<Arc<dyn DynamoInline>>,
    /// The migrations of its own tables beside its log.
    pub migrations: fn() -> &'static [Migration],
    /// The routes of the command service on its log.
    pub commands: fn(&OpenedLog, RepositoryOptions) -> OpenApiRouter,
    /// The routes of the query service on its log and its read models.
    pub queries: fn(&OpenedLog, &ReadModels) -> Result<OpenApiRouter, StoreError>,
    /// The routes that only other contexts call, on the internal port, below
    /// `/internal/v1/<context>`.
    pub internal: fn(&OpenedLog, RepositoryOptions) -> Option<axum::Router>,
    /// The timers of its sagas on its log, until told to stop.
    pub timers: fn(&OpenedLog, &Around, &CancellationToken) -> anyhow::Result<Vec<Running>>,
}

/// What is around the logs of a process that runs sagas.
#[derive(Debug, Clone)]
pub struct Around {
    /// Whom they ask.
    pub owners: Owners,
    /// What wakes them.
    pub signals: Signals,
}

/// Something that goes on until it is told to stop.
pub type Running = BoxFuture<'static, ()>;

/// Every context of this release.
pub static CONTEXTS: [KnownContext; 4] = [ORDERING, CUSTOMERS, BANKING, BILLING];

const ORDERING: KnownContext = KnownContext {
    name: millrace_ordering::CONTEXT,
    views: millrace_ordering::projections,
    reactions: millrace_ordering::reactions,
    performed: |effects| {
        let receipts = effects
            .receipts
            .clone()
            .map(millrace_ordering::order_receipts);
        let topic = effects.notifications.clone();
        let notifications =
            topic.map(|topic| millrace_ordering::order_notifications(topic, &effects.namespace));
        receipts.into_iter().chain(notifications).collect()
    },
    work: Work::Decides(ORDERING_LOG),
    document: |api| {
        api.document(millrace_ordering::command_routes())
            .document(millrace_ordering::query_routes())
    },
};

const ORDERING_LOG: OwnLog = OwnLog {
    category: "order",
    log_store: |_| LogStore::Postgres,
    inline_tables: millrace_ordering::inline_tables,
    inline_items: Vec::new,
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
            receipts: models.receipts.clone(),
            payments: Payments::new(rows(log)?.clone()),
        };
        Ok(millrace_ordering::query_routes().with_state(state))
    },
    internal: |_, _| None,
    timers: payment_timers,
};

const CUSTOMERS: KnownContext = KnownContext {
    name: millrace_customers::CONTEXT,
    views: millrace_customers::projections,
    reactions: Vec::new,
    performed: |_| Vec::new(),
    work: Work::Decides(CUSTOMERS_LOG),
    document: |api| {
        api.document(millrace_customers::command_routes())
            .document(millrace_customers::query_routes())
    },
};

const CUSTOMERS_LOG: OwnLog = OwnLog {
    category: "user",
    log_store: |_| LogStore::Postgres,
    inline_tables: millrace_customers::inline_tables,
    inline_items: Vec::new,
    migrations: millrace_customers::migrations,
    commands: |log, options| {
        let users = Arc::new(Repository::new(log.shared(), options));
        millrace_customers::command_routes().with_state(millrace_customers::CommandState { users })
    },
    queries: |log, models| {
        let state = millrace_customers::QueryState {
            log: log.shared(),
            users: Arc::new(reading(log.shared())),
            user_profiles: models.postgres("user-profiles")?,
        };
        Ok(millrace_customers::query_routes().with_state(state))
    },
    internal: |_, _| None,
    timers: |_, _, _| Ok(Vec::new()),
};

const BANKING: KnownContext = KnownContext {
    name: millrace_banking::CONTEXT,
    views: millrace_banking::projections,
    reactions: Vec::new,
    performed: |_| Vec::new(),
    work: Work::Decides(BANKING_LOG),
    document: |api| {
        api.document(millrace_banking::command_routes())
            .document(millrace_banking::query_routes())
    },
};

const BANKING_LOG: OwnLog = OwnLog {
    category: "account",
    log_store: |chosen| chosen,
    inline_tables: millrace_banking::inline_tables,
    inline_items: millrace_banking::inline_items,
    migrations: millrace_banking::migrations,
    commands: |log, options| {
        let accounts = Arc::new(Repository::new(log.shared(), options));
        millrace_banking::command_routes().with_state(millrace_banking::CommandState { accounts })
    },
    queries: |log, models| {
        let strong_balance: Arc<dyn StrongBalance> = match log {
            OpenedLog::Postgres(_, pool) => Arc::new(PgBalances::new(pool.clone())),
            OpenedLog::DynamoDb(log) => Arc::new(DynamoBalances::new(Arc::clone(log))),
        };
        let state = millrace_banking::QueryState {
            log: log.shared(),
            repository: Arc::new(reading(log.shared())),
            strong_balance,
            account_balance: models.dynamodb("account-balance")?,
            transaction_history: models.dynamodb("transaction-history")?,
            accounts: models.postgres("accounts")?,
            transactions: models.postgres("transactions")?,
            daily_balances: models.postgres("daily-balances")?,
            account_summaries: models.postgres("account-summaries")?,
        };
        Ok(millrace_banking::query_routes().with_state(state))
    },
    internal: |log, options| {
        let state = InternalState::new(&log.shared(), options);
        Some(millrace_banking::internal_routes().with_state(state))
    },
    timers: |_, _, _| Ok(Vec::new()),
};

const BILLING: KnownContext = KnownContext {
    name: millrace_billing::CONTEXT,
    views: millrace_billing::projections,
    reactions: Vec::new,
    performed: |_| Vec::new(),
    work: Work::Listens(|models| {
        let state = millrace_billing::QueryState {
            invoices: models.postgres("invoices")?,
        };
        Ok(millrace_billing::query_routes().with_state(state))
    }),
    document: |api| api.document(millrace_billing::query_routes()),
};

/// Pays orders, if somebody says where the bank is.
fn payment_timers(
    log: &OpenedLog,
    around: &Around,
    stop: &CancellationToken,
) -> anyhow::Result<Vec<Running>> {
    let banking = Context::new(millrace_contracts::banking::CONTEXT)?;
    let Some(owner) = around.owners.client(&banking)? else {
        tracing::warn!(
            "orders are not paid by this process: name the internal port of banking's owner with \
             MILLRACE_OWNERS=banking=http://<host>:<port>"
        );
        return Ok(Vec::new());
    };
    let bank = Arc::new(payment::OwnerBank::new(owner));
    let schedule = Arc::new(Payments::new(rows(log)?.clone()));
    let pump = payment::payments(&log.shared(), bank);
    let timer = Timer::new(pump, schedule, TimerOptions::default());
    let (signals, context) = (around.signals.clone(), log.context().clone());
    let stop = stop.clone();
    Ok(vec![Box::pin(async move {
        match signals.on_events(&context, PAYMENT_REQUESTED).await {
            Ok(hints) => timer.run_woken_by(hints, stop).await,
            Err(error) => {
                tracing::warn!(
                    error = &error as &dyn std::error::Error,
                    "nothing wakes payments before their time"
                );
                timer.run(stop).await;
            }
        }
    })])
}

/// The connections to the rows that are kept in the append's transaction.
fn rows(log: &OpenedLog) -> Result<&PgPool, StoreError> {
    match log {
        OpenedLog::Postgres(_, pool) => Ok(pool),
        OpenedLog::DynamoDb(log) => {
            let context = log.context();
            let reason = format!("the log of {context} is to be in PostgreSQL, and is in DynamoDB");
            Err(StoreError::Unusable(reason.into()))
        }
    }
}

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

    /// Its log, unless it only listens.
    #[must_use]
    pub const fn own_log(&self) -> Option<&OwnLog> {
        match &self.work {
            Work::Decides(own) => Some(own),
            Work::Listens(_) => None,
        }
    }
}

/// The views of these contexts.
pub fn views(contexts: &[&'static KnownContext]) -> Vec<View> {
    contexts
        .iter()
        .flat_map(|context| (context.views)())
        .collect()
}

/// The reactions of these contexts, by name: for whoever looks at their progress and their dead
/// letters and performs nothing.
pub fn known_reactions(contexts: &[&'static KnownContext]) -> Vec<View> {
    contexts
        .iter()
        .flat_map(|context| (context.reactions)())
        .collect()
}

/// The reactions of these contexts whose effects have somewhere to go.
pub fn reactions(contexts: &[&'static KnownContext], effects: &Effects) -> Vec<View> {
    contexts
        .iter()
        .flat_map(|context| (context.performed)(effects))
        .collect()
}

#[cfg(test)]
mod tests {
    use millrace_effects::{Archive, ArchiveOptions, Topic};

    use super::*;

    #[tokio::test]
    async fn every_reaction_is_performed_where_its_effects_have_somewhere_to_go() {
        millrace_runtime::install_crypto();
        let all: Vec<_> = CONTEXTS.iter().collect();
        assert!(reactions(&all, &Effects::default()).is_empty());
        let endpoint = "http://127.0.0.1:1".to_owned();
        let options = ArchiveOptions {
            endpoint: Some(endpoint.clone()),
            keys: None,
        };
        let client = millrace_runtime::aws::sns_client(Some(&endpoint)).await;
        let arn = "arn:aws:sns:us-east-1:000000000000:orders.fifo".parse();
        let effects = Effects {
            receipts: Some(Archive::open("s3://receipts", &options).unwrap()),
            notifications: Some(Arc::new(Topic::new(client, arn.unwrap()))),
            namespace: "millrace".to_owned(),
        };
        let sorted = |views: Vec<View>| {
            let mut names: Vec<_> = views.iter().map(View::name).collect();
            names.sort_unstable();
            names
        };
        assert_eq!(
            sorted(reactions(&all, &effects)),
            sorted(known_reactions(&all))
        );
    }
}
