//! Reads JSON text (RFC 8259) into a tree that borrows from it.
//!
//! A reader of our own because it must say more than a value: numbers stay as they were written, so
//! that money never passes through a binary float; a key given twice, nesting beyond a bound and
//! lone surrogates are refused; and every refusal has a line and a column.

use std::{borrow::Cow, collections::HashSet, fmt};

/// The deepest nesting of arrays and objects that is read.
pub(crate) const MAX_DEPTH: usize = 32;
/// Objects with more keys than this look for duplicates by hash, smaller ones by comparing.
const LINEAR_KEYS: usize = 16;

/// A JSON value as it was written.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Node<'a> {
    Null,
    Bool(bool),
    /// The number's own text.
    Number(&'a str),
    String(Cow<'a, str>),
    Array(Vec<Node<'a>>),
    Object(Vec<(Cow<'a, str>, Node<'a>)>),
    /// A text without a type, as a query string has it: whatever it can be read as.
    Untyped(Cow<'a, str>),
}

/// Why a text is not JSON, and where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SyntaxError {
    pub what: &'static str,
    pub line: usize,
    pub column: usize,
}

impl fmt::Display for SyntaxError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { what, line, column } = self;
        write!(f, "{what} at line {line}, column {column}")
    }
}

/// Reads a whole text.
pub(crate) fn parse(bytes: &[u8]) -> Result<Node<'_>, SyntaxError> {
    let text = match std::str::from_utf8(bytes) {
        Ok(text) => text,
        Err(error) => {
            let valid = &bytes[..error.valid_up_to()];
            return Err(locate(valid, valid.len(), "the text is not valid UTF-8"));
        }
    };
    let mut reader = Reader { text, at: 0 };
    reader
        .document()
        .map_err(|what| locate(bytes, reader.at, what))
}

fn locate(bytes: &[u8], at: usize, what: &'static str) -> SyntaxError {
    let before = &bytes[..at.min(bytes.len())];
    let line_start = before
        .iter()
        .rposition(|&b| b == b'\n')
        .map_or(0, |i| i + 1);
    let characters = String::from_utf8_lossy(&before[line_start..])
        .chars()
        .count();
    SyntaxError {
        what,
        line: before.iter().filter(|&&b| b == b'\n').count() + 1,
        column: characters + 1,
    }
}

struct Reader<'a> {
    text: &'a str,
    at: usize,
}

type Read<T> = Result<T, &'static str>;

