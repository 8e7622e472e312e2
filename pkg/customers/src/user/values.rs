//! What a user is described by, checked before anything is decided.

use std::str::FromStr;

use millrace_contracts::customers::Address;

/// The longest name of a user, in characters.
pub const MAX_USER_NAME_CHARS: usize = 100;
/// The longest e-mail address, in characters: what fits the envelope of a mail (RFC 5321).
pub const MAX_EMAIL_CHARS: usize = 254;
/// The longest part of an e-mail address before its `@`, in characters.
const MAX_LOCAL_CHARS: usize = 64;
/// The longest label of a domain, in characters.
const MAX_LABEL_CHARS: usize = 63;
/// The longest street, city or state of an address, in characters.
pub const MAX_PART_CHARS: usize = 200;
/// The longest postal code, in characters.
pub const MAX_ZIP_CHARS: usize = 20;
/// The longest address in one text, in characters.
pub const MAX_ADDRESS_CHARS: usize = 1_000;

/// A user's name: 1 to [`MAX_USER_NAME_CHARS`] characters, not all of them blank.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UserName(String);

/// A text that is no name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InvalidUserName {
    /// There is nothing in it.
    #[error("must not be empty")]
    Empty,
    /// It is too long.
    #[error("must have at most {MAX_USER_NAME_CHARS} characters")]
    TooLong,
}

impl UserName {
    /// Takes a name.
    ///
    /// # Errors
    /// See [`InvalidUserName`].
    pub fn new(text: impl Into<String>) -> Result<Self, InvalidUserName> {
        let text = text.into();
        if text.trim().is_empty() {
            return Err(InvalidUserName::Empty);
        }
        if is_longer(&text, MAX_USER_NAME_CHARS) {
            return Err(InvalidUserName::TooLong);
        }
        Ok(Self(text))
    }

    /// The name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// An e-mail address as web forms take it (the rule of HTML's `input type=email`), with a dot only
/// between other characters before its `@`: ASCII, no quotes, no comments. An international domain
/// is written in its ASCII form. Two addresses that differ in the case of letters are one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Email(String);

/// A text that is no e-mail address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "must be an e-mail address such as alice@example.com, at most {MAX_EMAIL_CHARS} characters"
)]
pub struct InvalidEmail;

impl Email {
    /// The address as its user writes it.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The form in which addresses are compared. Stored format: reservations hold it.
    #[must_use]
    pub fn folded(email: &str) -> String {
        email.to_ascii_lowercase()
    }
}

impl FromStr for Email {
    type Err = InvalidEmail;
    fn from_str(text: &str) -> Result<Self, InvalidEmail> {
        let (local, domain) = text.split_once('@').ok_or(InvalidEmail)?;
        let plain = |b: u8| b.is_ascii_alphanumeric() || b"!#$%&'*+/=?^_`{|}~-".contains(&b);
        let is_atom = |atom: &str| !atom.is_empty() && atom.bytes().all(plain);
        let is_label = |label: &str| {
            (1..=MAX_LABEL_CHARS).contains(&label.len())
                && label
                    .bytes()
                    .all(|b| b.is_ascii_alphanumeric() || b == b'-')
                && !label.starts_with('-')
                && !label.ends_with('-')
        };
        let is_email = text.len() <= MAX_EMAIL_CHARS
            && local.len() <= MAX_LOCAL_CHARS
            && local.split('.').all(is_atom)
            && domain.split('.').all(is_label);
        is_email.then(|| Self(text.to_owned())).ok_or(InvalidEmail)
    }
}

/// The address of a user's account, checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UserAddress(Address);

/// A text that is no address, or no part of one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InvalidAddress {
    /// There is nothing in it.
    #[error("must not be empty")]
    Empty,
    /// It is too long.
    #[error("must have at most {most} characters")]
    TooLong {
        /// How many it may have.
        most: usize,
    },
}

impl UserAddress {
    /// Takes an address.
    ///
    /// # Errors
    /// Every field that is wrong, by its name.
    pub fn new(address: Address) -> Result<Self, Vec<(&'static str, InvalidAddress)>> {
        let fields = match &address {
            Address::Parts {
                street,
                city,
                state,
                zip,
            } => vec![
                ("street", street, MAX_PART_CHARS),
                ("city", city, MAX_PART_CHARS),
                ("state", state, MAX_PART_CHARS),
                ("zip", zip, MAX_ZIP_CHARS),
            ],
            Address::Text { address } => vec![("address", address, MAX_ADDRESS_CHARS)],
        };
        let wrong: Vec<_> = fields
            .into_iter()
            .filter_map(|(name, text, most)| {
                if text.trim().is_empty() {
                    Some((name, InvalidAddress::Empty))
                } else if is_longer(text, most) {
                    Some((name, InvalidAddress::TooLong { most }))
                } else {
                    None
                }
            })
            .collect();
        if wrong.is_empty() {
            Ok(Self(address))
        } else {
            Err(wrong)
        }
    }

    /// The address.
    #[must_use]
    pub const fn get(&self) -> &Address {
        &self.0
    }
}

fn is_longer(text: &str, most: usize) -> bool {
    // No text has more characters than bytes, so the count is seldom needed.
    text.len() > most && text.chars().count() > most
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_one_that_a_mail_can_go_to() {
        for good in [
            "alice@demo.com",
            "Alice.O'Neil+orders@Demo.CO.UK",
            "a@b",
            "1@1.2",
            &format!("{}@{}.de", "l".repeat(64), "d".repeat(63)),
        ] {
            assert!(good.parse::<Email>().is_ok(), "{good}");
        }
        for bad in [
            "",
            "alice",
            "@demo.com",
            "alice@",
            "alice@demo..com",
            "alice@.com",
            "alice@demo.com.",
            "alice@-demo.com",
            "alice@demo-.com",
            ".alice@demo.com",
            "alice.@demo.com",
            "al..ice@demo.com",
            "alice@demo@com",
            "al ice@demo.com",
            " alice@demo.com",
            "alice@demo.com\n",
            "\"al ice\"@demo.com",
            "alice@[127.0.0.1]",
            "älice@demo.com",
            "alice@dämo.com",
            "Alice <alice@demo.com>",
            &format!("{}@demo.com", "l".repeat(65)),
            &format!("a@{}.de", "d".repeat(64)),
            &format!("a@{}de", "d.".repeat(126)),
        ] {
            assert_eq!(bad.parse::<Email>(), Err(InvalidEmail), "{bad:?}");
        }
        assert_eq!(Email::folded("Alice@Demo.COM"), "alice@demo.com");
    }

    #[test]
    fn a_name_has_something_in_it() {
        assert!(UserName::new("é".repeat(100)).is_ok());
        assert_eq!(
            UserName::new("é".repeat(101)),
            Err(InvalidUserName::TooLong)
        );
        for blank in ["", " ", "\n\u{3000}"] {
            assert_eq!(UserName::new(blank), Err(InvalidUserName::Empty));
        }
    }
}
