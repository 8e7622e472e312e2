use std::{fmt, str::FromStr};

use serde::{Deserialize, Deserializer, Serialize, de};

/// The longest identifier a caller may choose, in bytes.
pub const MAX_ID_BYTES: usize = 64;

/// An identifier as the HTTP contract allows it: 1 to [`MAX_ID_BYTES`] of `A-Z a-z 0-9 _ . : -`,
/// beginning and ending with a letter or digit. `1` and `"1"` are the same identifier; it is
/// always stored and answered as text.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(transparent)]
pub struct EntityId(String);

/// Why a text is not an identifier.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "must be 1 to {MAX_ID_BYTES} of A-Z a-z 0-9 _ . : -, beginning and ending with a letter or digit"
)]
pub struct InvalidId;

impl EntityId {
    /// Takes a text as an identifier.
    ///
    /// # Errors
    /// [`InvalidId`] when the text is empty, too long or has a character outside the set.
    pub fn new(text: impl Into<String>) -> Result<Self, InvalidId> {
        let text = text.into();
        let bytes = text.as_bytes();
        let inner = |b: &u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b':' | b'-');
        let (Some(first), Some(last)) = (bytes.first(), bytes.last()) else {
            return Err(InvalidId);
        };
        if bytes.len() > MAX_ID_BYTES
            || !first.is_ascii_alphanumeric()
            || !last.is_ascii_alphanumeric()
            || !bytes.iter().all(inner)
        {
            return Err(InvalidId);
        }
        Ok(Self(text))
    }

    /// A fresh identifier, a UUIDv7. For edges only: decisions take ids as data.
    #[must_use]
    #[expect(
        clippy::disallowed_methods,
        reason = "one of the two places that make ids"
    )]
    pub fn generate() -> Self {
        Self::from_uuid(uuid::Uuid::now_v7())
    }

    /// The identifier of a generated UUID.
    #[must_use]
    pub fn from_uuid(id: uuid::Uuid) -> Self {
        Self(id.to_string())
    }

    /// The identifier's text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for EntityId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for EntityId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.0)
    }
}

impl FromStr for EntityId {
    type Err = InvalidId;
    fn from_str(s: &str) -> Result<Self, Self::Err> {
        Self::new(s)
    }
}

impl<'de> Deserialize<'de> for EntityId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl de::Visitor<'_> for Visitor {
            type Value = EntityId;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an id: a string or an integer")
            }
            fn visit_str<E: de::Error>(self, text: &str) -> Result<EntityId, E> {
                EntityId::new(text).map_err(E::custom)
            }
            fn visit_u64<E: de::Error>(self, number: u64) -> Result<EntityId, E> {
                EntityId::new(number.to_string()).map_err(E::custom)
            }
            fn visit_u128<E: de::Error>(self, number: u128) -> Result<EntityId, E> {
                EntityId::new(number.to_string()).map_err(E::custom)
            }
            fn visit_i64<E: de::Error>(self, number: i64) -> Result<EntityId, E> {
                EntityId::new(number.to_string()).map_err(E::custom)
            }
        }
        deserializer.deserialize_any(Visitor)
    }
}

/// Declares a kind of identifier: a type of its own around [`EntityId`](crate::EntityId), so that
/// the id of one thing is never taken for that of another. It is stored as the id's text. The
/// crate that uses it depends on `serde` and `schemars`.
#[macro_export]
macro_rules! id_type {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(
            Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord,
            ::serde::Serialize, ::serde::Deserialize, ::schemars::JsonSchema,
        )]
        #[serde(transparent)]
        pub struct $name($crate::EntityId);

        impl $name {
            /// Takes an id.
            #[must_use]
            pub const fn new(id: $crate::EntityId) -> Self {
                Self(id)
            }

            /// The id without its kind.
            #[must_use]
            pub const fn get(&self) -> &$crate::EntityId {
                &self.0
            }

            /// The id's text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                self.0.as_str()
            }
        }

        impl ::std::fmt::Display for $name {
            fn fmt(&self, f: &mut ::std::fmt::Formatter<'_>) -> ::std::fmt::Result {
                ::std::fmt::Display::fmt(&self.0, f)
            }
        }
    };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn integers_and_strings_name_the_same_entity() {
        let a: EntityId = serde_json::from_str("1").unwrap();
        let b: EntityId = serde_json::from_str("\"1\"").unwrap();
        assert_eq!(a, b);
        assert_eq!(serde_json::to_string(&a).unwrap(), "\"1\"");
    }

    #[test]
    fn the_character_set_is_closed() {
        for good in ["a", "shivam_99", "A.b:c-d", "0", &"x".repeat(64)] {
            assert!(EntityId::new(good).is_ok(), "{good}");
        }
        for bad in [
            "",
            "-a",
            "a-",
            ".",
            "a b",
            "a/b",
            "é",
            "a\0b",
            &"x".repeat(65),
        ] {
            assert!(EntityId::new(bad).is_err(), "{bad:?}");
        }
        assert!(serde_json::from_str::<EntityId>("-1").is_err());
        assert!(serde_json::from_str::<EntityId>("1.5").is_err());
        assert!(serde_json::from_str::<EntityId>("null").is_err());
    }
}
