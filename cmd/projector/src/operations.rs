//! What operators do with dead letters, on the admin port.

use axum::extract::{Query, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use millrace_projecting::{DeadLetters, LetterFilter, MAX_LETTERS_PER_PAGE, Requested, StoreError};
use serde_json::json;

/// `GET /dead-letters?projection=…&stream=…` lists; `POST /dead-letters/redrive` and
/// `/dead-letters/discard` take a filter and give the requests made; `POST /dead-letters/outcome`
/// takes one of these and says what became of it.
pub(crate) fn routes(letters: DeadLetters) -> Router {
    Router::new()
        .route("/dead-letters", get(list))
        .route("/dead-letters/redrive", post(redrive))
        .route("/dead-letters/discard", post(discard))
        .route("/dead-letters/outcome", post(outcome))
        .with_state(letters)
}

async fn list(State(letters): State<DeadLetters>, Query(filter): Query<LetterFilter>) -> Response {
    answer(letters.list(&filter, MAX_LETTERS_PER_PAGE).await)
}

async fn redrive(State(letters): State<DeadLetters>, Json(filter): Json<LetterFilter>) -> Response {
    answer(letters.redrive(&filter).await)
}

async fn discard(State(letters): State<DeadLetters>, Json(filter): Json<LetterFilter>) -> Response {
    if filter == LetterFilter::default() {
        let detail = "say which dead letters are to be given up: an empty filter means all of them";
        return problem(StatusCode::UNPROCESSABLE_ENTITY, detail);
    }
    answer(letters.discard(&filter).await)
}

async fn outcome(State(letters): State<DeadLetters>, Json(request): Json<Requested>) -> Response {
    answer(
        letters
            .outcome(&request)
            .await
            .map(|outcome| json!({"outcome": outcome})),
    )
}

fn answer<T: serde::Serialize>(result: Result<T, StoreError>) -> Response {
    match result {
        Ok(value) => Json(value).into_response(),
        Err(error) => {
            tracing::warn!(
                error = &error as &dyn std::error::Error,
                "an operation failed"
            );
            let status = match error {
                StoreError::Invalid(_) => StatusCode::UNPROCESSABLE_ENTITY,
                StoreError::Unavailable(_) => StatusCode::SERVICE_UNAVAILABLE,
                _ => StatusCode::INTERNAL_SERVER_ERROR,
            };
            problem(status, &error.to_string())
        }
    }
}

fn problem(status: StatusCode, detail: &str) -> Response {
    let body =
        json!({"title": status.canonical_reason(), "status": status.as_u16(), "detail": detail});
    (status, Json(body)).into_response()
}
