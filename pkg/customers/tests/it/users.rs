//! What may be said about a user, and what is answered.

use http::{Method, StatusCode};
use serde_json::{Value, json};

use crate::system::System;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_user_is_answered_as_he_was_created_and_changed() {
    let system = System::still().await;
    let body = json!({"id": 7, "name": "Zoë 🏦", "email": "Zoe@Demo.com"});
    let reply = system.post("/system-api/users", body.clone()).await;
    let reply = reply.expect(StatusCode::CREATED);
    let expected = json!({"id": "7", "name": "Zoë 🏦", "email": "Zoe@Demo.com"});
    assert_eq!(reply.body, expected);
    assert_eq!(reply.header("etag"), "\"1\"");
    assert_eq!(reply.header("location"), "/users/7");
    assert!(reply.position().starts_with("customers/1"));
    let again = system.post("/system-api/users", body).await;
    assert_eq!(again.problem(409).0, "user-exists");

    let change = json!({"name": "Zoë"});
    let reply = system.put("/system-api/users/7", change.clone()).await;
    let reply = reply.expect(StatusCode::OK);
    let expected = json!({"id": "7", "name": "Zoë", "email": "Zoe@Demo.com"});
    assert_eq!((&reply.body, reply.header("etag")), (&expected, "\"2\""));
    let same = system.put("/system-api/users/7", change).await;
    let same = same.expect(StatusCode::OK);
    assert_eq!((&same.body, same.header("etag")), (&expected, "\"2\""));
    assert_eq!(system.head().await, 2, "what is so already is no event");

    let unnamed = json!({"name": "Ann", "email": "ann@demo.com"});
    let reply = system.post("/system-api/users", unnamed).await;
    let reply = reply.expect(StatusCode::CREATED);
    let id = reply.body["id"].as_str().unwrap();
    assert_eq!(id.len(), 36, "a generated id: {id}");
    let unknown = system
        .put("/system-api/users/8", json!({"name": "A"}))
        .await;
    assert_eq!(unknown.problem(404).0, "not-found");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wrong_body_says_where_it_is_wrong() {
    let system = System::still().await;
    system.user("1", "ann").await;
    let user = |field: &str, value: Value| {
        let mut body = json!({"name": "Ann", "email": "a@demo.com"});
        body[field] = value;
        body
    };
    let long = "x".repeat(101);
    for (body, pointer) in [
        (json!({"email": "a@demo.com"}), "/name"),
        (json!({"name": "Ann"}), "/email"),
        (user("name", json!("")), "/name"),
        (user("name", json!(" \n")), "/name"),
        (user("name", json!(null)), "/name"),
        (user("name", json!("a\u{0}")), "/name"),
        (user("name", json!(long)), "/name"),
        (user("email", json!("ann")), "/email"),
        (user("email", json!("ann@demo.com ")), "/email"),
        (user("email", json!(1)), "/email"),
        (user("id", json!("a b")), "/id"),
        (user("id", json!(1.5)), "/id"),
        (user("phone", json!("1")), "/phone"),
    ] {
        let reply = system.post("/system-api/users", body.clone()).await;
        assert_eq!(
            reply.problem(422),
            ("invalid-request", vec![pointer]),
            "{body}"
        );
    }
    for (body, pointer) in [
        (json!({}), ""),
        (json!({"name": ""}), "/name"),
        (json!({"email": "ann"}), "/email"),
        (json!({"id": "2"}), "/id"),
    ] {
        let reply = system.put("/system-api/users/1", body.clone()).await;
        assert_eq!(reply.problem(422).1, vec![pointer], "{body}");
    }
    let all = system
        .post("/system-api/users", json!({"name": "", "email": "x"}))
        .await;
    assert_eq!(all.problem(422).1, vec!["/name", "/email"]);
    assert_eq!(system.head().await, 1, "nothing of this was appended");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_write_is_for_the_version_it_names() {
    let system = System::still().await;
    system.user("1", "ann").await;
    let send = |method: Method, path: &'static str, tag: &'static str, body: Value| {
        let request = system.request(method, path).header("if-match", tag);
        request.json(&body).send()
    };
    let name = |name: &str| json!({ "name": name });
    let put = "/system-api/users/1";
    let done = send(Method::PUT, put, "\"1\"", name("Anna")).await;
    assert_eq!(done.expect(StatusCode::OK).header("etag"), "\"2\"");
    let stale = send(Method::PUT, put, "\"1\"", name("Anne")).await;
    assert_eq!(stale.problem(412).0, "precondition-failed");
    let address = json!({"user_id": 1, "address": "here"});
    let post = "/system-api/accounts";
    let stale = send(Method::POST, post, "\"1\"", address.clone()).await;
    assert_eq!(stale.problem(412).0, "precondition-failed");
    let done = send(Method::POST, post, "\"2\"", address).await;
    assert_eq!(done.expect(StatusCode::CREATED).header("etag"), "\"3\"");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_repeated_request_gets_the_first_answer() {
    let system = System::still().await;
    let send = |key: &'static str, body: Value| {
        let request = system.request(Method::POST, "/system-api/users");
        request.header("idempotency-key", key).json(&body).send()
    };
    let body = json!({"name": "Ann", "email": "ann@demo.com"});
    let at_once = futures::future::join_all((0..12).map(|_| send("k1", body.clone()))).await;
    let first = &at_once[0];
    assert_eq!(first.status, StatusCode::CREATED, "{:#}", first.body);
    assert!(at_once.iter().all(|reply| reply.bytes == first.bytes));
    assert_eq!(system.head().await, 1, "one of them created");
    let other = send("k1", json!({"name": "Bob", "email": "bob@demo.com"})).await;
    assert_eq!(other.problem(422).0, "idempotency-key-reused");

    // A refusal is kept as well, even when the address is free by then.
    let refused = send("k2", body.clone()).await;
    assert_eq!(refused.problem(409).0, "email-taken");
    let path = format!("/system-api/users/{}", first.body["id"].as_str().unwrap());
    let moved = system.put(&path, json!({"email": "else@demo.com"})).await;
    moved.expect(StatusCode::OK);
    let again = send("k2", body.clone()).await;
    assert_eq!(again.bytes, refused.bytes);
    assert_eq!(again.header("idempotent-replayed"), "true");
    send("k3", body).await.expect(StatusCode::CREATED);
}
