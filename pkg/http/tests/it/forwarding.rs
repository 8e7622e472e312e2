//! The query service handing writes to the command service.

use std::time::Duration;

use millrace_http::{Api, Forwarder, ServerLimits};
use tokio::net::TcpListener;

use crate::{
    demo::{Demo, Server, header, options, problem, read_routes, write_routes},
    raw::{Raw, exchange},
};

async fn command(demo: &Demo) -> Server {
    let api = Api::new(options())
        .serve(write_routes().with_state(demo.clone()))
        .document(read_routes());
    Server::start(api.finish()).await
}

async fn query(demo: &Demo, command: &str) -> Server {
    let api = Api::new(options())
        .serve(read_routes().with_state(demo.clone()))
        .document(write_routes())
        .forward(Forwarder::new(command).unwrap());
    Server::start(api.finish()).await
}

#[tokio::test]
async fn writes_go_through_and_their_answers_come_back_whole() {
    let demo = Demo::new();
    let command = command(&demo).await;
    let query = query(&demo, &command.url("")).await;
    let trace = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    let send = || {
        let request = query
            .post("/things", r#"{"owner": "o"}"#)
            .header("idempotency-key", "k");
        request
            .header("x-request-id", "req-1")
            .header("traceparent", trace)
            .header("connection", "x-hop")
            .header("x-hop", "1")
            .send()
    };
    let first = send().await.unwrap();
    assert_eq!(first.status(), 201);
    assert_eq!(header(&first, "x-request-id"), "req-1");
    assert_eq!(header(&first, "etag"), "\"1\"");
    assert!(!first.headers().contains_key("allow"));
    assert_eq!(header(&first, "log-position"), "things/7~1~3_7");
    let location = header(&first, "location").to_owned();
    let bytes = first.bytes().await.unwrap();
    let again = send().await.unwrap();
    assert_eq!(header(&again, "idempotent-replayed"), "true");
    assert_eq!(again.bytes().await.unwrap(), bytes);
    assert_eq!(query.get(&location).send().await.unwrap().status(), 200);
    let metadata = demo.0.metadata.lock().unwrap()[0].clone();
    assert_eq!(metadata.correlation_id, "req-1");
    assert_eq!(&metadata.traceparent.unwrap()[..35], &trace[..35]);

    // Errors come back as the command service says them.
    problem(
        query.post("/things", "{").send().await.unwrap(),
        400,
        "malformed-json",
    )
    .await;
    let put = query
        .client
        .put(query.url("/things/statistics/status"))
        .header("content-type", "application/json");
    problem(
        put.body(r#"{"status": "OPEN"}"#).send().await.unwrap(),
        422,
        "invalid-request",
    )
    .await;
    let delete = query.client.delete(query.url("/things/x?y=1"));
    problem(delete.send().await.unwrap(), 422, "invalid-request").await;
    query.stop().await;
    command.stop().await;
}

#[tokio::test]
async fn the_two_services_look_like_one() {
    let demo = Demo::new();
    let command = command(&demo).await;
    let query = query(&demo, &command.url("")).await;
    for (method, path, allow) in [
        ("PATCH", "/things", "GET, POST, HEAD, OPTIONS"),
        ("GET", "/things/a/status", "PUT, OPTIONS"),
        ("POST", "/things/statistics", "GET, HEAD, OPTIONS"),
    ] {
        let answer = query
            .client
            .request(method.parse().unwrap(), query.url(path))
            .send()
            .await
            .unwrap();
        assert_eq!(header(&answer, "allow"), allow);
        problem(answer, 405, "method-not-allowed").await;
    }
    problem(
        query.post("/nothing", "{}").send().await.unwrap(),
        404,
        "not-found",
    )
    .await;
    let documents = [query.get("/openapi.json"), command.get("/openapi.json")];
    let [of_query, of_command] =
        documents.map(|get| async { get.send().await.unwrap().text().await.unwrap() });
    assert_eq!(of_query.await, of_command.await);
    // On its own, the command service has the writes only.
    let alone = command
        .client
        .patch(command.url("/things"))
        .send()
        .await
        .unwrap();
    assert_eq!(header(&alone, "allow"), "POST, OPTIONS");
    query.stop().await;
    command.stop().await;
}

#[tokio::test]
async fn large_bodies_stop_at_the_first_service() {
    let demo = Demo::new();
    let command = command(&demo).await;
    let query = query(&demo, &command.url("")).await;
    let over = " ".repeat(256 * 1024 + 1);
    problem(
        query.post("/things", over).send().await.unwrap(),
        413,
        "body-too-large",
    )
    .await;
    let mut raw = Raw::connect(query.address).await;
    raw.send("POST /things HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ntransfer-encoding: chunked\r\n\r\n").await;
    for _ in 0..40 {
        raw.send(format!("2000\r\n{}\r\n", " ".repeat(0x2000)))
            .await;
    }
    let answer = raw.until("body-too-large").await;
    assert!(answer.starts_with("HTTP/1.1 413"), "{answer}");
    query.stop().await;
    command.stop().await;
}

#[tokio::test]
async fn a_command_service_that_is_away_is_503() {
    let free = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = free.local_addr().unwrap();
    drop(free);
    let query = query(&Demo::new(), &format!("http://{address}")).await;
    let answer = query
        .post("/things", r#"{"owner": "o"}"#)
        .send()
        .await
        .unwrap();
    assert_eq!(header(&answer, "retry-after"), "1");
    let found = problem(answer, 503, "unavailable").await.to_string();
    assert!(!found.contains("127.0.0.1"), "{found}");
    assert_eq!(query.get("/things").send().await.unwrap().status(), 200);
    query.stop().await;
}

#[tokio::test]
async fn a_command_service_that_dies_in_between_leaves_the_outcome_open() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let query = query(
        &Demo::new(),
        &format!("http://{}", listener.local_addr().unwrap()),
    )
    .await;
    let dying = async {
        let (stream, _) = listener.accept().await.unwrap();
        stream.readable().await.unwrap();
    };
    let (answer, ()) = tokio::join!(query.post("/things", r#"{"owner": "o"}"#).send(), dying);
    let found = problem(answer.unwrap(), 504, "timeout").await;
    assert!(
        found["detail"]
            .as_str()
            .unwrap()
            .contains("Idempotency-Key"),
        "{found}"
    );
    query.stop().await;
}

#[tokio::test]
async fn without_a_forwarder_writes_are_405() {
    let api = Api::new(options())
        .serve(read_routes().with_state(Demo::new()))
        .document(write_routes());
    let server = Server::with(
        api.finish(),
        ServerLimits::default(),
        Duration::from_secs(5),
    )
    .await;
    let answer = server.post("/things", "{}").send().await.unwrap();
    assert_eq!(header(&answer, "allow"), "GET, HEAD, OPTIONS");
    problem(answer, 405, "method-not-allowed").await;
    let answer = exchange(
        server.address,
        "PUT /things/a/status HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n",
    )
    .await;
    assert!(answer.starts_with("HTTP/1.1 404"), "{answer}");
    server.stop().await;
}

#[test]
fn an_origin_is_a_plain_http_url() {
    assert!(Forwarder::new("http://command:8080").is_ok());
    assert!(Forwarder::new("http://127.0.0.1:8080/").is_ok());
    for bad in [
        "",
        "command:8080",
        "https://command",
        "http://command/path",
        "http://command?x",
        "/x",
    ] {
        assert!(Forwarder::new(bad).is_err(), "{bad}");
    }
}
