//! Log lines that carry the trace they belong to.

use std::fmt;

use millrace_kernel::Timestamp;
use opentelemetry::trace::TraceContextExt as _;
use serde_json::value::RawValue;
use serde_json::{Map, Value};
use tracing::field::{Field, Visit};
use tracing::{Event, Subscriber};
use tracing_subscriber::fmt::format::{FormatEvent, JsonFields, Writer};
use tracing_subscriber::fmt::{FmtContext, FormatFields, FormattedFields};
use tracing_subscriber::registry::LookupSpan;

/// The ids of the trace and span this code runs in.
fn trace_ids() -> Option<(String, String)> {
    let context = opentelemetry::Context::current();
    let span = context.span();
    let known = span.span_context();
    known
        .is_valid()
        .then(|| (known.trace_id().to_string(), known.span_id().to_string()))
}

/// One JSON object a line: `timestamp, level, target, message, fields, span, trace_id, span_id`.
#[derive(Debug)]
pub(crate) struct Json;

#[derive(serde::Serialize)]
struct Line<'a> {
    timestamp: String,
    level: &'a str,
    target: &'a str,
    message: String,
    #[serde(skip_serializing_if = "Map::is_empty")]
    fields: Map<String, Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    span: Option<Span<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    trace_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    span_id: Option<String>,
}

#[derive(serde::Serialize)]
struct Span<'a> {
    name: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    fields: Option<Box<RawValue>>,
}

impl<S> FormatEvent<S, JsonFields> for Json
where
    S: Subscriber + for<'a> LookupSpan<'a>,
{
    fn format_event(
        &self,
        context: &FmtContext<'_, S, JsonFields>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let mut fields = Fields::default();
        event.record(&mut fields);
        let span = context.lookup_current();
        let span = span.as_ref().map(|span| Span {
            name: span.name(),
            fields: span
                .extensions()
                .get::<FormattedFields<JsonFields>>()
                .and_then(|formatted| RawValue::from_string(formatted.fields.clone()).ok()),
        });
        let (trace_id, span_id) = trace_ids().unzip();
        let metadata = event.metadata();
        let line = Line {
            timestamp: Timestamp::now().to_string(),
            level: metadata.level().as_str(),
            target: metadata.target(),
            message: fields.message,
            fields: fields.others,
            span,
            trace_id,
            span_id,
        };
        let line = serde_json::to_string(&line).map_err(|_| fmt::Error)?;
        writeln!(writer, "{line}")
    }
}

#[derive(Default)]
struct Fields {
    message: String,
    others: Map<String, Value>,
}

impl Fields {
    fn put(&mut self, field: &Field, value: impl Into<Value>) {
        self.others.insert(field.name().to_owned(), value.into());
    }
}

impl Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        let text = format!("{value:?}");
        if field.name() == "message" {
            self.message = text
        } else {
            self.put(field, text)
        }
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        if field.name() == "message" {
            value.clone_into(&mut self.message)
        } else {
            self.put(field, value)
        }
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.put(field, value);
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.put(field, value);
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        self.put(field, value);
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.put(field, value);
    }

    fn record_error(&mut self, field: &Field, value: &(dyn std::error::Error + 'static)) {
        // With its causes: an error's text says only itself.
        let mut text = value.to_string();
        let mut cause = value.source();
        while let Some(error) = cause {
            text = format!("{text}: {error}");
            cause = error.source();
        }
        self.put(field, text);
    }
}

/// The library's lines for people, with the trace's id at the end.
#[derive(Debug)]
pub(crate) struct Text(pub(crate) tracing_subscriber::fmt::format::Format);

impl<S, N> FormatEvent<S, N> for Text
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        context: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let Some((trace_id, span_id)) = trace_ids() else {
            return self.0.format_event(context, writer, event);
        };
        let mut line = String::new();
        self.0
            .format_event(context, Writer::new(&mut line), event)?;
        writeln!(
            writer,
            "{} trace_id={trace_id} span_id={span_id}",
            line.trim_end()
        )
    }
}
