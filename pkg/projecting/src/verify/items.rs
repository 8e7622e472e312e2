//! Two items of one key, and whether they can still become equal. Pure.

use std::collections::BTreeSet;

use aws_sdk_dynamodb::types::AttributeValue;
use millrace_es::Position;

use crate::{
    dynamodb::key_text,
    stores::{Item, POSITION_ATTRIBUTE, TOMBSTONE_ATTRIBUTE, TableDefinition},
};

/// Which attributes of an item count.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Attributes {
    /// All: items of one fold.
    All,
    /// These, and that the item is there.
    Only(&'static [&'static str]),
}

/// An item of one key in both tables, as it was read last.
#[derive(Debug, Clone)]
pub(super) struct Sides {
    pub(super) live: Option<Item>,
    pub(super) candidate: Option<Item>,
}

/// How far both generations have certainly come, in positions: every event up to there that
/// concerns them is in their items.
#[derive(Debug, Clone, Copy)]
pub(super) struct Passed {
    pub(super) live: Position,
    pub(super) candidate: Position,
}

/// What a second look at two items says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    Equal,
    Different,
    /// One of them is on its way: look again.
    Open,
}

/// The position that an item has seen; none is before the first.
pub(super) fn seen(item: Option<&Item>) -> Position {
    item.and_then(|item| item.get(POSITION_ATTRIBUTE))
        .and_then(|value| value.as_n().ok())
        .and_then(|digits| digits.parse().ok())
        .map_or(Position::ZERO, Position::new)
}

/// The row in an item: a tombstone is none.
pub(super) fn row(item: Option<&Item>) -> Option<&Item> {
    item.filter(|item| !item.contains_key(TOMBSTONE_ATTRIBUTE))
}

impl Attributes {
    /// Whether two items hold the same row, whatever they have seen.
    pub(super) fn agree(self, one: Option<&Item>, other: Option<&Item>) -> bool {
        let (one, other) = match (row(one), row(other)) {
            (None, None) => return true,
            (Some(one), Some(other)) => (one, other),
            _ => return false,
        };
        match self {
            Self::All => Self::differing(one, other).is_empty(),
            Self::Only(names) => names
                .iter()
                .all(|name| same(one.get(*name), other.get(*name))),
        }
    }
}

impl Attributes {
    /// The attributes in which two items differ, beside what they have seen.
    pub(super) fn differing(one: &Item, other: &Item) -> Vec<String> {
        let names: BTreeSet<&String> = one.keys().chain(other.keys()).collect();
        names
            .into_iter()
            .filter(|name| *name != POSITION_ATTRIBUTE)
            .filter(|name| !same(one.get(*name), other.get(*name)))
            .cloned()
            .collect()
    }
}

/// Whether two values say the same; sets have no order, and DynamoDB gives `12.50` back as `12.5`.
fn same(one: Option<&AttributeValue>, other: Option<&AttributeValue>) -> bool {
    use AttributeValue::{Bs, L, M, N, Ns, Ss};
    match (one, other) {
        (Some(N(one)), Some(N(other))) => Number::of(one) == Number::of(other),
        (Some(Ns(one)), Some(Ns(other))) => {
            let numbers = |all: &[String]| all.iter().map(|text| Number::of(text)).collect();
            let (one, other): (BTreeSet<Number>, BTreeSet<Number>) = (numbers(one), numbers(other));
            one == other
        }
        (Some(Ss(one)), Some(Ss(other))) => {
            one.iter().collect::<BTreeSet<_>>() == other.iter().collect()
        }
        (Some(Bs(one)), Some(Bs(other))) => {
            let bytes = |all: &[aws_sdk_dynamodb::primitives::Blob]| {
                all.iter()
                    .map(|blob| blob.as_ref().to_vec())
                    .collect::<BTreeSet<_>>()
            };
            bytes(one) == bytes(other)
        }
        (Some(L(one)), Some(L(other))) => {
            one.len() == other.len() && one.iter().zip(other).all(|(a, b)| same(Some(a), Some(b)))
        }
        (Some(M(one)), Some(M(other))) => {
            one.len() == other.len() && one.iter().all(|(name, a)| same(Some(a), other.get(name)))
        }
        (one, other) => one == other,
    }
}

