use std::time::Duration;

use axum::{
    body::Body,
    extract::{FromRequest, Request},
};
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, header, request::Parts};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use serde::de::DeserializeOwned;

use crate::{Problem, context, json, problem::types};

/// The largest body that is taken, in bytes.
pub const MAX_BODY_BYTES: usize = 256 * 1024;
/// How long a body may take to arrive unless told otherwise.
pub const DEFAULT_BODY_TIMEOUT: Duration = Duration::from_secs(10);

/// A JSON body, read strictly: 415 unless it is `application/json`, 413 above [`MAX_BODY_BYTES`],
/// 408 when it comes too slowly, 400 when it is not JSON, and 422 with every field that is unknown,
/// missing or wrong.
#[derive(Debug, Clone, Copy, Default)]
pub struct Json<T>(pub T);

impl<T: DeserializeOwned, S: Sync> FromRequest<S> for Json<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, _: &S) -> Result<Self, Problem> {
        let (parts, body) = request.into_parts();
        require_json(&parts.headers)?;
        let bytes = read(&parts, body).await?;
        json::from_slice(&bytes).map(Self)
    }
}

/// Refuses what does not call itself JSON, and what is compressed.
pub(crate) fn require_json(headers: &HeaderMap) -> Result<(), Problem> {
    if headers.contains_key(header::CONTENT_ENCODING) {
        return Err(Problem::new(
            &types::UNSUPPORTED_MEDIA_TYPE,
            "Send the body as it is, without a Content-Encoding",
        )
        .with_header(
            header::ACCEPT_ENCODING,
            HeaderValue::from_static("identity"),
        ));
    }
    let mut values = headers.get_all(header::CONTENT_TYPE).iter();
    let value = values.next().filter(|_| values.next().is_none());
    let essence = value
        .and_then(|value| value.to_str().ok())
        .and_then(|value| value.split(';').next())
        .map(str::trim);
    if essence.is_some_and(|essence| essence.eq_ignore_ascii_case("application/json")) {
        return Ok(());
    }
    Err(Problem::new(
        &types::UNSUPPORTED_MEDIA_TYPE,
        "Send JSON and say so: Content-Type: application/json",
    )
    .with_header(header::ACCEPT, HeaderValue::from_static("application/json")))
}

/// Reads a body whole, within its bounds of size and time.
pub(crate) async fn read(parts: &Parts, body: Body) -> Result<Bytes, Problem> {
    let bound = context::of(parts)?.body_timeout();
    if declared_length(&parts.headers).is_some_and(|length| length > MAX_BODY_BYTES as u64) {
        return Err(too_large());
    }
    let whole = Limited::new(body, MAX_BODY_BYTES).collect();
    match tokio::time::timeout(bound, whole).await {
        Ok(Ok(collected)) => Ok(collected.to_bytes()),
        Ok(Err(error)) if error.is::<LengthLimitError>() => Err(too_large()),
        Ok(Err(error)) => Err(Problem::new(
            &types::INCOMPLETE_BODY,
            "The connection or the encoding of the body broke off",
        )
        .caused_by(error)),
        Err(_) => Err(Problem::new(
            &types::REQUEST_TIMEOUT,
            format!("The body did not arrive within {} s", bound.as_secs()),
        )),
    }
}

pub(crate) fn declared_length(headers: &HeaderMap) -> Option<u64> {
    headers
        .get(header::CONTENT_LENGTH)
        .and_then(|value| value.to_str().ok())
        .and_then(|value| value.parse().ok())
}

pub(crate) fn too_large() -> Problem {
    Problem::new(
        &types::BODY_TOO_LARGE,
        format!("The body is above {} KiB", MAX_BODY_BYTES / 1024),
    )
}
