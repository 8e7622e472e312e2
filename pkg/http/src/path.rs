use axum::extract::{FromRequestParts, RawPathParams, rejection::RawPathParamsRejection};
use http::request::Parts;
use millrace_kernel::EntityId;

use crate::{
    Problem, context,
    fields::{FieldError, Part, push_token},
    problem::types,
};

/// The ids in a route's path, in the order of the route: `PathId` for one, `PathIds::<2>` for two.
/// 422 when one of them is no id, or a word of the routes such as `statistics`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PathIds<const N: usize>(pub [EntityId; N]);

/// The one id in a route's path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PathId(pub EntityId);

/// The texts of a route's path parameters, in the order of the route, for those that are no ids
/// (`/orders/status/{status}`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PathTexts<const N: usize>(pub [String; N]);

impl<S: Send + Sync> FromRequestParts<S> for PathId {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let PathIds([id]) = PathIds::<1>::from_request_parts(parts, state).await?;
        Ok(Self(id))
    }
}

impl<S: Send + Sync, const N: usize> FromRequestParts<S> for PathIds<N> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let named = params(parts, state).await?;
        let mut ids = Vec::with_capacity(N);
        for (name, text) in named {
            ids.push(entity_id(parts, &name, text)?);
        }
        exactly(ids).map(Self)
    }
}

impl<S: Send + Sync, const N: usize> FromRequestParts<S> for PathTexts<N> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let named = params(parts, state).await?;
        exactly(named.into_iter().map(|(_, text)| text).collect()).map(Self)
    }
}

/// Takes the text of a path parameter as an id.
fn entity_id(parts: &Parts, name: &str, text: String) -> Result<EntityId, Problem> {
    let refuse = |reason: String| {
        let mut pointer = String::new();
        push_token(&mut pointer, name);
        Problem::invalid(vec![FieldError::new(Part::Path, pointer, reason)])
    };
    if context::of(parts)?.is_reserved(&text) {
        return Err(refuse(context::RESERVED.to_owned()));
    }
    EntityId::new(text).map_err(|invalid| refuse(invalid.to_string()))
}

async fn params<S: Send + Sync>(
    parts: &mut Parts,
    state: &S,
) -> Result<Vec<(String, String)>, Problem> {
    match RawPathParams::from_request_parts(parts, state).await {
        Ok(params) => Ok(params
            .iter()
            .map(|(name, text)| (name.to_owned(), text.to_owned()))
            .collect()),
        Err(RawPathParamsRejection::InvalidUtf8InPathParam(_)) => Err(Problem::new(
            &types::MALFORMED_URL,
            "A part of the path is not valid UTF-8",
        )),
        Err(other) => Err(Problem::internal(other)),
    }
}

fn exactly<T, const N: usize>(found: Vec<T>) -> Result<[T; N], Problem> {
    let count = found.len();
    found
        .try_into()
        .map_err(|_| Problem::internal(format!("the route has {count} path parameters, not {N}")))
}
