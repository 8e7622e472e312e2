use std::{collections::HashSet, sync::Arc, time::Duration};

use axum::{
    Router,
    extract::Request,
    response::{IntoResponse, Response},
};
use http::{HeaderValue, Method, StatusCode, header};
use millrace_runtime::HttpSettings;
use tokio::sync::Semaphore;
use utoipa::openapi::OpenApi;
use utoipa_axum::router::OpenApiRouter;

use crate::{
    CursorKey, DEFAULT_BODY_TIMEOUT, Forwarder, Problem, ShortSecret,
    context::Shared,
    edge::{Edge, EdgeLayer, RouteLabel},
    metrics::RequestMetrics,
    openapi,
    problem::types,
    surface::{Surface, literals_beside_parameters},
    ui,
};

/// How many requests are worked on at once unless told otherwise; more get a 503.
pub const DEFAULT_MAX_IN_FLIGHT: usize = 4096;
/// How long a request may take unless told otherwise: above the longest wait for a position.
pub const DEFAULT_REQUEST_DEADLINE: Duration = Duration::from_secs(60);

/// What a service decides about its requests.
#[derive(Clone)]
pub struct ApiOptions {
    /// Signs the cursors of lists.
    pub cursor_key: CursorKey,
    /// How many requests are worked on at once; more get a 503.
    pub max_in_flight: usize,
    /// How long a request may take before it gets a 504.
    pub request_deadline: Duration,
    /// How long a body may take to arrive before it gets a 408.
    pub body_timeout: Duration,
}

impl ApiOptions {
    /// The defaults, with a key for cursors.
    #[must_use]
    pub fn new(cursor_key: CursorKey) -> Self {
        Self {
            cursor_key,
            max_in_flight: DEFAULT_MAX_IN_FLIGHT,
            request_deadline: DEFAULT_REQUEST_DEADLINE,
            body_timeout: DEFAULT_BODY_TIMEOUT,
        }
    }
}

impl TryFrom<&HttpSettings> for ApiOptions {
    type Error = ShortSecret;

    fn try_from(settings: &HttpSettings) -> Result<Self, ShortSecret> {
        let cursor_key = match &settings.cursor_key {
            Some(secret) => CursorKey::new(secret.expose().as_bytes())?,
            None => CursorKey::of_this_process(),
        };
        Ok(Self {
            max_in_flight: settings.max_in_flight,
            request_deadline: Duration::from_millis(settings.request_deadline_ms),
            ..Self::new(cursor_key)
        })
    }
}

/// Puts a service together: its routes, the routes that others serve and that its document names
/// all the same, and everything that is the same for all of them.
///
/// The document is that of the whole system, so every service hands out the same one:
/// ```text
/// let router = Api::new(ApiOptions::new(key))
///     .serve(ordering::command_routes().with_state(state))
///     .document(ordering::query_routes())
///     .finish();
/// ```
pub struct Api {
    options: ApiOptions,
    router: Router,
    own: OpenApi,
    all: OpenApi,
    forwarder: Option<Forwarder>,
}

impl Api {
    /// A service without routes.
    #[must_use]
    pub fn new(options: ApiOptions) -> Self {
        Self {
            options,
            router: Router::new(),
            own: openapi::empty(),
            all: openapi::empty(),
            forwarder: None,
        }
    }

    /// Serves routes.
    #[must_use]
    pub fn serve(mut self, routes: OpenApiRouter) -> Self {
        let (router, document) = routes.split_for_parts();
        self.router = self.router.merge(router);
        self.own.merge(document.clone());
        self.all.merge(document);
        self
    }

    /// Names routes that another service of the system serves.
    #[must_use]
    pub fn document<S: Clone + Send + Sync + 'static>(mut self, routes: OpenApiRouter<S>) -> Self {
        self.all.merge(routes.into_openapi());
        self
    }

    /// Hands the writes that this service only documents to the one that serves them.
    #[must_use]
    pub fn forward(mut self, forwarder: Forwarder) -> Self {
        self.forwarder = Some(forwarder);
        self
    }

    /// The OpenAPI document, whole.
    #[must_use]
    pub fn openapi(&self) -> OpenApi {
        let mut document = self.all.clone();
        openapi::complete(&mut document);
        document
    }

    /// The service, ready for [`serve`](crate::serve).
    pub fn finish(self) -> Router {
        let document = self.openapi();
        let templates = || document.paths.paths.keys().map(String::as_str);
        let reserved = literals_beside_parameters(templates()).collect();
        let edge = self.options.edge(reserved);
        let reachable = match self.forwarder {
            Some(_) => &document,
            None => &self.own,
        };
        let unhandled = Arc::new(Unhandled {
            surface: Surface::new(reachable, &ui::PATHS),
            forwarder: self.forwarder,
        });
        let fallback = move |request: Request| {
            let unhandled = unhandled.clone();
            async move { unhandled.answer(request).await }
        };
        // A document of ours always has a JSON form.
        let json = serde_json::to_vec(&document).unwrap_or_default();
        self.router
            .merge(ui::routes(json.into()))
            .method_not_allowed_fallback(fallback.clone())
            .fallback(fallback)
            .layer(edge)
    }
}

impl ApiOptions {
    /// The layer around all routes.
    fn edge(self, reserved: HashSet<String>) -> EdgeLayer {
        EdgeLayer(Arc::new(Edge {
            shared: Arc::new(Shared {
                reserved,
                cursor_key: self.cursor_key,
                body_timeout: self.body_timeout,
            }),
            metrics: RequestMetrics::default(),
            in_flight: Arc::new(Semaphore::new(self.max_in_flight)),
            deadline: self.request_deadline,
        }))
    }
}

/// Routes between the system's own processes: with everything that is the same for all routes, and
/// without a document.
pub fn private(router: Router, options: ApiOptions) -> Router {
    router.layer(options.edge(HashSet::new()))
}

/// Answers what no handler takes.
struct Unhandled {
    surface: Surface,
    forwarder: Option<Forwarder>,
}

impl Unhandled {
    async fn answer(&self, request: Request) -> Response {
        let Some(entry) = self.surface.find(request.uri().path()) else {
            return Problem::new(
                &types::NOT_FOUND,
                "There is no such route; see /openapi.json",
            )
            .into_response();
        };
        let label = RouteLabel(entry.template.clone());
        let mut response = match &self.forwarder {
            Some(forwarder) if entry.has(request.method()) => forwarder.forward(request).await,
            _ if *request.method() == Method::OPTIONS => options(entry.allow()),
            _ => not_allowed(entry.allow()),
        };
        response.extensions_mut().insert(label);
        response
    }
}

fn options(allow: HeaderValue) -> Response {
    (StatusCode::NO_CONTENT, [(header::ALLOW, allow)]).into_response()
}

fn not_allowed(allow: HeaderValue) -> Response {
    Problem::new(
        &types::METHOD_NOT_ALLOWED,
        "The route does not have this method; see Allow",
    )
    .with_header(header::ALLOW, allow)
    .into_response()
}
