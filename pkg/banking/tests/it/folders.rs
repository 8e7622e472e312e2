//! Folding by hand, as far and in such pieces as a test wants.

use std::collections::BTreeMap;

use millrace_banking::projections;
use millrace_es::{Partition, Position, RecordedEvent};
use millrace_projecting::{Folded, Folder, Lane};
use rand::{RngExt as _, rngs::StdRng};

use crate::{bank::context, system::System};

/// The most events of one lane in a batch of a random fold.
const MAX_PIECE: usize = 12;
/// The most events that a restarted folder is given again.
const MAX_REPEATED: usize = 5;

/// One folder per view, by its name.
pub struct Folders(Vec<(&'static str, Folder)>);

impl Folders {
    /// Begins at the stored checkpoints; makes the generations where there are none.
    pub async fn open(system: &System) -> Self {
        let mut all = Vec::new();
        for view in projections() {
            let folder = system.stage.folder(view.name()).await;
            all.push((view.name(), folder));
        }
        Self(all)
    }

    /// Folds everything that is new, and gives what came of each view by its name.
    pub async fn fold_all(&mut self, system: &System) -> BTreeMap<&'static str, Folded> {
        let events = system.events().await;
        let mut came = BTreeMap::new();
        for (view, folder) in &mut self.0 {
            came.insert(*view, folder.fold(events.clone()).await.unwrap());
        }
        came
    }

    /// Folds everything in pieces: of some lanes each time, so many events of each, with restarts
    /// in between that get events again which they have already.
    pub async fn fold_randomly(&mut self, system: &System, random: &mut StdRng) {
        let lanes = by_lane(system.events().await);
        for (view, folder) in &mut self.0 {
            // How many events of each lane were folded.
            let mut folded: BTreeMap<Partition, usize> = BTreeMap::new();
            while lanes
                .iter()
                .any(|(lane, all)| folded.get(lane).copied().unwrap_or(0) < all.len())
            {
                let restarts = random.random_bool(0.2);
                if restarts {
                    *folder = system.stage.folder(view).await;
                }
                let mut batch = Vec::new();
                for (lane, all) in &lanes {
                    if random.random_bool(0.5) {
                        continue;
                    }
                    let done = folded.entry(*lane).or_default();
                    let repeated = if restarts {
                        random.random_range(0..=MAX_REPEATED)
                    } else {
                        0
                    };
                    let to = all.len().min(*done + random.random_range(1..=MAX_PIECE));
                    batch.extend_from_slice(&all[done.saturating_sub(repeated)..to]);
                    *done = to;
                }
                let came = folder.fold(batch).await.unwrap();
                assert_eq!(came.letters, [], "{view}");
            }
            for (lane, all) in &lanes {
                let last = all.last().map_or(Position::ZERO, |event| event.position);
                assert_eq!(folder.position(&Lane::new(context(), *lane)), last);
            }
        }
    }
}

fn by_lane(events: Vec<RecordedEvent>) -> BTreeMap<Partition, Vec<RecordedEvent>> {
    let mut lanes: BTreeMap<Partition, Vec<RecordedEvent>> = BTreeMap::new();
    for event in events {
        lanes.entry(event.partition).or_default().push(event);
    }
    lanes
}
