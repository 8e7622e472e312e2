//! The contexts that the tools know, one line each.

use std::sync::Arc;

use millrace_es::Context;
use millrace_eventlog::PgInlineTable;
use millrace_projecting::View;

use crate::failure::Failure;

/// What a context brings along.
struct Known {
    name: &'static str,
    /// The category of its main aggregate.
    category: &'static str,
    views: fn() -> Vec<View>,
    inline_tables: fn() -> Vec<Arc<dyn PgInlineTable>>,
}

const KNOWN: [Known; 1] = [Known {
    name: millrace_ordering::CONTEXT,
    category: "order",
    views: millrace_ordering::projections,
    inline_tables: millrace_ordering::inline_tables,
}];

fn known(context: &Context) -> Result<&'static Known, Failure> {
    KNOWN
        .iter()
        .find(|known| known.name == context.as_str())
        .ok_or_else(|| {
            let names: Vec<_> = KNOWN.iter().map(|known| known.name).collect();
            Failure::NotFound(format!(
                "this release knows no context {context}; it knows {}",
                names.join(", ")
            ))
        })
}

/// The views that read a context's events.
pub fn views(context: &Context) -> Result<Vec<View>, Failure> {
    known(context)?;
    let views = KNOWN.iter().flat_map(|known| (known.views)());
    Ok(views
        .filter(|view| view.contexts().contains(context))
        .collect())
}

/// Every view of every context.
pub fn all_views() -> Vec<View> {
    KNOWN.iter().flat_map(|known| (known.views)()).collect()
}

/// The tables kept in a context's append.
pub fn inline_tables(context: &Context) -> Result<Vec<Arc<dyn PgInlineTable>>, Failure> {
    Ok((known(context)?.inline_tables)())
}

/// The category of a context's main aggregate, for people who have only its id at hand.
pub fn main_category(context: &Context) -> Result<&'static str, Failure> {
    Ok(known(context)?.category)
}
