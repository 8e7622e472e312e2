use std::borrow::Cow;

use serde::Serialize;

use crate::Problem;

/// The most field errors that one answer lists.
pub const MAX_FIELD_ERRORS: usize = 16;

/// The part of a request that a [`FieldError`] points into.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Part {
    /// The JSON body.
    Body,
    /// The query string.
    Query,
    /// The path.
    Path,
    /// The headers.
    Header,
}

/// One thing that is wrong with a request: where it stands and why.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct FieldError {
    #[serde(rename = "in")]
    part: Part,
    pointer: String,
    reason: Cow<'static, str>,
}

impl FieldError {
    /// An error at a JSON pointer (RFC 6901) into a part of the request, such as `/items/0/quantity`
    /// into the body or `/limit` into the query.
    pub fn new(
        part: Part,
        pointer: impl Into<String>,
        reason: impl Into<Cow<'static, str>>,
    ) -> Self {
        Self {
            part,
            pointer: pointer.into(),
            reason: reason.into(),
        }
    }

    /// The JSON pointer.
    #[must_use]
    pub fn pointer(&self) -> &str {
        &self.pointer
    }

    /// Why it is wrong.
    #[must_use]
    pub fn reason(&self) -> &str {
        &self.reason
    }

    /// The pointer, or the part's name where the whole part is meant.
    pub(crate) fn place(&self) -> &str {
        match (self.pointer.as_str(), self.part) {
            ("", Part::Body) => "body",
            ("", Part::Query) => "query",
            ("", Part::Path) => "path",
            ("", Part::Header) => "headers",
            (pointer, _) => pointer,
        }
    }
}

/// Collects everything that is wrong with a body before refusing it, so that a client can mend it
/// in one go.
#[derive(Debug, Default)]
pub struct FieldErrors(Vec<FieldError>);

impl FieldErrors {
    /// Nothing wrong yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Notes an error at a JSON pointer into the body. Beyond [`MAX_FIELD_ERRORS`] it is dropped.
    pub fn add(&mut self, pointer: impl Into<String>, reason: impl Into<Cow<'static, str>>) {
        self.push(FieldError::new(Part::Body, pointer, reason));
    }

    /// Notes an error in any part of the request.
    pub fn push(&mut self, error: FieldError) {
        if self.0.len() < MAX_FIELD_ERRORS {
            self.0.push(error);
        }
    }

    /// Notes an error unless the rule holds.
    pub fn check(
        &mut self,
        holds: bool,
        pointer: impl Into<String>,
        reason: impl Into<Cow<'static, str>>,
    ) {
        if !holds {
            self.add(pointer, reason);
        }
    }

    /// Notes an error when a text has more than `most` characters.
    pub fn at_most_chars(&mut self, pointer: &str, text: &str, most: usize) {
        // No text has more characters than bytes, so the count is seldom needed.
        if text.len() > most && text.chars().count() > most {
            self.add(pointer, format!("must have at most {most} characters"));
        }
    }

    /// Whether nothing is wrong.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Ends the check.
    ///
    /// # Errors
    /// The 422 problem, when anything was noted.
    pub fn finish(self) -> Result<(), Problem> {
        if self.0.is_empty() {
            Ok(())
        } else {
            Err(Problem::invalid(self.0))
        }
    }
}

/// The most characters of one name that an answer repeats.
const MAX_TOKEN_CHARS: usize = 64;

/// Appends a reference token to a JSON pointer, escaped as RFC 6901 says. A name longer than any
/// of ours is cut, so that an answer never repeats a whole body.
pub(crate) fn push_token(pointer: &mut String, token: &str) {
    pointer.push('/');
    for (index, c) in token.chars().enumerate() {
        match c {
            _ if index == MAX_TOKEN_CHARS => {
                pointer.push('…');
                break;
            }
            '~' => pointer.push_str("~0"),
            '/' => pointer.push_str("~1"),
            c => pointer.push(c),
        }
    }
}
