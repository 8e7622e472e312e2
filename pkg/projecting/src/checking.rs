//! What the last checks came to, as metrics of whoever runs on and on: a check itself is soon gone.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use metrics::gauge;
use tokio_util::sync::CancellationToken;

use crate::postgres::{KeptCheck, PgStore};

/// How often the kept outcomes are read, in milliseconds.
const READ_EVERY_MS: u64 = 15_000;

/// The longest that reading them may take, in milliseconds.
const READ_TIMEOUT_MS: u64 = 10_000;

/// The most keys of a view, or positions of a stream, that are shown by name. All are counted.
const MAX_NAMED: usize = 10;

/// The most that a process names of one view or stream in its life: it shows each until it ends, as 0 when
/// it is equal again.
const MAX_NAMED_EVER: usize = 100;

/// What was named so far, of each context's stream (no projection) and views.
type Named = BTreeMap<(String, Option<String>), BTreeSet<String>>;

/// Shows what the last checks of views and streams came to, until told to stop.
pub async fn show_checks(store: PgStore, stop: CancellationToken) {
    describe();
    let mut named = Named::new();
    loop {
        let bound = Duration::from_millis(READ_TIMEOUT_MS);
        match tokio::time::timeout(bound, store.kept_checks()).await {
            Ok(Ok(kept)) => {
                for check in &kept {
                    show(check);
                    show_named(check, &mut named);
                }
            }
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
        "millrace_verify_differs",
        "Whether a key of a projection differed in its last check, of some that did."
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
        "millrace_verify_stream_differs",
        "Whether a position of a context's stream differed in its last check, of some that did."
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

/// Shows by name some of what differs, and what no longer does.
fn show_named(check: &KeptCheck, named: &mut Named) {
    let differing: BTreeSet<&String> = check.differing.iter().take(MAX_NAMED).collect();
    let of = (check.context.clone(), check.projection.clone());
    let ever = named.entry(of).or_default();
    for name in &differing {
        if ever.len() < MAX_NAMED_EVER {
            ever.insert((*name).clone());
        }
    }
    for name in &*ever {
        let context = check.context.clone();
        let gauge = match &check.projection {
            Some(projection) => {
                let labels = [
                    ("context", context),
                    ("projection", projection.clone()),
                    ("key", name.clone()),
                ];
                gauge!("millrace_verify_differs", &labels)
            }
            None => {
                let labels = [("context", context), ("position", name.clone())];
                gauge!("millrace_verify_stream_differs", &labels)
            }
        };
        gauge.set(u8::from(differing.contains(name)));
    }
}

#[cfg(test)]
mod tests {
    use metrics_exporter_prometheus::PrometheusBuilder;
    use millrace_kernel::Timestamp;

    use super::*;

    fn check(differing: impl Iterator<Item = u32>) -> KeptCheck {
        let differing: Vec<String> = differing.map(|n| format!("order-{n:03}")).collect();
        KeptCheck {
            context: "ordering".to_owned(),
            projection: Some("order-read-models".to_owned()),
            checked: 200,
            differences: differing.len() as u64,
            differing,
            checked_at: Timestamp::now(),
        }
    }

    #[test]
    fn some_keys_are_named_until_they_are_equal_again() {
        let recorder = PrometheusBuilder::new().build_recorder();
        let _here = metrics::set_default_local_recorder(&recorder);
        let mut named = Named::new();
        let mut shown = |check: &KeptCheck| {
            show_named(check, &mut named);
            let text = recorder.handle().render();
            let of = |value: &str| {
                let lines = text.lines();
                let own = lines.filter(|line| line.starts_with("millrace_verify_differs{"));
                own.filter(|line| line.ends_with(value)).count()
            };
            (of(" 1"), of(" 0"))
        };
        assert_eq!(shown(&check(0..2)), (2, 0));
        assert_eq!(shown(&check(1..3)), (2, 1));
        assert_eq!(shown(&check(0..0)), (0, 3));
        assert_eq!(shown(&check(0..50)), (MAX_NAMED, 0));
        for n in 1..30 {
            shown(&check(n * 10..n * 10 + 5));
        }
        // However many differ in a long life, no more series are made.
        assert_eq!(shown(&check(0..0)), (0, MAX_NAMED_EVER));
    }
}
