//! The server's bounds, its start and its stop.

use std::time::{Duration, Instant};

use millrace_http::{ApiOptions, CursorKey, ServerLimits};
use tokio::net::TcpStream;

use crate::{
    demo::{Demo, Server, header, problem, whole},
    raw::{Raw, exchange},
};

const GET: &str = "GET /things HTTP/1.1\r\nhost: x\r\n\r\n";

fn limits() -> ServerLimits {
    ServerLimits {
        max_connections: 3,
        max_head_bytes: 16 * 1024,
        idle_timeout: Duration::from_millis(300),
    }
}

#[tokio::test]
async fn header_floods_are_431() {
    let (server, _) = Server::demo().await;
    let many: String = (0..200).map(|n| format!("x-{n}: 1\r\n")).collect();
    let long = format!("x: {}\r\n", "y".repeat(20_000));
    for flood in [many, long] {
        let request = format!("GET /things HTTP/1.1\r\nhost: x\r\n{flood}\r\n");
        let answer = exchange(server.address, request).await;
        assert!(answer.starts_with("HTTP/1.1 431"), "{answer}");
    }
    let endless = format!("GET /{} HTTP/1.1\r\nhost: x\r\n\r\n", "y".repeat(100_000));
    let answer = exchange(server.address, endless).await;
    assert!(
        answer.starts_with("HTTP/1.1 414") || answer.starts_with("HTTP/1.1 431"),
        "{answer}"
    );
    server.stop().await;
}

#[tokio::test]
async fn a_head_that_does_not_come_ends_the_connection() {
    let server = Server::with(
        whole(&Demo::new()).finish(),
        limits(),
        Duration::from_secs(5),
    )
    .await;
    for begun in ["", "GET /thi", "GET /things HTTP/1.1\r\nhost: x\r\nx-slow"] {
        let started = Instant::now();
        let mut raw = Raw::connect(server.address).await;
        raw.send(begun).await;
        let answer = raw.rest().await;
        assert!(
            answer.is_empty() || answer.starts_with("HTTP/1.1 408"),
            "{answer}"
        );
        assert!(started.elapsed() < Duration::from_secs(5));
    }
    server.stop().await;
}

#[tokio::test]
async fn connections_beyond_the_bound_wait_for_a_place() {
    let limits = ServerLimits {
        idle_timeout: Duration::from_secs(30),
        ..limits()
    };
    let server = Server::with(whole(&Demo::new()).finish(), limits, Duration::from_secs(5)).await;
    let mut held = Vec::new();
    for _ in 0..3 {
        let mut raw = Raw::connect(server.address).await;
        raw.send(GET).await;
        raw.until("next_cursor").await;
        held.push(raw);
    }
    // The fourth is in the backlog: connected, and not served.
    let stream = TcpStream::connect(server.address).await.unwrap();
    stream.writable().await.unwrap();
    stream.try_write(GET.as_bytes()).unwrap();
    let mut byte = [0];
    let waited = tokio::time::timeout(Duration::from_millis(200), stream.peek(&mut byte)).await;
    assert!(waited.is_err(), "served beyond the bound");
    held.pop();
    let served = tokio::time::timeout(Duration::from_secs(10), stream.peek(&mut byte)).await;
    assert_eq!(served.unwrap().unwrap(), 1);
    drop((held, stream));
    server.stop().await;
}

#[tokio::test]
async fn pipelined_requests_are_answered_in_order() {
    let (server, _) = Server::demo().await;
    let mut raw = Raw::connect(server.address).await;
    let last = "GET /nothing HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n";
    raw.send(format!("{}{last}", GET.repeat(10))).await;
    let answers = raw.rest().await;
    assert_eq!(answers.matches("HTTP/1.1 200").count(), 10, "{answers}");
    assert!(answers.find("HTTP/1.1 404") > answers.rfind("HTTP/1.1 200"));
    server.stop().await;
}