impl<'a> Reader<'a> {
    fn document(&mut self) -> Read<Node<'a>> {
        self.space();
        if self.peek().is_none() {
            return Err("a JSON value is missing");
        }
        let node = self.value(0)?;
        self.space();
        match self.peek() {
            None => Ok(node),
            Some(_) => Err("something follows the JSON value"),
        }
    }

    fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    fn space(&mut self) {
        while matches!(self.peek(), Some(b' ' | b'\t' | b'\n' | b'\r')) {
            self.at += 1;
        }
    }

    fn value(&mut self, depth: usize) -> Read<Node<'a>> {
        match self.peek() {
            Some(b'{') => self.object(depth + 1),
            Some(b'[') => self.array(depth + 1),
            Some(b'"') => self.string().map(Node::String),
            Some(b'-' | b'0'..=b'9') => self.number().map(Node::Number),
            Some(b't') => self.word("true", Node::Bool(true)),
            Some(b'f') => self.word("false", Node::Bool(false)),
            Some(b'n') => self.word("null", Node::Null),
            Some(_) => Err("expected a value"),
            None => Err("the text ends too early"),
        }
    }

    fn word(&mut self, word: &str, node: Node<'a>) -> Read<Node<'a>> {
        if self.text.as_bytes()[self.at..].starts_with(word.as_bytes()) {
            self.at += word.len();
            Ok(node)
        } else {
            Err("expected a value")
        }
    }

    fn array(&mut self, depth: usize) -> Read<Node<'a>> {
        self.open(depth)?;
        let mut items = Vec::new();
        if self.closes(b']') {
            return Ok(Node::Array(items));
        }
        loop {
            self.space();
            items.push(self.value(depth)?);
            if !self.continues(b']', "expected , or ]")? {
                return Ok(Node::Array(items));
            }
        }
    }

    fn object(&mut self, depth: usize) -> Read<Node<'a>> {
        self.open(depth)?;
        let mut members: Vec<(Cow<'a, str>, Node<'a>)> = Vec::new();
        let mut seen: HashSet<Cow<'a, str>> = HashSet::new();
        if self.closes(b'}') {
            return Ok(Node::Object(members));
        }
        loop {
            self.space();
            let start = self.at;
            if self.peek() != Some(b'"') {
                return Err(self.ended_or("expected a key in quotes"));
            }
            let key = self.string()?;
            if members.len() == LINEAR_KEYS {
                seen.extend(members.iter().map(|(key, _)| key.clone()));
            }
            let twice = if members.len() < LINEAR_KEYS {
                members.iter().any(|(other, _)| *other == key)
            } else {
                !seen.insert(key.clone())
            };
            if twice {
                self.at = start;
                return Err("the same key stands twice in an object");
            }
            self.space();
            if self.peek() != Some(b':') {
                return Err(self.ended_or("expected :"));
            }
            self.at += 1;
            self.space();
            let value = self.value(depth)?;
            members.push((key, value));
            if !self.continues(b'}', "expected , or }")? {
                return Ok(Node::Object(members));
            }
        }
    }

    fn open(&mut self, depth: usize) -> Read<()> {
        if depth > MAX_DEPTH {
            return Err("the value is nested too deeply");
        }
        self.at += 1;
        Ok(())
    }

    /// Whether the array or object just opened is empty.
    fn closes(&mut self, close: u8) -> bool {
        self.space();
        let closes = self.peek() == Some(close);
        self.at += usize::from(closes);
        closes
    }

    /// Whether another member follows.
    fn continues(&mut self, close: u8, expected: &'static str) -> Read<bool> {
        self.space();
        match self.peek() {
            Some(b',') => {
                self.at += 1;
                Ok(true)
            }
            Some(b) if b == close => {
                self.at += 1;
                Ok(false)
            }
            _ => Err(self.ended_or(expected)),
        }
    }

    fn ended_or(&self, expected: &'static str) -> &'static str {
        match self.peek() {
            None => "the text ends too early",
            Some(_) => expected,
        }
    }

    fn number(&mut self) -> Read<&'a str> {
        let start = self.at;
        self.at += usize::from(self.peek() == Some(b'-'));
        match self.peek() {
            Some(b'0') => self.at += 1,
            Some(b'1'..=b'9') => self.digits()?,
            _ => return Err("a number needs digits"),
        }
        if self.peek() == Some(b'.') {
            self.at += 1;
            self.digits()?;
        }
        if matches!(self.peek(), Some(b'e' | b'E')) {
            self.at += 1;
            self.at += usize::from(matches!(self.peek(), Some(b'+' | b'-')));
            self.digits()?;
        }
        if matches!(self.peek(), Some(b'0'..=b'9')) {
            return Err("a number does not begin with 0");
        }
        Ok(&self.text[start..self.at])
    }

    fn digits(&mut self) -> Read<()> {
        let start = self.at;
        while matches!(self.peek(), Some(b'0'..=b'9')) {
            self.at += 1;
        }
        if self.at == start {
            return Err("a number needs digits");
        }
        Ok(())
    }

    fn string(&mut self) -> Read<Cow<'a, str>> {
        self.at += 1;
        let start = self.at;
        self.plain()?;
        if self.peek() == Some(b'"') {
            let text = &self.text[start..self.at];
            self.at += 1;
            return Ok(Cow::Borrowed(text));
        }
        let mut text = self.text[start..self.at].to_owned();
        loop {
            // `plain` stopped at a quote or a backslash.
            if self.peek() == Some(b'"') {
                self.at += 1;
                return Ok(Cow::Owned(text));
            }
            text.push(self.escape()?);
            let from = self.at;
            self.plain()?;
            text.push_str(&self.text[from..self.at]);
        }
    }

    /// Moves over characters that stand for themselves.
    fn plain(&mut self) -> Read<()> {
        loop {
            match self.peek() {
                Some(b'"' | b'\\') => return Ok(()),
                Some(0..=0x1f) => return Err("a control character in a string must be escaped"),
                Some(_) => self.at += 1,
                None => return Err("the text ends too early"),
            }
        }
    }

    fn escape(&mut self) -> Read<char> {
        let start = self.at;
        self.at += 1;
        let letter = self.peek().ok_or("the text ends too early")?;
        self.at += 1;
        let c = match letter {
            b'"' => '"',
            b'\\' => '\\',
            b'/' => '/',
            b'b' => '\u{8}',
            b'f' => '\u{c}',
            b'n' => '\n',
            b'r' => '\r',
            b't' => '\t',
            b'u' => return self.unicode(start),
            _ => {
                self.at = start;
                return Err("no such escape");
            }
        };
        Ok(c)
    }

    fn unicode(&mut self, start: usize) -> Read<char> {
        const LONE: &str = "half of a surrogate pair is no character";
        let first = self.hex()?;
        let code = match first {
            0xd800..=0xdbff => {
                if !self.text.as_bytes()[self.at..].starts_with(b"\\u") {
                    self.at = start;
                    return Err(LONE);
                }
                self.at += 2;
                match self.hex()? {
                    low @ 0xdc00..=0xdfff => 0x10000 + ((first - 0xd800) << 10) + (low - 0xdc00),
                    _ => {
                        self.at = start;
                        return Err(LONE);
                    }
                }
            }
            code => code,
        };
        char::from_u32(code).ok_or_else(|| {
            self.at = start;
            LONE
        })
    }

    fn hex(&mut self) -> Read<u32> {
        let mut code = 0;
        for _ in 0..4 {
            let digit = self
                .peek()
                .and_then(|b| char::from(b).to_digit(16))
                .ok_or("\\u needs four hexadecimal digits")?;
            code = code * 16 + digit;
            self.at += 1;
        }
        Ok(code)
    }
}
