use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use millrace_runtime::{admin, admin::Health, install_metrics};
use millrace_testkit::{eventually, http_get};

const BOUND: Duration = Duration::from_secs(10);

async fn serve(health: Arc<Health>) -> admin::Admin {
    let address = ([127, 0, 0, 1], 0).into();
    admin::serve(
        address,
        health,
        install_metrics().unwrap(),
        axum::Router::new(),
    )
    .await
    .unwrap()
}

#[tokio::test]
async fn readiness_names_what_is_missing_and_goes_off_at_the_end() {
    let health = Arc::new(
        Health::new()
            .with("event log", || async { Ok(()) })
            .with("nats", || async { Err("connection refused".to_owned()) })
            .with("reads", || async { panic!("a check that fails by itself") }),
    );
    let admin = serve(Arc::clone(&health)).await;
    let port = admin.address().port();
    let (status, body) = http_get(port, "/readyz", BOUND).await.unwrap();
    assert_eq!(status, 503);
    let said: serde_json::Value = serde_json::from_str(&body).unwrap();
    assert_eq!(said["missing"]["nats"], "connection refused");
    assert!(said["missing"].get("event log").is_none());
    assert_eq!(said["missing"].as_object().unwrap().len(), 2);
    let (status, _) = http_get(port, "/livez", BOUND).await.unwrap();
    assert_eq!(status, 200);
    admin.close().await;
    assert!(http_get(port, "/livez", BOUND).await.is_err());

    let health = Arc::new(Health::new());
    assert!(health.readiness().await.ready);
    health.stopping();
    let readiness = health.readiness().await;
    assert!(readiness.stopping && !readiness.ready);
}

#[tokio::test]
async fn a_process_that_is_stuck_says_so() {
    let stuck = Arc::new(AtomicUsize::new(0));
    let pulse = Arc::clone(&stuck);
    let health = Health::new().alive_while(move || match pulse.load(Ordering::SeqCst) {
        0 => Ok(()),
        _ => Err("the watch stands still".to_owned()),
    });
    let admin = serve(Arc::new(health)).await;
    let port = admin.address().port();
    assert_eq!(http_get(port, "/livez", BOUND).await.unwrap().0, 200);
    stuck.store(1, Ordering::SeqCst);
    let (status, body) = http_get(port, "/livez", BOUND).await.unwrap();
    assert_eq!((status, body.as_str()), (503, "the watch stands still\n"));
    admin.close().await;
}

#[tokio::test]
async fn many_who_ask_become_one_check() {
    let asked = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&asked);
    let health = Health::new().with("store", move || {
        counted.fetch_add(1, Ordering::SeqCst);
        async { Ok(()) }
    });
    for _ in 0..50 {
        assert!(health.readiness().await.ready);
    }
    assert_eq!(asked.load(Ordering::SeqCst), 1);
    eventually("the answer to be too old", BOUND, || async {
        health.readiness().await;
        (asked.load(Ordering::SeqCst) == 2).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_dependency_that_hangs_is_missing() {
    let health = Health::new().with("store", std::future::pending);
    let readiness = health.readiness().await;
    assert_eq!(readiness.missing["store"], "no answer within 2000 ms");
}

#[tokio::test]
async fn metrics_are_rendered_with_buckets() {
    let admin = serve(Arc::new(Health::new())).await;
    metrics::histogram!("millrace_test_seconds", "route" => "/orders").record(0.004);
    metrics::histogram!("millrace_test_batch_events").record(40.0);
    let (status, body) = http_get(admin.address().port(), "/metrics", BOUND)
        .await
        .unwrap();
    assert_eq!(status, 200);
    for line in [
        r#"millrace_test_seconds_bucket{route="/orders",le="0.003"} 0"#,
        r#"millrace_test_seconds_bucket{route="/orders",le="0.005"} 1"#,
        r#"millrace_test_batch_events_bucket{le="50"} 1"#,
    ] {
        assert!(body.contains(line), "{line} in\n{body}");
    }
    admin.close().await;
}
