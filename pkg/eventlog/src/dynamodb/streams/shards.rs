//! Which shards there are and how far each was read. No I/O.
//!
//! A shard is closed after some hours or when it is split, and one or two others follow it. What
//! they hold came later, so a shard is read only once its parent was read to the end.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use millrace_es::Position;

/// How many pages of a shard are told apart that have events not handed out yet; further ones
/// count as one.
const MAX_OPEN_PAGES: usize = 64;

/// How far back the ancestors of a shard are followed. A day, which is how long shards are kept,
/// has a handful of generations.
const MAX_GENERATIONS: usize = 100;

/// The name of a shard.
pub(super) type ShardId = String;
/// Names a record within its shard; it grows.
pub(super) type SequenceNumber = String;

/// Where the reading of a shard begins or goes on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Place {
    /// With what comes from now on. What was before is read from the log.
    Latest,
    /// With the oldest record that is kept.
    Horizon,
    /// After a record.
    After(SequenceNumber),
}

/// A shard as DynamoDB describes it.
#[derive(Debug, Clone)]
pub(super) struct Described {
    pub(super) id: ShardId,
    pub(super) parent: Option<ShardId>,
}

#[derive(Debug)]
enum Progress {
    /// Its parent is not read to the end.
    Waiting,
    Reading(Reading),
    Done,
}

#[derive(Debug)]
struct Reading {
    /// Where it would begin again: before everything that is still open.
    settled: Place,
    /// Pages with events that are not handed out: the last record, and the highest position of the
    /// page.
    open: VecDeque<(SequenceNumber, Position)>,
}

#[derive(Debug)]
struct Shard {
    parent: Option<ShardId>,
    progress: Progress,
}

/// The shards of a stream.
#[derive(Debug, Default)]
pub(super) struct Shards {
    by_id: BTreeMap<ShardId, Shard>,
    /// Shards of a checkpoint that were not described yet.
    resumed: BTreeMap<ShardId, Place>,
}

impl Shards {
    /// Shards as a checkpoint has them.
    pub(super) fn resume(checkpoint: BTreeMap<ShardId, Place>) -> Self {
        Self {
            by_id: BTreeMap::new(),
            resumed: checkpoint,
        }
    }

    /// Takes all that DynamoDB describes: the shards whose reading begins now.
    ///
    /// - A shard of the checkpoint goes on where it was.
    /// - The child of a known shard is read from its first record, after its parent.
    /// - Of the others only those without children are read, and from now on: what came before is
    ///   in the log.
    pub(super) fn discover(&mut self, described: &[Described]) -> Vec<(ShardId, Place)> {
        let family = Family::of(described);
        let known: BTreeSet<_> = self.by_id.keys().chain(self.resumed.keys()).collect();
        let above: BTreeSet<_> = known.iter().flat_map(|id| family.ancestors(id)).collect();
        let mut begun = Vec::new();
        let mut found = Vec::new();
        for shard in described {
            if self.by_id.contains_key(&shard.id) {
                continue;
            }
            let progress = if let Some(place) = self.resumed.get(&shard.id) {
                begun.push((shard.id.clone(), place.clone()));
                Progress::reading(place.clone())
            } else if above.contains(&shard.id) {
                Progress::Done
            } else if family.ancestors(&shard.id).any(|id| known.contains(id)) {
                Progress::Waiting
            } else if family.has_children(&shard.id) {
                Progress::Done
            } else {
                begun.push((shard.id.clone(), Place::Latest));
                Progress::reading(Place::Latest)
            };
            let parent = shard.parent.clone();
            found.push((shard.id.clone(), Shard { parent, progress }));
        }
        self.by_id.extend(found);
        self.resumed.clear();
        self.by_id.retain(|id, _| family.parents.contains_key(id));
        begun.extend(self.follow());
        begun
    }

    /// Notes that a shard was read to its end, or is gone: the shards whose reading begins now.
    pub(super) fn finished(&mut self, id: &str) -> Vec<(ShardId, Place)> {
        if let Some(shard) = self.by_id.get_mut(id) {
            shard.progress = Progress::Done;
        }
        self.follow()
    }

