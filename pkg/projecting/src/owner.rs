use std::fmt;

use serde::Serialize;

use crate::error::StoreError;

/// The most characters of an [`Owner`].
const MAX_OWNER_CHARS: usize = 64;

/// Whose a rebuild's generation or a run over dead letters is: the UID of a Replay, or a name that a
/// tool made. It is what makes a beginning repeatable, and a Replay made anew never adopts another
/// one's work.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(transparent)]
pub struct Owner(String);

impl Owner {
    /// Takes a name.
    ///
    /// # Errors
    /// [`StoreError::Invalid`] when it is not 1 to 64 of `a-z 0-9 -`.
    pub fn new(text: &str) -> Result<Self, StoreError> {
        let ok = (1..=MAX_OWNER_CHARS).contains(&text.len())
            && text
                .bytes()
                .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-');
        if ok {
            return Ok(Self(text.to_owned()));
        }
        Err(StoreError::Invalid(format!(
            "the owner of a replay {text:?} is not 1 to {MAX_OWNER_CHARS} of a-z 0-9 -"
        )))
    }

    /// The name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Owner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
