//! Deserialises a type from a tree, keeping the JSON pointer of what is wrong.
//!
//! A type's own deserialiser stops at its first error. To find the others, the value at fault is
//! replaced by a stand-in that suits most types, and the type is tried again; what comes of it is
//! thrown away. Only requests that are refused pay for that.

use std::{borrow::Cow, fmt};

use millrace_kernel::EXACT_NUMBER;
use serde::de::{
    self, DeserializeOwned, Deserializer, Unexpected, Visitor, value::StrDeserializer,
};

use super::{
    access::{Items, Members, Variant},
    parse::Node,
    stand_in::STAND_IN_TEXTS,
};
use crate::fields::{FieldError, MAX_FIELD_ERRORS, Part, push_token};

/// Deserialises `T`, or says what is wrong with the tree: everything, at most
/// [`MAX_FIELD_ERRORS`], where `all` is set, else the first thing.
pub(crate) fn from_node<T: DeserializeOwned>(
    node: &Node<'_>,
    part: Part,
    all: bool,
) -> Result<T, Vec<FieldError>> {
    let mut found = match T::deserialize(Value { node, known: None }) {
        Ok(value) => return Ok(value),
        Err(error) => error,
    };
    let mut faults: Vec<Fault> = Vec::new();
    while note(&mut faults, found) && all && faults.len() < MAX_FIELD_ERRORS {
        let again = match faults.iter().find(|fault| fault.pointer.is_empty()) {
            // The whole value is at fault: nothing inside it can be judged.
            Some(_) => break,
            None => T::deserialize(Value {
                node,
                known: Some(Known {
                    faults: &faults,
                    pointer: String::new(),
                }),
            }),
        };
        match again {
            Ok(_) => break,
            Err(error) => found = error,
        }
    }
    Err(faults
        .into_iter()
        .map(|fault| FieldError::new(part, fault.pointer, fault.reason))
        .collect())
}

/// A value that is known to be wrong.
pub(super) struct Fault {
    pointer: String,
    reason: Cow<'static, str>,
    /// Which stand-in text suits its type, as far as is known.
    pub(super) stand_in: usize,
}

/// Keeps an error; false when there is nothing more to learn from trying again.
fn note(faults: &mut Vec<Fault>, error: Error) -> bool {
    let pointer = error.pointer();
    match faults.iter_mut().find(|fault| fault.pointer == pointer) {
        Some(fault) => {
            fault.stand_in += 1;
            fault.stand_in < STAND_IN_TEXTS.len()
        }
        None => {
            faults.push(Fault {
                pointer,
                reason: error.reason,
                stand_in: 0,
            });
            true
        }
    }
}

/// An error on its way up: the tokens of its pointer are gathered from the inside out.
#[derive(Debug)]
pub(crate) struct Error {
    tokens: Vec<Token>,
    reason: Cow<'static, str>,
}

#[derive(Debug)]
enum Token {
    Key(String),
    Index(usize),
}

impl Error {
    pub(super) fn new(reason: impl Into<Cow<'static, str>>) -> Self {
        Self {
            tokens: Vec::new(),
            reason: reason.into(),
        }
    }

    pub(super) fn at_key(mut self, key: &str) -> Self {
        self.tokens.push(Token::Key(key.to_owned()));
        self
    }

    pub(super) fn at_index(mut self, index: usize) -> Self {
        self.tokens.push(Token::Index(index));
        self
    }

    fn pointer(&self) -> String {
        let mut pointer = String::new();
        for token in self.tokens.iter().rev() {
            match token {
                Token::Key(key) => push_token(&mut pointer, key),
                Token::Index(index) => push_token(&mut pointer, &index.to_string()),
            }
        }
        pointer
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.reason)
    }
}

impl std::error::Error for Error {}

impl de::Error for Error {
    fn custom<T: fmt::Display>(message: T) -> Self {
        Self::new(message.to_string())
    }

    fn invalid_type(_: Unexpected<'_>, expected: &dyn de::Expected) -> Self {
        Self::new(format!("must be {}", in_words(&expected.to_string())))
    }

    fn invalid_value(_: Unexpected<'_>, expected: &dyn de::Expected) -> Self {
        Self::new(format!("must be {}", in_words(&expected.to_string())))
    }

