use std::{borrow::Cow, error::Error, fmt};

use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use http::{HeaderName, HeaderValue, StatusCode, header};
use millrace_eventlog::Answer;
use serde::{Serialize, Serializer, ser::SerializeMap};
use serde_json::Value;

use crate::FieldError;

/// The media type of every error.
pub const PROBLEM_JSON: &str = "application/problem+json";

/// A kind of problem that clients can rely on: its name never changes once published. Each stands
/// in `docs/problems.md`; a test sees to that.
#[derive(Debug, PartialEq, Eq)]
pub struct ProblemType {
    slug: &'static str,
    title: &'static str,
    status: u16,
}

impl ProblemType {
    /// Names a kind of problem: the last segment of its `type`, its title and its HTTP status.
    #[must_use]
    pub const fn new(slug: &'static str, title: &'static str, status: u16) -> Self {
        Self {
            slug,
            title,
            status,
        }
    }

    /// The last segment of the `type`.
    #[must_use]
    pub const fn slug(&self) -> &'static str {
        self.slug
    }

    /// The HTTP status that goes with it.
    #[must_use]
    pub const fn status(&self) -> u16 {
        self.status
    }
}

/// The kinds of problem that any route can answer. Contexts add their own beside their refusals.
pub mod types {
    use super::ProblemType;

    /// The body is not JSON as RFC 8259 writes it.
    pub static MALFORMED_JSON: ProblemType =
        ProblemType::new("malformed-json", "The body is not valid JSON", 400);
    /// The query string or path cannot be decoded.
    pub static MALFORMED_URL: ProblemType =
        ProblemType::new("malformed-url", "The URL cannot be decoded", 400);
    /// A cursor that this list did not give.
    pub static INVALID_CURSOR: ProblemType =
        ProblemType::new("invalid-cursor", "The cursor is not from this list", 400);
    /// The body broke off.
    pub static INCOMPLETE_BODY: ProblemType =
        ProblemType::new("incomplete-body", "The body did not arrive whole", 400);
    /// No such thing.
    pub static NOT_FOUND: ProblemType = ProblemType::new("not-found", "Not found", 404);
    /// The route exists, the method does not.
    pub static METHOD_NOT_ALLOWED: ProblemType =
        ProblemType::new("method-not-allowed", "Method not allowed", 405);
    /// The body came too slowly.
    pub static REQUEST_TIMEOUT: ProblemType = ProblemType::new(
        "request-timeout",
        "The request took too long to arrive",
        408,
    );
    /// Others kept changing it.
    pub static CONTENDED: ProblemType =
        ProblemType::new("contended", "Too many changes at once", 409);
    /// A name that must be unique is in use.
    pub static ALREADY_TAKEN: ProblemType =
        ProblemType::new("already-taken", "Already in use", 409);
    /// It moved on since the version in `If-Match`.
    pub static PRECONDITION_FAILED: ProblemType =
        ProblemType::new("precondition-failed", "It has changed since", 412);
    /// The body is above its bound.
    pub static BODY_TOO_LARGE: ProblemType =
        ProblemType::new("body-too-large", "The body is too large", 413);
    /// The body is not `application/json`.
    pub static UNSUPPORTED_MEDIA_TYPE: ProblemType = ProblemType::new(
        "unsupported-media-type",
        "The body must be application/json",
        415,
    );
    /// Fields, parameters or headers are unknown, missing or invalid.
    pub static INVALID_REQUEST: ProblemType =
        ProblemType::new("invalid-request", "The request is not valid", 422);
    /// An idempotency key came again with another body.
    pub static IDEMPOTENCY_KEY_REUSED: ProblemType = ProblemType::new(
        "idempotency-key-reused",
        "The idempotency key belongs to another request",
        422,
    );
    /// A defect or a corrupt store; nothing the client can do.
    pub static INTERNAL: ProblemType = ProblemType::new("internal", "Something went wrong", 500);
    /// A store or service cannot be reached, or everything is busy.
    pub static UNAVAILABLE: ProblemType =
        ProblemType::new("unavailable", "Not available at the moment", 503);
    /// The read model did not reach the position in time.
    pub static NOT_YET_READABLE: ProblemType =
        ProblemType::new("not-yet-readable", "Not readable yet", 504);
    /// No answer in time.
    pub static TIMEOUT: ProblemType = ProblemType::new("timeout", "No answer in time", 504);

