//! Requests counted and timed by route. Handles are made once per route, method and status: a
//! request costs a shared lock, three atomic updates and no allocation.

use std::{
    collections::HashMap,
    sync::{Arc, OnceLock, PoisonError, RwLock},
    time::Duration,
};

use http::{Method, StatusCode};
use metrics::{Counter, Histogram};

/// The label of requests that matched no route.
pub(crate) const UNMATCHED: &str = "unmatched";

const METHODS: [&str; 8] = [
    "GET", "POST", "PUT", "DELETE", "HEAD", "OPTIONS", "PATCH", "other",
];
/// Statuses that are answered; any other is counted as `other`.
const STATUSES: [&str; 23] = [
    "200", "201", "204", "206", "304", "307", "308", "400", "401", "404", "405", "408", "409",
    "412", "413", "415", "422", "431", "500", "502", "503", "504", "other",
];

/// The routes that were asked for. There are as many as the service has templates: what a client
/// asks for makes none.
#[derive(Default)]
pub(crate) struct RequestMetrics {
    routes: RwLock<HashMap<String, Arc<Route>>>,
}

struct Route {
    label: String,
    methods: [PerMethod; METHODS.len()],
}

#[derive(Default)]
struct PerMethod {
    seconds: OnceLock<Histogram>,
    requests: [OnceLock<Counter>; STATUSES.len()],
}

impl Route {
    fn new(label: &str) -> Self {
        Self {
            label: label.to_owned(),
            methods: Default::default(),
        }
    }
}

impl RequestMetrics {
    fn route(&self, label: &str) -> Arc<Route> {
        let known = self.routes.read().unwrap_or_else(PoisonError::into_inner);
        if let Some(route) = known.get(label) {
            return Arc::clone(route);
        }
        drop(known);
        let mut routes = self.routes.write().unwrap_or_else(PoisonError::into_inner);
        let new = || Arc::new(Route::new(label));
        Arc::clone(routes.entry(label.to_owned()).or_insert_with(new))
    }

    /// Notes an answered request: its route is a template of this service, or [`UNMATCHED`].
    pub fn record(&self, route: &str, method: &Method, status: StatusCode, took: Duration) {
        let route = self.route(route);
        let method = index(&METHODS, method.as_str());
        let status = index(&STATUSES, status.as_str());
        let labels = || (route.label.clone(), METHODS[method]);
        let per_method = &route.methods[method];
        per_method
            .seconds
            .get_or_init(|| {
                let (route, method) = labels();
                metrics::histogram!("millrace_http_request_seconds", "route" => route, "method" => method)
            })
            .record(took.as_secs_f64());
        per_method.requests[status]
            .get_or_init(|| {
                let (route, method) = labels();
                let status = STATUSES[status];
                metrics::counter!("millrace_http_requests_total", "route" => route, "method" => method, "status" => status)
            })
            .increment(1);
    }
}

/// The place of a label, the last one standing for all that are not listed.
fn index(labels: &[&str], label: &str) -> usize {
    let found = labels.iter().position(|one| *one == label);
    found.unwrap_or(labels.len() - 1)
}
