//! The shared state of a group of members that spread partitions among themselves, and the pure
//! rules by which one member changes it. The state is one value, changed by compare-and-set, so
//! every decision is made on a picture that was whole.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use millrace_es::{Partition, PartitionCount};
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use super::MemberId;

/// What the members of a group share. A stored format: fields may be added, not changed.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Group {
    /// Who takes part, and a number that each keeps raising while it lives.
    #[serde(default)]
    members: BTreeMap<String, u64>,
    /// Who owns which partition.
    #[serde(default)]
    owners: BTreeMap<u16, String>,
}

/// What one member has seen, by its own clock.
#[derive(Debug, Default)]
pub(super) struct Observations {
    /// The others' numbers, and since when they are what they are.
    beats: BTreeMap<String, (u64, Instant)>,
    /// The last look. Who could not look could not see the others live either.
    looked: Option<Instant>,
    /// The state was lost with its server: until then the others claim again what they work on,
    /// so nothing counts as free.
    claims_until: Option<Instant>,
}

/// What a member holds, for deciding what it keeps.
#[derive(Debug, Default)]
pub(super) struct Holdings {
    /// Partitions in work.
    pub working: BTreeSet<Partition>,
    /// Partitions that were asked back and are still in somebody's hands here.
    pub draining: BTreeSet<Partition>,
    /// Partitions that were in somebody's hands for too long after they were asked back: given to
    /// others, and not taken again before they are out of those hands.
    pub stuck: BTreeSet<Partition>,
}

impl Group {
    /// Reads the shared value; one that cannot be read counts as none, since whoever holds
    /// something claims it again.
    pub(super) fn from_bytes(bytes: &[u8]) -> Self {
        serde_json::from_slice(bytes).unwrap_or_default()
    }

    pub(super) fn to_bytes(&self) -> Result<Vec<u8>, serde_json::Error> {
        serde_json::to_vec(self)
    }

    pub(super) fn owned_by(&self, member: &MemberId) -> BTreeSet<Partition> {
        self.owners
            .iter()
            .filter(|(_, owner)| *owner == member.as_str())
            .map(|(partition, _)| Partition::new(*partition))
            .collect()
    }

    pub(super) fn is_owned_by_another(&self, partition: Partition, me: &MemberId) -> bool {
        let owner = self.owners.get(&partition.get());
        owner.is_some_and(|owner| owner != me.as_str())
    }

    /// Whether members or owners differ; the numbers that only say "alive" do not count.
    pub(super) fn differs_from(&self, other: &Self) -> bool {
        self.owners != other.owners || !self.members.keys().eq(other.members.keys())
    }

    /// One member's turn: it says that it lives, removes who has been silent for the time to
    /// live, gives back what it let go of, and takes what is free up to its fair share.
    pub(super) fn turn(
        &mut self,
        me: &MemberId,
        count: PartitionCount,
        holdings: &Holdings,
        seen: &mut Observations,
        now: Instant,
        ttl: Duration,
    ) {
        if !self.members.contains_key(me.as_str()) && !holdings.working.is_empty() {
            seen.claims_until = Some(now + ttl);
        }
        *self.members.entry(me.as_str().to_owned()).or_default() += 1;
        for dead in seen.silent(&self.members, me, now, ttl) {
            self.members.remove(&dead);
        }
        let Self { members, owners } = self;
        owners.retain(|partition, owner| {
            let partition = Partition::new(*partition);
            let kept = *owner != me.as_str()
                || holdings.working.contains(&partition)
                || holdings.draining.contains(&partition);
            partition.get() < count.get() && members.contains_key(owner) && kept
        });
        // A state that was lost with its server: what is in work here stays here.
        for partition in &holdings.working {
            owners
                .entry(partition.get())
                .or_insert_with(|| me.as_str().to_owned());
        }
        if seen.claims_until.is_some_and(|until| now < until) {
            return;
        }
        let share = self.share(me, count);
        let mut mine = self.owned_by(me).len();
        for partition in count.all() {
            if mine >= share {
                break;
            }
            let free = !self.owners.contains_key(&partition.get());
            let in_hand =
                holdings.draining.contains(&partition) || holdings.stuck.contains(&partition);
            if free && !in_hand {
                self.owners.insert(partition.get(), me.as_str().to_owned());
                mine += 1;
            }
        }
    }

    /// How many partitions a member should have. The shares add up to the count; who owns more
    /// already gets the larger one, so that nothing moves without need.
    pub(super) fn share(&self, me: &MemberId, count: PartitionCount) -> usize {
        let mut ranked: Vec<(usize, &String)> = self
            .members
            .keys()
            .map(|member| {
                let owned = self.owners.values().filter(|owner| *owner == member);
                (owned.count(), member)
            })
            .collect();
        ranked.sort_by(|a, b| b.0.cmp(&a.0).then_with(|| a.1.cmp(b.1)));
        let Some(rank) = ranked.iter().position(|(_, member)| *member == me.as_str()) else {
            return 0;
        };
        let count = usize::from(count.get());
        count / ranked.len() + usize::from(rank < count % ranked.len())
    }

    /// Takes a member out, and everything it owns.
    pub(super) fn leave(&mut self, me: &MemberId) {
        self.members.remove(me.as_str());
        self.owners.retain(|_, owner| *owner != me.as_str());
    }
}

