use serde_json::json;
use utoipa::openapi::{
    ArrayBuilder, Content, ObjectBuilder, Ref, RefOr, Schema, Type,
    response::{Response, ResponseBuilder},
    schema::AdditionalProperties,
};

use super::header_ref;
use crate::PROBLEM_JSON;

/// The headers of answers, and what they say.
pub(super) const HEADERS: [(&str, &str); 9] = [
    (
        "ETag",
        "The version of what was answered, in quotes: hand it back in `If-Match` or `If-None-Match`.",
    ),
    ("Location", "Where what was created can be read."),
    (
        "Log-Position",
        "Where the log, or the read model that answered, stands: `<context>/<position>` and what the server adds. Hand it back as `at_least`.",
    ),
    (
        "Idempotent-Replayed",
        "`true` when this is the answer of an earlier request with the same `Idempotency-Key`.",
    ),
    (
        "Next-Cursor",
        "Hand it back as `cursor` to get what follows; absent on the last page.",
    ),
    ("Preference-Applied", "The wait that was granted."),
    ("Retry-After", "In how many seconds to try again."),
    (
        "X-Request-Id",
        "The request's name: the caller's, or one made for it.",
    ),
    ("traceparent", "The W3C trace context of the answer."),
];

/// The problems that routes have in common, by status.
const PROBLEMS: [(&str, &str); 12] = [
    (
        "400",
        "The body is not JSON, the URL cannot be decoded, or the cursor is not from this list.",
    ),
    ("404", "There is no such thing."),
    ("408", "The request took too long to arrive."),
    ("409", "A rule says no, or others kept changing it."),
    ("412", "It is not at the version in `If-Match`."),
    ("413", "The body is above 256 KiB."),
    ("415", "The body is not `application/json`."),
    (
        "422",
        "Fields, parameters or headers are unknown, missing or invalid, or a rule says no.",
    ),
    ("500", "Something went wrong that the client cannot help."),
    (
        "503",
        "A store cannot be reached, or everything is busy. Nothing was done; try again.",
    ),
    (
        "504",
        "The read model did not get there in time, or no answer came in time.",
    ),
    ("405", "The route has other methods; see `Allow`."),
];

pub(super) fn problem_responses() -> impl Iterator<Item = (String, RefOr<Response>)> {
    PROBLEMS.into_iter().map(|(status, description)| {
        let content = Content::new(Some(Ref::from_schema_name("Problem")));
        let mut response = ResponseBuilder::new()
            .description(description)
            .content(PROBLEM_JSON, content)
            .build();
        let own: &[&str] = match status {
            "503" | "504" => &["Retry-After"],
            "409" | "422" => &["Idempotent-Replayed"],
            "412" => &["ETag"],
            _ => &[],
        };
        for name in own.iter().chain(&["X-Request-Id", "traceparent"]) {
            response
                .headers
                .insert((*name).to_owned(), header_ref(name));
        }
        (format!("Problem{status}"), RefOr::T(response))
    })
}

pub(super) fn problem_schemas() -> [(String, RefOr<Schema>); 2] {
    let text = |description: &str| {
        ObjectBuilder::new()
            .schema_type(Type::String)
            .description(Some(description))
    };
    let field = ObjectBuilder::new()
        .description(Some("One thing that is wrong with a request."))
        .property(
            "in",
            text("The part of the request.").enum_values(Some(["body", "query", "path", "header"])),
        )
        .property(
            "pointer",
            text("Where in it, as a JSON pointer (RFC 6901)."),
        )
        .property("reason", text("Why."))
        .required("in")
        .required("pointer")
        .required("reason")
        .additional_properties(Some(AdditionalProperties::FreeForm(false)));
    let problem = ObjectBuilder::new()
        .description(Some(
            "An error (RFC 9457). Some kinds have further members.",
        ))
        .property(
            "type",
            text("The kind of problem; it never changes.").pattern(Some("^/problems/[a-z0-9-]+$")),
        )
        .property("title", text("The kind in words."))
        .property(
            "status",
            ObjectBuilder::new()
                .schema_type(Type::Integer)
                .minimum(Some(400))
                .maximum(Some(599)),
        )
        .property("detail", text("What happened this time, and what to do."))
        .property(
            "errors",
            ArrayBuilder::new().items(Ref::from_schema_name("FieldError")),
        )
        .required("type")
        .required("title")
        .required("status")
        .required("detail")
        .additional_properties(Some(AdditionalProperties::FreeForm(true)))
        .examples([json!({
            "type": "/problems/invalid-request",
            "title": "The request is not valid",
            "status": 422,
            "detail": "/user_id: is required",
            "errors": [{"in": "body", "pointer": "/user_id", "reason": "is required"}],
        })]);
    [
        ("FieldError".to_owned(), field.into()),
        ("Problem".to_owned(), problem.into()),
    ]
}
