//! Bad bodies.

use std::time::{Duration, Instant};

use crate::{
    demo::{Server, problem},
    raw::{Raw, exchange},
};

const OVER: usize = 256 * 1024 + 1;

#[tokio::test]
async fn what_is_not_json_is_400_with_its_place() {
    let (server, _) = Server::demo().await;
    for body in [
        &b""[..],
        b"{",
        b"{\"owner\":1}x",
        b"\xff",
        b"{\"owner\":\"\\ud800\"}",
        b"{\"owner\":1,\"owner\":2}",
    ] {
        let answer = server.post("/things", body.to_vec()).send().await.unwrap();
        let problem = problem(answer, 400, "malformed-json").await;
        assert!(
            problem["line"].is_u64() && problem["column"].is_u64(),
            "{problem}"
        );
    }
    let deep = "[".repeat(200_000);
    problem(
        server.post("/things", deep).send().await.unwrap(),
        400,
        "malformed-json",
    )
    .await;
    server.stop().await;
}

#[tokio::test]
async fn wrong_fields_are_422_and_all_named() {
    let (server, _) = Server::demo().await;
    let body = r#"{"id": "a b", "owner": 1.5, "price": 1.001, "note": "x\u0000", "extra": {}}"#;
    let found = problem(
        server.post("/things", body).send().await.unwrap(),
        422,
        "invalid-request",
    )
    .await;
    let mut pointers: Vec<_> = found["errors"]
        .as_array()
        .unwrap()
        .iter()
        .map(|error| error["pointer"].as_str().unwrap())
        .collect();
    pointers.sort_unstable();
    assert_eq!(pointers, ["/extra", "/id", "/note", "/owner", "/price"]);
    assert!(
        found["errors"]
            .as_array()
            .unwrap()
            .iter()
            .all(|error| error["in"] == "body")
    );

    // What the route itself checks looks the same.
    let body = r#"{"id": "statistics", "owner": 1, "note": "more than ten"}"#;
    let found = problem(
        server.post("/things", body).send().await.unwrap(),
        422,
        "invalid-request",
    )
    .await;
    assert_eq!(found["errors"][0]["pointer"], "/id");
    assert_eq!(found["errors"][1]["pointer"], "/note");
    server.stop().await;
}

