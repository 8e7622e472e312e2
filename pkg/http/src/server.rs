use std::{
    convert::Infallible,
    io,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use axum::{Router, body::Body, extract::Request, response::Response};
use http::{HeaderValue, StatusCode, header};
use hyper::{
    body::{Body as _, Incoming},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use millrace_runtime::HttpSettings;
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore},
    task::JoinSet,
    time::{Instant, timeout_at},
};
use tokio_util::sync::CancellationToken;
use tower::ServiceExt;

use crate::{
    connection::{Connection, Watched},
    forward::Forwarded,
};

/// How long to wait before accepting again when the machine is out of file descriptors.
const ACCEPT_RETRY: Duration = Duration::from_millis(100);

/// The bounds of a server's connections.
#[derive(Debug, Clone)]
pub struct ServerLimits {
    /// How many connections are open at once; more wait in the socket's backlog.
    pub max_connections: usize,
    /// The largest request head, in bytes; a larger one gets a 431.
    pub max_head_bytes: usize,
    /// How long a connection may take to send a request's head, also when it is idle until then. It
    /// has to be longer than a proxy keeps idle connections: one that sends a write on a connection
    /// that is just being closed can not know whether to send it again, and answers 502. Common
    /// ones keep them for 60 seconds (nginx, ALB) or 90 (Traefik, Go).
    pub idle_timeout: Duration,
}

impl Default for ServerLimits {
    fn default() -> Self {
        Self {
            max_connections: 8192,
            max_head_bytes: 16 * 1024,
            idle_timeout: Duration::from_secs(120),
        }
    }
}

impl From<&HttpSettings> for ServerLimits {
    fn from(settings: &HttpSettings) -> Self {
        Self {
            max_connections: settings.max_connections,
            idle_timeout: Duration::from_millis(settings.idle_timeout_ms),
            ..Self::default()
        }
    }
}

/// Serves HTTP/1.1 on a socket that the caller bound, until `shutdown`. Then no new connection is
/// taken, requests that are being worked on are finished and their connections closed; what is not
/// done within `drain` is cut off. The caller turns readiness off before, and owns the socket's
/// address.
///
/// # Errors
/// When the socket no longer accepts at all.
pub async fn serve(
    listener: TcpListener,
    router: Router,
    limits: ServerLimits,
    shutdown: CancellationToken,
    drain: Duration,
) -> io::Result<()> {
    let server = Arc::new(Connections {
        router,
        http: http(&limits),
        closing: CancellationToken::new(),
    });
    let places = Arc::new(Semaphore::new(limits.max_connections));
    let mut connections = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            () = shutdown.cancelled() => break,
            Some(_) = connections.join_next() => continue,
            accepted = accept(&listener, &places) => accepted,
        };
        match accepted {
            Ok((stream, place)) => {
                let server = server.clone();
                connections.spawn(async move {
                    server.run(stream).await;
                    drop(place);
                });
            }
            Err(error) if of_one_connection(&error) => {}
            Err(error) => {
                tracing::warn!(%error, "cannot accept connections; trying again");
                tokio::time::sleep(ACCEPT_RETRY).await;
            }
        }
    }
    drop(listener);
    server.closing.cancel();
    let end = Instant::now() + drain;
    while let Ok(Some(_)) = timeout_at(end, connections.join_next()).await {}
    if !connections.is_empty() {
        let left = connections.len();
        tracing::warn!(left, "connections cut off at the end of the drain");
        connections.shutdown().await;
    }
    Ok(())
}

async fn accept(
    listener: &TcpListener,
    places: &Arc<Semaphore>,
) -> io::Result<(TcpStream, OwnedSemaphorePermit)> {
    let place = places.clone().acquire_owned().await;
    let place = place.map_err(io::Error::other)?;
    let (stream, _) = listener.accept().await?;
    stream.set_nodelay(true)?;
    Ok((stream, place))
}

/// Errors that say something about one peer and nothing about the socket.
fn of_one_connection(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset, InvalidInput};
    matches!(
        error.kind(),
        ConnectionAborted | ConnectionRefused | ConnectionReset | InvalidInput
    )
}

/// `pipeline_flush` stays off: with it, an answer to a request that is refused with bytes of it
/// unread (431, 413) is never written out.
fn http(limits: &ServerLimits) -> http1::Builder {
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new())
        .header_read_timeout(limits.idle_timeout)
        .max_header_size(limits.max_head_bytes);
    http
}

struct Connections {
    router: Router,
    http: http1::Builder,
    closing: CancellationToken,
}

impl Connections {
    async fn run(&self, stream: TcpStream) {
        let router = &self.router;
        let service = service_fn(|request: Request<Incoming>| call(router, request));
        let connection = self
            .http
            .serve_connection(TokioIo::new(Connection::new(stream)), service);
        let mut connection = std::pin::pin!(connection);
        let ended = tokio::select! {
            ended = connection.as_mut() => ended,
            () = self.closing.cancelled() => {
                connection.as_mut().graceful_shutdown();
                connection.await
            }
        };
        if let Err(error) = ended {
            // A peer's doing: it went away, or sent what is no HTTP and was answered 400.
            tracing::debug!(%error, "connection ended");
        }
    }
}

/// Answers a request. Where its body was not read to the end the connection cannot be used again,
/// and the answer says so: a client that kept it would lose its next request.
fn call(
    router: &Router,
    request: Request<Incoming>,
) -> impl Future<Output = Result<Response, Infallible>> + use<> {
    let (request, unread) = if request.body().is_end_stream() {
        (request.map(Body::new), None)
    } else {
        let unread = Arc::new(AtomicBool::new(true));
        let watch = |inner| {
            Body::new(Watched {
                inner,
                unread: unread.clone(),
            })
        };
        (request.map(watch), Some(unread))
    };
    let answer = router.clone().oneshot(request);
    async move {
        let mut response = answer.await?;
        let forwarded = response.extensions().get::<Forwarded>().is_some();
        if forwarded && response.status() != StatusCode::METHOD_NOT_ALLOWED {
            // The router adds it to whatever its own handlers did not answer.
            response.headers_mut().remove(header::ALLOW);
        }
        if unread.is_some_and(|unread| unread.load(Ordering::Relaxed)) {
            let close = HeaderValue::from_static("close");
            response.headers_mut().insert(header::CONNECTION, close);
        }
        Ok(response)
    }
}