    /// All of the above.
    pub static ALL: [&ProblemType; 18] = [
        &MALFORMED_JSON,
        &MALFORMED_URL,
        &INVALID_CURSOR,
        &INCOMPLETE_BODY,
        &NOT_FOUND,
        &METHOD_NOT_ALLOWED,
        &REQUEST_TIMEOUT,
        &CONTENDED,
        &ALREADY_TAKEN,
        &PRECONDITION_FAILED,
        &BODY_TOO_LARGE,
        &UNSUPPORTED_MEDIA_TYPE,
        &INVALID_REQUEST,
        &IDEMPOTENCY_KEY_REUSED,
        &INTERNAL,
        &UNAVAILABLE,
        &NOT_YET_READABLE,
        &TIMEOUT,
    ];
}

/// An error as the client sees it: RFC 9457 `application/problem+json`. It says what happened, to
/// what, and what to do; never SQL, a stack or a host. What only operators may see travels as the
/// cause, which is logged once, when the problem becomes a response.
pub struct Problem(Box<Inner>);

struct Inner {
    kind: &'static ProblemType,
    detail: Cow<'static, str>,
    errors: Vec<FieldError>,
    extensions: Vec<(&'static str, Value)>,
    headers: Vec<(HeaderName, HeaderValue)>,
    cause: Option<Box<dyn Error + Send + Sync>>,
}

impl Problem {
    /// A problem of a kind, with what happened this time.
    #[must_use]
    pub fn new(kind: &'static ProblemType, detail: impl Into<Cow<'static, str>>) -> Self {
        Self(Box::new(Inner {
            kind,
            detail: detail.into(),
            errors: Vec::new(),
            extensions: Vec::new(),
            headers: Vec::new(),
            cause: None,
        }))
    }

    /// 422 with the fields that are wrong.
    #[must_use]
    pub fn invalid(errors: Vec<FieldError>) -> Self {
        let detail = match errors.as_slice() {
            [one] => format!("{}: {}", one.place(), one.reason()),
            many => format!("{} fields are not valid; see errors", many.len()),
        };
        let mut problem = Self::new(&types::INVALID_REQUEST, detail);
        problem.0.errors = errors;
        problem
    }

    /// 404: `what` names the thing, such as `order 42`.
    #[must_use]
    pub fn not_found(what: impl fmt::Display) -> Self {
        Self::new(&types::NOT_FOUND, format!("{what} does not exist"))
    }

    /// 412: it is not at the version that `If-Match` named.
    #[must_use]
    pub fn precondition_failed(actual: Option<millrace_es::StreamVersion>) -> Self {
        let problem = Self::new(
            &types::PRECONDITION_FAILED,
            "It is not at the version given in If-Match; read it again and decide anew",
        );
        match actual {
            Some(version) => problem
                .with("version", version.get())
                .with_header(header::ETAG, crate::conditional::version_tag(version)),
            None => problem,
        }
    }

    /// 503 with `Retry-After`: nothing was done, the same request may be sent again.
    #[must_use]
    pub fn unavailable(detail: impl Into<Cow<'static, str>>) -> Self {
        Self::new(&types::UNAVAILABLE, detail)
            .with_header(header::RETRY_AFTER, HeaderValue::from_static("1"))
    }

    /// 504: the read model did not reach what the request waited for. Says how far it got.
    #[must_use]
    pub fn not_yet_readable(
        wanted: &millrace_es::LogToken,
        reached: Option<millrace_es::Position>,
        waited: std::time::Duration,
    ) -> Self {
        let detail = match reached {
            Some(at) => format!(
                "The read model is at {}/{at}, not yet at {}/{}, after {} ms; ask again",
                wanted.context,
                wanted.context,
                wanted.position,
                waited.as_millis()
            ),
            None => format!(
                "The read model has not reached {}/{} after {} ms; ask again",
                wanted.context,
                wanted.position,
                waited.as_millis()
            ),
        };
        let problem = Self::new(&types::NOT_YET_READABLE, detail)
            .with("wanted", wanted.to_string())
            .with_header(header::RETRY_AFTER, HeaderValue::from_static("1"));
        match reached {
            Some(at) => problem.with("reached", format!("{}/{at}", wanted.context)),
            None => problem,
        }
    }