    /// Notes a page that was read: its last record and, where it has events, the highest position.
    pub(super) fn read(&mut self, id: &str, last: SequenceNumber, highest: Option<Position>) {
        let Some(reading) = self.reading(id) else {
            return;
        };
        match (highest, reading.open.len() >= MAX_OPEN_PAGES) {
            (None, _) if reading.open.is_empty() => reading.settled = Place::After(last),
            (highest, full) => {
                let before = reading.open.back().map(|(_, highest)| *highest);
                let highest = before.max(highest).unwrap_or_default();
                if full || before == Some(highest) {
                    reading.open.pop_back();
                }
                reading.open.push_back((last, highest));
            }
        }
    }

    /// Where each shard that is being read would begin again when everything up to a position was
    /// handed out.
    pub(super) fn checkpoint(&mut self, fed: Position) -> BTreeMap<ShardId, Place> {
        let reading = self.by_id.iter_mut().filter_map(|(id, shard)| {
            let Progress::Reading(reading) = &mut shard.progress else {
                return None;
            };
            while let Some((last, _)) = reading.open.pop_front_if(|(_, highest)| *highest <= fed) {
                reading.settled = Place::After(last);
            }
            Some((id.clone(), reading.settled.clone()))
        });
        reading.collect()
    }

    /// Whether a shard that was read to its end has no child that is known, so that one should be
    /// looked for.
    pub(super) fn lacks_children(&self) -> bool {
        let parents: BTreeSet<_> = self
            .by_id
            .values()
            .filter_map(|s| s.parent.as_ref())
            .collect();
        self.by_id
            .iter()
            .any(|(id, shard)| matches!(shard.progress, Progress::Done) && !parents.contains(id))
    }

    /// How many are being read.
    pub(super) fn reading_count(&self) -> usize {
        let reading = |shard: &&Shard| matches!(shard.progress, Progress::Reading(_));
        self.by_id.values().filter(reading).count()
    }

    fn reading(&mut self, id: &str) -> Option<&mut Reading> {
        match &mut self.by_id.get_mut(id)?.progress {
            Progress::Reading(reading) => Some(reading),
            Progress::Waiting | Progress::Done => None,
        }
    }

    /// Begins the shards whose parent is done or no longer there.
    fn follow(&mut self) -> Vec<(ShardId, Place)> {
        let ready: Vec<_> = self
            .by_id
            .iter()
            .filter(|(_, shard)| matches!(shard.progress, Progress::Waiting))
            .filter(|(_, shard)| {
                let parent = shard.parent.as_ref().and_then(|id| self.by_id.get(id));
                parent.is_none_or(|parent| matches!(parent.progress, Progress::Done))
            })
            .map(|(id, _)| id.clone())
            .collect();
        for id in &ready {
            if let Some(shard) = self.by_id.get_mut(id) {
                shard.progress = Progress::reading(Place::Horizon);
            }
        }
        ready.into_iter().map(|id| (id, Place::Horizon)).collect()
    }
}

/// Who descends from whom.
struct Family<'a> {
    parents: BTreeMap<&'a ShardId, Option<&'a ShardId>>,
    with_children: BTreeSet<&'a ShardId>,
}

impl<'a> Family<'a> {
    fn of(described: &'a [Described]) -> Self {
        let pair = |shard: &'a Described| (&shard.id, shard.parent.as_ref());
        let parents: BTreeMap<_, _> = described.iter().map(pair).collect();
        let with_children = parents.values().copied().flatten().collect();
        Self {
            parents,
            with_children,
        }
    }

    fn has_children(&self, id: &ShardId) -> bool {
        self.with_children.contains(id)
    }

    /// The parent, its parent and so on.
    fn ancestors(&self, id: &ShardId) -> impl Iterator<Item = &'a ShardId> {
        let parent = |id: &&ShardId| self.parents.get(*id).copied().flatten();
        std::iter::successors(parent(&id), parent).take(MAX_GENERATIONS)
    }
}

