//! A DynamoDB endpoint that is slow, throttles, and contradicts itself, as the real one may and
//! the embedded one never does: an HTTP proxy that answers some requests itself.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use axum::{
    Router,
    body::{Body, Bytes},
    extract::State,
    http::{HeaderMap, Response},
};
use tokio::{net::TcpListener, task::JoinSet};

use crate::{Seed, client::http_client};

const NAMESPACE: &str = "com.amazonaws.dynamodb.v20120810#";

/// What is done to requests, each so many in a hundred.
#[derive(Debug, Default)]
struct Faults {
    throttled: AtomicU64,
    failed: AtomicU64,
    conflicts: AtomicU64,
    answers_lost: AtomicU64,
    delay_ms: AtomicU64,
    injected: AtomicU64,
}

/// The proxy. Ends when dropped.
#[derive(Debug)]
pub struct DynamoProxy {
    port: u16,
    faults: Arc<Faults>,
    _server: JoinSet<()>,
}

struct Proxy {
    http: reqwest::Client,
    target: String,
    faults: Arc<Faults>,
    seed: Seed,
}

impl DynamoProxy {
    /// Starts a proxy in front of an endpoint.
    ///
    /// # Panics
    /// When it cannot listen.
    pub async fn start(target: String, seed: Seed) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let faults = Arc::new(Faults::default());
        let state = Arc::new(Proxy {
            http: http_client().build().unwrap(),
            target,
            faults: Arc::clone(&faults),
            seed,
        });
        let router = Router::new().fallback(pass).with_state(state);
        let mut server = JoinSet::new();
        server.spawn(async move {
            axum::serve(listener, router).await.unwrap();
        });
        Self {
            port,
            faults,
            _server: server,
        }
    }

    /// How clients reach it.
    #[must_use]
    pub fn endpoint(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// Answers so many in a hundred requests with `ThrottlingException` or
    /// `ProvisionedThroughputExceededException`.
    pub fn throttle(&self, percent: u64) {
        self.faults.throttled.store(percent, Ordering::Relaxed);
    }

    /// Answers so many in a hundred requests with `InternalServerError`.
    pub fn fail(&self, percent: u64) {
        self.faults.failed.store(percent, Ordering::Relaxed);
    }

    /// Answers so many in a hundred writes as if another transaction held one of their items.
    pub fn conflict(&self, percent: u64) {
        self.faults.conflicts.store(percent, Ordering::Relaxed);
    }

    /// Does so many in a hundred requests and then answers 500: the outcome is not known.
    pub fn lose_answers(&self, percent: u64) {
        self.faults.answers_lost.store(percent, Ordering::Relaxed);
    }

    /// Delays every request.
    pub fn delay(&self, delay: Duration) {
        let millis = u64::try_from(delay.as_millis()).unwrap();
        self.faults.delay_ms.store(millis, Ordering::Relaxed);
    }

    /// Passes everything on again.
    pub fn heal(&self) {
        self.throttle(0);
        self.fail(0);
        self.conflict(0);
        self.lose_answers(0);
        self.delay(Duration::ZERO);
    }

    /// How many answers were its own.
    #[must_use]
    pub fn injected(&self) -> u64 {
        self.faults.injected.load(Ordering::Relaxed)
    }
}

impl Proxy {
    fn hit(&self, percent: &AtomicU64) -> bool {
        let hit = self.seed.below(100) < percent.load(Ordering::Relaxed);
        self.faults
            .injected
            .fetch_add(u64::from(hit), Ordering::Relaxed);
        hit
    }

    /// The answer that is given instead of asking the endpoint.
    fn injected(&self, operation: &str, body: &[u8]) -> Option<Response<Body>> {
        if self.hit(&self.faults.throttled) {
            let kind = if self.seed.chance(0.5) {
                "ThrottlingException"
            } else {
                "ProvisionedThroughputExceededException"
            };
            return Some(error(400, kind, ""));
        }
        if self.hit(&self.faults.failed) {
            return Some(error(500, "InternalServerError", ""));
        }
        match operation {
            "TransactWriteItems" if self.hit(&self.faults.conflicts) => {
                let json: serde_json::Value = serde_json::from_slice(body).unwrap_or_default();
                let items = json["TransactItems"].as_array().map_or(1, Vec::len);
                let held = self.seed.index(items);
                let reasons: Vec<_> = (0..items)
                    .map(|item| {
                        if item == held {
                            "TransactionConflict"
                        } else {
                            "None"
                        }
                    })
                    .map(|code| format!(r#"{{"Code":"{code}"}}"#))
                    .collect();
                let more = format!(r#","CancellationReasons":[{}]"#, reasons.join(","));
                Some(error(400, "TransactionCanceledException", &more))
            }
            "PutItem" | "UpdateItem" | "DeleteItem" if self.hit(&self.faults.conflicts) => {
                Some(error(400, "TransactionConflictException", ""))
            }
            _ => None,
        }
    }
}

fn error(status: u16, kind: &str, more: &str) -> Response<Body> {
    let body = format!(r#"{{"__type":"{NAMESPACE}{kind}","message":"injected"{more}}}"#);
    Response::builder()
        .status(status)
        .header("content-type", "application/x-amz-json-1.0")
        .body(Body::from(body))
        .unwrap()
}

async fn pass(
    State(proxy): State<Arc<Proxy>>,
    mut headers: HeaderMap,
    body: Bytes,
) -> Response<Body> {
    let delay = proxy.faults.delay_ms.load(Ordering::Relaxed);
    tokio::time::sleep(Duration::from_millis(delay)).await;
    let target = headers
        .get("x-amz-target")
        .and_then(|value| value.to_str().ok())
        .unwrap_or_default()
        .to_owned();
    let operation = target.rsplit('.').next().unwrap_or_default();
    if let Some(answer) = proxy.injected(operation, &body) {
        return answer;
    }
    headers.remove("host");
    headers.remove("content-length");
    let sent = proxy
        .http
        .post(&proxy.target)
        .headers(headers)
        .body(body)
        .send();
    let Ok(response) = sent.await else {
        return error(500, "InternalServerError", "");
    };
    let mut answer = Response::builder().status(response.status());
    for name in ["content-type", "x-amz-crc32", "x-amzn-requestid"] {
        if let Some(value) = response.headers().get(name) {
            answer = answer.header(name, value);
        }
    }
    let Ok(body) = response.bytes().await else {
        return error(500, "InternalServerError", "");
    };
    if proxy.hit(&proxy.faults.answers_lost) {
        return error(500, "InternalServerError", "");
    }
    answer.body(Body::from(body)).unwrap()
}
