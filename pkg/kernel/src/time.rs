use std::{fmt, str::FromStr};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use time::{
    Date, OffsetDateTime, UtcOffset,
    format_description::{BorrowedFormatItem, well_known::Rfc3339},
    macros::format_description,
};

/// An instant in UTC with microsecond resolution: what PostgreSQL keeps, so that a time read back
/// equals the time written. Written as RFC 3339.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(OffsetDateTime);

/// A text that is no RFC 3339 time.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("must be an RFC 3339 time such as 2026-01-31T12:00:00Z")]
pub struct TimestampError;

impl Timestamp {
    /// Takes an instant, moved to UTC and cut to whole microseconds.
    #[must_use]
    pub fn new(at: OffsetDateTime) -> Self {
        let at = at.to_offset(UtcOffset::UTC);
        let nanos = at.nanosecond() / 1_000 * 1_000;
        Self(at.replace_nanosecond(nanos).unwrap_or(at))
    }

    /// The present, by this machine's clock. For edges only: decisions and folds take time as data.
    #[must_use]
    #[expect(
        clippy::disallowed_methods,
        reason = "the one place that reads the clock"
    )]
    pub fn now() -> Self {
        Self::new(OffsetDateTime::now_utc())
    }

    /// The instant itself, in UTC.
    #[must_use]
    pub const fn get(self) -> OffsetDateTime {
        self.0
    }

    /// Microseconds since 1970, negative before.
    #[must_use]
    #[expect(
        clippy::cast_possible_truncation,
        reason = "years of four digits are within 2^59 microseconds"
    )]
    pub const fn unix_micros(self) -> i64 {
        (self.0.unix_timestamp_nanos() / 1_000) as i64
    }

    /// The instant so many microseconds after 1970; `None` beyond the years of four digits.
    #[must_use]
    pub fn from_unix_micros(micros: i64) -> Option<Self> {
        OffsetDateTime::from_unix_timestamp_nanos(i128::from(micros) * 1_000)
            .ok()
            .map(Self)
    }

    /// The day in UTC.
    #[must_use]
    pub const fn date(self) -> Date {
        self.0.date()
    }

    /// The instant at which a day begins in UTC.
    #[must_use]
    pub const fn start_of(day: Date) -> Self {
        Self(day.midnight().assume_utc())
    }

    /// Whether a day begins at this instant.
    #[must_use]
    pub fn is_start_of_day(self) -> bool {
        self == Self::start_of(self.date())
    }
}

/// A bound in time as a request may say it: a time, or a date for the instant at which it begins
/// in UTC.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct TimeBound(pub Timestamp);

/// A text that is neither a time nor a date.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("must be a date such as 2026-01-31 or a time such as 2026-01-31T12:00:00Z")]
pub struct TimeBoundError;

impl FromStr for TimeBound {
    type Err = TimeBoundError;
    fn from_str(text: &str) -> Result<Self, TimeBoundError> {
        const DATE: &[BorrowedFormatItem<'_>] = format_description!("[year]-[month]-[day]");
        // Ten characters are a date; the parser alone would also take a sign before the year.
        if text.len() == 10 && !text.starts_with(['+', '-']) {
            let day = Date::parse(text, DATE).map_err(|_| TimeBoundError)?;
            return Ok(Self(Timestamp::start_of(day)));
        }
        text.parse().map(Self).map_err(|_| TimeBoundError)
    }
}

impl<'de> Deserialize<'de> for TimeBound {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = <std::borrow::Cow<'de, str>>::deserialize(deserializer)?;
        text.parse().map_err(de::Error::custom)
    }
}

impl From<OffsetDateTime> for Timestamp {
    fn from(at: OffsetDateTime) -> Self {
        Self::new(at)
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = self.0.format(&Rfc3339).map_err(|_| fmt::Error)?;
        f.write_str(&text)
    }
}

impl fmt::Debug for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Timestamp {
    type Err = TimestampError;
    fn from_str(text: &str) -> Result<Self, TimestampError> {
        // Near the ends of the years of four digits UTC may be in a year that has no such form.
        OffsetDateTime::parse(text, &Rfc3339)
            .ok()
            .and_then(|at| at.checked_to_offset(UtcOffset::UTC))
            .filter(|at| at.year() >= 0)
            .map(Self::new)
            .ok_or(TimestampError)
    }
}

impl Serialize for Timestamp {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Timestamp {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = <std::borrow::Cow<'de, str>>::deserialize(deserializer)?;
        text.parse().map_err(de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_survives_every_store() {
        for text in ["2026-01-31T12:00:00.123456Z", "1969-12-31T23:59:59.999999Z"] {
            let at: Timestamp = text.parse().unwrap();
            assert_eq!(at.to_string(), text);
            assert_eq!(Timestamp::from_unix_micros(at.unix_micros()), Some(at));
        }
        let zoned: Timestamp = "2026-01-31T13:00:00.1234567+01:00".parse().unwrap();
        assert_eq!(zoned.to_string(), "2026-01-31T12:00:00.123456Z");
        assert_eq!(Timestamp::from_unix_micros(i64::MAX), None);
        for beyond in ["9999-12-31T23:59:59-01:00", "0000-01-01T00:00:00+01:00"] {
            assert_eq!(beyond.parse::<Timestamp>(), Err(TimestampError), "{beyond}");
        }
    }

    #[test]
    fn a_bound_is_a_date_or_a_time() {
        let bound = |text: &str| text.parse::<TimeBound>().map(|bound| bound.0.to_string());
        assert_eq!(bound("2026-01-31").unwrap(), "2026-01-31T00:00:00Z");
        assert_eq!(
            bound("2026-01-31T01:00:00+01:00").unwrap(),
            "2026-01-31T00:00:00Z"
        );
        for bad in [
            "",
            "2026-02-30",
            "2026-1-1",
            "31.01.2026",
            "+026-01-31",
            "now",
            "0",
        ] {
            assert!(bound(bad).is_err(), "{bad:?}");
        }
        assert!(
            "2026-01-31"
                .parse::<TimeBound>()
                .unwrap()
                .0
                .is_start_of_day()
        );
    }
}
