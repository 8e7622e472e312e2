use std::{collections::HashSet, sync::Arc, time::Duration};

use axum::extract::FromRequestParts;
use http::{HeaderMap, HeaderName, HeaderValue, request::Parts};
use millrace_es::Metadata;
use millrace_kernel::EntityId;

use crate::{CursorKey, FieldErrors, Problem, trace};

/// The header that names a request in answers and logs.
pub const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
/// The header in which an ingress that knows the caller says who it is.
pub const X_ACTOR: HeaderName = HeaderName::from_static("x-actor");
/// The longest request id and actor that are taken from a caller, in bytes.
pub const MAX_REQUEST_ID_BYTES: usize = 128;

/// What all requests of a service share.
pub(crate) struct Shared {
    /// Literal segments that stand where a route has an id.
    pub reserved: HashSet<String>,
    pub cursor_key: CursorKey,
    /// How long a body may take to arrive.
    pub body_timeout: Duration,
}

/// What is known about a request before its route looks at it. Cheap to clone.
#[derive(Clone)]
pub struct RequestContext(Arc<Inner>);

struct Inner {
    request_id: HeaderValue,
    traceparent: Option<HeaderValue>,
    shared: Arc<Shared>,
}

impl RequestContext {
    pub(crate) fn new(headers: &HeaderMap, shared: Arc<Shared>) -> Self {
        let request_id = headers
            .get(&X_REQUEST_ID)
            .filter(|id| !id.is_empty() && acceptable(id))
            .cloned()
            .unwrap_or_else(fresh_request_id);
        let traceparent = trace::of(headers);
        Self(Arc::new(Inner {
            request_id,
            traceparent,
            shared,
        }))
    }

    /// Joins the request's span to the caller's trace; from here on the request's `traceparent` is
    /// what this process calls its own part.
    pub(crate) fn enter(&mut self, span: &tracing::Span) {
        let caller = self.traceparent().map(str::to_owned);
        if let Some(inner) = Arc::get_mut(&mut self.0) {
            inner.traceparent = trace::join(span, caller.as_deref())
                .or_else(|| inner.traceparent.take())
                .or_else(|| Some(trace::fresh()));
        }
    }

    /// The request's name: the caller's `X-Request-Id` where it was acceptable, else a fresh one.
    #[must_use]
    pub fn request_id(&self) -> &str {
        self.0.request_id.to_str().unwrap_or_default()
    }

    pub(crate) fn request_id_value(&self) -> HeaderValue {
        self.0.request_id.clone()
    }

    /// The trace context of the request: this process's part of the caller's trace.
    #[must_use]
    pub fn traceparent(&self) -> Option<&str> {
        self.0.traceparent.as_ref().and_then(|v| v.to_str().ok())
    }

    pub(crate) fn traceparent_value(&self) -> Option<HeaderValue> {
        self.0.traceparent.clone()
    }

    pub(crate) fn body_timeout(&self) -> Duration {
        self.0.shared.body_timeout
    }

    pub(crate) fn cursor_key(&self) -> &CursorKey {
        &self.0.shared.cursor_key
    }

    /// Whether a route has this text as a literal segment where others have an id, such as
    /// `statistics`: nothing may be called that.
    #[must_use]
    pub fn is_reserved(&self, id: &str) -> bool {
        self.0.shared.reserved.contains(id)
    }

    /// Notes an error when an id in the body is reserved.
    pub fn refuse_reserved(&self, errors: &mut FieldErrors, pointer: &str, id: &EntityId) {
        errors.check(!self.is_reserved(id.as_str()), pointer, RESERVED);
    }

    /// The metadata for events that this request brings about.
    #[must_use]
    pub fn metadata(&self, headers: &HeaderMap) -> Metadata {
        let actor = headers
            .get(&X_ACTOR)
            .filter(|actor| !actor.is_empty() && acceptable(actor))
            .and_then(|actor| actor.to_str().ok());
        Metadata {
            correlation_id: self.request_id().to_owned(),
            causation_id: None,
            traceparent: self.traceparent().map(str::to_owned),
            actor: actor.map(str::to_owned),
            idempotency_key_hash: None,
        }
    }
}

/// Why a reserved id is refused.
pub(crate) const RESERVED: &str = "is a word of the routes and cannot be an id";

fn acceptable(value: &HeaderValue) -> bool {
    value.len() <= MAX_REQUEST_ID_BYTES && value.as_bytes().iter().all(u8::is_ascii_graphic)
}

fn fresh_request_id() -> HeaderValue {
    // An id is letters, digits and dashes, so it is a header value.
    HeaderValue::from_str(EntityId::generate().as_str())
        .unwrap_or_else(|_| HeaderValue::from_static("unknown"))
}

impl<S: Sync> FromRequestParts<S> for RequestContext {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        of(parts).cloned()
    }
}

/// The context that the edge put beside the request.
pub(crate) fn of(parts: &Parts) -> Result<&RequestContext, Problem> {
    parts
        .extensions
        .get::<RequestContext>()
        .ok_or_else(|| Problem::internal("the route is not behind Api::finish"))
}
