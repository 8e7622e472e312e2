//! The contexts of this release, as the tools ask for them.

use millrace_es::Context;
use millrace_projecting::View;
use millrace_roles::{CONTEXTS, KnownContext, OwnLog};

use crate::failure::Failure;

/// A context of this release.
pub fn known(context: &Context) -> Result<&'static KnownContext, Failure> {
    CONTEXTS
        .iter()
        .find(|known| known.name == context.as_str())
        .ok_or_else(|| {
            let names: Vec<_> = CONTEXTS.iter().map(|known| known.name).collect();
            Failure::NotFound(format!(
                "this release knows no context {context}; it knows {}",
                names.join(", ")
            ))
        })
}

/// The views that read a context's events.
pub fn views(context: &Context) -> Result<Vec<View>, Failure> {
    known(context)?;
    let mut views = all_views();
    views.retain(|view| view.contexts().contains(context));
    Ok(views)
}

/// Every view of every context.
pub fn all_views() -> Vec<View> {
    CONTEXTS.iter().flat_map(|known| (known.views)()).collect()
}

/// Every view of every context, and every reaction by name.
pub fn all_views_and_reactions() -> Vec<View> {
    let mut all = all_views();
    all.extend(CONTEXTS.iter().flat_map(|known| (known.reactions)()));
    all
}

/// Those that read a context's events.
pub fn views_and_reactions(context: &Context) -> Result<Vec<View>, Failure> {
    known(context)?;
    let mut all = all_views_and_reactions();
    all.retain(|view| view.contexts().contains(context));
    Ok(all)
}

/// The category of a context's main aggregate, for people who have only its id at hand.
pub fn main_category(context: &Context) -> Result<&'static str, Failure> {
    Ok(own_log(context)?.category)
}

/// A context's own log.
pub fn own_log(context: &Context) -> Result<&'static OwnLog, Failure> {
    known(context)?.own_log().ok_or_else(|| {
        Failure::NotFound(format!(
            "{context} has no events of its own: it only listens to other contexts"
        ))
    })
}
