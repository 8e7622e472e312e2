//! A month in UTC, and the invoice of a user for it.

use std::fmt;

use millrace_kernel::{EntityId, Timestamp};
use time::{Date, Month as MonthName};
use uuid::Uuid;

/// The first year that an order may have been bought in: the first of RFC 3339.
pub const MIN_YEAR: i32 = 0;
/// The last year that an order may have been bought in: the last of RFC 3339.
pub const MAX_YEAR: i32 = 9999;

/// What the ids of invoices are derived under. A stored format: another one would rename them all.
const INVOICES: Uuid = Uuid::from_u128(0x6f0c_1f1e_6f1d_5b0e_9a53_7b1c_f0f4_2c11);

/// A month in UTC.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Month(Date);

impl Month {
    /// The month of a year, 1 to 12; `None` when there is no such month, or the year is not
    /// [`MIN_YEAR`] to [`MAX_YEAR`].
    #[must_use]
    pub fn new(year: i32, month: u8) -> Option<Self> {
        let name = MonthName::try_from(month).ok()?;
        let first = Date::from_calendar_date(year, name, 1).ok()?;
        (MIN_YEAR..=MAX_YEAR).contains(&year).then_some(Self(first))
    }

    /// The month that an instant lies in.
    #[must_use]
    pub fn of(at: Timestamp) -> Self {
        let date = at.date();
        // Every month has a first day.
        Self(date.replace_day(1).unwrap_or(date))
    }

    /// Its year.
    #[must_use]
    pub const fn year(self) -> i32 {
        self.0.year()
    }

    /// Its number in the year, 1 to 12.
    #[must_use]
    pub fn number(self) -> u8 {
        self.0.month().into()
    }

    /// Its first instant.
    #[must_use]
    pub const fn starts_at(self) -> Timestamp {
        Timestamp::start_of(self.0)
    }

    /// Whether an instant lies before its end.
    #[must_use]
    pub fn ends_after(self, at: Timestamp) -> bool {
        Self::of(at) <= self
    }

    /// Names the invoice of a user for this month, always the same: a UUIDv5.
    #[must_use]
    pub fn invoice_id(self, user_id: &EntityId) -> Uuid {
        // An id has no slash in it, so no two texts are alike.
        Uuid::new_v5(&INVOICES, format!("{user_id}/{self}").as_bytes())
    }
}

impl fmt::Display for Month {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:04}-{:02}", self.year(), self.number())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    #[test]
    fn a_month_is_that_of_utc() {
        let april = Month::new(2025, 4).unwrap();
        assert_eq!(Month::of(at("2025-05-01T01:59:59+02:00")), april);
        assert_eq!(april.starts_at(), at("2025-04-01T00:00:00Z"));
        assert!(april.ends_after(at("2025-04-30T23:59:59.999999Z")));
        assert!(!april.ends_after(at("2025-05-01T00:00:00Z")));
        assert_eq!(april.to_string(), "2025-04");
    }

    #[test]
    fn there_are_twelve_months_and_four_digits() {
        for (year, month) in [(2025, 0), (2025, 13), (-1, 12), (10_000, 1)] {
            assert_eq!(Month::new(year, month), None, "{year} {month}");
        }
        let last = Month::new(MAX_YEAR, 12).unwrap();
        assert!(last.ends_after(at("9999-12-31T23:59:59.999999Z")));
        assert_eq!(
            Month::of(at("0000-01-01T00:00:00Z")),
            Month::new(0, 1).unwrap()
        );
    }

    /// Locks a stored format: these were computed once and may never change.
    #[test]
    fn an_invoice_keeps_its_id() {
        let id = |user: &str, year, month| {
            let user = EntityId::new(user).unwrap();
            Month::new(year, month)
                .unwrap()
                .invoice_id(&user)
                .to_string()
        };
        assert_eq!(id("1", 2025, 4), id("1", 2025, 4));
        assert_eq!(id("1", 2025, 4), "97898168-b553-5836-87fe-f1dc4eff63ff");
        assert_ne!(id("1", 2025, 4), id("1", 2025, 5));
        assert_ne!(id("1", 2025, 4), id("2", 2025, 4));
    }
}
