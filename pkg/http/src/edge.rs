//! The one layer around every route: names the request, opens its span, sheds load, bounds its
//! time, turns a panic into a 500, counts it.

use std::{
    any::Any,
    convert::Infallible,
    panic::AssertUnwindSafe,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::{Duration, Instant},
};

use axum::{
    extract::{MatchedPath, Request},
    response::{IntoResponse, Response},
};
use futures::FutureExt;
use http::{Method, StatusCode};
use tokio::sync::Semaphore;
use tower::{Layer, Service};
use tracing::{Instrument, Span, field::Empty};

use crate::{
    Problem, RequestContext,
    context::{Shared, X_REQUEST_ID},
    metrics::{RequestMetrics, UNMATCHED},
    trace,
};

pub(crate) struct Edge {
    pub shared: Arc<Shared>,
    pub metrics: RequestMetrics,
    pub in_flight: Arc<Semaphore>,
    pub deadline: Duration,
}

/// The template of a request that no handler of this service took but that is a route all the same:
/// a forwarded one. Travels on the response.
#[derive(Clone)]
pub(crate) struct RouteLabel(pub Arc<str>);

#[derive(Clone)]
pub(crate) struct EdgeLayer(pub Arc<Edge>);

impl<S> Layer<S> for EdgeLayer {
    type Service = EdgeService<S>;

    fn layer(&self, inner: S) -> EdgeService<S> {
        EdgeService {
            inner,
            edge: self.0.clone(),
        }
    }
}

#[derive(Clone)]
pub(crate) struct EdgeService<S> {
    inner: S,
    edge: Arc<Edge>,
}

impl<S> Service<Request> for EdgeService<S>
where
    S: Service<Request, Response = Response, Error = Infallible>,
    S::Future: Send + 'static,
{
    type Response = Response;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response, Infallible>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request) -> Self::Future {
        let started = Instant::now();
        let edge = self.edge.clone();
        let route = request.extensions().get::<MatchedPath>().cloned();
        let method = request.method().clone();
        let mut context = RequestContext::new(request.headers(), edge.shared.clone());
        let span = span(&method, route.as_ref(), &context);
        context.enter(&span);
        let permit = edge.in_flight.clone().try_acquire_owned();
        let handled = permit.is_ok().then(|| {
            request.extensions_mut().insert(context.clone());
            self.inner.call(request)
        });
        let inside = span.clone();
        let answer = async move {
            let mut response = match handled {
                None => {
                    Problem::unavailable("Too many requests at once; try again").into_response()
                }
                Some(handled) => bounded(handled, edge.deadline).await,
            };
            drop(permit);
            let label = response.extensions_mut().remove::<RouteLabel>();
            let status = response.status();
            let took = started.elapsed();
            let route = match (&label, &route) {
                (Some(RouteLabel(template)), _) => template,
                (None, Some(route)) => route.as_str(),
                (None, None) => UNMATCHED,
            };
            if label.is_some() {
                inside.record("route", route);
            }
            inside.record("status", status.as_u16());
            edge.metrics.record(route, &method, status, took);
            log(status, took);
            context.stamp(response.headers_mut());
            Ok(response)
        };
        Box::pin(answer.instrument(span))
    }
}

fn span(method: &Method, route: Option<&MatchedPath>, context: &RequestContext) -> Span {
    tracing::info_span!(
        "http",
        otel.kind = "server",
        method = method.as_str(),
        route = route.map(MatchedPath::as_str),
        request_id = context.request_id(),
        status = Empty,
    )
}

/// Requests that took longer are logged like those that failed.
const SLOW: Duration = Duration::from_secs(1);

/// Logs a request, which its span names: failed and slow ones at `info`, all others at `debug`, so
/// that `MILLRACE_LOG=info,millrace_http::access=debug` shows every one.
fn log(status: StatusCode, took: Duration) {
    const TARGET: &str = "millrace_http::access";
    let took_ms = took.as_secs_f64() * 1000.0;
    let status = status.as_u16();
    if status >= 400 || took > SLOW {
        tracing::info!(target: TARGET, status, took_ms, "answered");
    } else {
        tracing::debug!(target: TARGET, status, took_ms, "answered");
    }
}

/// Runs a handler within its time; a panic becomes a 500 that says nothing about it.
async fn bounded(
    handled: impl Future<Output = Result<Response, Infallible>>,
    deadline: Duration,
) -> Response {
    let caught = AssertUnwindSafe(handled).catch_unwind();
    match tokio::time::timeout(deadline, caught).await {
        Ok(Ok(Ok(response))) => response,
        Ok(Err(panic)) => Problem::internal(panic_message(panic.as_ref())).into_response(),
        Err(_) => Problem::outcome_unknown().into_response(),
    }
}

fn panic_message(panic: &(dyn Any + Send)) -> String {
    let text = panic
        .downcast_ref::<&str>()
        .map(|text| (*text).to_owned())
        .or_else(|| panic.downcast_ref::<String>().cloned());
    format!("the handler panicked: {}", text.unwrap_or_default())
}

impl RequestContext {
    /// Names the request on its answer.
    fn stamp(&self, headers: &mut http::HeaderMap) {
        headers.insert(X_REQUEST_ID, self.request_id_value());
        if let Some(value) = self.traceparent_value() {
            headers.insert(trace::TRACEPARENT, value);
        }
    }
}
