use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::StatusCode;
use millrace_es::Context;
use millrace_runtime::Secret;
use reqwest::{Client, RequestBuilder, redirect::Policy};
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use crate::Owner;

/// How long a connection to an owner may take to open.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// How long an owner may take to answer whole; its own bound is the same.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);
/// How long an idle connection is kept: shorter than the server keeps its end.
const IDLE_TIMEOUT: Duration = Duration::from_secs(10);
/// The largest answer that is read, in bytes: a page's payloads and the envelopes of its events.
pub const MAX_ANSWER_BYTES: usize = 32 * 1024 * 1024;

/// Why an owner did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum OwnerError {
    /// It does not answer, or says that it cannot at the moment. Whether a command was done is not
    /// known, unless it is one that may be sent again.
    #[error("the owner of {context} does not answer")]
    Unreachable {
        /// Whose owner.
        context: Context,
        /// What was seen.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// This process cannot be right about its owner; trying again does not help.
    #[error("{0}")]
    Misconfigured(String),
    /// It read the request and says no.
    #[error("the owner of {context} refuses: {problem}")]
    Refused {
        /// Whose owner.
        context: Context,
        /// What it says.
        problem: Box<OwnerProblem>,
    },
    /// It answered with what cannot be read.
    #[error("the owner of {context} answered with what this release cannot read: {reason}")]
    Unreadable {
        /// Whose owner.
        context: Context,
        /// What is wrong with it.
        reason: String,
    },
}

/// A problem as an owner answered it.
#[derive(Debug, Clone, Default, Deserialize)]
pub struct OwnerProblem {
    /// Its `type`, such as `/problems/insufficient-funds`.
    #[serde(rename = "type", default)]
    pub kind: String,
    /// Its HTTP status.
    #[serde(default)]
    pub status: u16,
    /// What happened.
    #[serde(default)]
    pub detail: String,
    /// The answer whole, for members of its own.
    #[serde(skip)]
    pub body: Bytes,
}

impl OwnerProblem {
    /// The last segment of its `type`.
    #[must_use]
    pub fn slug(&self) -> &str {
        self.kind.rsplit('/').next().unwrap_or_default()
    }
}

impl std::fmt::Display for OwnerProblem {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {}: {}", self.status, self.slug(), self.detail)
    }
}

/// Talks to the owner of one context. Cheap to clone.
#[derive(Debug, Clone)]
pub struct OwnerClient {
    owner: Owner,
    token: Option<Secret<String>>,
    client: Client,
}

impl OwnerClient {
    /// Of an owner, with the token that it asks for. Connects when it is used.
    ///
    /// # Errors
    /// [`OwnerError::Misconfigured`] when the URL is none.
    pub fn new(owner: Owner, token: Option<Secret<String>>) -> Result<Self, OwnerError> {
        let misconfigured = |source: reqwest::Error| {
            OwnerError::Misconfigured(format!(
                "the owner {owner} (MILLRACE_OWNERS) cannot be asked: {source}"
            ))
        };
        millrace_runtime::install_crypto();
        let client = Client::builder()
            .connect_timeout(CONNECT_TIMEOUT)
            .timeout(ANSWER_TIMEOUT)
            .pool_idle_timeout(IDLE_TIMEOUT)
            .redirect(Policy::none())
            .build()
            .map_err(misconfigured)?;
        // A URL that is none is found here, and not by the first request.
        client.get(&owner.url).build().map_err(misconfigured)?;
        Ok(Self {
            owner,
            token: token.filter(|token| !token.expose().is_empty()),
            client,
        })
    }

    /// Whose owner it is.
    #[must_use]
    pub const fn context(&self) -> &Context {
        &self.owner.context
    }

