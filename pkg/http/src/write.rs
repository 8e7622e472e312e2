use axum::{
    extract::{FromRequest, Request},
    response::Response,
};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, request::Parts};
use millrace_es::{LogToken, Metadata, StreamVersion};
use millrace_eventlog::{Answer, AnswerKey};
use serde::{Serialize, de::DeserializeOwned};
use sha2::{Digest, Sha256};

use crate::{
    Problem, RequestContext, body, conditional, consistency::LOG_POSITION, context, json,
    query::Parameters,
};

/// The header that names a request, so that sending it again changes nothing.
pub const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");
/// The header of an answer that was given before.
pub const IDEMPOTENT_REPLAYED: HeaderName = HeaderName::from_static("idempotent-replayed");
/// The longest idempotency key, in bytes.
pub const MAX_IDEMPOTENCY_KEY_BYTES: usize = 255;

/// Everything a write's route needs from its request. `T` is the body's type; a write without a
/// body takes [`NoBody`].
#[derive(Debug)]
pub struct Write<T> {
    /// The body.
    pub body: T,
    /// The idempotency key, scoped by method and path, with the body's hash.
    pub key: Option<AnswerKey>,
    /// The version that `If-Match` names.
    pub if_match: Option<StreamVersion>,
    /// The metadata for the events.
    pub metadata: Metadata,
    /// The request.
    pub context: RequestContext,
}

impl<T> Write<T> {
    /// The body, and everything else.
    #[must_use]
    pub fn split(self) -> (T, Write<()>) {
        let rest = Write {
            body: (),
            key: self.key,
            if_match: self.if_match,
            metadata: self.metadata,
            context: self.context,
        };
        (self.body, rest)
    }
}

impl std::fmt::Debug for RequestContext {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.request_id())
    }
}

/// The body of a write that has none. A body that comes all the same is refused, unless it is empty.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoBody;

/// The body of a write that may be left out: no bytes are no body, and need no content type.
#[derive(Debug, Clone, Copy, Default)]
pub struct OptionalBody<T>(pub Option<T>);

/// The types that a [`Write`] reads from a body.
pub trait WriteBody: Sized + Send {
    /// Reads the bytes.
    ///
    /// # Errors
    /// A 400, 415 or 422 problem.
    fn read(headers: &HeaderMap, bytes: &[u8]) -> Result<Self, Problem>;

    /// Refuses a request by its headers alone, before its body is read.
    ///
    /// # Errors
    /// A 415 problem.
    fn accept(headers: &HeaderMap) -> Result<(), Problem>;
}

impl<T: DeserializeOwned + Send> WriteBody for T {
    fn read(_: &HeaderMap, bytes: &[u8]) -> Result<Self, Problem> {
        json::from_slice(bytes)
    }

    fn accept(headers: &HeaderMap) -> Result<(), Problem> {
        body::require_json(headers)
    }
}

impl WriteBody for NoBody {
    fn read(_: &HeaderMap, bytes: &[u8]) -> Result<Self, Problem> {
        let mut errors = crate::FieldErrors::new();
        errors.check(bytes.is_empty(), "", "this request takes no body");
        errors.finish().map(|()| Self)
    }

    fn accept(_: &HeaderMap) -> Result<(), Problem> {
        Ok(())
    }
}

impl<T: DeserializeOwned + Send> WriteBody for OptionalBody<T> {
    fn read(headers: &HeaderMap, bytes: &[u8]) -> Result<Self, Problem> {
        if bytes.is_empty() {
            return Ok(Self(None));
        }
        body::require_json(headers)?;
        json::from_slice(bytes).map(|body| Self(Some(body)))
    }

    fn accept(headers: &HeaderMap) -> Result<(), Problem> {
        // Without a content type it depends on whether bytes come.
        if headers.contains_key(http::header::CONTENT_TYPE) {
            body::require_json(headers)
        } else {
            Ok(())
        }
    }
}

impl<T: WriteBody, S: Sync> FromRequest<S> for Write<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, _: &S) -> Result<Self, Problem> {
        let (parts, stream) = request.into_parts();
        T::accept(&parts.headers)?;
        Parameters::parse(parts.uri.query())?.none()?;
        let key = idempotency_key(&parts.headers)?;
        let if_match = conditional::if_match(&parts.headers)?;
        let bytes = body::read(&parts, stream).await?;
        let context = context::of(&parts)?.clone();
        let mut metadata = context.metadata(&parts.headers);
        let key = key.map(|key| {
            metadata.idempotency_key_hash = Some(conditional::hex(&Sha256::digest(key)));
            answer_key(&parts, key, &bytes)
        });
        Ok(Self {
            body: T::read(&parts.headers, &bytes)?,
            key,
            if_match,
            metadata,
            context,
        })
    }
}

