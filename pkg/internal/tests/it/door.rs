//! Who is let in, and what whoever is wrong is told.

use std::{error::Error, time::Duration};

use metrics_exporter_prometheus::PrometheusBuilder;
use millrace_es::Context;
use millrace_eventlog::{EventLog, LogError};
use millrace_internal::{OwnerError, RemoteLog};
use millrace_testkit::http_get;
use serde_json::{Value, json};

use crate::support::{Door, client, context, in_postgres, open_door, remote};

#[tokio::test]
async fn with_a_token_nobody_else_is_let_in() {
    let (log, _database) = in_postgres().await;
    let door = open_door(log, Some("sesame")).await;
    for wrong in [None, Some("sesam"), Some("")] {
        let log = RemoteLog::new(client(door.address, &context(), wrong));
        let error = log.head().await.unwrap_err();
        assert!(matches!(error, LogError::Misconfigured(_)), "{error:?}");
        assert!(
            error.to_string().contains("MILLRACE_INTERNAL_TOKEN"),
            "{error}"
        );
        assert!(!format!("{error:?}").contains("sesam"), "{error:?}");
    }
    let log = RemoteLog::new(client(door.address, &context(), Some("sesame")));
    log.head().await.unwrap();
    // Not even whether there is such a route is said without it.
    let (status, _) = http_get(door.address.port(), "/nothing", Duration::from_secs(5))
        .await
        .unwrap();
    assert_eq!(status, 401);
}

#[tokio::test]
async fn commands_are_beside_the_log() {
    let (log, _database) = in_postgres().await;
    let door = open_door(log, Some("sesame")).await;
    let owner = client(door.address, &context(), Some("sesame"));
    let sent = json!({"amount": "1.50"});
    let answer: Value = owner.post(&["commands", "7", "echo"], &sent).await.unwrap();
    assert_eq!(answer, json!({"echo": {"amount": "1.50"}}));
    let missing = owner.post::<Value>(&["commands", "none"], &sent).await;
    let Err(OwnerError::Refused { problem, .. }) = missing else {
        panic!("{missing:?}");
    };
    assert_eq!((problem.status, problem.slug()), (404, "not-found"));
}

#[tokio::test]
async fn requests_are_counted_under_the_templates_of_their_routes() {
    let recorder = PrometheusBuilder::new().build_recorder();
    // This thread's, and so is everything of this test.
    let _guard = metrics::set_default_local_recorder(&recorder);
    let (log, _database) = in_postgres().await;
    let door = open_door(log, None).await;
    let owner = client(door.address, &context(), None);
    remote(&door).head().await.unwrap();
    let page = json!({"after": 0, "through": 0, "limit": 1});
    for partition in ["1", "2"] {
        let path = ["partitions", partition];
        owner.get::<Value>(&path, &page).await.unwrap();
    }
    for id in ["1", "2"] {
        let path = ["commands", id, "echo"];
        owner.post::<Value>(&path, &page).await.unwrap();
    }
    let missing = owner.post::<Value>(&["commands", "none"], &page).await;
    missing.unwrap_err();
    let text = recorder.handle().render();
    for (route, method, status, count) in [
        ("/internal/v1/testing/log/head", "GET", "200", "1"),
        (
            "/internal/v1/testing/partitions/{partitions}",
            "GET",
            "200",
            "2",
        ),
        (
            "/internal/v1/testing/commands/{id}/echo",
            "POST",
            "200",
            "2",
        ),
        ("unmatched", "POST", "404", "1"),
    ] {
        let labels = format!("route=\"{route}\",method=\"{method}\",status=\"{status}\"");
        let line = format!("millrace_http_requests_total{{{labels}}} {count}\n");
        assert!(text.contains(&line), "{line}{text}");
    }
}

#[tokio::test]
async fn an_owner_of_something_else_is_named() {
    let (log, _database) = in_postgres().await;
    let door = open_door(log, None).await;
    let other = Context::new("elsewhere").unwrap();
    let log = RemoteLog::new(client(door.address, &other, None));
    let error = log.head().await.unwrap_err().to_string();
    assert!(
        error.contains("serves testing, not \"elsewhere\""),
        "{error}"
    );
    assert!(error.contains("MILLRACE_OWNERS"), "{error}");
}

#[tokio::test]
async fn nobody_there_is_unreachable_without_the_url() {
    let port = millrace_testkit::free_port();
    let address = ([127, 0, 0, 1], port).into();
    let log = RemoteLog::new(client(address, &context(), None));
    let error = log.head().await.unwrap_err();
    assert!(matches!(error, LogError::Unreachable(_)), "{error:?}");
    let source = error.source().unwrap();
    assert_eq!(source.to_string(), "the owner of testing does not answer");
}

/// An endpoint that answers what no owner answers.
async fn scripted(status: u16, body: Vec<u8>) -> (RemoteLog, Door) {
    let answer = move || {
        let body = body.clone();
        async move { (http::StatusCode::from_u16(status).unwrap(), body) }
    };
    let door = Door::open(axum::Router::new().fallback(answer)).await;
    (RemoteLog::new(client(door.address, &context(), None)), door)
}

#[tokio::test]
async fn what_an_owner_answers_wrongly_is_an_error_of_its_kind() {
    type Check = fn(&LogError) -> bool;
    let long = vec![b' '; millrace_internal::MAX_ANSWER_BYTES + 1];
    let cases: [(u16, Vec<u8>, Check); 6] = [
        (200, b"not json".to_vec(), |e| {
            matches!(e, LogError::Misconfigured(_))
        }),
        (200, long, |e| matches!(e, LogError::Misconfigured(_))),
        (502, b"<html>".to_vec(), |e| {
            matches!(e, LogError::Unreachable(_))
        }),
        (500, Vec::new(), |e| matches!(e, LogError::Unreachable(_))),
        (
            500,
            br#"{"type":"/problems/log-corrupt","detail":"a hole"}"#.to_vec(),
            |e| matches!(e, LogError::Corrupt(text) if text.contains("a hole")),
        ),
        (
            500,
            br#"{"type":"/problems/log-not-set-up"}"#.to_vec(),
            |e| matches!(e, LogError::Missing(_)),
        ),
    ];
    for (status, body, is_right) in cases {
        let (log, _door) = scripted(status, body).await;
        let error = log.head().await.unwrap_err();
        assert!(is_right(&error), "{status}: {error:?}");
    }
}
