//! The banking context: accounts, from their opening to their closing, and the money that moves on
//! and between them.
//!
//! [`account`] is what they are and what may happen to them, [`instruction`] what became of a
//! movement that another context asked for, [`commands`] the writes, [`internal`] those of other contexts,
//! [`views`] the questions, each with the rows that answer it and its routes. The lists below are
//! all of it: what is not in a list does not run.

use std::sync::Arc;

use millrace_eventlog::{Migration, PgInlineTable, dynamodb::DynamoInline};
use millrace_projecting::View;

pub mod account;
mod balance;
mod columns;
pub mod commands;
mod history;
mod inline;
mod inline_items;
pub mod instruction;
pub mod internal;
mod ledger;
mod movements;
pub mod problems;
pub mod queries;
pub mod strong_balance;
#[cfg(test)]
mod testing;
pub mod views;

pub use balance::{BalanceAttributes, balance_attributes};
pub use commands::{CommandState, command_routes};
pub use inline::{AccountsRow, AccountsTable};
pub use inline_items::{AccountItems, DynamoBalances};
pub use internal::{InternalState, internal_routes};
pub use movements::Transaction;
pub use queries::{QueryState, query_routes};
pub use strong_balance::{PgBalances, StrongBalance};

/// The name of this context: its log, its stream, its schema.
pub const CONTEXT: &str = "banking";

/// The read models, in the order in which they are shown.
#[must_use]
pub fn projections() -> Vec<View> {
    vec![
        View::dynamodb_rows::<views::account_balance::AccountBalance>(),
        View::dynamodb_rows::<views::transaction_history::TransactionHistory>(),
        View::postgres_rows::<views::accounts::Accounts>(),
        View::postgres_rows::<views::transactions::Transactions>(),
        View::postgres_rows::<views::daily_balances::DailyBalances>(),
        View::postgres_rows::<views::account_summaries::AccountSummaries>(),
    ]
}

/// The tables that are kept in the append's own transaction.
#[must_use]
pub fn inline_tables() -> Vec<Arc<dyn PgInlineTable>> {
    vec![Arc::new(AccountsTable)]
}

/// The same where the log is in DynamoDB.
#[must_use]
pub fn inline_items() -> Vec<Arc<dyn DynamoInline>> {
    vec![Arc::new(AccountItems)]
}

/// The migrations of this context's own tables beside its log.
#[must_use]
pub const fn migrations() -> &'static [Migration] {
    &[Migration {
        name: "banking/0001_accounts",
        sql: include_str!("../../../migrations/banking/0001_accounts.sql"),
    }]
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeSet, fs, path::Path};

    use super::*;

    fn stems(folder: &str, extension: &str) -> BTreeSet<String> {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join(folder);
        fs::read_dir(folder)
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .filter(|path| path.extension().is_some_and(|e| e == extension))
            .map(|path| path.file_stem().unwrap().to_str().unwrap().to_owned())
            .collect()
    }

    #[test]
    fn every_view_is_in_the_list() {
        let listed: BTreeSet<String> = projections()
            .iter()
            .map(|view| view.name().replace('-', "_"))
            .collect();
        assert_eq!(listed, stems("src/views", "rs"));
    }

    #[test]
    fn every_migration_is_in_the_list() {
        let listed: BTreeSet<String> = migrations()
            .iter()
            .filter_map(|migration| migration.name.strip_prefix("banking/"))
            .map(str::to_owned)
            .collect();
        assert_eq!(listed, stems("../../migrations/banking", "sql"));
        assert!(migrations().is_sorted_by_key(|migration| migration.name));
    }

    #[test]
    fn the_context_has_a_name_that_works_everywhere() {
        let context = millrace_es::Context::new(CONTEXT).unwrap();
        for view in projections() {
            assert_eq!(view.contexts(), std::slice::from_ref(&context));
        }
    }
}
