//! Idempotency keys, `If-Match`, and what the answers of writes carry.

use std::collections::HashSet;

use crate::demo::{Server, header, problem};

const BODY: &str = r#"{"id": "a", "owner": "o", "price": "1.50"}"#;

#[tokio::test]
async fn an_answer_carries_its_version_place_and_position() {
    let (server, _) = Server::demo().await;
    let answer = server.post("/things", BODY).send().await.unwrap();
    assert_eq!(answer.status(), 201);
    assert_eq!(header(&answer, "etag"), "\"1\"");
    assert_eq!(header(&answer, "location"), "/things/a");
    assert_eq!(header(&answer, "log-position"), "things/7~1~3_7");
    assert_eq!(header(&answer, "content-type"), "application/json");
    assert!(!answer.headers().contains_key("idempotent-replayed"));
    server.stop().await;
}

#[tokio::test]
async fn the_same_key_gets_the_same_bytes() {
    let (server, _) = Server::demo().await;
    let send = |key: &'static str, body: &'static str| {
        server
            .post("/things", body)
            .header("idempotency-key", key)
            .send()
    };
    let body = r#"{"owner": "o"}"#;
    let first = send("key 1", body).await.unwrap();
    let (etag, location) = (
        header(&first, "etag").to_owned(),
        header(&first, "location").to_owned(),
    );
    let bytes = first.bytes().await.unwrap();
    let again = send("key 1", body).await.unwrap();
    assert_eq!(again.status(), 201);
    assert_eq!(header(&again, "idempotent-replayed"), "true");
    assert_eq!(header(&again, "etag"), etag);
    assert_eq!(header(&again, "location"), location);
    assert_eq!(
        again.bytes().await.unwrap(),
        bytes,
        "a generated id would differ"
    );

    let other = send("key 1", BODY).await.unwrap();
    problem(other, 422, "idempotency-key-reused").await;
    let fresh = send("key 2", body).await.unwrap();
    assert_ne!(fresh.bytes().await.unwrap(), bytes);
    server.stop().await;
}

