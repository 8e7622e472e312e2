//! The browsable page and the explanations of problems, all of it from this binary.

use std::sync::Arc;

use axum::{
    Router,
    response::{IntoResponse, Redirect, Response},
    routing::get,
};
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, header};
use utoipa_swagger_ui::Config;

use crate::{
    PathTexts, Problem,
    conditional::{IfNoneMatch, body_tag},
};

/// The paths this module answers.
pub(crate) const PATHS: [&str; 6] = [
    "/",
    "/openapi.json",
    "/docs",
    "/docs/",
    "/docs/{file}",
    "/problems/{name}",
];

/// What every problem means. A `type` is a path to its section.
const PROBLEMS: &str = include_str!("../../../docs/problems.md");

/// Nothing the page loads may come from anywhere else; the page has inline styles of its own.
const POLICY: HeaderValue = HeaderValue::from_static(
    "default-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; frame-ancestors 'none'",
);

/// Serves the document and the page.
pub(crate) fn routes(document: Bytes) -> Router {
    // The page would ask an outside validator about the document unless told not to.
    let config = Config::from("/openapi.json")
        .validator_url("none")
        .display_request_duration(true);
    let config = Arc::new(config);
    let index = config.clone();
    let tag = body_tag(&document);
    let openapi = move |headers: HeaderMap| async move { openapi(&headers, &document, &tag) };
    Router::new()
        .route("/", get(|| async { Redirect::temporary("/docs/") }))
        .route("/openapi.json", get(openapi))
        .route("/docs", get(|| async { Redirect::permanent("/docs/") }))
        .route(
            "/problems/{name}",
            get(|PathTexts([name]): PathTexts<1>| async move { problem(&name) }),
        )
        .route("/docs/", get(|| async move { file("", index) }))
        .route(
            "/docs/{file}",
            get(|PathTexts([name]): PathTexts<1>| async move { file(&name, config) }),
        )
}

/// The section about a problem.
fn problem(name: &str) -> Result<Response, Problem> {
    let mut sections = PROBLEMS.split("\n## ").skip(1);
    let found = sections.find_map(|section| {
        let (title, text) = section.split_once('\n')?;
        (title.trim_matches('`') == name).then_some(text.trim())
    });
    let text = found.ok_or_else(|| Problem::not_found("This kind of problem"))?;
    let kind = [(header::CONTENT_TYPE, "text/plain; charset=utf-8")];
    Ok((kind, text).into_response())
}

fn openapi(headers: &HeaderMap, document: &Bytes, tag: &HeaderValue) -> Result<Response, Problem> {
    let etag = [(header::ETAG, tag.clone())];
    if IfNoneMatch::of(headers)?.has(tag) {
        return Ok((http::StatusCode::NOT_MODIFIED, etag).into_response());
    }
    let kind = [(header::CONTENT_TYPE, "application/json")];
    Ok((etag, kind, document.clone()).into_response())
}

fn file(name: &str, config: Arc<Config<'static>>) -> Result<Response, Problem> {
    // The library's error is not `Send` and comes only of a template it ships itself.
    let found = utoipa_swagger_ui::serve(name, config)
        .map_err(|error| Problem::internal(error.to_string()))?;
    let Some(file) = found else {
        return Err(Problem::not_found("This file of the page"));
    };
    let kind = HeaderValue::from_str(&file.content_type).map_err(Problem::internal)?;
    let headers = [
        (header::CONTENT_TYPE, kind),
        (header::CONTENT_SECURITY_POLICY, POLICY),
        (
            header::X_CONTENT_TYPE_OPTIONS,
            HeaderValue::from_static("nosniff"),
        ),
    ];
    let body = match file.bytes {
        std::borrow::Cow::Borrowed(bytes) => Bytes::from_static(bytes),
        std::borrow::Cow::Owned(bytes) => Bytes::from(bytes),
    };
    Ok((headers, body).into_response())
}
