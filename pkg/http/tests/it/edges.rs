//! What no route takes, and what goes wrong inside of one.

use http::Method;

use crate::{
    demo::{Server, header, problem},
    raw::exchange,
};

#[tokio::test]
async fn unknown_routes_are_404() {
    let (server, _) = Server::demo().await;
    for path in [
        "/nothing",
        "/things/",
        "/things/a/",
        "//things",
        "/things/a/status/x",
        "/THINGS",
        "/docs/nothing.js",
    ] {
        problem(server.get(path).send().await.unwrap(), 404, "not-found").await;
    }
    problem(
        server.post("/nothing", "{}").send().await.unwrap(),
        404,
        "not-found",
    )
    .await;
    server.stop().await;
}

#[tokio::test]
async fn other_methods_are_405_and_say_which_there_are() {
    let (server, _) = Server::demo().await;
    for (method, path, allow) in [
        ("PATCH", "/things", "GET, POST, HEAD, OPTIONS"),
        ("DELETE", "/things", "GET, POST, HEAD, OPTIONS"),
        ("POST", "/things/a", "GET, DELETE, HEAD, OPTIONS"),
        ("POST", "/things/statistics", "GET, HEAD, OPTIONS"),
        ("DELETE", "/things/statistics", "GET, HEAD, OPTIONS"),
        ("GET", "/things/a/status", "PUT, OPTIONS"),
        ("HEAD", "/things/a/status", "PUT, OPTIONS"),
        ("BREW", "/things", "GET, POST, HEAD, OPTIONS"),
        ("TRACE", "/things", "GET, POST, HEAD, OPTIONS"),
        ("POST", "/openapi.json", "GET, HEAD, OPTIONS"),
    ] {
        let method = Method::from_bytes(method.as_bytes()).unwrap();
        let head = method == Method::HEAD;
        let answer = server
            .client
            .request(method, server.url(path))
            .send()
            .await
            .unwrap();
        assert_eq!(header(&answer, "allow"), allow, "{path}");
        if head {
            assert_eq!(answer.status(), 405);
        } else {
            problem(answer, 405, "method-not-allowed").await;
        }
    }
    server.stop().await;
}

#[tokio::test]
async fn head_and_options_are_answered() {
    let (server, _) = Server::demo().await;
    server.make("a").await;
    let get = server.get("/things/a").send().await.unwrap();
    let head = server
        .client
        .head(server.url("/things/a"))
        .send()
        .await
        .unwrap();
    assert_eq!(head.status(), 200);
    for name in ["etag", "content-type", "content-length", "log-position"] {
        assert_eq!(header(&head, name), header(&get, name), "{name}");
    }
    assert!(head.bytes().await.unwrap().is_empty());
    let options = server
        .client
        .request(Method::OPTIONS, server.url("/things/a"))
        .send()
        .await
        .unwrap();
    assert_eq!(
        (options.status().as_u16(), header(&options, "allow")),
        (204, "GET, DELETE, HEAD, OPTIONS")
    );
    server.stop().await;
}

#[tokio::test]
async fn a_panic_is_a_500_that_says_nothing() {
    let (server, _) = Server::demo().await;
    let found = problem(
        server.get("/things/panic").send().await.unwrap(),
        500,
        "internal",
    )
    .await;
    assert!(!found.to_string().contains("secret"), "{found}");
    assert_eq!(server.get("/things").send().await.unwrap().status(), 200);
    server.stop().await;
}

#[tokio::test]
async fn a_store_that_is_away_is_503_and_stays_unnamed() {
    let (server, _) = Server::demo().await;
    let answer = server.get("/things/down").send().await.unwrap();
    assert_eq!(header(&answer, "retry-after"), "1");
    let found = problem(answer, 503, "unavailable").await.to_string();
    for secret in ["SELECT", "secrets", "db.internal", "5432"] {
        assert!(!found.contains(secret), "{found}");
    }
    server.stop().await;
}

#[tokio::test]
async fn requests_that_are_no_http_get_an_answer_and_no_more() {
    let (server, _) = Server::demo().await;
    for request in [
        "GARBAGE\r\n\r\n",
        "GET /things HTTP/9.9\r\n\r\n",
        "GET /thi ngs HTTP/1.1\r\nhost: x\r\n\r\n",
        "GET /things HTTP/1.1\r\nbad header\r\n\r\n",
        "POST /things HTTP/1.1\r\nhost: x\r\ncontent-length: -1\r\n\r\n",
        "POST /things HTTP/1.1\r\nhost: x\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\n",
        "\u{16}\u{3}\u{1}\u{2}\0\u{1}",
    ] {
        let answer = exchange(server.address, format!("{request}\r\n\r\n")).await;
        assert!(
            answer.starts_with("HTTP/1.1 4") || answer.is_empty(),
            "{request:?}: {answer}"
        );
    }
    assert_eq!(server.get("/things").send().await.unwrap().status(), 200);
    server.stop().await;
}
