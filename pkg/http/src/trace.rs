//! W3C trace context: who called, and what this process calls its own part.

use http::{HeaderName, HeaderValue};
use tracing::Span;

/// The header that carries the trace.
pub(crate) const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");

/// Whether bytes are a `traceparent` of version 00 with valid ids.
pub(crate) fn is_traceparent(bytes: &[u8]) -> bool {
    let hex = |range: std::ops::Range<usize>| {
        bytes[range.clone()]
            .iter()
            .all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
    };
    let some = |range: std::ops::Range<usize>| bytes[range].iter().any(|&b| b != b'0');
    bytes.len() == 55
        && bytes.starts_with(b"00-")
        && bytes[35] == b'-'
        && bytes[52] == b'-'
        && hex(3..35)
        && hex(36..52)
        && hex(53..55)
        && some(3..35)
        && some(36..52)
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
pub(crate) fn join(_span: &Span, _caller: Option<&str>) -> Option<HeaderValue> {
    None
}
