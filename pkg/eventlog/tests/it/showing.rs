//! What a process shows of its log, to whoever scrapes it.

use metrics::set_default_local_recorder;
use metrics_exporter_prometheus::PrometheusBuilder;
use millrace_eventlog::EventLog;

use crate::{dynamodb, support};

/// One process halts the log, another one ends it: the first is no longer wrong once it has looked.
async fn shows_a_halt_no_longer_than_it_lasts(one: &dyn EventLog, other: &dyn EventLog) {
    let recorder = PrometheusBuilder::new().build_recorder();
    let shown = recorder.handle();
    let shown = || {
        let line = format!("millrace_log_halted{{context=\"{}\"}} ", one.context());
        let text = shown.render();
        let mut lines = text.lines();
        lines.find_map(|it| it.strip_prefix(&line).map(str::to_owned))
    };
    {
        let _ones = set_default_local_recorder(&recorder);
        one.head().await.unwrap();
        assert_eq!(shown().as_deref(), Some("0"));
        one.halt("for the test").await.unwrap();
        assert_eq!(shown().as_deref(), Some("1"));
    }
    other.resume().await.unwrap();
    assert_eq!(shown().as_deref(), Some("1"));
    let _ones = set_default_local_recorder(&recorder);
    one.head().await.unwrap();
    assert_eq!(shown().as_deref(), Some("0"));
}

#[tokio::test]
async fn a_halt_in_postgresql_is_shown_no_longer_than_it_lasts() {
    let database = support::store().await;
    let (one, other) = (
        support::open(&database).await,
        support::open(&database).await,
    );
    shows_a_halt_no_longer_than_it_lasts(&one, &other).await;
}

#[tokio::test]
async fn a_halt_in_dynamodb_is_shown_no_longer_than_it_lasts() {
    let table = dynamodb::support::table().await;
    let (one, other) = (
        dynamodb::support::open(&table).await,
        dynamodb::support::open(&table).await,
    );
    shows_a_halt_no_longer_than_it_lasts(&one, &other).await;
}
