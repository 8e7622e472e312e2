//! What operators see of requests: log lines and metrics.

use metrics_exporter_prometheus::PrometheusBuilder;
use millrace_testkit::LogLines;

use crate::demo::Server;

#[tokio::test]
async fn a_failure_is_logged_once_with_its_cause_and_its_request() {
    // What other tests log is told apart by its request.
    let lines = LogLines::of_the_process("info,millrace_http::access=debug");
    let (server, _) = Server::demo().await;
    for (path, id) in [
        ("down", "req-down"),
        ("panic", "req-panic"),
        ("statistics", "req-fine"),
    ] {
        let get = server.get(&format!("/things/{path}"));
        get.header("x-request-id", id).send().await.unwrap();
    }
    server.stop().await;

    let text = lines.text();
    let about = |id: &str| lines.with(&[id]);
    let [failed, answered] = &about("req-down")[..] else {
        panic!("not logged once: {text}");
    };
    for part in [
        "ERROR",
        "SELECT",
        "db.internal",
        "unavailable",
        "/things/down",
    ] {
        assert!(failed.contains(part), "{part}: {failed}");
    }
    assert!(
        answered.contains("INFO") && answered.contains("status=503"),
        "{answered}"
    );
    let panicked = &about("req-panic")[0];
    assert!(
        panicked.contains("ERROR") && panicked.contains("a secret of the code"),
        "{panicked}"
    );
    let [fine] = &about("req-fine")[..] else {
        panic!("not logged once: {text}");
    };
    assert!(
        fine.contains("DEBUG") && fine.contains("status=200"),
        "{fine}"
    );
}

#[tokio::test]
async fn requests_are_counted_and_timed_by_route() {
    let recorder = PrometheusBuilder::new().build_recorder();
    // This thread's, and so is everything of this test.
    let _guard = metrics::set_default_local_recorder(&recorder);
    let (server, _) = Server::demo().await;
    server.make("a").await;
    server.make("b").await;
    for path in [
        "/things/a",
        "/things/b",
        "/things/x",
        "/things/-",
        "/nothing",
        "/a/b/c",
    ] {
        server.get(path).send().await.unwrap();
    }
    let brew = reqwest::Method::from_bytes(b"BREW").unwrap();
    server
        .client
        .request(brew, server.url("/things"))
        .send()
        .await
        .unwrap();
    server.stop().await;

    let text = recorder.handle().render();
    let count = |route: &str, method: &str, status: &str| {
        let labels = format!("{{route=\"{route}\",method=\"{method}\",status=\"{status}\"}} ");
        let line = text.lines().find(|line| line.contains(&labels));
        line.and_then(|line| line.rsplit(' ').next())
            .map(str::to_owned)
    };
    for (route, method, status, want) in [
        ("/things", "POST", "201", "2"),
        ("/things/{id}", "GET", "200", "2"),
        ("/things/{id}", "GET", "404", "1"),
        ("/things/{id}", "GET", "422", "1"),
        ("unmatched", "GET", "404", "2"),
        ("/things", "other", "405", "1"),
    ] {
        assert_eq!(
            count(route, method, status).as_deref(),
            Some(want),
            "{route} {status}: {text}"
        );
    }
    assert!(text.contains("millrace_http_request_seconds"), "{text}");
    assert!(
        !text.contains("/things/a\"") && !text.contains("nothing"),
        "{text}"
    );
}
