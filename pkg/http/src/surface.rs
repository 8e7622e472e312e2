//! Which methods a path has, for those requests that no handler takes: 404, 405 with `Allow`, and
//! what the query service forwards.

use std::sync::Arc;

use http::{HeaderValue, Method};
use utoipa::openapi::OpenApi;

use crate::openapi::operations;

/// What a path has.
pub(crate) struct Entry {
    /// The route's template.
    pub template: Arc<str>,
    methods: Vec<&'static str>,
}

impl Entry {
    /// Whether the route has the method.
    pub fn has(&self, method: &Method) -> bool {
        self.methods.contains(&method.as_str())
    }

    /// The value of `Allow`: `HEAD` comes with `GET`, and `OPTIONS` is answered everywhere.
    pub fn allow(&self) -> HeaderValue {
        let mut all = self.methods.clone();
        if all.contains(&"GET") {
            all.push("HEAD");
        }
        all.push("OPTIONS");
        HeaderValue::from_str(&all.join(", ")).unwrap_or_else(|_| HeaderValue::from_static(""))
    }
}

/// All paths of a document.
pub(crate) struct Surface(matchit::Router<Entry>);

impl Surface {
    /// Takes the paths of a document, and others that are not in it and can only be read.
    pub fn new(document: &OpenApi, others: &[&str]) -> Self {
        let mut router = matchit::Router::new();
        let mut add = |template: &str, methods: Vec<&'static str>| {
            let entry = Entry {
                template: template.into(),
                methods,
            };
            if let Err(error) = router.insert(template, entry) {
                tracing::error!(template, %error, "the route cannot be matched");
            }
        };
        for (template, item) in &document.paths.paths {
            let mut item = item.clone();
            let methods = operations(&mut item).map(|(method, _)| method).collect();
            add(template, methods);
        }
        for template in others {
            add(template, vec!["GET"]);
        }
        Self(router)
    }

    /// What the path has.
    pub fn find(&self, path: &str) -> Option<&Entry> {
        self.0.at(path).ok().map(|found| found.value)
    }
}

/// Literal segments that stand where another route of the same shape has a parameter.
pub(crate) fn literals_beside_parameters<'a>(
    templates: impl Iterator<Item = &'a str> + Clone,
) -> impl Iterator<Item = String> {
    let is_parameter = |segment: &str| segment.starts_with('{');
    let prefixes = templates.clone().flat_map(move |template| {
        let segments: Vec<&str> = template.split('/').collect();
        let found = segments.iter().enumerate();
        found
            .filter(|(_, segment)| is_parameter(segment))
            .map(|(index, _)| segments[..index].to_vec())
            .collect::<Vec<_>>()
    });
    let prefixes: Vec<Vec<&str>> = prefixes.collect();
    let all: Vec<String> = templates
        .flat_map(|template| {
            let segments: Vec<&str> = template.split('/').collect();
            let mut literals = Vec::new();
            for (index, segment) in segments.iter().enumerate() {
                let beside = prefixes.iter().any(|prefix| {
                    prefix.len() == index
                        && prefix
                            .iter()
                            .zip(&segments)
                            .all(|(a, b)| a == b || is_parameter(a) || is_parameter(b))
                });
                if beside && !is_parameter(segment) {
                    literals.push((*segment).to_owned());
                }
            }
            literals
        })
        .collect();
    all.into_iter()
}
