use std::{fmt, str::FromStr};

use rust_decimal::{Decimal, RoundingStrategy};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// The newtype name under which [`Money`] asks its deserializer for a number as it was written.
/// A format that knows the name (the reader of HTTP requests) answers with the number's own digits
/// as a text; every other format sees a newtype around a string, so that no amount ever goes
/// through a binary float.
pub const EXACT_NUMBER: &str = "$millrace::exact_number";

/// How many decimals an amount has: the minor units of the default currency, `USD`.
const DECIMALS: u32 = 2;

/// The most significant digits a text may have, decimals included: 16 before the point. Far above
/// any limit of the domain, and small enough that sums of amounts stay exact.
const MAX_TEXT_DIGITS: i64 = 18;

/// An exact amount of money with at most two decimals, never a binary float. Written as a decimal
/// string with exactly two decimals (`"499.50"`), and read from one, or from a number by a format
/// that gives its digits (see [`EXACT_NUMBER`]).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Money(Decimal);

/// Why a number is no amount of money.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum MoneyError {
    /// The text is no decimal number.
    #[error("must be a decimal number such as 499.50")]
    NotANumber,
    /// A third decimal that is not zero.
    #[error("must have at most 2 decimals")]
    TooManyDecimals,
    /// More digits than any amount needs.
    #[error("is far too large")]
    TooLarge,
}

impl Money {
    /// Nothing.
    pub const ZERO: Self = Self(Decimal::ZERO);

    /// The largest amount that a text may say, 9999999999999999.99. A sum may be larger, but what is
    /// stored as a text has to be at most this.
    pub const MAX: Self = Self::constant(999_999_999_999_999_999);

    /// Takes a decimal as an amount.
    ///
    /// # Errors
    /// [`MoneyError::TooManyDecimals`] when a third decimal is not zero.
    pub fn new(amount: Decimal) -> Result<Self, MoneyError> {
        let amount = amount.normalize();
        if amount.scale() > DECIMALS {
            return Err(MoneyError::TooManyDecimals);
        }
        Ok(Self(amount))
    }

    /// An amount in hundredths.
    #[must_use]
    pub fn from_cents(cents: i64) -> Self {
        Self(Decimal::new(cents, DECIMALS).normalize())
    }

    /// An amount in hundredths, for constants.
    #[must_use]
    #[expect(
        clippy::cast_possible_truncation,
        reason = "the two halves of a number"
    )]
    pub const fn constant(cents: u64) -> Self {
        Self(Decimal::from_parts(
            cents as u32,
            (cents >> 32) as u32,
            0,
            false,
            DECIMALS,
        ))
    }

    /// The amount as a decimal.
    #[must_use]
    pub const fn get(self) -> Decimal {
        self.0
    }

    /// The sum, or `None` past the range of a decimal.
    #[must_use]
    pub fn checked_add(self, other: Self) -> Option<Self> {
        self.0.checked_add(other.0).map(Self)
    }

    /// The difference, or `None` past the range of a decimal.
    #[must_use]
    pub fn checked_sub(self, other: Self) -> Option<Self> {
        self.0.checked_sub(other.0).map(Self)
    }

    /// So many times the amount, or `None` past the range of a decimal.
    #[must_use]
    pub fn checked_times(self, count: u32) -> Option<Self> {
        self.0.checked_mul(Decimal::from(count)).map(Self)
    }

    /// The amount shared by `count`, rounded half away from zero to two decimals; nothing shared
    /// by none is nothing.
    #[must_use]
    pub fn average(self, count: u64) -> Self {
        let share = self.0.checked_div(Decimal::from(count));
        Self(
            share
                .unwrap_or(Decimal::ZERO)
                .round_dp_with_strategy(DECIMALS, RoundingStrategy::MidpointAwayFromZero),
        )
    }
}

impl std::ops::Neg for Money {
    type Output = Self;
    fn neg(self) -> Self {
        Self(-self.0)
    }
}

impl fmt::Display for Money {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:.2}", self.0)
    }
}

