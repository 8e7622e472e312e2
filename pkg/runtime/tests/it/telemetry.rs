use std::io;
use std::sync::{Arc, Mutex};

use axum::body::Bytes;
use axum::routing::post;
use millrace_runtime::{LogFormat, TelemetrySettings, telemetry, trace};
use tracing::Instrument as _;
use tracing_subscriber::layer::SubscriberExt as _;

const PARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
const TRACE_ID: &str = "4bf92f3577b34da6a3ce929d0e0e4736";

#[derive(Clone, Default)]
struct Written(Arc<Mutex<Vec<u8>>>);

impl io::Write for Written {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Written {
    fn text(&self) -> String {
        String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
    }
}

fn settings(format: LogFormat, endpoint: Option<String>) -> TelemetrySettings {
    TelemetrySettings {
        log: "info".to_owned(),
        log_format: format,
        otlp_endpoint: endpoint,
        trace_ratio: 1.0,
    }
}

/// Runs `work` under the telemetry of `settings`, ends it, and gives what was logged.
async fn logged<F: Future>(settings: TelemetrySettings, work: F) -> String {
    let written = Written::default();
    let writer = written.clone();
    let (telemetry, layers) =
        telemetry::layers("test", &settings, false, move || writer.clone()).unwrap();
    let subscriber = tracing_subscriber::registry().with(layers);
    {
        // Tests of one binary run side by side: each has its subscriber on its own thread.
        let _default = tracing::subscriber::set_default(subscriber);
        work.await;
    }
    telemetry.shutdown().await;
    written.text()
}

async fn continue_a_trace() -> Option<String> {
    let span = tracing::info_span!("append", context = "ordering");
    trace::set_parent(&span, PARENT);
    async {
        tracing::info!(events = 3, batch = "whole", "appended");
        trace::current_traceparent()
    }
    .instrument(span)
    .await
}

#[tokio::test]
async fn every_json_line_carries_its_trace() {
    let text = logged(settings(LogFormat::Json, None), async {
        let traceparent = continue_a_trace().await.unwrap();
        assert!(traceparent.contains(TRACE_ID), "{traceparent}");
        assert!(
            !traceparent.contains("00f067aa0ba902b7"),
            "a span of our own: {traceparent}"
        );
        let error = io::Error::other("inner");
        tracing::warn!(error = &error as &dyn std::error::Error, "outside");
    })
    .await;
    let lines: Vec<serde_json::Value> = text
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!(lines[0]["message"], "appended");
    assert_eq!(lines[0]["fields"]["events"], 3);
    assert_eq!(lines[0]["span"]["name"], "append");
    assert_eq!(lines[0]["span"]["fields"]["context"], "ordering");
    assert_eq!(lines[0]["trace_id"], TRACE_ID);
    assert_eq!(lines[0]["span_id"].as_str().unwrap().len(), 16);
    assert!(lines[1].get("trace_id").is_none());
    assert_eq!(lines[1]["fields"]["error"], "inner");
}

#[tokio::test]
async fn a_line_for_people_carries_its_trace() {
    let text = logged(settings(LogFormat::Text, None), continue_a_trace()).await;
    assert!(
        text.contains("appended") && text.contains(&format!("trace_id={TRACE_ID}")),
        "{text}"
    );
    assert_eq!(text.lines().count(), 1);
}

#[tokio::test]
async fn a_span_of_our_own_begins_a_trace() {
    let first = logged(settings(LogFormat::Json, None), async {
        let span = tracing::info_span!("tick");
        async { tracing::info!("hello") }.instrument(span).await;
    })
    .await;
    let line: serde_json::Value = serde_json::from_str(first.trim()).unwrap();
    assert_eq!(line["trace_id"].as_str().unwrap().len(), 32);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn spans_reach_the_collector_before_the_end() {
    let received = Arc::new(Mutex::new(Vec::<Bytes>::new()));
    let kept = Arc::clone(&received);
    let app = axum::Router::new().route(
        "/v1/traces",
        post(async move |body: Bytes| {
            kept.lock().unwrap().push(body);
        }),
    );
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = format!("http://{}/", listener.local_addr().unwrap());
    let mut collector = tokio::task::JoinSet::new();
    collector.spawn(async move { axum::serve(listener, app).await });
    logged(
        settings(LogFormat::Json, Some(endpoint)),
        continue_a_trace(),
    )
    .await;
    let bodies = received.lock().unwrap().concat();
    // Protobuf keeps texts as they are and ids as bytes.
    let contains = |part: &[u8]| bodies.windows(part.len()).any(|window| window == part);
    assert!(contains(b"append") && contains(b"ordering") && contains(b"test"));
    let id: Vec<u8> = (0..16)
        .map(|byte| u8::from_str_radix(&TRACE_ID[byte * 2..byte * 2 + 2], 16).unwrap())
        .collect();
    assert!(contains(&id));
}

#[tokio::test]
async fn a_wrong_filter_is_refused() {
    let wrong = TelemetrySettings {
        log: "info,=".to_owned(),
        ..settings(LogFormat::Json, None)
    };
    assert!(telemetry::layers("test", &wrong, false, io::sink).is_err());
}
