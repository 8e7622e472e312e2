//! W3C trace context: who called, and what this process calls its own part.

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue};
use tracing::Span;

/// The header that carries the trace.
pub(crate) const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");

/// The longest `traceparent` that is taken: later versions may append to the 55 bytes of the first.
const MAX_TRACEPARENT_BYTES: usize = 128;

/// The caller's `traceparent`, where it is one.
pub(crate) fn of(headers: &HeaderMap) -> Option<HeaderValue> {
    let value = headers.get(&TRACEPARENT)?;
    let text = value.to_str().ok()?;
    let valid =
        text.len() <= MAX_TRACEPARENT_BYTES && millrace_runtime::trace::is_traceparent(text);
    valid.then(|| value.clone())
}

/// A `traceparent` for a request that came without one to a process that exports no traces.
#[expect(
    clippy::disallowed_methods,
    reason = "an edge that makes ids: those of a trace"
)]
pub(crate) fn fresh() -> HeaderValue {
    let trace = uuid::Uuid::new_v4();
    // A span's id has to be unique within its trace only.
    let (high, low) = trace.as_u64_pair();
    let span = (high ^ low).max(1);
    HeaderValue::from_str(&format!("00-{}-{span:016x}-00", trace.simple()))
        .unwrap_or_else(|_| HeaderValue::from_static(""))
}

/// Makes a span part of the caller's trace, and gives what it is called in it; `None` where no
/// traces are exported.
pub(crate) fn join(span: &Span, caller: Option<&str>) -> Option<HeaderValue> {
    if let Some(caller) = caller {
        millrace_runtime::trace::set_parent(span, caller);
    }
    let own = span.in_scope(millrace_runtime::trace::current_traceparent)?;
    HeaderValue::from_maybe_shared(Bytes::from(own)).ok()
}