impl fmt::Debug for Money {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Money {
    type Err = MoneyError;
    fn from_str(text: &str) -> Result<Self, MoneyError> {
        parse_cents(text).map(Self::from_cents)
    }
}

impl Serialize for Money {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Money {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl<'de> de::Visitor<'de> for Visitor {
            type Value = Money;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an amount: a decimal string or number")
            }
            fn visit_str<E: de::Error>(self, text: &str) -> Result<Money, E> {
                text.parse().map_err(E::custom)
            }
            fn visit_newtype_struct<D: Deserializer<'de>>(self, d: D) -> Result<Money, D::Error> {
                d.deserialize_str(self)
            }
        }
        deserializer.deserialize_newtype_struct(EXACT_NUMBER, Visitor)
    }
}

/// Reads a number of the JSON grammar as hundredths, exactly: what counts is the value, so
/// `1e2`, `0.1e3` and `100.000` are the same amount, and the text's length costs time only.
fn parse_cents(text: &str) -> Result<i64, MoneyError> {
    let (negative, unsigned) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text),
    };
    let (mantissa, exponent) = match unsigned.find(['e', 'E']) {
        Some(at) => (&unsigned[..at], exponent(&unsigned[at + 1..])?),
        None => (unsigned, 0),
    };
    let (whole, fraction) = match mantissa.split_once('.') {
        Some((whole, fraction)) if is_digits(fraction) => (whole, fraction),
        Some(_) => return Err(MoneyError::NotANumber),
        None => (mantissa, ""),
    };
    if !is_digits(whole) || (whole.len() > 1 && whole.starts_with('0')) {
        return Err(MoneyError::NotANumber);
    }

    // The value is `cents * 10^power` hundredths, `cents` without zeros at either end.
    let (mut cents, mut count, mut zeros) = (0_i64, 0_i64, 0_i64);
    for digit in whole.bytes().chain(fraction.bytes()).map(|d| d - b'0') {
        if digit == 0 {
            zeros += i64::from(count > 0);
            continue;
        }
        count += zeros + 1;
        if count <= MAX_TEXT_DIGITS {
            cents = (0..=zeros).fold(cents, |value, _| value * 10) + i64::from(digit);
        }
        zeros = 0;
    }
    if count == 0 {
        return Ok(0);
    }
    let decimals = i64::try_from(fraction.len()).unwrap_or(MAX_EXPONENT);
    let power = exponent - decimals + zeros + i64::from(DECIMALS);
    if power < 0 {
        return Err(MoneyError::TooManyDecimals);
    }
    if count + power > MAX_TEXT_DIGITS {
        return Err(MoneyError::TooLarge);
    }
    let cents = (0..power).fold(cents, |value, _| value * 10);
    Ok(if negative { -cents } else { cents })
}

/// Where an exponent is cut off: beyond every length a request's body can have, so that no digits
/// can bring a number back from there.
const MAX_EXPONENT: i64 = 1 << 40;

fn exponent(text: &str) -> Result<i64, MoneyError> {
    let (negative, digits) = match text.as_bytes().first() {
        Some(b'-') => (true, &text[1..]),
        Some(b'+') => (false, &text[1..]),
        _ => (false, text),
    };
    if !is_digits(digits) {
        return Err(MoneyError::NotANumber);
    }
    let size = digits.bytes().fold(0_i64, |value, digit| {
        (value * 10 + i64::from(digit - b'0')).min(MAX_EXPONENT)
    });
    Ok(if negative { -size } else { size })
}

