//! The OpenAPI document: what every route has in common is added here, once, so that a route
//! documents what is its own and the document misses no answer.

mod common;
mod params;

pub use params::{ChangeHeaders, ListParams, ReadParams, StrongReadParams, WriteHeaders};

use utoipa::openapi::{
    Components, InfoBuilder, OpenApi, OpenApiBuilder, Ref, RefOr, Server,
    header::Header,
    path::{Operation, ParameterIn, PathItem},
    response::Response,
};

use common::{HEADERS, problem_responses, problem_schemas};

/// A document without routes.
pub(crate) fn empty() -> OpenApi {
    OpenApiBuilder::new()
        .info(
            InfoBuilder::new()
                .title("Millrace")
                .version(env!("CARGO_PKG_VERSION"))
                .description(Some(include_str!("description.md")))
                .build(),
        )
        .servers(Some([Server::new("/")]))
        .components(Some(Components::new()))
        .build()
}

/// Adds what all routes have in common to every operation.
pub(crate) fn complete(document: &mut OpenApi) {
    let components = document.components.get_or_insert_with(Components::new);
    components.schemas.extend(problem_schemas());
    components.responses.extend(problem_responses());
    for (name, description) in HEADERS {
        let mut header = Header::default();
        header.description = Some(description.to_owned());
        components.headers.insert(name.to_owned(), RefOr::T(header));
    }
    for item in document.paths.paths.values_mut() {
        for (method, operation) in operations(item) {
            complete_operation(method, operation);
        }
    }
}

/// An item's operations, by method.
pub(crate) fn operations(
    item: &mut PathItem,
) -> impl Iterator<Item = (&'static str, &mut Operation)> {
    [
        ("GET", item.get.as_mut()),
        ("POST", item.post.as_mut()),
        ("PUT", item.put.as_mut()),
        ("PATCH", item.patch.as_mut()),
        ("DELETE", item.delete.as_mut()),
    ]
    .into_iter()
    .filter_map(|(method, operation)| Some((method, operation?)))
}

fn complete_operation(method: &str, operation: &mut Operation) {
    let takes = |name: &str, place: &ParameterIn| {
        let parameters = operation.parameters.iter().flatten();
        let mut given = parameters.filter_map(|parameter| match parameter {
            RefOr::T(parameter) => Some(parameter),
            RefOr::Ref(_) => None,
        });
        given.any(|p| (name.is_empty() || p.name == name) && p.parameter_in == *place)
    };
    let read = method == "GET";
    let mut common = vec!["400", "422", "500", "503", "504"];
    let matches = takes("If-Match", &ParameterIn::Header);
    // What a version can be asked of has to exist, wherever it is named.
    if takes("", &ParameterIn::Path) || matches {
        common.push("404");
    }
    if matches {
        common.push("412");
    }
    if operation.request_body.is_some() {
        common.push("415");
    }
    if !read {
        // Even where no body is wanted, one that is too large or too slow is refused as such.
        common.extend(["408", "409", "413"]);
    }
    let not_modified = read && takes("If-None-Match", &ParameterIn::Header);

    let responses = &mut operation.responses.responses;
    for (status, response) in responses.iter_mut() {
        if let RefOr::T(response) = response {
            document_headers(read, status, response);
        }
    }
    for status in common {
        responses
            .entry(status.to_owned())
            .or_insert_with(|| Ref::from_response_name(format!("Problem{status}")).into());
    }
    if not_modified {
        let mut response = Response::new("What the client has is what there is");
        document_headers(true, "200", &mut response);
        responses.insert("304".to_owned(), RefOr::T(response));
    }
}

/// Names the headers that an answer of a route's own has.
fn document_headers(read: bool, status: &str, response: &mut Response) {
    let names: &[&str] = match (read, status) {
        (true, "200") => &["ETag", "Log-Position", "Preference-Applied"],
        (false, "201") => &["ETag", "Location", "Log-Position", "Idempotent-Replayed"],
        (false, "200" | "204") => &["ETag", "Log-Position", "Idempotent-Replayed"],
        (false, _) => &["Idempotent-Replayed"],
        _ => &[],
    };
    for name in names.iter().chain(&["X-Request-Id", "traceparent"]) {
        response
            .headers
            .entry((*name).to_owned())
            .or_insert_with(|| header_ref(name));
    }
}

fn header_ref(name: &str) -> RefOr<Header> {
    RefOr::Ref(Ref::new(format!("#/components/headers/{name}")))
}
