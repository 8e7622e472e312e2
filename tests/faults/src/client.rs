use std::time::Duration;

use reqwest::{Method, header::HeaderMap};
use serde_json::Value;
use tokio::time::Instant;

use crate::{Cluster, Seed};

/// How long a client waits for an answer before the outcome is unknown to it.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(4);

/// How long one request is repeated until it has an answer.
const ANSWER_BOUND: Duration = Duration::from_secs(60);
/// How long a request without an answer waits before it is repeated.
const REPEAT_AFTER: Duration = Duration::from_millis(100);
/// The problem of a command that others were faster than, every time.
const CONTENDED: &str = "contended";

/// A plain HTTP client of the public ports.
#[derive(Debug, Clone)]
pub struct Client {
    http: reqwest::Client,
}

/// An answer as it came.
#[derive(Debug, Clone)]
pub struct Reply {
    /// The HTTP status.
    pub status: u16,
    /// The headers.
    pub headers: HeaderMap,
    /// The body, byte for byte.
    pub body: String,
}

impl Reply {
    /// The body as JSON; null when it is none.
    #[must_use]
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or(Value::Null)
    }

    /// A header's text; empty when it is not there.
    #[must_use]
    pub fn header(&self, name: &str) -> String {
        self.headers
            .get(name)
            .and_then(|value| value.to_str().ok())
            .unwrap_or_default()
            .to_owned()
    }

    /// The stream version in the `ETag`; 0 when there is none.
    #[must_use]
    pub fn version(&self) -> u64 {
        self.header("etag").trim_matches('"').parse().unwrap_or(0)
    }

    /// Whether it is the first answer to an earlier request of the same key.
    #[must_use]
    pub fn replayed(&self) -> bool {
        self.header("idempotent-replayed") == "true"
    }

    /// Whether nothing was decided, as others were faster every time: to be asked again.
    #[must_use]
    pub fn contended(&self) -> bool {
        self.status == 409 && self.problem() == CONTENDED
    }

    /// The last segment of a problem's `type`.
    #[must_use]
    pub fn problem(&self) -> String {
        let json = self.json();
        let kind = json["type"].as_str().unwrap_or_default();
        kind.rsplit('/').next().unwrap_or_default().to_owned()
    }
}

/// How every client of this crate begins. Nothing here speaks TLS, yet reqwest asks for a provider
/// of cryptography where another crate of the build turned TLS on.
pub(crate) fn http_client() -> reqwest::ClientBuilder {
    millrace_runtime::install_crypto();
    reqwest::Client::builder().no_proxy()
}

impl Default for Client {
    fn default() -> Self {
        Self::new()
    }
}

impl Client {
    /// A client that repeats nothing by itself.
    #[must_use]
    pub fn new() -> Self {
        Self::waiting(REQUEST_TIMEOUT)
    }

    /// A client that checks what is there once the damage is over: nobody is in a hurry, and the
    /// machine may be busy with other things.
    #[must_use]
    pub fn patient() -> Self {
        Self::waiting(ANSWER_BOUND)
    }

    fn waiting(timeout: Duration) -> Self {
        let http = http_client()
            .timeout(timeout)
            .connect_timeout(Duration::from_secs(1))
            .build()
            .unwrap();
        Self { http }
    }

    /// Sends one request; an error means that its outcome is not known.
    ///
    /// # Errors
    /// When no whole answer came in time.
    pub async fn send(
        &self,
        method: Method,
        url: &str,
        headers: &[(&str, &str)],
        body: Option<&Value>,
    ) -> Result<Reply, reqwest::Error> {
        let mut request = self.http.request(method, url);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        if let Some(body) = body {
            request = request
                .header("content-type", "application/json")
                .body(body.to_string());
        }
        let response = request.send().await?;
        let status = response.status().as_u16();
        let headers = response.headers().clone();
        let body = response.text().await?;
        Ok(Reply {
            status,
            headers,
            body,
        })
    }

    /// A GET.
    ///
    /// # Errors
    /// When no whole answer came in time.
    pub async fn get(&self, url: &str, headers: &[(&str, &str)]) -> Result<Reply, reqwest::Error> {
        self.send(Method::GET, url, headers, None).await
    }
}

/// A client of a cluster's command processes that repeats whatever it does not know the outcome of,
/// under the same key, at any of them.
#[derive(Debug)]
pub struct Insistent {
    client: Client,
    urls: Vec<String>,
    seed: Seed,
}

impl Insistent {
    /// Of this cluster.
    #[must_use]
    pub fn new(cluster: &Cluster, seed: Seed) -> Self {
        Self {
            client: Client::new(),
            urls: cluster.command_urls(),
            seed,
        }
    }

    /// Sends a request, whose key is what it says, until it has an answer that is no server error.
    ///
    /// # Panics
    /// When it has none within a minute.
    pub async fn until_answered(&self, method: Method, path: &str, body: Option<&Value>) -> Reply {
        let key = format!("{method} {path} {body:?}").replace('"', "");
        let deadline = Instant::now() + ANSWER_BOUND;
        loop {
            let url = &self.urls[self.seed.index(self.urls.len())];
            let headers = [("idempotency-key", key.as_str())];
            let url = format!("{url}{path}");
            let sent = self.client.send(method.clone(), &url, &headers, body);
            match sent.await {
                Ok(reply) if reply.status < 500 && !reply.contended() => return reply,
                Ok(_) | Err(_) => {}
            }
            assert!(Instant::now() < deadline, "{method} {path} has no answer");
            tokio::time::sleep(REPEAT_AFTER).await;
        }
    }
}
