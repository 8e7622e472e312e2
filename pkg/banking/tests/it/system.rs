//! The log, the views and their routes in one process, and a client of them.
//!
//! [`System::still`] folds nothing by itself: a test folds by hand, with [`crate::folders`].
//! [`System::running`] has everything in between: the relay, NATS and the projector.

use std::{ops::Deref, sync::Arc};

use http::StatusCode;
use millrace_banking::{
    CommandState, PgBalances, QueryState, command_routes, projections, query_routes,
};
use millrace_es::RecordedEvent;
use millrace_eventlog::{PgEventLog, Repository, RepositoryOptions};
use millrace_testkit::{Database, Dynamo, HttpClient, Reply};
use millrace_teststage::{Stage, Stores, api, events, token};

use crate::{bank::open_log, teller::Teller};

/// Everything that a test needs. The stage ends before what it stands on.
pub struct System {
    pub stage: Stage,
    client: HttpClient,
    pub log: Arc<PgEventLog>,
    _servers: (Database, Dynamo),
}

impl Deref for System {
    type Target = HttpClient;
    fn deref(&self) -> &HttpClient {
        &self.client
    }
}

impl System {
    /// A log and the first generation of every view, none of which moves by itself.
    pub async fn still() -> Self {
        Self::start(0).await
    }

    /// With the relay and a projector, once the read models answer.
    pub async fn running() -> Self {
        Self::start(1).await
    }

    async fn start(projectors: usize) -> Self {
        let (database, dynamo) =
            tokio::join!(millrace_testkit::postgres(), millrace_testkit::dynamodb());
        let log = open_log(&database).await;
        let stores = Stores::in_postgres(&database).await.and_in(&dynamo).await;
        let mut stage = Stage::set(projections(), vec![log.clone()], stores, projectors).await;
        let queries = query_state(&log, &database, &mut stage);
        let commands = CommandState {
            accounts: queries.repository.clone(),
        };
        let services = api()
            .serve(command_routes().with_state(commands))
            .serve(query_routes().with_state(queries));
        let client = stage.serve(services).await;
        Self {
            stage,
            client,
            log,
            _servers: (database, dynamo),
        }
    }

    pub fn teller(&self) -> Teller {
        Teller::new(Arc::clone(&self.log))
    }

    /// Every event of the log.
    pub async fn events(&self) -> Vec<RecordedEvent> {
        events(&*self.log).await
    }

    /// Reads what everything written so far must be in.
    pub async fn get_now(&self, path: &str) -> Reply {
        self.get_at(path, &token(&*self.log).await).await
    }

    /// A strong read, which has to find something.
    pub async fn get_strong(&self, path: &str) -> Reply {
        let path = format!("{path}?consistency=strong");
        self.get(&path).await.expect(StatusCode::OK)
    }
}

fn query_state(log: &Arc<PgEventLog>, database: &Database, stage: &mut Stage) -> QueryState {
    QueryState {
        repository: Arc::new(Repository::new(log.clone(), RepositoryOptions::default())),
        strong_balance: Arc::new(PgBalances::new(database.pool.clone())),
        account_balance: stage.in_dynamodb("account-balance"),
        transaction_history: stage.in_dynamodb("transaction-history"),
        accounts: stage.in_postgres("accounts"),
        transactions: stage.in_postgres("transactions"),
        daily_balances: stage.in_postgres("daily-balances"),
        account_summaries: stage.in_postgres("account-summaries"),
        log: log.clone(),
    }
}
