//! Hands writes from the query service to the command service, for a system that has one public
//! port and no ingress that tells them apart.

use std::time::Duration;

use axum::{
    body::Body,
    extract::Request,
    response::{IntoResponse, Response},
};
use http::{HeaderMap, HeaderName, HeaderValue, Uri, header, uri::PathAndQuery};
use http_body_util::Limited;
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::{TokioExecutor, TokioTimer},
};

use crate::{
    MAX_BODY_BYTES, Problem, RequestContext,
    body::{declared_length, too_large},
    context::X_REQUEST_ID,
    trace,
};

/// How long a connection to the command service may take to open.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// How long the command service may take to answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);
/// The most idle connections that are kept.
const MAX_IDLE_CONNECTIONS: usize = 256;
/// How long an idle connection is kept: shorter than the server keeps its end, so that a write is
/// not sent into a connection that is closing.
const IDLE_TIMEOUT: Duration = Duration::from_secs(10);

/// Headers that belong to one connection (RFC 9110, 7.6.1).
const HOP_BY_HOP: [HeaderName; 9] = [
    header::CONNECTION,
    header::PROXY_AUTHENTICATE,
    header::PROXY_AUTHORIZATION,
    header::TE,
    header::TRAILER,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
];

/// Marks the answer of another service.
#[derive(Clone, Copy)]
pub(crate) struct Forwarded;

/// Forwards requests to another service.
#[derive(Clone)]
pub struct Forwarder {
    client: Client<HttpConnector, Limited<Body>>,
    origin: Uri,
}

/// A URL that requests cannot be forwarded to.
#[derive(Debug, thiserror::Error)]
#[error("{url:?} must be http://<host>:<port>, without a path")]
pub struct InvalidOrigin {
    url: String,
}

impl Forwarder {
    /// Forwards to `url`, such as `http://command:8080`.
    ///
    /// # Errors
    /// [`InvalidOrigin`] when it is not an http URL, or has a path.
    pub fn new(url: &str) -> Result<Self, InvalidOrigin> {
        let invalid = || InvalidOrigin {
            url: url.to_owned(),
        };
        let origin: Uri = url.parse().map_err(|_| invalid())?;
        let plain = origin.scheme_str() == Some("http")
            && origin.authority().is_some()
            && matches!(origin.path(), "" | "/")
            && origin.query().is_none();
        if !plain {
            return Err(invalid());
        }
        let mut connector = HttpConnector::new();
        connector.set_connect_timeout(Some(CONNECT_TIMEOUT));
        connector.set_nodelay(true);
        let client = Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_max_idle_per_host(MAX_IDLE_CONNECTIONS)
            .pool_idle_timeout(IDLE_TIMEOUT)
            .build(connector);
        Ok(Self { client, origin })
    }

    /// Sends the request on and gives the answer as it comes, body streaming.
    pub(crate) async fn forward(&self, request: Request) -> Response {
        match tokio::time::timeout(ANSWER_TIMEOUT, self.exchange(request)).await {
            Ok(Ok(response)) => response,
            Ok(Err(problem)) => problem.into_response(),
            Err(_) => Problem::outcome_unknown().into_response(),
        }
    }

    async fn exchange(&self, request: Request) -> Result<Response, Problem> {
        let (mut parts, body) = request.into_parts();
        if declared_length(&parts.headers).is_some_and(|length| length > MAX_BODY_BYTES as u64) {
            return Err(too_large());
        }
        let path = parts.uri.path_and_query().cloned();
        let path = path.unwrap_or_else(|| PathAndQuery::from_static("/"));
        let mut uri = self.origin.clone().into_parts();
        uri.path_and_query = Some(path);
        parts.uri = Uri::from_parts(uri).map_err(Problem::internal)?;
        parts.version = http::Version::HTTP_11;
        strip(&mut parts.headers);
        parts.headers.remove(header::HOST);
        if let Some(context) = parts.extensions.remove::<RequestContext>() {
            parts
                .headers
                .insert(X_REQUEST_ID, context.request_id_value());
            if let Some(value) = context.traceparent_value() {
                parts.headers.insert(trace::TRACEPARENT, value);
            }
        }
        parts.extensions.clear();
        let request = Request::from_parts(parts, Limited::new(body, MAX_BODY_BYTES));
        match self.client.request(request).await {
            Ok(response) => {
                let (mut parts, body) = response.into_parts();
                strip(&mut parts.headers);
                parts.extensions.clear();
                parts.extensions.insert(Forwarded);
                Ok(Response::from_parts(parts, Body::new(body)))
            }
            Err(error) => Err(failure(error)),
        }
    }
}

fn failure(error: hyper_util::client::legacy::Error) -> Problem {
    let source = std::error::Error::source(&error);
    let too_long = std::iter::successors(source, |error| error.source())
        .any(|error| error.is::<http_body_util::LengthLimitError>());
    if too_long {
        too_large()
    } else if error.is_connect() {
        Problem::unavailable("The service that takes writes cannot be reached; nothing was done")
            .caused_by(error)
    } else {
        Problem::outcome_unknown().caused_by(error)
    }
}

/// Removes the headers that belong to the connection it came on, and those it names itself.
fn strip(headers: &mut HeaderMap) {
    let named: Vec<HeaderName> = headers
        .get_all(header::CONNECTION)
        .iter()
        .filter_map(|value: &HeaderValue| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .filter_map(|name| name.trim().parse().ok())
        .collect();
    for name in named.iter().chain(&HOP_BY_HOP) {
        headers.remove(name);
    }
}
