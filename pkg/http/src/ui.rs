//! The browsable page, all of it from this binary.

use std::sync::Arc;

use axum::{
    Router,
    extract::Path,
    response::{IntoResponse, Redirect, Response},
    routing::get,
};
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, header};
use utoipa_swagger_ui::Config;

use crate::{
    Problem,
    conditional::{IfNoneMatch, body_tag},
};

/// The paths this module answers.
pub(crate) const PATHS: [&str; 5] = ["/", "/openapi.json", "/docs", "/docs/", "/docs/{file}"];

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
        .route("/docs/", get(|| async move { file("", index) }))
        .route(
            "/docs/{file}",
            get(|Path(name): Path<String>| async move { file(&name, config) }),
        )
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