#[tokio::test]
async fn a_connection_is_kept_only_where_its_body_was_read() {
    let (server, _) = Server::demo().await;
    let post = |path: &str| {
        let head = "host: x\r\ncontent-type: application/json\r\ncontent-length: 3";
        format!("POST {path} HTTP/1.1\r\n{head}\r\n\r\n")
    };
    for (path, status) in [("/nothing", 404), ("/things/a", 405), ("/things?x=1", 422)] {
        let mut raw = Raw::connect(server.address).await;
        raw.send(post(path)).await;
        let answer = raw.until("\r\n\r\n").await.to_lowercase();
        assert!(
            answer.starts_with(&format!("http/1.1 {status}")),
            "{answer}"
        );
        assert!(answer.contains("connection: close"), "{answer}");
    }
    let mut raw = Raw::connect(server.address).await;
    for _ in 0..3 {
        raw.send(post("/things") + "{]}").await;
        let answer = raw.until("malformed-json").await.to_lowercase();
        assert!(!answer.contains("connection: close"), "{answer}");
    }
    server.stop().await;
}

#[tokio::test]
async fn too_many_requests_at_once_are_503() {
    let demo = Demo::new();
    let options = ApiOptions {
        max_in_flight: 2,
        ..ApiOptions::new(CursorKey::of_this_process())
    };
    let api =
        millrace_http::Api::new(options).serve(crate::demo::read_routes().with_state(demo.clone()));
    let server = Server::start(api.finish()).await;
    let slow = || server.get("/things/slow").send();
    let arrivals = async {
        let _both = demo.0.arrived.acquire_many(2).await.unwrap();
        let shed = server.get("/things").send().await.unwrap();
        assert_eq!(header(&shed, "retry-after"), "1");
        problem(shed, 503, "unavailable").await;
        demo.0.slow.add_permits(2);
    };
    let (a, b, ()) = tokio::join!(slow(), slow(), arrivals);
    assert_eq!(
        (a.unwrap().status(), b.unwrap().status()),
        (200.try_into().unwrap(), 200.try_into().unwrap())
    );
    assert_eq!(server.get("/things").send().await.unwrap().status(), 200);
    server.stop().await;
}

#[tokio::test]
async fn a_handler_that_takes_too_long_is_504() {
    let demo = Demo::new();
    let options = ApiOptions {
        request_deadline: Duration::from_millis(100),
        ..ApiOptions::new(CursorKey::of_this_process())
    };
    let api =
        millrace_http::Api::new(options).serve(crate::demo::read_routes().with_state(demo.clone()));
    let server = Server::start(api.finish()).await;
    problem(
        server.get("/things/slow").send().await.unwrap(),
        504,
        "timeout",
    )
    .await;
    server.stop().await;
}

#[tokio::test]
async fn shutdown_finishes_what_was_begun() {
    let (server, demo) = Server::demo().await;
    let mut busy = Raw::connect(server.address).await;
    busy.send("GET /things/slow HTTP/1.1\r\nhost: x\r\n\r\n")
        .await;
    let idle = {
        let mut idle = Raw::connect(server.address).await;
        idle.send(GET).await;
        idle.until("next_cursor").await;
        idle
    };
    drop(demo.0.arrived.acquire().await.unwrap());
    server.shutdown.cancel();
    assert_eq!(
        idle.rest().await,
        "",
        "an idle connection is closed at once"
    );
    // The socket is closed before the drain ends.
    while TcpStream::connect(server.address).await.is_ok() {
        tokio::task::yield_now().await;
    }
    demo.0.slow.add_permits(1);
    let answer = busy.rest().await;
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    assert!(
        answer.to_lowercase().contains("connection: close"),
        "{answer}"
    );
    server.stop().await;
}

#[tokio::test]
async fn the_drain_is_bounded() {
    let demo = Demo::new();
    let router = whole(&demo).finish();
    let server = Server::with(router, ServerLimits::default(), Duration::from_millis(100)).await;
    let mut busy = Raw::connect(server.address).await;
    busy.send("GET /things/slow HTTP/1.1\r\nhost: x\r\n\r\n")
        .await;
    drop(demo.0.arrived.acquire().await.unwrap());
    let started = Instant::now();
    server.stop().await;
    assert!(started.elapsed() < Duration::from_secs(5));
    assert_eq!(busy.rest().await, "");
}
