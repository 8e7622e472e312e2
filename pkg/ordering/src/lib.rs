//! The ordering context: orders, from their creation to their delivery, cancellation or deletion.
//!
//! [`order`] is what they are and what may happen to them, [`commands`] the writes, [`views`] the
//! questions, each with the rows that answer it and its routes, [`reactions`] what happens in the
//! world because of them, [`sagas`] the work over several owners. The lists below are all of it:
//! what is not in a list does not run.

use std::sync::Arc;

use millrace_effects::{Archive, Topic};
use millrace_eventlog::{Migration, PgInlineTable};
use millrace_projecting::View;

pub mod commands;
mod history;
mod inline;
pub mod order;
pub mod problems;
pub mod queries;
pub mod reactions;
pub mod sagas;
#[cfg(test)]
mod testing;
pub mod views;

pub use commands::{CommandState, command_routes};
pub use inline::OrdersTable;
pub use queries::{QueryState, query_routes};
use reactions::{
    notifications::{Notifications, OrderNotifications},
    receipts::{OrderReceipts, Receipts},
};
pub use sagas::payment::{Payments, PaymentsTable};

/// The name of this context: its log, its stream, its schema.
pub const CONTEXT: &str = "ordering";

/// The read models, in the order in which they are shown.
#[must_use]
pub fn projections() -> Vec<View> {
    vec![
        View::dynamodb_rows::<views::orders_by_user::OrdersByUser>(),
        View::postgres_rows::<views::order_read_models::OrderReadModels>(),
        View::postgres_tally::<views::order_statistics::OrderStatistics>(),
    ]
}

/// The reactions, by name: for whoever looks at their progress and performs nothing.
#[must_use]
pub fn reactions() -> Vec<View> {
    vec![
        View::named_reaction::<OrderNotifications>(),
        View::named_reaction::<OrderReceipts>(),
    ]
}

/// The reaction that archives receipts.
#[must_use]
pub fn order_receipts(archive: Archive) -> View {
    View::reaction::<OrderReceipts>(Arc::new(Receipts::new(archive)))
}

/// The reaction that tells a topic, in the name of a namespace.
#[must_use]
pub fn order_notifications(topic: Arc<Topic>, namespace: &str) -> View {
    View::reaction::<OrderNotifications>(Arc::new(Notifications::new(topic, namespace)))
}

/// The tables that are kept in the append's own transaction.
#[must_use]
pub fn inline_tables() -> Vec<Arc<dyn PgInlineTable>> {
    vec![Arc::new(OrdersTable), Arc::new(PaymentsTable)]
}

/// The migrations of this context's own tables beside its log.
#[must_use]
pub const fn migrations() -> &'static [Migration] {
    &[
        Migration {
            name: "ordering/0001_orders",
            sql: include_str!("../../../migrations/ordering/0001_orders.sql"),
        },
        Migration {
            name: "ordering/0002_payments",
            sql: include_str!("../../../migrations/ordering/0002_payments.sql"),
        },
        Migration {
            name: "ordering/0003_payments_settled",
            sql: include_str!("../../../migrations/ordering/0003_payments_settled.sql"),
        },
    ]
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
    fn every_reaction_is_in_the_list() {
        let listed: BTreeSet<String> = reactions()
            .iter()
            .map(|view| view.name().replace("order-", ""))
            .collect();
        assert_eq!(listed, stems("src/reactions", "rs"));
    }

    #[test]
    fn every_migration_is_in_the_list() {
        let listed: BTreeSet<String> = migrations()
            .iter()
            .filter_map(|migration| migration.name.strip_prefix("ordering/"))
            .map(str::to_owned)
            .collect();
        assert_eq!(listed, stems("../../migrations/ordering", "sql"));
        assert!(migrations().is_sorted_by_key(|migration| migration.name));
    }

    #[test]
    fn the_context_has_a_name_that_works_everywhere() {
        use millrace_contracts::{customers, ordering};
        assert_eq!(ordering::CONTEXT, CONTEXT);
        let read = [CONTEXT, customers::CONTEXT];
        let read = read.map(|name| millrace_es::Context::new(name).unwrap());
        for view in projections().into_iter().chain(reactions()) {
            let many = if view.name() == "order-read-models" {
                2
            } else {
                1
            };
            assert_eq!(view.contexts(), &read[..many], "{}", view.name());
        }
    }
}