    /// 500. The client learns nothing about it but the request's id; the cause goes to the log.
    #[must_use]
    pub fn internal(cause: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self::new(
            &types::INTERNAL,
            "The request failed for a reason that is not yours; report its X-Request-Id",
        )
        .caused_by(cause)
    }

    /// Adds a member beyond the standard ones, such as `balance`.
    #[must_use]
    pub fn with(mut self, name: &'static str, value: impl Into<Value>) -> Self {
        self.0.extensions.push((name, value.into()));
        self
    }

    /// Adds a response header.
    #[must_use]
    pub fn with_header(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.0.headers.push((name, value));
        self
    }

    /// Keeps what operators need to know; it is logged with its sources and not shown.
    #[must_use]
    pub fn caused_by(mut self, cause: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        self.0.cause = Some(cause.into());
        self
    }

    /// The kind of problem.
    #[must_use]
    pub fn kind(&self) -> &'static ProblemType {
        self.0.kind
    }

    /// The HTTP status.
    #[must_use]
    pub fn status(&self) -> StatusCode {
        StatusCode::from_u16(self.0.kind.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
    }

    /// The fields that are wrong.
    #[must_use]
    pub fn errors(&self) -> &[FieldError] {
        &self.0.errors
    }

    /// The problem as an answer to keep under an idempotency key: refusals by a rule of the domain
    /// are answered the same way again.
    #[must_use]
    pub fn into_answer(self) -> Answer {
        self.log();
        let mut headers = vec![("content-type".to_owned(), PROBLEM_JSON.to_owned())];
        for (name, value) in &self.0.headers {
            if let Ok(value) = value.to_str() {
                headers.push((name.as_str().to_owned(), value.to_owned()));
            }
        }
        Answer {
            status: self.0.kind.status,
            headers,
            body: self.body(),
        }
    }

    fn body(&self) -> Bytes {
        // A map of strings and JSON values always has a JSON form.
        serde_json::to_vec(self).unwrap_or_default().into()
    }

    fn log(&self) {
        let Some(cause) = &self.0.cause else { return };
        let cause = Sources(cause.as_ref());
        let kind = self.0.kind.slug;
        if self.status().is_server_error() {
            tracing::error!(problem = kind, %cause, "request failed");
        } else {
            tracing::debug!(problem = kind, %cause, "request refused");
        }
    }
}

/// An error followed by its sources, each `Display` saying only itself.
struct Sources<'a>(&'a (dyn Error + 'static));

impl fmt::Display for Sources<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self.0, f)?;
        let mut source = self.0.source();
        while let Some(next) = source {
            write!(f, ": {next}")?;
            source = next.source();
        }
        Ok(())
    }
}

impl Serialize for Problem {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("type", &format_args!("/problems/{}", self.0.kind.slug))?;
        map.serialize_entry("title", self.0.kind.title)?;
        map.serialize_entry("status", &self.0.kind.status)?;
        map.serialize_entry("detail", &self.0.detail)?;
        if !self.0.errors.is_empty() {
            map.serialize_entry("errors", &self.0.errors)?;
        }
        for (name, value) in &self.0.extensions {
            map.serialize_entry(name, value)?;
        }
        map.end()
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        self.log();
        let mut response = Response::new(self.body().into());
        *response.status_mut() = self.status();
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(PROBLEM_JSON));
        headers.extend(self.0.headers);
        response
    }
}

impl fmt::Debug for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Problem")
            .field("type", &self.0.kind.slug)
            .field("detail", &self.0.detail)
            .field("errors", &self.0.errors)
            .field("cause", &self.0.cause)
            .finish_non_exhaustive()
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.detail)
    }
}

impl Error for Problem {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.0.cause.as_deref().map(|cause| cause as _)
    }
}
