//! Request ids and trace context.

use crate::demo::{Server, header};

#[tokio::test]
async fn a_request_id_is_taken_or_made() {
    let (server, _) = Server::demo().await;
    for good in ["req-1", "a/b+c=", &"x".repeat(128)] {
        let answer = server
            .get("/things")
            .header("x-request-id", good)
            .send()
            .await
            .unwrap();
        assert_eq!(header(&answer, "x-request-id"), good);
    }
    for bad in ["", "a b", "caf\u{e9}", "a\tb", &"x".repeat(129)] {
        let value = reqwest::header::HeaderValue::from_bytes(bad.as_bytes()).unwrap();
        let answer = server
            .get("/nothing")
            .header("x-request-id", value)
            .send()
            .await
            .unwrap();
        let made = header(&answer, "x-request-id");
        assert_eq!(made.len(), 36, "{bad:?}: {made}");
    }
    server.stop().await;
}

#[tokio::test]
async fn a_trace_goes_on_or_begins() {
    let (server, _) = Server::demo().await;
    let trace = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    let answer = server
        .get("/things")
        .header("traceparent", trace)
        .send()
        .await
        .unwrap();
    assert_eq!(&header(&answer, "traceparent")[..35], &trace[..35]);
    let zero = "00-00000000000000000000000000000000-00f067aa0ba902b7-01";
    for bad in [
        "",
        "x",
        zero,
        "ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
        &trace.to_uppercase(),
    ] {
        let answer = server
            .get("/things")
            .header("traceparent", bad)
            .send()
            .await
            .unwrap();
        let begun = header(&answer, "traceparent");
        assert!(
            begun.len() == 55 && begun.starts_with("00-") && begun != bad,
            "{begun}"
        );
    }
    server.stop().await;
}
