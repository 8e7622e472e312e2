//! Money: a load of deposits, withdrawals and transfers on few accounts that everybody shares, and
//! the proof that none of it was lost, doubled or made.

mod ledger;
mod load;
mod log;
mod views;

pub use ledger::{Account, Ledger, Movement};
pub use load::{BankHistory, BankLoad, Done};

use std::collections::BTreeMap;

use crate::{Cluster, check};

/// Where the log of the context is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Backend {
    /// The schema `banking` of the log's database.
    Postgres,
    /// The table of the context.
    DynamoDb,
}

impl Backend {
    /// The setting that chooses it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Postgres => "postgres",
            Self::DynamoDb => "dynamodb",
        }
    }
}

/// The events that a request may make at most: an opening with its first deposit, the two sides of a
/// transfer.
const MAX_EVENTS_PER_KEY: usize = 2;

/// Proves the log, the record of the clients against it, that money is conserved, the stream, and
/// every read model.
///
/// # Panics
/// With the first promise that is broken.
pub async fn everything(cluster: &Cluster, backend: Backend, history: &BankHistory) {
    let (head, events) = match backend {
        Backend::Postgres => check::log::read(&cluster.log_pool, "banking").await,
        Backend::DynamoDb => log::read(&cluster.dynamodb, &cluster.namespace).await,
    };
    check::log::prove(&head, &events, MAX_EVENTS_PER_KEY);
    let ledger = Ledger::fold(&events);
    history.holds(&ledger);
    println!(
        "{} events on {} accounts; {} requests, {} outcomes unknown at first, {} answers replayed, \
         {} refused, {} strong reads",
        events.len(),
        ledger.accounts.len(),
        history.requests,
        history.unknown,
        history.replayed,
        history.refused,
        history.reads
    );
    check::agrees(async || {
        check::stream::compare(&cluster.jetstream, &cluster.namespace, "banking", &events).await
    })
    .await;
    let client = crate::Client::patient();
    let query = cluster.query_url(0);
    check::agrees(async || views::compare(&client, &query, &ledger).await).await;
    if backend == Backend::Postgres {
        inline_rows(cluster, &ledger).await;
    }
}

/// The table `accounts`, kept in the append's own transaction.
async fn inline_rows(cluster: &Cluster, ledger: &Ledger) {
    let rows: Vec<(String, rust_decimal::Decimal, String, i64)> =
        sqlx::query_as("SELECT account_id, balance, status, version FROM banking.accounts")
            .fetch_all(&cluster.log_pool)
            .await
            .unwrap();
    let found: BTreeMap<_, _> = rows
        .into_iter()
        .map(|(id, balance, status, version)| (id, (balance, status, version.unsigned_abs())))
        .collect();
    let wanted: BTreeMap<_, _> = ledger
        .accounts
        .iter()
        .map(|(id, account)| {
            let row = (
                account.balance,
                account.status().to_owned(),
                account.version,
            );
            (id.clone(), row)
        })
        .collect();
    assert_eq!(found, wanted, "the write model's rows of accounts");
}