/// A number of DynamoDB's by its value: its digits without zeros at either end, times a power of
/// ten. A text that is no number stands for itself.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Number {
    negative: bool,
    digits: String,
    exponent: i64,
}

impl Number {
    fn of(text: &str) -> Self {
        Self::parse(text).unwrap_or_else(|| Self {
            negative: false,
            digits: text.to_owned(),
            exponent: 0,
        })
    }

    fn parse(text: &str) -> Option<Self> {
        let (mantissa, exponent) = match text.split_once(['e', 'E']) {
            Some((mantissa, exponent)) => (mantissa, exponent.parse().ok()?),
            None => (text, 0_i64),
        };
        let unsigned = mantissa.strip_prefix(['+', '-']).unwrap_or(mantissa);
        let (whole, part) = unsigned.split_once('.').unwrap_or((unsigned, ""));
        let all = format!("{whole}{part}");
        if all.is_empty() || !all.bytes().all(|byte| byte.is_ascii_digit()) {
            return None;
        }
        let digits = all.trim_end_matches('0');
        let moved = i64::try_from(all.len() - digits.len()).ok()?;
        let places = i64::try_from(part.len()).ok()?;
        let digits = digits.trim_start_matches('0');
        let zero = digits.is_empty();
        Some(Self {
            negative: mantissa.starts_with('-') && !zero,
            digits: digits.to_owned(),
            exponent: if zero {
                0
            } else {
                exponent.checked_add(moved)?.checked_sub(places)?
            },
        })
    }
}

impl Sides {
    /// The newest event that either has seen.
    fn newest(&self) -> Position {
        seen(self.live.as_ref()).max(seen(self.candidate.as_ref()))
    }

    /// Judges what is there now, after `before` was read and then both were found to have passed a
    /// position. `same_fold`: items that have seen the same events have to be equal.
    pub(super) fn judge(
        &self,
        before: &Self,
        passed: Passed,
        attributes: Attributes,
        same_fold: bool,
    ) -> Verdict {
        if attributes.agree(self.live.as_ref(), self.candidate.as_ref()) {
            return Verdict::Equal;
        }
        let needed = before.newest();
        let live = seen(self.live.as_ref());
        let own = seen(self.candidate.as_ref());
        let (live_passed, own_passed) = (needed <= passed.live, needed <= passed.candidate);
        if same_fold {
            // An item that has passed an event of its key and does not show it never will.
            let lost = (own < needed && own_passed) || (live < needed && live_passed);
            if live == own || lost {
                return Verdict::Different;
            }
        }
        let unmoved = live == seen(before.live.as_ref()) && own == seen(before.candidate.as_ref());
        if live_passed && own_passed && unmoved {
            return Verdict::Different;
        }
        Verdict::Open
    }
}

/// A key for people.
pub(super) fn shown(table: &TableDefinition, item: &Item) -> String {
    let text = key_text(table, item);
    text.trim_end_matches('\u{1f}').replace('\u{1f}', ",")
}