#[tokio::test]
async fn keys_are_scoped_by_method_and_path() {
    let (server, _) = Server::demo().await;
    server.make("a").await;
    server.make("b").await;
    for id in ["a", "b"] {
        let delete = server.client.delete(server.url(&format!("/things/{id}")));
        let answer = delete.header("idempotency-key", "k").send().await.unwrap();
        assert!(
            !answer.headers().contains_key("idempotent-replayed"),
            "{id}"
        );
    }
    let put = server.client.put(server.url("/things/a/status"));
    let put = put
        .header("content-type", "application/json")
        .header("idempotency-key", "k");
    problem(
        put.body(r#"{"status": "OPEN"}"#).send().await.unwrap(),
        404,
        "not-found",
    )
    .await;
    server.stop().await;
}

#[tokio::test]
async fn refusals_are_kept_too() {
    let (server, _) = Server::demo().await;
    server.make("a").await;
    let send = || {
        let put = server
            .client
            .put(server.url("/things/a/status"))
            .header("idempotency-key", "k");
        put.header("content-type", "application/json")
            .body(r#"{"status": "SEALED"}"#)
            .send()
    };
    let first = problem(send().await.unwrap(), 409, "sealed").await;
    assert_eq!(first["status_now"], "SEALED");
    let again = send().await.unwrap();
    assert_eq!(header(&again, "idempotent-replayed"), "true");
    assert_eq!(problem(again, 409, "sealed").await, first);
    server.stop().await;
}

#[tokio::test]
async fn a_key_that_is_none_is_422() {
    let (server, demo) = Server::demo().await;
    let long = "k".repeat(256);
    for key in ["", "ké", "a\tb", long.as_str()] {
        let value = reqwest::header::HeaderValue::from_bytes(key.as_bytes()).unwrap();
        let answer = server
            .post("/things", BODY)
            .header("idempotency-key", value)
            .send()
            .await
            .unwrap();
        let found = problem(answer, 422, "invalid-request").await;
        assert_eq!(found["errors"][0]["in"], "header", "{key:?}");
    }
    let twice = server
        .post("/things", BODY)
        .header("idempotency-key", "a")
        .header("idempotency-key", "b");
    problem(twice.send().await.unwrap(), 422, "invalid-request").await;
    assert!(demo.0.things.lock().unwrap().is_empty());
    let longest = server
        .post("/things", BODY)
        .header("idempotency-key", &long[..255]);
    assert_eq!(longest.send().await.unwrap().status(), 201);
    server.stop().await;
}

#[tokio::test]
async fn if_match_names_the_version_to_change() {
    let (server, _) = Server::demo().await;
    server.make("a").await;
    let change = |tag: &'static str| {
        let put = server
            .client
            .put(server.url("/things/a/status"))
            .header("if-match", tag);
        put.header("content-type", "application/json")
            .body(r#"{"status": "OPEN"}"#)
            .send()
    };
    assert_eq!(change("\"1\"").await.unwrap().status(), 200);
    let stale = change("\"1\"").await.unwrap();
    assert_eq!(header(&stale, "etag"), "\"2\"");
    assert_eq!(
        problem(stale, 412, "precondition-failed").await["version"],
        2
    );
    assert_eq!(change("*").await.unwrap().status(), 200);
    // The one version among tags of others, and the same one twice.
    assert_eq!(change("\"abc\", \"3\",\"3\"").await.unwrap().status(), 200);
    // What an answer that shows facts of others beside was tagged with.
    let beside = "\"4-0123456789abcdef\"";
    assert_eq!(change(beside).await.unwrap().status(), 200);
    problem(change(beside).await.unwrap(), 412, "precondition-failed").await;
    for never in [
        "\"4-\"",
        "\"5-abc\"",
        "\"5-0123456789abcdeg\"",
        "\"abc\"",
        "\"01\"",
        "\"\"",
        "\"99999999999999999999999\"",
    ] {
        problem(change(never).await.unwrap(), 412, "precondition-failed").await;
    }
    for broken in [
        "4",
        "W/\"4\"",
        "\"4",
        "\"4\" \"5\"",
        "\"4\",",
        "\"4\", \"5\"",
        "*, \"4\"",
    ] {
        let found = problem(change(broken).await.unwrap(), 422, "invalid-request").await;
        assert_eq!(found["errors"][0]["pointer"], "/if-match", "{broken}");
    }
    server.stop().await;
}

#[tokio::test]
async fn parameters_on_a_write_are_refused() {
    let (server, _) = Server::demo().await;
    let found = server
        .post("/things?dry_run=true", BODY)
        .send()
        .await
        .unwrap();
    let found = problem(found, 422, "invalid-request").await;
    assert_eq!(found["errors"][0]["in"], "query");
    assert_eq!(found["errors"][0]["pointer"], "/dry_run");
    server.stop().await;
}

#[tokio::test]
async fn events_know_the_request_they_come_from() {
    let (server, demo) = Server::demo().await;
    let trace = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    let request = server
        .post("/things", BODY)
        .header("x-request-id", "req-7")
        .header("traceparent", trace);
    request
        .header("x-actor", "ann@example.org")
        .header("idempotency-key", "secret")
        .send()
        .await
        .unwrap();
    let metadata = demo.0.metadata.lock().unwrap().pop().unwrap();
    assert_eq!(metadata.correlation_id, "req-7");
    assert_eq!(&metadata.traceparent.unwrap()[..35], &trace[..35]);
    assert_eq!(metadata.actor.as_deref(), Some("ann@example.org"));
    // SHA-256 of "secret".
    let hash = "2bb80d537b1da3e38bd30361aa855686bde0eacd7162fef6a25fe97bf527a25b";
    assert_eq!(metadata.idempotency_key_hash.as_deref(), Some(hash));

    let ids = tokio::join!(
        server.post("/things", BODY).send(),
        server.post("/things", BODY).send()
    );
    let ids = [ids.0.unwrap(), ids.1.unwrap()];
    let ids: HashSet<&str> = ids
        .iter()
        .map(|answer| header(answer, "x-request-id"))
        .collect();
    assert_eq!(ids.len(), 2);
    let metadata = demo.0.metadata.lock().unwrap().clone();
    assert!(
        metadata
            .iter()
            .all(|one| ids.contains(one.correlation_id.as_str()) && one.actor.is_none())
    );
    server.stop().await;
}
