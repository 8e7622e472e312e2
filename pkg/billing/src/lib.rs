//! The billing context: what a user ordered in a month, on one invoice.
//!
//! It only listens. It has no log, no commands and no aggregate: it knows nothing but the public
//! events of users and orders, and asks nobody when it answers. [`month`], [`addresses`] and
//! [`orders`] are what an invoice is made of, [`views`] the questions, each with the rows that
//! answer it and its routes.

use millrace_projecting::View;

pub mod addresses;
pub mod month;
pub mod orders;
pub mod queries;
#[cfg(test)]
mod testing;
pub mod views;

pub use queries::{QueryState, query_routes};

/// The name of this context.
pub const CONTEXT: &str = "billing";

/// The read models, in the order in which they are shown.
#[must_use]
pub fn projections() -> Vec<View> {
    vec![View::postgres_rows::<views::invoices::Invoices>()]
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeSet, fs, path::Path};

    use super::*;

    #[test]
    fn every_view_is_in_the_list() {
        let listed: BTreeSet<String> = projections()
            .iter()
            .map(|view| view.name().replace('-', "_"))
            .collect();
        let views = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/views");
        let there: BTreeSet<String> = fs::read_dir(views)
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .filter(|path| path.extension().is_some_and(|extension| extension == "rs"))
            .map(|path| path.file_stem().unwrap().to_str().unwrap().to_owned())
            .collect();
        assert_eq!(listed, there);
    }

    #[test]
    fn it_listens_to_users_and_orders_and_has_no_log() {
        for view in projections() {
            let contexts: Vec<&str> = view.contexts().iter().map(|one| one.as_str()).collect();
            assert_eq!(contexts, ["customers", "ordering"]);
        }
        millrace_es::Context::new(CONTEXT).unwrap();
    }
}
