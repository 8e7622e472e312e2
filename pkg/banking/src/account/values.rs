//! The values an account is made of, checked where they enter so that what is illegal cannot be
//! built. Stored events are not checked against these again: a limit may become narrower later.

use std::{borrow::Cow, fmt, str::FromStr};

use millrace_kernel::Money;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// The most that one movement may move, 999999999999.99.
pub const MAX_MOVEMENT: Money = Money::constant(99_999_999_999_999);
/// The most that an account may hold, 9999999999999999.99: ten thousand of the largest movements,
/// and the largest amount that a text may say.
pub const MAX_BALANCE: Money = Money::MAX;
/// The longest name of a holder, in characters.
pub const MAX_HOLDER_NAME_CHARS: usize = 200;
/// The longest description of a movement, in characters.
pub const MAX_DESCRIPTION_CHARS: usize = 500;
/// The longest reason for closing an account, in characters.
pub const MAX_REASON_CHARS: usize = 500;

/// What an account is kept in: a code of ISO 4217, three capital letters. Stored format.
///
/// An account can be opened in the currencies of [`Currency::TAKEN`]; a stored code that is not
/// among them (any more, or not yet in this release) is read all the same.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Currency([u8; Self::LETTERS]);

/// A text that is no currency an account can be kept in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InvalidCurrency {
    /// It is not three capital letters.
    #[error("must be a currency code of 3 capital letters, such as USD")]
    NotACode,
    /// No account is kept in it.
    #[error("must be one of {}", TakenCodes)]
    NotTaken,
}

impl Currency {
    /// How many letters a code has.
    const LETTERS: usize = 3;

    /// US dollars, the currency of an account whose opening names none.
    pub const USD: Self = Self(*b"USD");

    /// The currencies in which an account can be opened, each with its decimals: the minor units of
    /// ISO 4217. Those with three (such as KWD) are not taken, since an amount has at most two.
    pub const TAKEN: [(Self, u32); 20] = [
        (Self(*b"AUD"), 2),
        (Self(*b"BRL"), 2),
        (Self(*b"CAD"), 2),
        (Self(*b"CHF"), 2),
        (Self(*b"CNY"), 2),
        (Self(*b"CZK"), 2),
        (Self(*b"DKK"), 2),
        (Self(*b"EUR"), 2),
        (Self(*b"GBP"), 2),
        (Self(*b"HKD"), 2),
        (Self(*b"INR"), 2),
        (Self(*b"JPY"), 0),
        (Self(*b"KRW"), 0),
        (Self(*b"MXN"), 2),
        (Self(*b"NOK"), 2),
        (Self(*b"NZD"), 2),
        (Self(*b"PLN"), 2),
        (Self(*b"SEK"), 2),
        (Self::USD, 2),
        (Self(*b"ZAR"), 2),
    ];

    /// The decimals of a currency that is not in the list.
    const OTHER_DECIMALS: u32 = 2;

    /// The code.
    #[must_use]
    pub fn as_str(&self) -> &str {
        // Only capital letters are ever put in.
        std::str::from_utf8(&self.0).unwrap_or_default()
    }

    /// How many decimals an amount in it may have.
    #[must_use]
    pub fn decimals(self) -> u32 {
        Self::TAKEN
            .into_iter()
            .find(|(taken, _)| *taken == self)
            .map_or(Self::OTHER_DECIMALS, |(_, decimals)| decimals)
    }

    /// Whether an account can be opened in it.
    #[must_use]
    pub fn is_taken(self) -> bool {
        Self::TAKEN.into_iter().any(|(taken, _)| taken == self)
    }

    /// Whether an amount has no more decimals than the currency.
    #[must_use]
    pub fn can_express(self, amount: Money) -> bool {
        amount.get().normalize().scale() <= self.decimals()
    }

    /// Takes a code as it is stored, whether an account can be opened in it or not.
    ///
    /// # Errors
    /// [`InvalidCurrency::NotACode`] when it is not three capital letters.
    pub fn stored(text: &str) -> Result<Self, InvalidCurrency> {
        match <[u8; Self::LETTERS]>::try_from(text.as_bytes()) {
            Ok(letters) if letters.iter().all(u8::is_ascii_uppercase) => Ok(Self(letters)),
            _ => Err(InvalidCurrency::NotACode),
        }
    }
}

/// The codes of [`Currency::TAKEN`], for a message.
struct TakenCodes;

impl fmt::Display for TakenCodes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, (currency, _)) in Currency::TAKEN.into_iter().enumerate() {
            let comma = if index == 0 { "" } else { ", " };
            write!(f, "{comma}{currency}")?;
        }
        Ok(())
    }
}

impl FromStr for Currency {
    type Err = InvalidCurrency;
    fn from_str(text: &str) -> Result<Self, InvalidCurrency> {
        let currency = Self::stored(text)?;
        if currency.is_taken() {
            Ok(currency)
        } else {
            Err(InvalidCurrency::NotTaken)
        }
    }
}

impl fmt::Display for Currency {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Debug for Currency {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Serialize for Currency {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

impl<'de> Deserialize<'de> for Currency {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = Cow::<'de, str>::deserialize(deserializer)?;
        Self::stored(&text).map_err(de::Error::custom)
    }
}

impl JsonSchema for Currency {
    fn inline_schema() -> bool {
        true
    }
    fn schema_name() -> Cow<'static, str> {
        "Currency".into()
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "pattern": "^[A-Z]{3}$" })
    }
}

/// What one movement moves: above 0 and at most [`MAX_MOVEMENT`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Amount(Money);

/// A sum that no movement can move.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InvalidAmount {
    /// It is nothing or less.
    #[error("must be above 0")]
    NotPositive,
    /// It is too much.
    #[error("must be at most {MAX_MOVEMENT}")]
    TooLarge,
}

impl Amount {
    /// Takes a sum.
    ///
    /// # Errors
    /// [`InvalidAmount`] when it is not above 0 and at most [`MAX_MOVEMENT`].
    pub fn new(sum: Money) -> Result<Self, InvalidAmount> {
        if sum <= Money::ZERO {
            return Err(InvalidAmount::NotPositive);
        }
        if sum > MAX_MOVEMENT {
            return Err(InvalidAmount::TooLarge);
        }
        Ok(Self(sum))
    }

    /// The sum.
    #[must_use]
    pub const fn get(self) -> Money {
        self.0
    }
}
