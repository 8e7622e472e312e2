use http::{HeaderMap, HeaderValue, header};
use millrace_es::StreamVersion;
use sha2::{Digest, Sha256};

use crate::{
    Problem,
    fields::{FieldError, Part},
};

/// The most entity tags that one header may list.
const MAX_TAGS: usize = 16;

/// The strong entity tag of a stream's version.
#[must_use]
pub fn version_tag(version: StreamVersion) -> HeaderValue {
    // Digits in quotes are a header value.
    HeaderValue::from_str(&format!("\"{version}\""))
        .unwrap_or_else(|_| HeaderValue::from_static("\"0\""))
}

/// The strong entity tag of a stream's version beside which an answer shows facts of other streams,
/// which change without it: the version, then a hash of those facts. As `If-Match` it means the
/// version.
#[must_use]
pub fn version_tag_beside(version: StreamVersion, others: &[u8]) -> HeaderValue {
    let hash = hex(&Sha256::digest(others)[..OTHERS_BYTES]);
    // Digits, a dash and letters in quotes are a header value.
    HeaderValue::from_str(&format!("\"{version}-{hash}\""))
        .unwrap_or_else(|_| HeaderValue::from_static("\"0\""))
}

/// How much of a hash stands in the tag of [`version_tag_beside`], in bytes.
const OTHERS_BYTES: usize = 8;

/// The strong entity tag of a body: the same bytes, the same tag.
#[must_use]
pub fn body_tag(body: &[u8]) -> HeaderValue {
    let hash = hex(&Sha256::digest(body)[..16]);
    HeaderValue::from_str(&format!("\"{hash}\""))
        .unwrap_or_else(|_| HeaderValue::from_static("\"\""))
}

/// Bytes as lower-case hexadecimal digits.
pub(crate) fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes.iter().fold(String::with_capacity(64), |mut text, b| {
        let _ = write!(text, "{b:02x}");
        text
    })
}

/// What `If-Match` demands of the thing that is to be changed.
///
/// # Errors
/// 422 when the header is not a list of entity tags, lists several versions, or has weak tags,
/// which never match here (RFC 9110, 13.1.1); 412 when no tag in it can be a version.
pub(crate) fn if_match(headers: &HeaderMap) -> Result<Option<StreamVersion>, Problem> {
    let tags = match Tags::of(headers, &header::IF_MATCH) {
        Ok(None | Some(Tags::Any)) => return Ok(None),
        Ok(Some(Tags::These(tags))) => tags,
        Err(reason) => return Err(invalid("/if-match", reason)),
    };
    if tags.iter().any(|tag| tag.weak) {
        return Err(invalid("/if-match", "must not have weak tags"));
    }
    let mut versions: Vec<StreamVersion> = tags.iter().filter_map(Tag::version).collect();
    versions.dedup();
    match versions.as_slice() {
        [] => Err(Problem::precondition_failed(None)),
        [one] => Ok(Some(*one)),
        _ => Err(invalid("/if-match", "must name one version")),
    }
}

/// What the client already has, from `If-None-Match`.
#[derive(Debug, Clone, Default)]
pub(crate) struct IfNoneMatch(Option<HeaderValue>);

impl IfNoneMatch {
    pub fn of(headers: &HeaderMap) -> Result<Self, Problem> {
        // Checked now so that a broken header is refused whatever the answer will be.
        Tags::of(headers, &header::IF_NONE_MATCH)
            .map_err(|reason| invalid("/if-none-match", reason))?;
        let mut values = headers.get_all(header::IF_NONE_MATCH).iter();
        match (values.next(), values.next()) {
            (first, None) => Ok(Self(first.cloned())),
            _ => Err(invalid("/if-none-match", "must be one header")),
        }
    }

    /// Whether the client has the representation of this tag: 304 instead of a body.
    pub fn has(&self, tag: &HeaderValue) -> bool {
        let (Some(value), Ok(tag)) = (&self.0, tag.to_str()) else {
            return false;
        };
        match value.to_str().map(Tags::parse) {
            Ok(Ok(Tags::Any)) => true,
            // The comparison is the weak one: W/"x" has "x" (RFC 9110, 13.1.2).
            Ok(Ok(Tags::These(tags))) => tags.iter().any(|one| one.quoted == tag),
            _ => false,
        }
    }
}

enum Tags<'a> {
    Any,
    These(Vec<Tag<'a>>),
}

struct Tag<'a> {
    weak: bool,
    /// With its quotes.
    quoted: &'a str,
}

impl Tag<'_> {
    fn version(&self) -> Option<StreamVersion> {
        let text = self.quoted.trim_matches('"');
        let text = match text.split_once('-') {
            Some((version, others)) => {
                let is_hash = others.len() == 2 * OTHERS_BYTES
                    && others.bytes().all(|b| b.is_ascii_hexdigit());
                is_hash.then_some(version)?
            }
            None => text,
        };
        let plain = text == "0" || !text.starts_with('0');
        let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
        (plain && digits).then(|| text.parse().ok()).flatten()
    }
}

const NOT_TAGS: &str = "must be * or entity tags in quotes, such as \"3\"";

impl<'a> Tags<'a> {
    fn of(headers: &'a HeaderMap, name: &header::HeaderName) -> Result<Option<Self>, &'static str> {
        let mut values = headers.get_all(name).iter();
        let Some(first) = values.next() else {
            return Ok(None);
        };
        if values.next().is_some() {
            return Err("must be one header");
        }
        Self::parse(first.to_str().map_err(|_| NOT_TAGS)?).map(Some)
    }

    fn parse(text: &'a str) -> Result<Self, &'static str> {
        let mut rest = text.trim();
        if rest == "*" {
            return Ok(Self::Any);
        }
        let mut tags = Vec::new();
        loop {
            let unweak = rest.strip_prefix("W/");
            let weak = unweak.is_some();
            let opaque = unweak.unwrap_or(rest);
            let inner = opaque.strip_prefix('"').ok_or(NOT_TAGS)?;
            let end = inner.find('"').ok_or(NOT_TAGS)?;
            if tags.len() == MAX_TAGS {
                return Err("has too many entity tags");
            }
            tags.push(Tag {
                weak,
                quoted: &opaque[..end + 2],
            });
            rest = inner[end + 1..].trim_start();
            if rest.is_empty() {
                return Ok(Self::These(tags));
            }
            rest = rest.strip_prefix(',').ok_or(NOT_TAGS)?.trim_start();
        }
    }
}

/// 422 for one header.
pub(crate) fn invalid(pointer: &str, reason: impl Into<std::borrow::Cow<'static, str>>) -> Problem {
    Problem::invalid(vec![FieldError::new(Part::Header, pointer, reason)])
}
