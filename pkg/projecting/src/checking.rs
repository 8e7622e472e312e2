//! What the last checks came to, as metrics of whoever runs on and on: a check itself is soon gone.

use std::time::Duration;

use metrics::gauge;
use tokio_util::sync::CancellationToken;

use crate::postgres::{KeptCheck, PgStore};

/// How often the kept outcomes are read, in milliseconds.
const READ_EVERY_MS: u64 = 15_000;

/// The longest that reading them may take, in milliseconds.
const READ_TIMEOUT_MS: u64 = 10_000;

/// Shows what the last checks of views and streams came to, until told to stop.
pub async fn show_checks(store: PgStore, stop: CancellationToken) {
    describe();
    loop {
        let bound = Duration::from_millis(READ_TIMEOUT_MS);
        match tokio::time::timeout(bound, store.kept_checks()).await {
            Ok(Ok(kept)) => kept.iter().for_each(show),
            Ok(Err(error)) => {
                let error = &error as &dyn std::error::Error;
                tracing::debug!(error, "the outcomes of checks were not read");
            }
            Err(_) => tracing::debug!("the outcomes of checks were not read in time"),
        }
        let pause = tokio::time::sleep(Duration::from_millis(READ_EVERY_MS));
        if stop.run_until_cancelled(pause).await.is_none() {
            return;
        }
    }
}

fn describe() {
    metrics::describe_gauge!(
        "millrace_verify_differences",
        "Rows that differed from the log in the last check of a projection."
    );
    metrics::describe_gauge!(
        "millrace_verify_keys_checked",
        "Keys that the last check of a projection compared."
    );
    metrics::describe_gauge!(
        "millrace_verify_last_timestamp_seconds",
        "When a projection was checked last, in seconds since 1970."
    );
    metrics::describe_gauge!(
        "millrace_verify_stream_differences",
        "Positions at which a context's stream differed from its log in the last check."
    );
    metrics::describe_gauge!(
        "millrace_verify_stream_last_timestamp_seconds",
        "When a context's stream was checked last, in seconds since 1970."
    );
}

#[expect(clippy::cast_precision_loss, reason = "a gauge is a float")]
fn show(check: &KeptCheck) {
    let context = check.context.clone();
    let at = check.checked_at.get().unix_timestamp() as f64;
    let differences = check.differences as f64;
    let Some(projection) = check.projection.clone() else {
        gauge!("millrace_verify_stream_differences", "context" => context.clone()).set(differences);
        gauge!("millrace_verify_stream_last_timestamp_seconds", "context" => context).set(at);
        return;
    };
    let labels = [("context", context), ("projection", projection)];
    gauge!("millrace_verify_differences", &labels).set(differences);
    gauge!("millrace_verify_keys_checked", &labels).set(check.checked as f64);
    gauge!("millrace_verify_last_timestamp_seconds", &labels).set(at);
}
