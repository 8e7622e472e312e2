//! Answers of the query protocol, in XML.

use axum::{
    body::Body,
    http::{HeaderValue, StatusCode, header},
    response::Response,
};

use super::{Published, id};

const NAMESPACE: &str = "http://sns.amazonaws.com/doc/2010-03-31/";

/// Why a request or a message is refused.
#[derive(Debug, Clone)]
pub(super) struct Failure {
    code: &'static str,
    pub(super) message: String,
}

impl Failure {
    pub(super) fn new(code: &'static str, message: impl Into<String>) -> Self {
        Self {
            code,
            message: message.into(),
        }
    }

    pub(super) fn invalid(what: &str) -> Self {
        Self::new("InvalidParameter", format!("Invalid parameter: {what}"))
    }

    fn status(&self) -> StatusCode {
        match self.code {
            "NotFound" => StatusCode::NOT_FOUND,
            "TopicLimitExceeded" | "SubscriptionLimitExceeded" => StatusCode::FORBIDDEN,
            _ => StatusCode::BAD_REQUEST,
        }
    }

    /// Its place in the answer to a batch.
    pub(super) fn member(&self, id: &str) -> String {
        let inside = [
            element("Id", id),
            element("Code", self.code),
            element("Message", &self.message),
            element("SenderFault", "true"),
        ];
        raw("member", &inside.concat())
    }
}

/// An element with text in it.
pub(super) fn element(name: &str, text: &str) -> String {
    let escaped = text
        .replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;");
    raw(name, &escaped)
}

/// An element with elements in it.
pub(super) fn raw(name: &str, inside: &str) -> String {
    format!("<{name}>{inside}</{name}>")
}

pub(super) fn published(published: &Published) -> String {
    let mut inside = element("MessageId", &published.message_id);
    if let Some(number) = &published.sequence_number {
        inside.push_str(&element("SequenceNumber", number));
    }
    inside
}

pub(super) fn answer(action: &str, result: Result<String, Failure>) -> Response {
    let (status, text) = match result {
        Ok(inside) => (
            StatusCode::OK,
            format!(
                "<{action}Response xmlns=\"{NAMESPACE}\">{}{}</{action}Response>",
                raw(&format!("{action}Result"), &inside),
                raw("ResponseMetadata", &element("RequestId", &id()))
            ),
        ),
        Err(failure) => {
            let inside = [
                element("Type", "Sender"),
                element("Code", failure.code),
                element("Message", &failure.message),
            ];
            let text = format!(
                "<ErrorResponse xmlns=\"{NAMESPACE}\">{}{}</ErrorResponse>",
                raw("Error", &inside.concat()),
                element("RequestId", &id())
            );
            (failure.status(), text)
        }
    };
    let mut response = Response::new(Body::from(text));
    *response.status_mut() = status;
    response
        .headers_mut()
        .insert(header::CONTENT_TYPE, HeaderValue::from_static("text/xml"));
    response
}