#[tokio::test]
async fn amounts_arrive_exactly_and_odd_texts_whole() {
    let (server, demo) = Server::demo().await;
    for (price, want) in [
        ("499.50", "499.50"),
        ("\"499.5\"", "499.50"),
        ("90071992547409.93", "90071992547409.93"),
        ("1e2", "100.00"),
    ] {
        let body = format!(r#"{{"id": 7, "owner": "o", "price": {price}}}"#);
        let answer = server.post("/things", body).send().await.unwrap();
        assert_eq!(answer.status(), 201, "{price}");
        assert_eq!(demo.0.things.lock().unwrap()["7"].price, want);
    }
    let odd = r#"{"owner": "'; DROP TABLE things; --", "note": "x"}"#;
    problem(
        server.post("/things", odd).send().await.unwrap(),
        422,
        "invalid-request",
    )
    .await;
    let odd = r#"{"owner": "o", "note": "\u202e😀';--\uffff"}"#;
    assert_eq!(
        server.post("/things", odd).send().await.unwrap().status(),
        201
    );
    server.stop().await;
}

#[tokio::test]
async fn other_media_types_are_415() {
    let (server, _) = Server::demo().await;
    for kind in [
        "text/plain",
        "application/json2",
        "application/x-www-form-urlencoded",
        "",
        "multipart/form-data; boundary=x",
    ] {
        let request = server
            .client
            .post(server.url("/things"))
            .header("content-type", kind)
            .body("{}");
        problem(request.send().await.unwrap(), 415, "unsupported-media-type").await;
    }
    let none = server
        .client
        .post(server.url("/things"))
        .body("{}")
        .send()
        .await
        .unwrap();
    problem(none, 415, "unsupported-media-type").await;
    let packed = server
        .post("/things", r#"{"owner": 1}"#)
        .header("content-encoding", "gzip");
    problem(packed.send().await.unwrap(), 415, "unsupported-media-type").await;
    for kind in [
        "application/json; charset=utf-8",
        "Application/JSON",
        "application/json ;a=b",
    ] {
        let request = server
            .client
            .post(server.url("/things"))
            .header("content-type", kind);
        let answer = request.body(r#"{"owner": 1}"#).send().await.unwrap();
        assert_eq!(answer.status(), 201, "{kind}");
    }
    server.stop().await;
}

#[tokio::test]
async fn bodies_above_the_bound_are_413() {
    let (server, _) = Server::demo().await;
    let exact = format!(r#"{{"owner": 1{}}}"#, " ".repeat(256 * 1024 - 12));
    assert_eq!(exact.len(), 256 * 1024);
    assert_eq!(
        server
            .post("/things", exact.clone())
            .send()
            .await
            .unwrap()
            .status(),
        201
    );
    let over = exact + " ";
    problem(
        server.post("/things", over).send().await.unwrap(),
        413,
        "body-too-large",
    )
    .await;

    // The length is believed before a byte of the body comes.
    let head = format!(
        "POST /things HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: {OVER}\r\n\r\n"
    );
    let answer = exchange(server.address, head).await;
    assert!(answer.starts_with("HTTP/1.1 413"), "{answer}");
    assert!(
        answer.to_lowercase().contains("connection: close"),
        "{answer}"
    );

    // A body in chunks is counted as it comes.
    let mut raw = Raw::connect(server.address).await;
    raw.send("POST /things HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ntransfer-encoding: chunked\r\n\r\n").await;
    for _ in 0..40 {
        raw.send(format!("2000\r\n{}\r\n", " ".repeat(0x2000)))
            .await;
    }
    let answer = raw.until("body-too-large").await;
    assert!(answer.starts_with("HTTP/1.1 413"), "{answer}");
    server.stop().await;
}

#[tokio::test]
async fn whoever_is_still_sending_gets_the_answer_too() {
    let (server, _) = Server::demo().await;
    const SENT: usize = 3 * 1024 * 1024;
    let mut raw = Raw::connect(server.address).await;
    raw.send_all(format!(
        "POST /things HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: {SENT}\r\n\r\n"
    ))
    .await;
    // The answer has come before most of the body has gone.
    let answer = raw.until("body-too-large").await;
    assert!(answer.starts_with("HTTP/1.1 413"), "{answer}");
    for _ in 0..SENT / 0x10000 {
        raw.send_all(vec![b' '; 0x10000]).await;
    }
    server.stop().await;
}

#[tokio::test]
async fn a_route_without_a_body_takes_none() {
    let (server, _) = Server::demo().await;
    let delete = || server.client.delete(server.url("/things/1"));
    assert_eq!(delete().send().await.unwrap().status(), 204);
    assert_eq!(delete().body("").send().await.unwrap().status(), 204);
    problem(
        delete().body("{}").send().await.unwrap(),
        422,
        "invalid-request",
    )
    .await;
    let over = " ".repeat(OVER);
    problem(
        delete().body(over).send().await.unwrap(),
        413,
        "body-too-large",
    )
    .await;
    server.stop().await;
}

#[tokio::test]
async fn a_slow_body_is_408_and_the_connection_ends() {
    let (server, _) = Server::demo().await;
    let started = Instant::now();
    let mut raw = Raw::connect(server.address).await;
    raw.send("POST /things HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: 20\r\n\r\n{\"owner\"").await;
    let answer = raw.rest().await;
    assert!(answer.starts_with("HTTP/1.1 408"), "{answer}");
    assert!(answer.contains("/problems/request-timeout"), "{answer}");
    assert!(started.elapsed() < Duration::from_secs(15));
    server.stop().await;
}

#[tokio::test]
async fn a_body_that_breaks_off_harms_nobody() {
    let (server, demo) = Server::demo().await;
    for body in [
        "content-length: 20\r\n\r\n{\"owner\"",
        "transfer-encoding: chunked\r\n\r\n5\r\n{\"own",
    ] {
        let mut raw = Raw::connect(server.address).await;
        raw.send(format!(
            "POST /things HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n{body}"
        ))
        .await;
        raw.finish().await;
        let answer = raw.rest().await;
        assert!(
            answer.is_empty() || answer.starts_with("HTTP/1.1 400"),
            "{answer}"
        );
    }
    let broken = "POST /things HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n";
    let answer = exchange(server.address, broken).await;
    assert!(answer.starts_with("HTTP/1.1 400"), "{answer}");
    assert!(demo.0.things.lock().unwrap().is_empty());
    assert_eq!(server.get("/things").send().await.unwrap().status(), 200);
    server.stop().await;
}