impl Progress {
    const fn reading(settled: Place) -> Self {
        Self::Reading(Reading {
            settled,
            open: VecDeque::new(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn described(shards: &[(&str, Option<&str>)]) -> Vec<Described> {
        let shard = |&(id, parent): &(&str, Option<&str>)| Described {
            id: id.to_owned(),
            parent: parent.map(str::to_owned),
        };
        shards.iter().map(shard).collect()
    }

    fn after(sequence: &str) -> Place {
        Place::After(sequence.to_owned())
    }

    fn begun(id: &str, place: Place) -> (ShardId, Place) {
        (id.to_owned(), place)
    }

    fn position(number: u64) -> Position {
        Position::new(number)
    }

    #[test]
    fn without_a_checkpoint_the_newest_shards_are_read_from_now_on() {
        let mut shards = Shards::default();
        let there = described(&[("a", None), ("b", Some("a")), ("c", Some("a")), ("d", None)]);
        assert_eq!(
            shards.discover(&there),
            [
                begun("b", Place::Latest),
                begun("c", Place::Latest),
                begun("d", Place::Latest)
            ]
        );
        assert_eq!(shards.discover(&there), []);
        assert_eq!(shards.reading_count(), 3);
        assert!(!shards.lacks_children());
    }

    #[test]
    fn children_wait_for_their_parent_and_are_read_whole() {
        let mut shards = Shards::default();
        shards.discover(&described(&[("a", None)]));
        let there = described(&[
            ("a", None),
            ("b", Some("a")),
            ("c", Some("a")),
            ("d", Some("b")),
        ]);
        assert_eq!(shards.discover(&there), []);
        assert_eq!(
            shards.finished("a"),
            [begun("b", Place::Horizon), begun("c", Place::Horizon)]
        );
        assert_eq!(shards.finished("b"), [begun("d", Place::Horizon)]);
        assert_eq!(shards.finished("c"), []);
        assert!(shards.lacks_children(), "c has none yet");
        let there = described(&[("c", None), ("d", None), ("e", Some("c"))]);
        assert_eq!(shards.discover(&there), [begun("e", Place::Horizon)]);
        assert!(!shards.lacks_children());
    }

    #[test]
    fn a_checkpoint_tells_what_was_read() {
        let checkpoint = BTreeMap::from([
            ("b".to_owned(), after("7")),
            ("gone".to_owned(), after("9")),
        ]);
        let mut shards = Shards::resume(checkpoint);
        let there = described(&[
            ("a", None),
            ("b", Some("a")),
            ("c", Some("b")),
            ("d", Some("gone")),
            ("e", Some("d")),
            ("f", None),
        ]);
        // `a` was read before `b`; `c` waits for it; of `gone` only the children are left.
        assert_eq!(
            shards.discover(&there),
            [
                begun("b", after("7")),
                begun("f", Place::Latest),
                begun("d", Place::Horizon)
            ]
        );
        assert_eq!(shards.finished("b"), [begun("c", Place::Horizon)]);
    }

    #[test]
    fn a_checkpoint_stays_before_what_was_not_handed_out() {
        let mut shards = Shards::resume(BTreeMap::from([("a".to_owned(), Place::Horizon)]));
        shards.discover(&described(&[("a", None)]));
        let at = |shards: &mut Shards, fed| shards.checkpoint(position(fed))["a"].clone();
        assert_eq!(at(&mut shards, 0), Place::Horizon);
        shards.read("a", "1".to_owned(), None);
        assert_eq!(at(&mut shards, 0), after("1"));
        shards.read("a", "2".to_owned(), Some(position(5)));
        shards.read("a", "3".to_owned(), Some(position(3)));
        shards.read("a", "4".to_owned(), None);
        shards.read("a", "5".to_owned(), Some(position(6)));
        assert_eq!(at(&mut shards, 4), after("1"));
        assert_eq!(at(&mut shards, 5), after("4"));
        assert_eq!(at(&mut shards, 6), after("5"));
    }

    #[test]
    fn open_pages_are_bounded() {
        let mut shards = Shards::default();
        shards.discover(&described(&[("a", None)]));
        for number in 1..=1_000 {
            shards.read("a", number.to_string(), Some(position(number)));
        }
        assert_eq!(
            shards.reading("a").map(|reading| reading.open.len()),
            Some(MAX_OPEN_PAGES)
        );
        let first = MAX_OPEN_PAGES as u64 - 1;
        assert_eq!(
            shards.checkpoint(position(first))["a"],
            after(&first.to_string())
        );
        assert_eq!(
            shards.checkpoint(position(999))["a"],
            after(&first.to_string())
        );
        assert_eq!(shards.checkpoint(position(1_000))["a"], after("1000"));
    }
}
