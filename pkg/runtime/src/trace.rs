//! The W3C trace context, in and out of spans.

use opentelemetry::Context;
use opentelemetry::trace::{
    SpanContext, SpanId, TraceContextExt as _, TraceFlags, TraceId, TraceState,
};
use tracing_opentelemetry::OpenTelemetrySpanExt as _;

/// The length of a version 00 `traceparent`.
const TRACEPARENT_BYTES: usize = 55;

/// The `traceparent` of the span this code runs in; `None` outside of any.
#[must_use]
pub fn current_traceparent() -> Option<String> {
    let context = Context::current();
    let span = context.span();
    let known = span.span_context();
    known.is_valid().then(|| {
        format!(
            "00-{}-{}-{:02x}",
            known.trace_id(),
            known.span_id(),
            known.trace_flags().to_u8()
        )
    })
}

/// Makes a span, which must not have been entered yet, continue the trace of a `traceparent`. One
/// that is not valid is ignored: the span begins a trace of its own.
pub fn set_parent(span: &tracing::Span, traceparent: &str) {
    if let Some(parent) = parse(traceparent) {
        // Refused only when the span was entered before or no tracer is installed.
        let _ = span.set_parent(Context::new().with_remote_span_context(parent));
    }
}

/// Whether a text is a valid `traceparent`.
#[must_use]
pub fn is_traceparent(text: &str) -> bool {
    parse(text).is_some()
}

/// As <https://www.w3.org/TR/trace-context/>: lower case, and what a later version appends is let
/// pass.
fn parse(text: &str) -> Option<SpanContext> {
    if text.len() < TRACEPARENT_BYTES || !text.is_ascii() {
        return None;
    }
    let mut fields = text.split('-');
    let (version, trace, span, flags) = (
        fields.next()?,
        fields.next()?,
        fields.next()?,
        fields.next()?,
    );
    let hex = |field: &str, length: usize| {
        field.len() == length
            && field
                .bytes()
                .all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
    };
    let whole = hex(version, 2) && hex(trace, 32) && hex(span, 16) && hex(flags, 2);
    if !whole || version == "ff" || (version == "00" && text.len() != TRACEPARENT_BYTES) {
        return None;
    }
    let flags = u8::from_str_radix(flags, 16).ok()? & TraceFlags::SAMPLED.to_u8();
    let context = SpanContext::new(
        TraceId::from_hex(trace).ok()?,
        SpanId::from_hex(span).ok()?,
        TraceFlags::new(flags),
        true,
        TraceState::default(),
    );
    context.is_valid().then_some(context)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_valid_traceparent_is_continued() {
        let valid = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
        assert!(parse(valid).unwrap().is_sampled());
        assert!(parse(&valid.replacen("00", "cc", 1)).is_some());
        for invalid in [
            "",
            "00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01",
            "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-extra",
            "ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-0é",
        ] {
            assert!(parse(invalid).is_none(), "{invalid}");
        }
    }
}