fn is_digits(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn numbers_are_judged_exactly() {
        for (text, amount) in [
            ("499.50", "499.50"),
            ("1e2", "100.00"),
            ("1E+2", "100.00"),
            ("0.1", "0.10"),
            ("0.1e1", "1.00"),
            ("12300e-4", "1.23"),
            ("99999999.99", "99999999.99"),
            ("100.000", "100.00"),
            ("-0", "0.00"),
            ("-0.00", "0.00"),
            ("0e999999999999999999999", "0.00"),
            ("-1.5", "-1.50"),
            ("9999999999999999.99", "9999999999999999.99"),
            // A binary float would have made this 90071992547409.94.
            ("90071992547409.93", "90071992547409.93"),
            ("1.0000000000000000000000000000000000000000", "1.00"),
        ] {
            let read = text.parse::<Money>().map(|amount| amount.to_string());
            assert_eq!(read.as_deref(), Ok(amount), "{text}");
        }
    }

    #[test]
    fn the_largest_amount_can_be_read_and_the_next_one_cannot() {
        assert_eq!(Money::MAX.to_string().parse(), Ok(Money::MAX));
        let next = Money::MAX.checked_add(Money::from_cents(1)).unwrap();
        let read = next.to_string().parse::<Money>();
        assert_eq!(read, Err(MoneyError::TooLarge));
    }

    #[test]
    fn what_is_no_amount_is_refused_with_its_reason() {
        use MoneyError::{NotANumber, TooLarge, TooManyDecimals};
        for (text, reason) in [
            ("0.001", TooManyDecimals),
            ("1e-3", TooManyDecimals),
            ("99999999.991", TooManyDecimals),
            ("1e-400", TooManyDecimals),
            (
                "1.0000000000000000000000000000000000000001",
                TooManyDecimals,
            ),
            ("1e400", TooLarge),
            ("1e99999999999999999999", TooLarge),
            ("10000000000000000", TooLarge),
            ("", NotANumber),
            (" 1", NotANumber),
            ("+1", NotANumber),
            ("1.", NotANumber),
            (".5", NotANumber),
            ("01", NotANumber),
            ("1e", NotANumber),
            ("1,5", NotANumber),
            ("1_000", NotANumber),
            ("0x1", NotANumber),
            ("NaN", NotANumber),
            ("Infinity", NotANumber),
            ("１", NotANumber),
        ] {
            assert_eq!(text.parse::<Money>(), Err(reason), "{text}");
        }
    }

    #[test]
    fn stored_amounts_are_strings_only() {
        // A JSON number would have gone through a binary float.
        assert!(serde_json::from_str::<Money>("1").is_err());
        let amount: Money = serde_json::from_str("\"1\"").unwrap();
        assert_eq!(serde_json::to_string(&amount).unwrap(), "\"1.00\"");
    }

    #[test]
    fn an_average_rounds_half_away_from_zero() {
        assert_eq!(Money::from_cents(5).average(2), Money::from_cents(3));
        assert_eq!(Money::from_cents(1000).average(3), Money::from_cents(333));
        assert_eq!(Money::from_cents(1000).average(0), Money::ZERO);
    }

    proptest! {
        #[test]
        fn every_amount_comes_back_as_it_was_written(cents in -999_999_999_999_999_999_i64..=999_999_999_999_999_999) {
            let amount = Money::from_cents(cents);
            prop_assert_eq!(amount.to_string().parse::<Money>(), Ok(amount));
            let json = serde_json::to_string(&amount).unwrap();
            prop_assert_eq!(serde_json::from_str::<Money>(&json).unwrap(), amount);
        }

        #[test]
        fn a_number_means_the_same_in_every_spelling(cents in 0_i64..10_000_000_000, shift in 0_usize..40, zeros in 0_usize..30) {
            let plain = Money::from_cents(cents);
            let left = format!("{}.{:02}{}", cents / 100, cents % 100, "0".repeat(zeros));
            prop_assert_eq!(left.parse::<Money>(), Ok(plain));
            let shifted = format!("{cents}{}e-{}", "0".repeat(zeros), 2 + zeros);
            prop_assert_eq!(shifted.parse::<Money>(), Ok(plain));
            // 0.000<cents> times 10^(zeros + digits) are units; two powers fewer make hundredths.
            let digits = format!("{cents:02}");
            let power = shift + digits.len() - 2;
            let small = format!("0.{}{digits}e{power}", "0".repeat(shift));
            prop_assert_eq!(small.parse::<Money>(), Ok(plain));
        }

        #[test]
        fn any_text_is_read_or_refused_without_a_panic(text in "[-+0-9.eE ]{0,40}") {
            if let Ok(amount) = text.parse::<Money>() {
                let exact = Decimal::from_str_exact(&text).or_else(|_| Decimal::from_scientific(&text));
                if let Ok(exact) = exact {
                    prop_assert_eq!(amount.get(), exact.normalize());
                }
            }
        }
    }
}
