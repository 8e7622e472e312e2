use std::fmt::Debug;

use crate::Aggregate;

/// A piece of work over several owners, as an aggregate that knows what it has to do next. What came
/// of a step (or what the world did meanwhile) comes in as a command, and is kept as events; nothing
/// else is remembered, so going on after a crash is to read the state and to ask again.
///
/// A step may be performed more than once: whoever performs it may die before what came of it is
/// kept. So each carries a name that whoever it is asked of keeps for as long as it matters.
pub trait Saga: Aggregate {
    /// The name in logs and metrics: `payment`.
    const NAME: &'static str;

    /// Something to be done outside.
    type Step: Clone + Debug + PartialEq + Send + Sync + 'static;

    /// What is to be done now; `None` when there is nothing to do, for now or for good.
    fn next(&self) -> Option<Self::Step>;
}