    fn invalid_length(length: usize, expected: &dyn de::Expected) -> Self {
        Self::new(format!("has {length} members, expected {expected}"))
    }

    fn unknown_variant(_: &str, expected: &'static [&'static str]) -> Self {
        Self::new(format!("must be one of {}", expected.join(", ")))
    }

    fn unknown_field(field: &str, _: &'static [&'static str]) -> Self {
        Self::new("is not known here").at_key(field)
    }

    fn missing_field(field: &'static str) -> Self {
        Self::new("is required").at_key(field)
    }

    fn duplicate_field(field: &'static str) -> Self {
        Self::new("is given twice").at_key(field)
    }
}

/// What a Rust type calls itself, in the words of somebody who sends JSON.
fn in_words(expected: &str) -> Cow<'_, str> {
    let most = match expected {
        "u8" => return "a whole number from 0 to 255".into(),
        "u16" => return "a whole number from 0 to 65535".into(),
        "u32" => u64::from(u32::MAX),
        "u64" | "usize" => u64::MAX,
        "i8" | "i16" | "i32" | "i64" | "isize" => return "a whole number within range".into(),
        "f32" | "f64" => return "a number".into(),
        "a sequence" => return "an array".into(),
        "a map" => return "an object".into(),
        "unit" => return "null".into(),
        other if other.starts_with("struct ") => return "an object".into(),
        other if other.starts_with("enum ") => return "a string".into(),
        other => return other.into(),
    };
    format!("a whole number from 0 to {most}").into()
}

pub(super) const NUL: &str = "must not contain the character U+0000";

/// The faults of earlier attempts, and where in the tree this attempt stands.
#[derive(Clone)]
pub(super) struct Known<'n> {
    faults: &'n [Fault],
    pointer: String,
}

impl<'n> Known<'n> {
    pub(super) fn below(&self, token: &str) -> Self {
        let mut pointer = self.pointer.clone();
        push_token(&mut pointer, token);
        Self {
            faults: self.faults,
            pointer,
        }
    }

    pub(super) fn fault(&self) -> Option<&'n Fault> {
        self.faults
            .iter()
            .find(|fault| fault.pointer == self.pointer)
    }
}

pub(super) struct Value<'n> {
    pub(super) node: &'n Node<'n>,
    pub(super) known: Option<Known<'n>>,
}

impl Value<'_> {
    fn wrong<T>(&self, expected: &dyn de::Expected) -> Result<T, Error> {
        Err(de::Error::invalid_type(Unexpected::Unit, expected))
    }

    /// The value's text where it is a string.
    fn text(&self) -> Result<Option<&str>, Error> {
        match self.node {
            Node::String(text) | Node::Untyped(text) if text.contains('\0') => Err(Error::new(NUL)),
            Node::String(text) | Node::Untyped(text) => Ok(Some(text)),
            _ => Ok(None),
        }
    }

    /// Gives a whole number to the visitor, which judges its range.
    fn integer<'de, V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        let (Node::Number(text) | Node::Untyped(Cow::Borrowed(text))) = self.node else {
            if let Node::Untyped(text) = self.node {
                return visit_integer(text, visitor);
            }
            return self.wrong(&visitor);
        };
        visit_integer(text, visitor)
    }

    pub(super) fn object<'de, V: Visitor<'de>>(
        self,
        fields: Option<&'static [&'static str]>,
        visitor: V,
    ) -> Result<V::Value, Error> {
        let Node::Object(members) = self.node else {
            return self.wrong(&visitor);
        };
        visitor.visit_map(Members::new(members, fields, self.known)?)
    }

    pub(super) fn array<'de, V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        let Node::Array(items) = self.node else {
            return self.wrong(&visitor);
        };
        visitor.visit_seq(Items::new(items, self.known))
    }
}

fn visit_integer<'de, V: Visitor<'de>>(text: &str, visitor: V) -> Result<V::Value, Error> {
    let digits = text.strip_prefix('-').unwrap_or(text);
    let whole = !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit());
    if whole && let Ok(number) = text.parse::<u64>() {
        visitor.visit_u64(number)
    } else if whole
        && let Ok(number) = text.parse::<i64>()
        && number != 0
    {
        visitor.visit_i64(number)
    } else {
        Err(de::Error::invalid_value(
            Unexpected::Other("number"),
            &visitor,
        ))
    }
}