impl Observations {
    /// The members whose number has not changed for the time to live, while this one looked.
    fn silent(
        &mut self,
        members: &BTreeMap<String, u64>,
        me: &MemberId,
        now: Instant,
        ttl: Duration,
    ) -> Vec<String> {
        self.beats.retain(|member, _| members.contains_key(member));
        let blind = self
            .looked
            .is_none_or(|looked| now.duration_since(looked) > ttl / 2);
        self.looked = Some(now);
        if blind {
            self.beats.clear();
        }
        let mut silent = Vec::new();
        for (member, beat) in members.iter().filter(|(member, _)| *member != me.as_str()) {
            match self.beats.get(member) {
                Some((last, since)) if last == beat => {
                    if now.duration_since(*since) >= ttl {
                        silent.push(member.clone());
                    }
                }
                _ => {
                    self.beats.insert(member.clone(), (*beat, now));
                }
            }
        }
        silent
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TTL: Duration = Duration::from_secs(4);

    /// A member with its own picture of the others; what it owns it works on at once.
    struct Member {
        id: MemberId,
        seen: Observations,
        holdings: Holdings,
    }

    impl Member {
        fn new(id: &str) -> Self {
            Self {
                id: MemberId::new(id).unwrap(),
                seen: Observations::default(),
                holdings: Holdings::default(),
            }
        }

        fn turn(&mut self, group: &mut Group, count: PartitionCount, now: Instant) {
            group.turn(&self.id, count, &self.holdings, &mut self.seen, now, TTL);
            let owned = group.owned_by(&self.id);
            let share = group.share(&self.id, count);
            // What is over the share is let go of; it is free after the next turn.
            self.holdings.working = owned.into_iter().take(share).collect();
        }
    }

    fn owned(group: &Group, members: &[Member]) -> Vec<usize> {
        members
            .iter()
            .map(|member| group.owned_by(&member.id).len())
            .collect()
    }

    fn rounds(group: &mut Group, members: &mut [Member], count: PartitionCount, now: &mut Instant) {
        for _ in 0..4 {
            for member in &mut *members {
                member.turn(group, count, *now);
            }
            *now += Duration::from_secs(1);
        }
    }

    #[test]
    fn partitions_spread_evenly_and_move_when_members_come_and_go() {
        let count = PartitionCount::DEFAULT;
        let (mut group, mut now) = (Group::default(), Instant::now());
        let mut members = vec![Member::new("a")];
        rounds(&mut group, &mut members, count, &mut now);
        assert_eq!(owned(&group, &members), [16]);
        members.extend(["b", "c"].map(Member::new));
        rounds(&mut group, &mut members, count, &mut now);
        assert_eq!(owned(&group, &members), [6, 5, 5]);
        // `a` dies without a word: nothing moves before its time is over, everything after.
        members.remove(0);
        now += Duration::from_secs(1);
        for member in &mut members {
            member.turn(&mut group, count, now);
        }
        assert_eq!(owned(&group, &members), [5, 5]);
        // The others could not look for a while: they do not know whether `a` was silent.
        now += TTL * 10;
        for member in &mut members {
            member.turn(&mut group, count, now);
        }
        assert_eq!(owned(&group, &members), [5, 5]);
        rounds(&mut group, &mut members, count, &mut now);
        rounds(&mut group, &mut members, count, &mut now);
        assert_eq!(owned(&group, &members), [8, 8]);
        // `b` leaves in order.
        let gone = members.remove(0);
        group.leave(&gone.id);
        rounds(&mut group, &mut members, count, &mut now);
        assert_eq!(owned(&group, &members), [16]);
    }

    #[test]
    fn shares_add_up_whatever_the_numbers() {
        for count in [1, 2, 7, 16, 256] {
            let count = PartitionCount::new(count).unwrap();
            for size in 1..20 {
                let group = Group {
                    members: (0..size).map(|n| (format!("m{n}"), 0)).collect(),
                    owners: BTreeMap::new(),
                };
                let total: usize = (0..size)
                    .map(|n| group.share(&MemberId::new(&format!("m{n}")).unwrap(), count))
                    .sum();
                assert_eq!(total, usize::from(count.get()));
            }
        }
    }

    #[test]
    fn a_lost_state_is_claimed_again_by_those_who_work() {
        let count = PartitionCount::DEFAULT;
        let (mut group, mut now) = (Group::default(), Instant::now());
        let mut members = Vec::from(["a", "b"].map(Member::new));
        rounds(&mut group, &mut members, count, &mut now);
        let before = group.clone();
        let mut group = Group::from_bytes(b"{not json");
        members[0].turn(&mut group, count, now);
        assert_eq!(
            owned(&group, &members),
            [8, 0],
            "what the other works on is not free"
        );
        rounds(&mut group, &mut members, count, &mut now);
        assert_eq!(group.owners, before.owners);
    }

    #[test]
    fn what_drains_is_neither_given_away_nor_taken_back() {
        let count = PartitionCount::new(1).unwrap();
        let (mut group, now) = (Group::default(), Instant::now());
        let mut a = Member::new("a");
        a.turn(&mut group, count, now);
        let mut take_turn = |holdings: &Holdings| {
            group.turn(&a.id, count, holdings, &mut a.seen, now, TTL);
            group.owned_by(&a.id).len()
        };
        let hands = a.holdings.working.clone();
        let draining = Holdings {
            draining: hands.clone(),
            ..Holdings::default()
        };
        assert_eq!(take_turn(&draining), 1, "still in its hands");
        // The handover took too long: others may have it, `a` may not take it again.
        let stuck = Holdings {
            stuck: hands,
            ..Holdings::default()
        };
        assert_eq!(take_turn(&stuck), 0);
    }
}
