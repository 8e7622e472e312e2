use std::{fmt, str::FromStr, sync::Arc};

use serde::{Deserialize, Serialize};

/// A text that cannot name what it should name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{kind} {text:?} is not valid: {rule}")]
pub struct InvalidName {
    kind: &'static str,
    text: String,
    rule: &'static str,
}

/// A bounded context (`ordering`, `banking`, …): the owner of one event log.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(transparent)]
pub struct Context(Arc<str>);

impl Context {
    /// Subject tokens that Millrace uses beside the contexts.
    const RESERVED: [&'static str; 3] = ["dead", "signal", "lease"];

    /// Names a context.
    ///
    /// # Errors
    /// When the text is not 1 to 32 of `a-z 0-9 _` beginning with a letter, or is reserved: it
    /// has to be a NATS subject token and a PostgreSQL schema at once.
    pub fn new(text: &str) -> Result<Self, InvalidName> {
        let ok = text.len() <= 32
            && text.starts_with(|c: char| c.is_ascii_lowercase())
            && text
                .bytes()
                .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_')
            && !Self::RESERVED.contains(&text);
        if ok {
            Ok(Self(text.into()))
        } else {
            Err(InvalidName {
                kind: "context",
                text: text.to_owned(),
                rule: "1 to 32 of a-z 0-9 _, beginning with a letter, not dead, signal or lease",
            })
        }
    }

    /// The context's name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Context {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Context {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for Context {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::new(&text).map_err(serde::de::Error::custom)
    }
}

/// The longest stream id, in bytes: a category, a dash and an entity's id.
const MAX_STREAM_ID_BYTES: usize = 128;

/// The name of one stream of events: `<category>-<entity id>`, such as `order-42`.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(transparent)]
pub struct StreamId(Arc<str>);

impl StreamId {
    /// Names a stream.
    ///
    /// # Errors
    /// When the text is empty, longer than 128 bytes or has a control character.
    pub fn new(text: &str) -> Result<Self, InvalidName> {
        if text.is_empty() || text.len() > MAX_STREAM_ID_BYTES || text.contains(char::is_control) {
            return Err(InvalidName {
                kind: "stream id",
                text: text.chars().take(MAX_STREAM_ID_BYTES).collect(),
                rule: "1 to 128 bytes without control characters",
            });
        }
        Ok(Self(text.into()))
    }

    /// The stream of one entity of a category.
    #[must_use]
    pub fn of(category: &'static str, id: &millrace_kernel::EntityId) -> Self {
        Self(format!("{category}-{id}").into())
    }

    /// The stream's name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The partition this stream's events travel in: FNV-1a (64 bits) of the name over the count.
    /// A stored format: changing it would tear every stream's order apart.
    #[must_use]
    pub fn partition(&self, count: PartitionCount) -> Partition {
        let hash = self
            .0
            .bytes()
            .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
                (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
            });
        // FNV's low bits are weak for short keys that differ in their last byte; fold the high ones in.
        let mixed = hash ^ (hash >> 32);
        Partition(u16::try_from(mixed % u64::from(count.0)).unwrap_or(0))
    }
}

impl fmt::Display for StreamId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for StreamId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for StreamId {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::new(&text).map_err(serde::de::Error::custom)
    }
}

macro_rules! counter {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(u64);

        impl $name {
            /// Before the first.
            pub const ZERO: Self = Self(0);

            /// Takes a number.
            #[must_use]
            pub const fn new(number: u64) -> Self {
                Self(number)
            }

            /// The number.
            #[must_use]
            pub const fn get(self) -> u64 {
                self.0
            }

            /// The number for a store that has signed integers only; it never wraps.
            #[must_use]
            pub fn as_i64(self) -> i64 {
                i64::try_from(self.0).unwrap_or(i64::MAX)
            }

            /// The number as a store gave it; a negative one, which no store of ours holds, is 0.
            #[must_use]
            pub fn from_i64(number: i64) -> Self {
                Self(u64::try_from(number).unwrap_or(0))
            }

            /// The one after this.
            #[must_use]
            pub const fn next(self) -> Self {
                Self(self.0 + 1)
            }

            /// The one `count` after this.
            #[must_use]
            pub const fn plus(self, count: u64) -> Self {
                Self(self.0 + count)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(&self.0, f)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(&self.0, f)
            }
        }

        impl FromStr for $name {
            type Err = std::num::ParseIntError;
            fn from_str(text: &str) -> Result<Self, Self::Err> {
                text.parse().map(Self)
            }
        }
    };
}

counter! {
    /// The place of an event in its context's log: gapless, from 1, in commit order. The same
    /// number is the sequence in the context's JetStream stream, a projection's checkpoint and the
    /// token a reader waits for. 0 is before the first event.
    Position
}

counter! {
    /// The place of an event in its own stream, gapless from 1. 0 is a stream without events.
    StreamVersion
}

counter! {
    /// The life of a log. It rises only when a log that lost its tail starts anew
    /// (`millrace log recover --new-epoch`); positions of different epochs are not comparable.
    Epoch
}

/// One of the lanes that a context's events are spread over; all events of a stream share one.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Partition(u16);

impl Partition {
    /// Takes a partition's number, from 0.
    #[must_use]
    pub const fn new(number: u16) -> Self {
        Self(number)
    }

    /// The partition's number.
    #[must_use]
    pub const fn get(self) -> u16 {
        self.0
    }
}

impl fmt::Display for Partition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

impl fmt::Debug for Partition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

/// How many partitions a context has: 1 to 256, stored in its log head and never changed there.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(transparent)]
pub struct PartitionCount(u16);

impl PartitionCount {
    /// What a new context gets.
    pub const DEFAULT: Self = Self(16);
    /// The most partitions of a context.
    pub const MAX: u16 = 256;

    /// Takes a count.
    ///
    /// # Errors
    /// When it is 0 or above [`PartitionCount::MAX`].
    pub fn new(count: u16) -> Result<Self, InvalidName> {
        if count == 0 || count > Self::MAX {
            return Err(InvalidName {
                kind: "partition count",
                text: count.to_string(),
                rule: "1 to 256",
            });
        }
        Ok(Self(count))
    }

    /// The count.
    #[must_use]
    pub const fn get(self) -> u16 {
        self.0
    }

    /// Every partition, in order.
    pub fn all(self) -> impl Iterator<Item = Partition> + Clone {
        (0..self.0).map(Partition)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Locks the stored format: these values were computed once and may never change.
    #[test]
    fn the_partition_of_a_stream_never_changes() {
        let count = PartitionCount::DEFAULT;
        let of = |text: &str| StreamId::new(text).unwrap().partition(count).get();
        let got: Vec<u16> = ["order-1", "order-2", "order-3", "account-shivam_99"]
            .into_iter()
            .map(of)
            .collect();
        assert_eq!(got, EXPECTED);
    }
    const EXPECTED: [u16; 4] = [2, 11, 8, 8];

    #[test]
    fn streams_spread_over_all_partitions() {
        let count = PartitionCount::DEFAULT;
        let mut seen = [0_u32; 16];
        for n in 0..16_000 {
            let stream = StreamId::new(&format!("order-{n}")).unwrap();
            seen[usize::from(stream.partition(count).get())] += 1;
        }
        assert!(seen.iter().all(|&n| (800..1200).contains(&n)), "{seen:?}");
    }
}
