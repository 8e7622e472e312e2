//! Ids in paths, parameters, consistency levels and conditional reads.

use crate::demo::{Server, header, problem};

#[tokio::test]
async fn ids_in_paths_are_checked() {
    let (server, _) = Server::demo().await;
    server.make("a.b:c-d_9").await;
    assert_eq!(
        server
            .get("/things/a.b:c-d_9")
            .send()
            .await
            .unwrap()
            .status(),
        200
    );
    assert_eq!(
        server
            .get("/things/a%2Eb:c-d%5F9")
            .send()
            .await
            .unwrap()
            .status(),
        200
    );
    let long = "x".repeat(65);
    for id in [
        "a%20b",
        "-a",
        "a-",
        "a%2Fb",
        "%00",
        "caf%C3%A9",
        "'%3BDROP%20TABLE",
        long.as_str(),
    ] {
        let answer = server.get(&format!("/things/{id}")).send().await.unwrap();
        let found = problem(answer, 422, "invalid-request").await;
        assert_eq!(found["errors"][0]["in"], "path", "{id}");
        assert_eq!(found["errors"][0]["pointer"], "/id", "{id}");
    }
    problem(
        server.get("/things/%FF").send().await.unwrap(),
        400,
        "malformed-url",
    )
    .await;
    problem(
        server.get("/things/unknown").send().await.unwrap(),
        404,
        "not-found",
    )
    .await;
    server.stop().await;
}