    /// Reads what is at a path below `/internal/v1/<context>/`. The segments are escaped here; `.` and
    /// `..` cannot be ones.
    ///
    /// # Errors
    /// See [`OwnerError`].
    pub async fn get<T: DeserializeOwned>(
        &self,
        segments: &[&str],
        query: &impl Serialize,
    ) -> Result<T, OwnerError> {
        let mut url = self.url(segments)?;
        let query = serde_json::to_value(query).map_err(|error| self.unreadable(&error))?;
        for (name, value) in query.as_object().into_iter().flatten() {
            let text = value
                .as_str()
                .map_or_else(|| value.to_string(), str::to_owned);
            url.query_pairs_mut().append_pair(name, &text);
        }
        self.exchange(self.client.get(url)).await
    }

    /// Sends a command to a path below `/internal/v1/<context>/`, and gives its answer.
    ///
    /// # Errors
    /// See [`OwnerError`]. After [`OwnerError::Unreachable`] and [`OwnerError::Unreadable`] it may
    /// have been done.
    pub async fn post<T: DeserializeOwned>(
        &self,
        segments: &[&str],
        body: &impl Serialize,
    ) -> Result<T, OwnerError> {
        let url = self.url(segments)?;
        self.exchange(self.client.post(url).json(body)).await
    }

    fn url(&self, segments: &[&str]) -> Result<reqwest::Url, OwnerError> {
        let wrong = || OwnerError::Misconfigured(format!("{} has no usable URL", self.owner));
        let mut url = reqwest::Url::parse(&self.owner.url).map_err(|_| wrong())?;
        url.path_segments_mut()
            .map_err(|()| wrong())?
            .pop_if_empty()
            .extend(["internal", "v1", self.context().as_str()])
            .extend(segments);
        Ok(url)
    }

    async fn exchange<T: DeserializeOwned>(
        &self,
        request: RequestBuilder,
    ) -> Result<T, OwnerError> {
        let request = match &self.token {
            Some(token) => request.bearer_auth(token.expose()),
            None => request,
        };
        let unreachable = |error: reqwest::Error| self.unreachable(error.without_url());
        let mut answer = request.send().await.map_err(unreachable)?;
        let status = answer.status();
        let mut body = BytesMut::new();
        while let Some(chunk) = answer.chunk().await.map_err(unreachable)? {
            if body.len() + chunk.len() > MAX_ANSWER_BYTES {
                let reason = format!("its answer is longer than {MAX_ANSWER_BYTES} bytes");
                return Err(self.unreadable(&reason));
            }
            body.extend_from_slice(&chunk);
        }
        if status.is_success() {
            return serde_json::from_slice(&body).map_err(|error| self.unreadable(&error));
        }
        Err(self.refusal(status, body.freeze()))
    }

    fn refusal(&self, status: StatusCode, body: Bytes) -> OwnerError {
        let context = self.context().clone();
        let mut problem: OwnerProblem = serde_json::from_slice(&body).unwrap_or_default();
        problem.status = status.as_u16();
        problem.body = body;
        if status == StatusCode::UNAUTHORIZED {
            return OwnerError::Misconfigured(format!(
                "the owner of {context} does not let this process in: set MILLRACE_INTERNAL_TOKEN \
                 to the owner's"
            ));
        }
        if problem.slug() == crate::types::UNKNOWN_CONTEXT.slug() {
            let detail = problem.detail;
            return OwnerError::Misconfigured(format!(
                "{} (MILLRACE_OWNERS) is not its owner: {detail}",
                self.owner
            ));
        }
        let may_pass = matches!(
            status,
            StatusCode::BAD_GATEWAY
                | StatusCode::SERVICE_UNAVAILABLE
                | StatusCode::GATEWAY_TIMEOUT
                | StatusCode::TOO_MANY_REQUESTS
        );
        if may_pass {
            return self.unreachable(problem.to_string());
        }
        OwnerError::Refused {
            context,
            problem: Box::new(problem),
        }
    }

    fn unreachable(
        &self,
        source: impl Into<Box<dyn std::error::Error + Send + Sync>>,
    ) -> OwnerError {
        OwnerError::Unreachable {
            context: self.context().clone(),
            source: source.into(),
        }
    }

    fn unreadable(&self, reason: &impl ToString) -> OwnerError {
        OwnerError::Unreadable {
            context: self.context().clone(),
            reason: reason.to_string(),
        }
    }
}