/// The caller's key, if it sent one: 1 to 255 printable ASCII characters.
fn idempotency_key(headers: &HeaderMap) -> Result<Option<&[u8]>, Problem> {
    let mut values = headers.get_all(&IDEMPOTENCY_KEY).iter();
    let Some(value) = values.next() else {
        return Ok(None);
    };
    let key = value.as_bytes();
    let printable = key.iter().all(|b| matches!(b, b' '..=b'~'));
    if values.next().is_some()
        || key.is_empty()
        || key.len() > MAX_IDEMPOTENCY_KEY_BYTES
        || !printable
    {
        return Err(conditional::invalid(
            "/idempotency-key",
            "must be 1 to 255 printable ASCII characters",
        ));
    }
    Ok(Some(key))
}

/// Hashes the key with its scope, and the body. A stored format: keys live through a release.
fn answer_key(parts: &Parts, key: &[u8], body: &[u8]) -> AnswerKey {
    let mut scoped = Sha256::new();
    scoped.update(parts.method.as_str());
    // Neither a method nor a path holds U+0000, so the parts cannot run together.
    scoped.update(b"\0");
    scoped.update(parts.uri.path());
    scoped.update(b"\0");
    scoped.update(key);
    AnswerKey {
        key_hash: scoped.finalize().into(),
        request_hash: Sha256::digest(body).into(),
    }
}

/// Builds the answer of a write, which is decided before the append and kept with its key.
#[derive(Debug)]
pub struct AnswerBuilder(Answer);

impl AnswerBuilder {
    /// An answer with a JSON body. A body that has no JSON form, which is a defect, becomes a 500.
    #[must_use]
    pub fn json<T: Serialize>(status: StatusCode, body: &T) -> Self {
        match serde_json::to_vec(body) {
            Ok(body) => Self(Answer {
                status: status.as_u16(),
                headers: vec![("content-type".to_owned(), "application/json".to_owned())],
                body: body.into(),
            }),
            Err(error) => Self(Problem::internal(error).into_answer()),
        }
    }

    /// 204.
    #[must_use]
    pub fn no_content() -> Self {
        Self(Answer {
            status: StatusCode::NO_CONTENT.as_u16(),
            headers: Vec::new(),
            body: bytes::Bytes::new(),
        })
    }

    /// Says the version of the stream after the write: `ETag`.
    #[must_use]
    pub fn version(mut self, version: StreamVersion) -> Self {
        self.0
            .headers
            .push(("etag".to_owned(), format!("\"{version}\"")));
        self
    }

    /// Says where what was created can be read: `Location`.
    #[must_use]
    pub fn location(mut self, path: impl Into<String>) -> Self {
        self.0.headers.push(("location".to_owned(), path.into()));
        self
    }

    /// The answer.
    #[must_use]
    pub fn build(self) -> Answer {
        self.0
    }
}

/// Makes the response of a write: the answer, byte for byte as it was decided, with `Log-Position`
/// and, where it was given before, `Idempotent-Replayed`.
#[must_use]
pub fn respond(answer: Answer, token: &LogToken, replayed: bool) -> Response {
    let mut response = Response::new(answer.body.into());
    *response.status_mut() =
        StatusCode::from_u16(answer.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let headers = response.headers_mut();
    for (name, value) in answer.headers {
        if let (Ok(name), Ok(value)) = (
            HeaderName::from_bytes(name.as_bytes()),
            HeaderValue::from_maybe_shared(bytes::Bytes::from(value)),
        ) {
            headers.insert(name, value);
        }
    }
    if let Some(value) = log_position(token) {
        headers.insert(LOG_POSITION, value);
    }
    if replayed {
        headers.insert(IDEMPOTENT_REPLAYED, HeaderValue::from_static("true"));
    }
    response
}

/// The value of `Log-Position`.
pub(crate) fn log_position(token: &LogToken) -> Option<HeaderValue> {
    // A token is URL-safe ASCII.
    HeaderValue::from_maybe_shared(bytes::Bytes::from(token.to_string())).ok()
}