macro_rules! integers {
    ($($method:ident)*) => {$(
        fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
            self.integer(visitor)
        }
    )*};
}

macro_rules! texts {
    ($($method:ident)*) => {$(
        fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
            match self.text()? {
                Some(text) => visitor.visit_str(text),
                None => self.wrong(&visitor),
            }
        }
    )*};
}

impl<'de> Deserializer<'de> for Value<'_> {
    type Error = Error;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        match self.node {
            Node::Null => visitor.visit_unit(),
            Node::Bool(value) => visitor.visit_bool(*value),
            Node::String(_) | Node::Untyped(_) => self.deserialize_str(visitor),
            Node::Array(_) => self.array(visitor),
            Node::Object(_) => self.object(None, visitor),
            Node::Number(text) => {
                if let Ok(number) = text.parse::<u64>() {
                    visitor.visit_u64(number)
                } else if let Some(number) = text.parse::<i64>().ok().filter(|&n| n != 0) {
                    visitor.visit_i64(number)
                } else if let Ok(number) = text.parse::<u128>() {
                    visitor.visit_u128(number)
                } else {
                    self.deserialize_f64(visitor)
                }
            }
        }
    }

    integers! {
        deserialize_i8 deserialize_i16 deserialize_i32 deserialize_i64 deserialize_i128
        deserialize_u8 deserialize_u16 deserialize_u32 deserialize_u64 deserialize_u128
    }

    texts! { deserialize_str deserialize_string deserialize_char deserialize_identifier }

    fn deserialize_f32<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        self.deserialize_f64(visitor)
    }

    fn deserialize_f64<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        match self.node {
            Node::Number(text) => match text.parse::<f64>() {
                Ok(number) if number.is_finite() => visitor.visit_f64(number),
                _ => Err(Error::new("is too large a number")),
            },
            _ => self.wrong(&visitor),
        }
    }

    fn deserialize_bool<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        match self.node {
            Node::Bool(value) => visitor.visit_bool(*value),
            Node::Untyped(text) if text == "true" => visitor.visit_bool(true),
            Node::Untyped(text) if text == "false" => visitor.visit_bool(false),
            Node::Untyped(_) => Err(Error::new("must be true or false")),
            _ => self.wrong(&visitor),
        }
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        match self.node {
            Node::Null => visitor.visit_none(),
            _ => visitor.visit_some(self),
        }
    }

    fn deserialize_unit<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        match self.node {
            Node::Null => visitor.visit_unit(),
            _ => self.wrong(&visitor),
        }
    }

    fn deserialize_unit_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        visitor: V,
    ) -> Result<V::Value, Error> {
        self.deserialize_unit(visitor)
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        visitor: V,
    ) -> Result<V::Value, Error> {
        match self.node {
            Node::Number(text) if name == EXACT_NUMBER => visitor.visit_str(text),
            _ if name == EXACT_NUMBER => self.deserialize_str(visitor),
            _ => visitor.visit_newtype_struct(self),
        }
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        self.array(visitor)
    }

    fn deserialize_tuple<V: Visitor<'de>>(self, _: usize, visitor: V) -> Result<V::Value, Error> {
        self.array(visitor)
    }

    fn deserialize_tuple_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: usize,
        visitor: V,
    ) -> Result<V::Value, Error> {
        self.array(visitor)
    }

    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        self.object(None, visitor)
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        self.object(Some(fields), visitor)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        if let Some(text) = self.text()? {
            return visitor.visit_enum(StrDeserializer::new(text));
        }
        match self.node {
            Node::Object(members) if members.len() == 1 => visitor.visit_enum(Variant {
                name: &members[0].0,
                value: Value {
                    node: &members[0].1,
                    known: self.known.map(|known| known.below(&members[0].0)),
                },
            }),
            _ => self.wrong(&visitor),
        }
    }

    fn deserialize_bytes<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        self.deserialize_str(visitor)
    }

    fn deserialize_byte_buf<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        self.deserialize_str(visitor)
    }

    fn deserialize_ignored_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_unit()
    }
}
