//! Where a user had things sent, and when: what an invoice's address is taken from.

use millrace_es::StreamVersion;
use millrace_kernel::Timestamp;
use serde::{Deserialize, Serialize};

use crate::month::Month;

/// An address that a user took. Stored format.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Taken {
    /// When, as its event says.
    pub at: Timestamp,
    /// The version of the user's stream.
    pub version: StreamVersion,
    /// The address as it is shown.
    pub address: String,
}

impl Taken {
    /// What comes later: by time, and among the same times by the stream.
    const fn place(&self) -> (Timestamp, StreamVersion) {
        (self.at, self.version)
    }
}

/// The addresses of a user that some month's invoice shows: the last that he took in each month,
/// and the first of all. Others can be in no answer and are forgotten, so that there is at most one
/// for every month and one more.
///
/// They are a function of the set of addresses that he took: the order in which they become known,
/// and how often, changes nothing. Stored format.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Addresses(Vec<Taken>);

impl Addresses {
    /// With one more.
    #[must_use]
    pub fn with(mut self, taken: Taken) -> Self {
        let found = self.0.binary_search_by_key(&taken.place(), Taken::place);
        if let Err(index) = found {
            self.0.insert(index, taken);
            self.forget();
        }
        self
    }

    fn forget(&mut self) {
        let months: Vec<Month> = self.0.iter().map(|taken| Month::of(taken.at)).collect();
        let is_kept = |index: usize| index == 0 || months.get(index + 1) != months.get(index);
        let mut index = 0;
        self.0.retain(|_| {
            index += 1;
            is_kept(index - 1)
        });
    }

    /// The address in force when a month ended, or the first one known later if there was none then.
    #[must_use]
    pub fn at_the_end_of(&self, month: Month) -> Option<&str> {
        let later = self.0.partition_point(|taken| month.ends_after(taken.at));
        let taken = match later.checked_sub(1) {
            Some(last) => self.0.get(last),
            None => self.0.first(),
        };
        taken.map(|taken| taken.address.as_str())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn taken(at: &str, version: u64, address: &str) -> Taken {
        Taken {
            at: at.parse().unwrap(),
            version: StreamVersion::new(version),
            address: address.to_owned(),
        }
    }

    fn of(all: &[Taken]) -> Addresses {
        all.iter()
            .cloned()
            .fold(Addresses::default(), Addresses::with)
    }

    fn month(number: u8) -> Month {
        Month::new(2025, number).unwrap()
    }

    #[test]
    fn an_invoice_has_the_address_of_its_months_end() {
        let addresses = of(&[
            taken("2025-03-10T00:00:00Z", 2, "Elm St"),
            taken("2025-04-30T23:59:59.999999Z", 3, "Oak St"),
            taken("2025-06-01T00:00:00Z", 4, "Ash St"),
        ]);
        let shown: Vec<_> = (1..=7).map(|n| addresses.at_the_end_of(month(n))).collect();
        let [elm, oak, ash] = ["Elm St", "Oak St", "Ash St"].map(Some);
        assert_eq!(shown, [elm, elm, elm, oak, oak, ash, ash]);
        assert_eq!(Addresses::default().at_the_end_of(month(1)), None);
    }

    #[test]
    fn of_two_at_once_the_stream_says_which_is_later() {
        let at = "2025-03-10T00:00:00Z";
        let addresses = of(&[taken(at, 3, "second"), taken(at, 2, "first")]);
        assert_eq!(addresses.at_the_end_of(month(3)), Some("second"));
        assert_eq!(addresses.at_the_end_of(month(2)), Some("first"));
    }

    #[test]
    fn a_user_who_moves_often_is_kept_in_few_rows() {
        let all: Vec<Taken> = (0..1_000)
            .map(|n| {
                taken(
                    &format!("2025-0{}-10T00:00:{:02}Z", 1 + n / 500, n % 60),
                    n,
                    "x",
                )
            })
            .collect();
        assert_eq!(of(&all).0.len(), 3);
    }

    proptest! {
        /// However they become known, and whatever is forgotten, every month's end has the address
        /// that the whole list gives it.
        #[test]
        fn what_is_forgotten_is_in_no_answer(
            minutes in prop::collection::vec(0_u32..300_000, 1..20),
            shuffle in prop::collection::vec(any::<u32>(), 40),
        ) {
            let start: Timestamp = "2025-01-01T00:00:00Z".parse().unwrap();
            let all: Vec<Taken> = minutes
                .iter()
                .zip(1..)
                .map(|(minute, version)| Taken {
                    at: Timestamp::from_unix_micros(
                        start.unix_micros() + i64::from(*minute) * 60_000_000,
                    )
                    .unwrap(),
                    version: StreamVersion::new(version),
                    address: format!("address {version}"),
                })
                .collect();
            // Each twice, in any order.
            let mut twice: Vec<(u32, Taken)> = shuffle
                .iter()
                .copied()
                .zip(all.iter().chain(&all).cloned())
                .collect();
            twice.sort_by_key(|(key, _)| *key);
            let told: Vec<Taken> = twice.into_iter().map(|(_, taken)| taken).collect();
            let addresses = of(&told);
            prop_assert_eq!(&addresses, &of(&all));
            let mut sorted = all;
            sorted.sort_by_key(Taken::place);
            for number in 1..=12 {
                let in_force = sorted
                    .iter()
                    .rev()
                    .find(|taken| month(number).ends_after(taken.at))
                    .or(sorted.first());
                prop_assert_eq!(
                    addresses.at_the_end_of(month(number)),
                    in_force.map(|taken| taken.address.as_str())
                );
            }
        }
    }
}
