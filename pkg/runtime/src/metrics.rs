use std::sync::OnceLock;

use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};

/// Seconds: from a group commit to the longest wait of a request.
const SECONDS_BUCKETS: [f64; 18] = [
    0.0005, 0.001, 0.002, 0.003, 0.005, 0.0075, 0.01, 0.015, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5,
    5.0, 10.0, 30.0,
];
/// Events in a batch.
const EVENTS_BUCKETS: [f64; 12] = [
    1.0, 2.0, 5.0, 10.0, 25.0, 50.0, 100.0, 250.0, 500.0, 1_000.0, 2_500.0, 5_000.0,
];

/// Why metrics cannot be kept.
#[derive(Debug, thiserror::Error)]
#[error("metrics cannot be kept: {0}")]
pub struct MetricsError(String);

/// This process's metrics, to be rendered in Prometheus' text format.
#[derive(Debug, Clone)]
pub struct Metrics(PrometheusHandle);

impl Metrics {
    /// All metrics as text.
    #[must_use]
    pub fn render(&self) -> String {
        // Histograms gather samples until somebody looks; this moves them into their buckets.
        self.0.run_upkeep();
        self.0.render()
    }

    /// Moves gathered samples into their buckets, which bounds the memory they take. Called every
    /// few seconds.
    pub fn upkeep(&self) {
        self.0.run_upkeep();
    }
}

static INSTALLED: OnceLock<Metrics> = OnceLock::new();

/// Keeps what the `metrics` facade is told, once per process; later calls give the same.
///
/// # Errors
/// When another recorder is installed.
pub fn install_metrics() -> Result<Metrics, MetricsError> {
    if let Some(installed) = INSTALLED.get() {
        return Ok(installed.clone());
    }
    let error = |error: &dyn std::fmt::Display| MetricsError(error.to_string());
    let recorder = PrometheusBuilder::new()
        .set_buckets_for_metric(Matcher::Suffix("_seconds".to_owned()), &SECONDS_BUCKETS)
        .and_then(|builder| {
            builder.set_buckets_for_metric(Matcher::Suffix("_events".to_owned()), &EVENTS_BUCKETS)
        })
        .map_err(|e| error(&e))?
        .build_recorder();
    let installed = Metrics(recorder.handle());
    match metrics::set_global_recorder(recorder) {
        Ok(()) => Ok(INSTALLED.get_or_init(|| installed).clone()),
        // Two first calls at once: the other one won.
        Err(e) => INSTALLED.get().cloned().ok_or_else(|| error(&e)),
    }
}
