//! Query strings, read strictly: decoded exactly, nothing unknown, nothing twice.

use std::borrow::Cow;

use serde::de::DeserializeOwned;

use crate::{
    FieldErrors, Problem,
    fields::{FieldError, Part, push_token},
    json::{Node, from_node},
    problem::types,
};

/// The most parameters that are looked at.
const MAX_PARAMETERS: usize = 64;

/// A query string's parameters, decoded, each once.
#[derive(Debug, Default)]
pub(crate) struct Parameters<'a>(Vec<(Cow<'a, str>, Cow<'a, str>)>);

impl<'a> Parameters<'a> {
    /// Decodes a query string.
    ///
    /// # Errors
    /// 400 when it cannot be decoded, 422 when a parameter stands twice.
    pub fn parse(query: Option<&'a str>) -> Result<Self, Problem> {
        let mut found: Vec<(Cow<'a, str>, Cow<'a, str>)> = Vec::new();
        let pairs = query.unwrap_or_default().split('&');
        for pair in pairs.filter(|pair| !pair.is_empty()) {
            if found.len() == MAX_PARAMETERS {
                return Err(Problem::new(
                    &types::MALFORMED_URL,
                    format!("The query has more than {MAX_PARAMETERS} parameters"),
                ));
            }
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let (Some(name), Some(value)) = (decode(name), decode(value)) else {
                return Err(Problem::new(
                    &types::MALFORMED_URL,
                    "The query is not percent-encoded UTF-8",
                ));
            };
            if found.iter().any(|(other, _)| *other == name) {
                return Err(invalid(&name, "is given twice"));
            }
            found.push((name, value));
        }
        Ok(Self(found))
    }

    /// Takes a parameter out.
    pub fn take(&mut self, name: &str) -> Option<Cow<'a, str>> {
        let at = self.0.iter().position(|(other, _)| other == name)?;
        Some(self.0.swap_remove(at).1)
    }

    /// Refuses a request that has parameters where the route knows none.
    ///
    /// # Errors
    /// 422 with the first of them.
    pub fn none(&self) -> Result<(), Problem> {
        match self.0.first() {
            None => Ok(()),
            Some((name, _)) => Err(invalid(name, "is not known here")),
        }
    }

    /// The parameters that are left, in one order however they were sent.
    pub fn canonical(&self) -> Vec<(&str, &str)> {
        let mut all: Vec<(&str, &str)> = self.0.iter().map(|(n, v)| (&**n, &**v)).collect();
        all.sort_unstable();
        all
    }

    /// Reads the parameters that are left as a type; they are all it may have.
    ///
    /// # Errors
    /// 422 with the parameters that are unknown, missing or wrong.
    pub fn into<T: DeserializeOwned>(self) -> Result<T, Problem> {
        let members = self.0.into_iter();
        let node = Node::Object(
            members
                .map(|(name, value)| (name, Node::Untyped(value)))
                .collect(),
        );
        from_node(&node, Part::Query, true).map_err(Problem::invalid)
    }
}

/// 422 for one parameter.
pub(crate) fn invalid(name: &str, reason: impl Into<Cow<'static, str>>) -> Problem {
    let mut errors = FieldErrors::new();
    let mut pointer = String::new();
    push_token(&mut pointer, name);
    errors.push(FieldError::new(Part::Query, pointer, reason));
    match errors.finish() {
        Err(problem) => problem,
        Ok(()) => Problem::invalid(Vec::new()),
    }
}

/// Decodes `application/x-www-form-urlencoded` text; `None` when an escape is broken or the result
/// is not UTF-8.
fn decode(text: &str) -> Option<Cow<'_, str>> {
    if !text.bytes().any(|b| matches!(b, b'%' | b'+')) {
        return Some(Cow::Borrowed(text));
    }
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        bytes.push(match byte {
            b'+' => b' ',
            b'%' => {
                let mut digit = || char::from(rest.next()?).to_digit(16);
                u8::try_from(digit()? * 16 + digit()?).ok()?
            }
            byte => byte,
        });
    }
    String::from_utf8(bytes).ok().map(Cow::Owned)
}
