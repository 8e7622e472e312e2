//! Requests counted and timed by route. Handles are made once per route, method and status: a
//! request costs two atomic updates and no allocation.

use std::{collections::HashMap, sync::OnceLock, time::Duration};

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

pub(crate) struct RequestMetrics {
    routes: HashMap<String, Route>,
    unmatched: Route,
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
    /// Knows the routes by template.
    pub fn new<'a>(templates: impl Iterator<Item = &'a str>) -> Self {
        Self {
            routes: templates
                .map(|template| (template.to_owned(), Route::new(template)))
                .collect(),
            unmatched: Route::new(UNMATCHED),
        }
    }

    /// Notes an answered request.
    pub fn record(&self, route: &str, method: &Method, status: StatusCode, took: Duration) {
        let route = self.routes.get(route).unwrap_or(&self.unmatched);
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
