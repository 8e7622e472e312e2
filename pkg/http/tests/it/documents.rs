//! The OpenAPI document and its page.

use std::collections::BTreeSet;

use serde_json::Value;

use crate::demo::{Server, header};

fn keys(value: &Value) -> BTreeSet<&str> {
    value
        .as_object()
        .unwrap()
        .keys()
        .map(String::as_str)
        .collect()
}

#[tokio::test]
async fn every_operation_documents_every_answer() {
    let (server, _) = Server::demo().await;
    let answer = server.get("/openapi.json").send().await.unwrap();
    let tag = header(&answer, "etag").to_owned();
    let document: Value = answer.json().await.unwrap();
    assert_eq!(
        document["openapi"]
            .as_str()
            .unwrap()
            .split('.')
            .take(2)
            .collect::<Vec<_>>(),
        ["3", "1"]
    );
    let again = server
        .get("/openapi.json")
        .header("if-none-match", tag)
        .send()
        .await
        .unwrap();
    assert_eq!(again.status(), 304);

    let create = &document["paths"]["/things"]["post"]["responses"];
    let want = [
        "201", "400", "408", "409", "413", "415", "422", "500", "503", "504",
    ];
    assert_eq!(keys(create), want.into());
    let headers = keys(&create["201"]["headers"]);
    let want = [
        "ETag",
        "Idempotent-Replayed",
        "Location",
        "Log-Position",
        "X-Request-Id",
        "traceparent",
    ];
    assert_eq!(headers, want.into());
    let change = &document["paths"]["/things/{id}/status"]["put"]["responses"];
    assert!(keys(change).is_superset(&["200", "404", "409", "412"].into()));
    let list = &document["paths"]["/things"]["get"]["responses"];
    let want = ["200", "304", "400", "422", "500", "503", "504"];
    assert_eq!(keys(list), want.into());

    // Every reference leads somewhere.
    let mut references = Vec::new();
    collect(&document, &mut references);
    assert!(references.len() > 20);
    for reference in references {
        let pointer = reference.strip_prefix('#').unwrap();
        assert!(document.pointer(pointer).is_some(), "{reference}");
    }
    server.stop().await;
}

fn collect<'a>(value: &'a Value, found: &mut Vec<&'a str>) {
    match value {
        Value::Object(members) => {
            found.extend(members.get("$ref").and_then(Value::as_str));
            members.values().for_each(|value| collect(value, found));
        }
        Value::Array(items) => items.iter().for_each(|value| collect(value, found)),
        _ => {}
    }
}

#[tokio::test]
async fn the_page_comes_from_here_alone() {
    let (server, _) = Server::demo().await;
    let root = server.get("/").send().await.unwrap();
    assert_eq!(
        (root.status().as_u16(), header(&root, "location")),
        (307, "/docs/")
    );
    let bare = server.get("/docs").send().await.unwrap();
    assert_eq!(
        (bare.status().as_u16(), header(&bare, "location")),
        (308, "/docs/")
    );
    let page = server.get("/docs/").send().await.unwrap();
    assert!(header(&page, "content-security-policy").starts_with("default-src 'self'"));
    assert!(header(&page, "content-type").starts_with("text/html"));
    let page = page.text().await.unwrap();
    assert!(
        !page.contains("http://") && !page.contains("https://") && !page.contains("//cdn"),
        "{page}"
    );
    for file in [
        "swagger-ui.css",
        "swagger-ui-bundle.js",
        "swagger-ui-standalone-preset.js",
        "swagger-initializer.js",
        "index.css",
    ] {
        assert!(page.contains(file), "{file}");
        let answer = server.get(&format!("/docs/{file}")).send().await.unwrap();
        assert_eq!(answer.status(), 200, "{file}");
        let text = answer.text().await.unwrap();
        if file == "swagger-initializer.js" {
            assert!(text.contains("/openapi.json"), "{text}");
            assert!(text.contains("\"validatorUrl\": \"none\""), "{text}");
        }
    }
    server.stop().await;
}
