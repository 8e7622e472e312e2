//! A DynamoDB endpoint that does as a script says, as the real one may and the embedded one never
//! does: an HTTP proxy that answers some calls itself, loses or changes answers, and counts.

use std::sync::{Arc, Mutex};

use axum::{
    Router,
    body::{Body, Bytes},
    extract::State,
    http::{HeaderMap, Request, Response},
};
use http_body_util::{BodyExt, Full};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use serde_json::{Value, json};
use tokio::{net::TcpListener, task::JoinSet};

const NAMESPACE: &str = "com.amazonaws.dynamodb.v20120810#";

/// What becomes of a call.
pub enum Act {
    /// It is answered with an error, and the endpoint does not see it.
    Refuse(u16, Value),
    /// The endpoint does it, and the caller is told that the server failed.
    LoseAnswer,
    /// The endpoint does it, and the answer is changed.
    Change(Box<dyn FnOnce(&mut Value) + Send>),
}

type Rule = Box<dyn FnMut(&str, &Value) -> Option<Act> + Send>;

/// The proxy. Ends when dropped.
pub struct Script {
    port: u16,
    shared: Arc<Shared>,
    _server: JoinSet<()>,
}

struct Shared {
    http: Client<HttpConnector, Full<Bytes>>,
    target: String,
    rule: Mutex<Option<Rule>>,
    calls: Mutex<Vec<(String, Value)>>,
}

impl Script {
    pub async fn before(target: &str) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let shared = Arc::new(Shared {
            http: Client::builder(TokioExecutor::new()).build_http(),
            target: target.to_owned(),
            rule: Mutex::default(),
            calls: Mutex::default(),
        });
        let router = Router::new()
            .fallback(pass)
            .layer(axum::extract::DefaultBodyLimit::disable())
            .with_state(Arc::clone(&shared));
        let mut server = JoinSet::new();
        server.spawn(async move { axum::serve(listener, router).await.unwrap() });
        Self {
            port,
            shared,
            _server: server,
        }
    }

    pub fn endpoint(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// From now on every call is put before a rule.
    pub fn rule(&self, rule: impl FnMut(&str, &Value) -> Option<Act> + Send + 'static) {
        *self.shared.rule.lock().unwrap() = Some(Box::new(rule));
    }

    /// The next calls of an operation become these, one after the other.
    pub fn next(&self, operation: &'static str, acts: Vec<Act>) {
        let mut acts = acts.into_iter();
        self.rule(move |called, _| (called == operation).then(|| acts.next()).flatten());
    }

    /// The calls since the last time this was asked, by operation and body.
    pub fn calls(&self) -> Vec<(String, Value)> {
        std::mem::take(&mut *self.shared.calls.lock().unwrap())
    }

    /// The bodies of the calls of an operation since the last time calls were asked for.
    pub fn calls_of(&self, operation: &str) -> Vec<Value> {
        let calls = self.calls().into_iter();
        calls
            .filter(|(called, _)| called == operation)
            .map(|(_, body)| body)
            .collect()
    }
}

/// An error as DynamoDB gives it.
pub fn refuse(status: u16, kind: &str) -> Act {
    let body = json!({ "__type": format!("{NAMESPACE}{kind}"), "message": "scripted" });
    Act::Refuse(status, body)
}

/// A transaction that is cancelled because others have its first item.
pub fn cancel(code: &str) -> Act {
    Act::Refuse(
        400,
        json!({
            "__type": format!("{NAMESPACE}TransactionCanceledException"),
            "message": "scripted",
            "CancellationReasons": [{ "Code": code, "Message": "scripted" }],
        }),
    )
}

fn answer(status: u16, body: &Value) -> Response<Body> {
    Response::builder()
        .status(status)
        .header("content-type", "application/x-amz-json-1.0")
        .body(Body::from(body.to_string()))
        .unwrap()
}

fn failed() -> Response<Body> {
    let body =
        json!({ "__type": format!("{NAMESPACE}InternalServerError"), "message": "scripted" });
    answer(500, &body)
}

async fn pass(
    State(shared): State<Arc<Shared>>,
    mut headers: HeaderMap,
    body: Bytes,
) -> Response<Body> {
    let target = headers.get("x-amz-target").unwrap().to_str().unwrap();
    let operation = target.rsplit('.').next().unwrap_or_default().to_owned();
    let call: Value = serde_json::from_slice(&body).unwrap();
    let act = {
        let mut rule = shared.rule.lock().unwrap();
        rule.as_mut().and_then(|rule| rule(&operation, &call))
    };
    shared.calls.lock().unwrap().push((operation, call));
    if let Some(Act::Refuse(status, body)) = act {
        return answer(status, &body);
    }
    headers.remove("host");
    headers.remove("content-length");
    let mut request = Request::post(&shared.target);
    if let Some(all) = request.headers_mut() {
        *all = headers;
    }
    let request = request.body(Full::new(body)).unwrap();
    let response = shared.http.request(request).await.unwrap();
    let status = response.status().as_u16();
    let bytes = response.into_body().collect().await.unwrap().to_bytes();
    let mut body: Value = serde_json::from_slice(&bytes).unwrap();
    match act {
        Some(Act::LoseAnswer) => return failed(),
        Some(Act::Change(change)) => change(&mut body),
        _ => {}
    }
    answer(status, &body)
}
