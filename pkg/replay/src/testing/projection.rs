use std::collections::BTreeMap;

use super::{EVENTS, LANES};
use crate::engine::Owner;
use crate::resource::RedriveSpec;
use crate::status::Target;
use crate::world::{Pace, RebuildView, RedriveView, Stage};

/// One projection, as far as an engine knows it.
#[derive(Debug, Default)]
pub(super) struct Projection {
    pub(super) live: Option<String>,
    pub(super) made: u64,
    pub(super) generations: BTreeMap<String, Made>,
    pub(super) mismatches: u64,
    pub(super) letters: u64,
    pub(super) poison: u64,
    pub(super) runs: BTreeMap<Owner, Run>,
}

/// A generation that was made.
#[derive(Debug)]
pub(super) struct Made {
    pub(super) owner: Option<Owner>,
    pub(super) stage: Stage,
    pub(super) replaced_by: Option<String>,
    pub(super) pace: Pace,
    pub(super) done: u64,
    pub(super) lag: u64,
}

/// A run over its letters.
#[derive(Debug)]
pub(super) struct Run {
    pub(super) spec: RedriveSpec,
    pub(super) view: RedriveView,
}

impl Projection {
    /// What is seen of a generation.
    pub(super) fn view(&self, name: &str) -> Option<RebuildView> {
        let made = self.generations.get(name)?;
        let loaded = made.stage != Stage::Loading;
        Some(RebuildView {
            generation: name.to_owned(),
            stage: made.stage,
            live: self.live.clone(),
            targets: vec![target()],
            pace: made.pace,
            events_total: EVENTS,
            events_done: made.done,
            lanes_done: if made.done == EVENTS { LANES } else { 0 },
            lanes_total: LANES,
            lag: loaded.then_some(made.lag),
        })
    }

    /// The generation that an owner began.
    pub(super) fn name_of(&self, owner: &Owner) -> Option<String> {
        let mut generations = self.generations.iter();
        generations
            .find(|(_, made)| made.owner.as_ref() == Some(owner))
            .map(|(name, _)| name.clone())
    }
}

/// Where its log is to be read to.
pub(super) fn target() -> Target {
    Target {
        context: "ordering".to_owned(),
        from_position: 1,
        to_position: EVENTS,
    }
}
