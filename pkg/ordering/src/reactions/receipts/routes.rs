//! The route that gives a receipt.

use std::time::Duration;

use axum::{extract::State, response::Response};
use futures::FutureExt;
use http::{HeaderMap, HeaderValue, header};
use millrace_effects::{Archive, ArchiveError};
use millrace_http::{PathId, Problem, Read, ReadParams};
use millrace_kernel::{EntityId, Timestamp};
use millrace_querying::from_postgres;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::{router::OpenApiRouter, routes};

use super::Form;
use crate::{
    order::OrderId,
    problems::{NO_RECEIPT_LINK, RECEIPT_NOT_READY, not_found},
    queries::QueryState,
    views::order_read_models::created_at,
};

/// How long a link to a receipt works.
const LINK_LIFETIME: Duration = Duration::from_secs(300);

/// What a page may do: show itself.
const PAGE_POLICY: &str = "default-src 'none'; style-src 'unsafe-inline'";

/// The route of receipts.
pub fn routes() -> OpenApiRouter<QueryState> {
    OpenApiRouter::new().routes(routes!(get_receipt))
}

/// What a receipt may be asked for.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct ReceiptQuery {
    /// Whether to give a link to the receipt instead, which works for five minutes without keys.
    #[serde(default)]
    #[param(required = false)]
    link: bool,
}

/// Where a receipt can be had without keys.
#[derive(Debug, Serialize, ToSchema)]
struct ReceiptLink {
    /// Where.
    url: String,
    /// Until when.
    #[schema(value_type = String, format = DateTime)]
    expires_at: Timestamp,
    /// What is there.
    content_type: &'static str,
}

/// Read an order's receipt
///
/// As JSON, or as a page to be read and printed if `Accept` asks for `text/html`; with `link=true`, a
/// link to it that works for five minutes. It is written a moment after the order and never changes;
/// a deleted order keeps it.
#[utoipa::path(
    get, path = "/orders/{id}/receipt", tag = "ordering",
    params(("id" = EntityId, Path, description = "The order."), ReceiptQuery, ReadParams),
    responses(
        (status = 200, description = "The receipt, or a link to it.", content(
            (serde_json::Value = "application/json"),
            (String = "text/html"),
        )),
        (status = 404, description = "There is no such order, or its receipt is not written yet."),
        (status = 409, description = "The receipts are kept where there are no links."),
    ),
)]
async fn get_receipt(
    State(state): State<QueryState>,
    PathId(id): PathId,
    headers: HeaderMap,
    read: Read<ReceiptQuery>,
) -> Result<Response, Problem> {
    let id = OrderId::new(id);
    let (created, token) = from_postgres(
        &state.order_read_models,
        state.log.context(),
        read.consistency,
        "order_receipt",
        |conn| created_at(conn, id.clone()).boxed(),
    )
    .await?;
    let created = created.ok_or_else(|| not_found(&id))?;
    let Some(archive) = &state.receipts else {
        let detail = format_args!("a receipt of order {id}: this installation archives none");
        return Err(Problem::not_found(detail));
    };
    let form = form(&headers);
    let path = form.path(&id, created);
    if read.query.link {
        let link = link(archive, &path, form, &id).await?;
        return read.reading.json(&link, token.as_ref());
    }
    let found = archive.read(&path).await.map_err(unreadable)?;
    let content = found.ok_or_else(|| not_ready(&id))?;
    let content_type = form.content_type();
    let mut answer = read.reading.content(content, content_type, token.as_ref());
    let headers = answer.headers_mut();
    headers.insert(header::VARY, HeaderValue::from_static("accept"));
    if form == Form::Html {
        headers.insert(
            header::CONTENT_SECURITY_POLICY,
            HeaderValue::from_static(PAGE_POLICY),
        );
    }
    Ok(answer)
}

/// JSON, unless a page is asked for.
fn form(headers: &HeaderMap) -> Form {
    let wants = |what: &str| {
        let accepts = headers.get_all(header::ACCEPT).iter();
        accepts
            .filter_map(|value| value.to_str().ok())
            .any(|value| value.to_ascii_lowercase().contains(what))
    };
    if wants("text/html") && !wants("application/json") {
        Form::Html
    } else {
        Form::Json
    }
}

async fn link(
    archive: &Archive,
    path: &str,
    form: Form,
    id: &OrderId,
) -> Result<ReceiptLink, Problem> {
    if !archive.makes_links() {
        return Err(no_link(id));
    }
    if !archive.has(path).await.map_err(unreadable)? {
        return Err(not_ready(id));
    }
    let link = archive
        .link(path, LINK_LIFETIME)
        .await
        .map_err(unreadable)?;
    let link = link.ok_or_else(|| no_link(id))?;
    Ok(ReceiptLink {
        url: link.url,
        expires_at: Timestamp::new(Timestamp::now().get() + link.lifetime),
        content_type: form.content_type(),
    })
}

fn no_link(id: &OrderId) -> Problem {
    let detail = format!(
        "the receipt of order {id} is kept where there are no links: ask without link=true"
    );
    Problem::new(&NO_RECEIPT_LINK, detail)
}

fn not_ready(id: &OrderId) -> Problem {
    let detail = format!("the receipt of order {id} is not written yet: ask again in a moment");
    Problem::new(&RECEIPT_NOT_READY, detail)
        .with_header(header::RETRY_AFTER, HeaderValue::from_static("1"))
}

fn unreadable(error: ArchiveError) -> Problem {
    match error {
        ArchiveError::Unavailable(_) => {
            Problem::unavailable("the archive of receipts cannot be reached: try again in a moment")
                .caused_by(error)
        }
        other => Problem::internal(other),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_is_given_to_those_who_ask_for_one() {
        let of = |accept: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert(header::ACCEPT, HeaderValue::from_static(accept));
            form(&headers)
        };
        assert_eq!(form(&HeaderMap::new()), Form::Json);
        assert_eq!(of("*/*"), Form::Json);
        assert_eq!(of("application/json, text/html"), Form::Json);
        assert_eq!(of("text/html,application/xhtml+xml,*/*;q=0.8"), Form::Html);
    }
}
