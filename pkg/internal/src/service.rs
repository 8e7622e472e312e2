use std::{sync::Arc, time::Duration};

use axum::{
    Router,
    extract::{Request, State},
    middleware::{self, Next},
    response::{IntoResponse, Response},
};
use http::header;
use millrace_eventlog::EventLog;
use millrace_http::{ApiOptions, CursorKey, Problem, private};
use millrace_runtime::Secret;
use sha2::{Digest, Sha256};

use crate::{log_routes, types};

/// How many requests the internal port works on at once unless told otherwise; more get a 503. A
/// page of a log may be 8 MiB, so this bounds memory too.
pub const DEFAULT_MAX_INTERNAL_REQUESTS: usize = 64;
/// How long a request may take.
const REQUEST_DEADLINE: Duration = Duration::from_secs(30);

/// Puts the internal endpoint of a process together: for each of its contexts the log, read only,
/// and the context's own internal commands, under `/internal/v1/<context>/`.
#[derive(Debug)]
pub struct InternalService {
    token: Option<Secret<String>>,
    router: Router,
    contexts: Vec<String>,
}

impl InternalService {
    /// An endpoint without contexts. With a token, requests that do not carry it are refused.
    #[must_use]
    pub fn new(token: Option<Secret<String>>) -> Self {
        Self {
            token: token.filter(|token| !token.expose().is_empty()),
            router: Router::new(),
            contexts: Vec::new(),
        }
    }

    /// Serves a context's log, and its internal commands beside it. These may not begin with
    /// `/log`, `/partitions` or `/streams`.
    #[must_use]
    pub fn serve(mut self, log: Arc<dyn EventLog>, commands: Option<Router>) -> Self {
        let context = log.context().to_string();
        let prefix = format!("/internal/v1/{context}");
        let routes = log_routes::routes(log).merge(commands.unwrap_or_default());
        self.router = self.router.nest(&prefix, routes);
        self.contexts.push(context);
        self
    }

    /// The endpoint, ready for [`millrace_http::serve`].
    pub fn finish(self) -> Router {
        let contexts: Arc<str> = self.contexts.join(", ").into();
        let unknown = move |request: Request| {
            let contexts = Arc::clone(&contexts);
            async move { no_such_route(request.uri().path(), &contexts) }
        };
        let expected = self.token.map(|token| digest(token.expose()));
        let checked = self
            .router
            .fallback(unknown)
            .layer(middleware::from_fn_with_state(expected, check_token));
        let options = ApiOptions {
            max_in_flight: DEFAULT_MAX_INTERNAL_REQUESTS,
            request_deadline: REQUEST_DEADLINE,
            ..ApiOptions::new(CursorKey::of_this_process())
        };
        private(checked, options)
    }
}

/// Says whose contexts these are: a wrong `--owners` is found by its first request.
fn no_such_route(path: &str, contexts: &str) -> Problem {
    let asked = path.strip_prefix("/internal/v1/").unwrap_or_default();
    let asked = asked.split('/').next().unwrap_or_default();
    if contexts.split(", ").any(|context| context == asked) {
        let detail = format!("The internal endpoint of {asked} has no such route");
        return Problem::new(&millrace_http::types::NOT_FOUND, detail);
    }
    let detail = format!(
        "This process serves {contexts}, not {asked:?}; set MILLRACE_OWNERS to the process that does"
    );
    Problem::new(&types::UNKNOWN_CONTEXT, detail)
}

type TokenDigest = [u8; 32];

fn digest(text: &str) -> TokenDigest {
    Sha256::digest(text).into()
}

/// Digests are compared, not texts: how long that takes tells nothing about the token.
async fn check_token(
    State(expected): State<Option<TokenDigest>>,
    request: Request,
    next: Next,
) -> Response {
    let given = request.headers().get(header::AUTHORIZATION);
    let given = given
        .and_then(|value| value.to_str().ok())
        .and_then(|value| value.strip_prefix("Bearer "));
    if expected.is_some() && expected != given.map(digest) {
        let detail = "Send `Authorization: Bearer <token>` with the token of this process \
                      (MILLRACE_INTERNAL_TOKEN)";
        return Problem::new(&types::UNAUTHORIZED, detail).into_response();
    }
    next.run(request).await
}