#[tokio::test]
async fn words_of_the_routes_are_no_ids() {
    let (server, _) = Server::demo().await;
    let delete = |id: &str| {
        server
            .client
            .delete(server.url(&format!("/things/{id}/status")))
            .send()
    };
    // There is no such method; what counts is that no id is taken for one.
    assert_eq!(delete("1").await.unwrap().status(), 405);
    for word in ["statistics", "owner", "panic"] {
        let put = server
            .client
            .put(server.url(&format!("/things/{word}/status")));
        let put = put
            .header("content-type", "application/json")
            .body(r#"{"status": "OPEN"}"#);
        let found = problem(put.send().await.unwrap(), 422, "invalid-request").await;
        assert_eq!(found["errors"][0]["pointer"], "/id", "{word}");
    }
    server.stop().await;
}

#[tokio::test]
async fn parameters_are_strict() {
    let (server, _) = Server::demo().await;
    for (query, pointer) in [
        ("colour=red", "/colour"),
        ("limit=1&limit=2", "/limit"),
        ("limit=0", "/limit"),
        ("limit=501", "/limit"),
        ("limit=+5", "/limit"),
        ("limit=1.0", "/limit"),
        ("limit=99999999999999999999", "/limit"),
        ("limit=", "/limit"),
        ("expensive=yes", "/expensive"),
        ("expensive=1", "/expensive"),
        ("prefix=a%00b", "/prefix"),
        ("prefix=a&%70refix=b", "/prefix"),
        ("consistency=strong", "/consistency"),
        ("consistency=maybe", "/consistency"),
        ("at_least=things", "/at_least"),
        ("at_least=", "/at_least"),
        ("x%2Fy%7E=1", "/x~1y~0"),
    ] {
        let answer = server
            .get(&format!("/things?{query}"))
            .send()
            .await
            .unwrap();
        let found = problem(answer, 422, "invalid-request").await;
        assert_eq!(found["errors"][0]["pointer"], pointer, "{query}");
        assert_eq!(found["errors"][0]["in"], "query", "{query}");
    }
    for broken in ["prefix=%", "prefix=%4", "prefix=%zz", "prefix=%FF", "%C3=1"] {
        let answer = server
            .get(&format!("/things?{broken}"))
            .send()
            .await
            .unwrap();
        problem(answer, 400, "malformed-url").await;
    }
    for fine in [
        "",
        "expensive=true&prefix=a+b",
        "&prefix=%F0%9F%98%80&",
        "prefix",
        "prefix=a=b",
    ] {
        let answer = server.get(&format!("/things?{fine}")).send().await.unwrap();
        assert_eq!(answer.status(), 200, "{fine}");
    }
    let many: Vec<String> = (0..100).map(|n| format!("p{n}=1")).collect();
    let answer = server
        .get(&format!("/things?{}", many.join("&")))
        .send()
        .await
        .unwrap();
    problem(answer, 400, "malformed-url").await;
    server.stop().await;
}

#[tokio::test]
async fn a_reader_may_wait_for_a_position() {
    let (server, _) = Server::demo().await;
    server.make("a").await;
    for token in ["things/7", "things/7~1~3_7"] {
        let answer = server
            .get(&format!("/things/a?at_least={token}"))
            .send()
            .await
            .unwrap();
        assert_eq!(answer.status(), 200);
        assert_eq!(header(&answer, "preference-applied"), "wait=2");
        assert_eq!(header(&answer, "log-position"), "things/7~1~3_7");
        let answer = server
            .get("/things/a")
            .header("min-log-position", token)
            .send()
            .await
            .unwrap();
        assert_eq!(answer.status(), 200);
    }
    let late = server
        .get("/things/a?at_least=things/8")
        .header("prefer", "wait=1")
        .send()
        .await
        .unwrap();
    assert_eq!(header(&late, "retry-after"), "1");
    let late = problem(late, 504, "not-yet-readable").await;
    assert_eq!(
        (late["wanted"].as_str(), late["reached"].as_str()),
        (Some("things/8"), Some("things/7"))
    );

    for (prefer, granted) in [
        ("wait=9", "wait=9"),
        ("respond-async, wait=5", "wait=5"),
        ("Wait = \"4\"; x", "wait=4"),
        ("wait=31", "wait=30"),
        ("wait=99999999999999999999", "wait=30"),
        ("wait=0", "wait=0"),
        ("wait=soon", "wait=2"),
        ("wait=-1", "wait=2"),
    ] {
        let request = server
            .get("/things?at_least=things/1")
            .header("prefer", prefer);
        let answer = request.send().await.unwrap();
        assert_eq!(header(&answer, "preference-applied"), granted, "{prefer}");
    }
    server.stop().await;
}

#[tokio::test]
async fn contradictory_demands_are_refused() {
    let (server, _) = Server::demo().await;
    server.make("a").await;
    assert_eq!(
        server
            .get("/things/a?consistency=strong")
            .send()
            .await
            .unwrap()
            .status(),
        200
    );
    assert_eq!(
        server
            .get("/things/a?consistency=eventual")
            .send()
            .await
            .unwrap()
            .status(),
        200
    );
    for query in [
        "consistency=strong&at_least=things/1",
        "consistency=eventual&at_least=things/1",
    ] {
        let answer = server
            .get(&format!("/things/a?{query}"))
            .send()
            .await
            .unwrap();
        problem(answer, 422, "invalid-request").await;
    }
    let both = |header| {
        server
            .get("/things/a?at_least=things/1")
            .header("min-log-position", header)
            .send()
    };
    assert_eq!(both("things/1").await.unwrap().status(), 200);
    problem(both("things/2").await.unwrap(), 422, "invalid-request").await;
    let broken = server
        .get("/things/a")
        .header("min-log-position", "7")
        .send()
        .await
        .unwrap();
    let found = problem(broken, 422, "invalid-request").await;
    assert_eq!(found["errors"][0]["in"], "header");
    server.stop().await;
}

#[tokio::test]
async fn what_the_client_has_is_not_sent_again() {
    let (server, _) = Server::demo().await;
    server.make("a").await;
    for path in [
        "/things/a",
        "/things",
        "/things/statistics",
        "/things/owner/o/of/x",
    ] {
        let first = server.get(path).send().await.unwrap();
        let tag = header(&first, "etag").to_owned();
        for tags in [
            tag.clone(),
            format!("W/{tag}"),
            format!("\"x\", {tag}"),
            "*".to_owned(),
        ] {
            let again = server
                .get(path)
                .header("if-none-match", &tags)
                .send()
                .await
                .unwrap();
            assert_eq!(again.status(), 304, "{path} {tags}");
            assert_eq!(header(&again, "etag"), tag);
            assert!(again.bytes().await.unwrap().is_empty());
        }
        let other = server
            .get(path)
            .header("if-none-match", "\"x\"")
            .send()
            .await
            .unwrap();
        assert_eq!(other.status(), 200);
    }
    assert_eq!(
        header(&server.get("/things/a").send().await.unwrap(), "etag"),
        "\"1\""
    );
    let before = header(&server.get("/things").send().await.unwrap(), "etag").to_owned();
    server.make("b").await;
    let after = server
        .get("/things")
        .header("if-none-match", before)
        .send()
        .await
        .unwrap();
    assert_eq!(after.status(), 200);
    let broken = server
        .get("/things")
        .header("if-none-match", "x")
        .send()
        .await
        .unwrap();
    problem(broken, 422, "invalid-request").await;
    server.stop().await;
}