/// The primary key's attributes of an item.
pub(super) fn key_of(table: &TableDefinition, item: &Item) -> Item {
    [
        Some(table.partition_key.name),
        table.sort_key.map(|key| key.name),
    ]
    .into_iter()
    .flatten()
    .filter_map(|name| Some((name.to_owned(), item.get(name)?.clone())))
    .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn item(position: u64, total: &str) -> Option<Item> {
        Some(Item::from([
            ("id".to_owned(), AttributeValue::S("a".to_owned())),
            ("total".to_owned(), AttributeValue::N(total.to_owned())),
            (
                POSITION_ATTRIBUTE.to_owned(),
                AttributeValue::N(position.to_string()),
            ),
        ]))
    }

    fn tombstone(position: u64) -> Option<Item> {
        let mut gone = item(position, "0")?;
        gone.remove("total");
        gone.insert(TOMBSTONE_ATTRIBUTE.to_owned(), AttributeValue::Bool(true));
        Some(gone)
    }

    fn sides(live: Option<Item>, candidate: Option<Item>) -> Sides {
        Sides { live, candidate }
    }

    fn passed(live: u64, candidate: u64) -> Passed {
        Passed {
            live: Position::new(live),
            candidate: Position::new(candidate),
        }
    }

    fn judged(before: &Sides, now: &Sides, passed: Passed) -> Verdict {
        now.judge(before, passed, Attributes::All, true)
    }

    #[test]
    fn the_same_events_have_to_make_the_same_item() {
        let pair = sides(item(5, "1"), item(5, "2"));
        assert_eq!(judged(&pair, &pair, passed(0, 0)), Verdict::Different);
        let pair = sides(item(5, "1"), item(5, "1"));
        assert_eq!(judged(&pair, &pair, passed(0, 0)), Verdict::Equal);
    }

    #[test]
    fn an_item_that_is_on_its_way_is_read_again() {
        let before = sides(item(9, "2"), item(5, "1"));
        assert_eq!(judged(&before, &before, passed(20, 8)), Verdict::Open);
        let there = sides(item(12, "3"), item(9, "2"));
        assert_eq!(judged(&before, &there, passed(20, 9)), Verdict::Open);
        assert_eq!(judged(&before, &before, passed(20, 9)), Verdict::Different);
        // Missing is before the first event.
        let missing = sides(item(9, "2"), None);
        assert_eq!(judged(&missing, &missing, passed(9, 8)), Verdict::Open);
        assert_eq!(judged(&missing, &missing, passed(9, 9)), Verdict::Different);
    }

    #[test]
    fn a_row_that_is_gone_is_no_row() {
        let gone = sides(tombstone(7), None);
        assert_eq!(judged(&gone, &gone, passed(0, 0)), Verdict::Equal);
        let extra = sides(tombstone(7), item(5, "1"));
        assert_eq!(judged(&extra, &extra, passed(9, 6)), Verdict::Open);
        assert_eq!(judged(&extra, &extra, passed(9, 7)), Verdict::Different);
    }

    #[test]
    fn a_changed_fold_may_see_other_events() {
        let only = Attributes::Only(&["total"]);
        let pair = sides(item(5, "1"), item(8, "1"));
        let verdict = pair.judge(&pair, passed(0, 0), only, false);
        assert_eq!(verdict, Verdict::Equal);
        let pair = sides(item(5, "1"), item(8, "2"));
        let verdict = |passed| pair.judge(&pair, passed, only, false);
        assert_eq!(verdict(passed(7, 9)), Verdict::Open);
        assert_eq!(verdict(passed(9, 9)), Verdict::Different);
    }

    #[test]
    fn numbers_are_compared_by_their_value() {
        let n = |text: &str| AttributeValue::N(text.to_owned());
        let equal = |one: &str, other: &str| same(Some(&n(one)), Some(&n(other)));
        for (one, other) in [
            ("12.50", "12.5"),
            ("1200", "1.2E3"),
            ("0.00", "-0"),
            ("007", "7"),
            ("1e-2", "0.01"),
        ] {
            assert!(equal(one, other), "{one} {other}");
        }
        for (one, other) in [("12.5", "125"), ("1", "-1"), ("1", "10"), ("0.1", "0.01")] {
            assert!(!equal(one, other), "{one} {other}");
        }
        let set = |all: [&str; 2]| AttributeValue::Ns(all.map(str::to_owned).to_vec());
        assert!(same(Some(&set(["1.0", "2"])), Some(&set(["2.00", "1"]))));
    }

    #[test]
    fn sets_have_no_order() {
        let set = |all: [&str; 2]| AttributeValue::Ss(all.map(str::to_owned).to_vec());
        assert!(same(Some(&set(["a", "b"])), Some(&set(["b", "a"]))));
        assert!(!same(Some(&set(["a", "b"])), Some(&set(["a", "c"]))));
        assert!(!same(Some(&set(["a", "b"])), None));
    }
}
