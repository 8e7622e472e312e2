//! Pages and cursors.

use serde_json::Value;

use crate::demo::{Server, header, problem};

async fn page(server: &Server, path: &str) -> (Vec<String>, Option<String>) {
    let answer = server.get(path).send().await.unwrap();
    assert_eq!(answer.status(), 200, "{path}");
    let body: Value = answer.json().await.unwrap();
    let ids = body["items"].as_array().unwrap().iter();
    let ids = ids
        .map(|item| item["id"].as_str().unwrap().to_owned())
        .collect();
    assert!(
        body.as_object().unwrap().contains_key("next_cursor"),
        "null on the last page"
    );
    (ids, body["next_cursor"].as_str().map(str::to_owned))
}

#[tokio::test]
async fn pages_follow_each_other_and_survive_inserts() {
    let (server, _) = Server::demo().await;
    for n in 0..7 {
        server.make(&format!("t{n}")).await;
    }
    let (first, next) = page(&server, "/things?limit=3").await;
    assert_eq!(first, ["t0", "t1", "t2"]);
    server.make("t1a").await;
    // The size of a page may change on the way.
    let (second, next) = page(
        &server,
        &format!("/things?cursor={}&limit=2", next.unwrap()),
    )
    .await;
    assert_eq!(second, ["t3", "t4"]);
    let (third, next) = page(
        &server,
        &format!("/things?cursor={}&limit=2", next.unwrap()),
    )
    .await;
    assert_eq!(
        (third, next),
        (vec!["t5".to_owned(), "t6".to_owned()], None)
    );
    let (all, next) = page(&server, "/things").await;
    assert_eq!((all.len(), next), (8, None));
    server.stop().await;
}

#[tokio::test]
async fn a_page_of_the_default_size_has_fifty() {
    let (server, _) = Server::demo().await;
    for n in 0..51 {
        server.make(&format!("t{n:02}")).await;
    }
    let (first, next) = page(&server, "/things").await;
    assert_eq!(first.len(), 50);
    let (second, next) = page(&server, &format!("/things?cursor={}", next.unwrap())).await;
    assert_eq!((second.len(), next), (1, None));
    assert_eq!(page(&server, "/things?limit=500").await.0.len(), 51);
    server.stop().await;
}

#[tokio::test]
async fn a_bare_array_has_its_cursor_in_a_header() {
    let (server, _) = Server::demo().await;
    let first = server
        .get("/things/owner/o/of/x?limit=1")
        .send()
        .await
        .unwrap();
    let cursor = header(&first, "next-cursor").to_owned();
    assert_eq!(
        first
            .json::<Value>()
            .await
            .unwrap()
            .as_array()
            .unwrap()
            .len(),
        1
    );
    let next = server.get(&format!("/things/owner/o/of/x?limit=2&cursor={cursor}"));
    let next = next.send().await.unwrap();
    assert!(!next.headers().contains_key("next-cursor"));
    server.stop().await;
}

#[tokio::test]
async fn foreign_cursors_are_400() {
    let (server, _) = Server::demo().await;
    for n in 0..3 {
        server.make(&format!("t{n}")).await;
    }
    let (_, cursor) = page(&server, "/things?limit=1&prefix=t").await;
    let cursor = cursor.unwrap();
    assert_eq!(
        page(&server, &format!("/things?prefix=t&cursor={cursor}"))
            .await
            .0
            .len(),
        2
    );

    let mut forged: Vec<String> = (0..cursor.len())
        .map(|at| {
            let mut bytes = cursor.clone().into_bytes();
            bytes[at] = if bytes[at] == b'A' { b'B' } else { b'A' };
            String::from_utf8(bytes).unwrap()
        })
        .collect();
    forged.extend(["", "x", "AAAA", "eyJpZCI6MX0", "'%20OR%201=1%20--"].map(str::to_owned));
    forged.extend([
        cursor[..cursor.len() - 1].to_owned(),
        format!("{cursor}A"),
        "A".repeat(5000),
    ]);
    for cursor in &forged {
        let answer = server
            .get(&format!("/things?prefix=t&cursor={cursor}"))
            .send()
            .await
            .unwrap();
        problem(answer, 400, "invalid-cursor").await;
    }
    // Another filter and another list are other lists.
    for path in [
        "/things?",
        "/things?prefix=u&",
        "/things?prefix=t&expensive=false&",
        "/things/owner/o/of/x?",
    ] {
        let answer = server
            .get(&format!("{path}cursor={cursor}"))
            .send()
            .await
            .unwrap();
        problem(answer, 400, "invalid-cursor").await;
    }
    server.stop().await;
}
