use std::time::Duration;

use axum::{body::Body, extract::FromRequestParts, response::Response};
use bytes::Bytes;
use http::{HeaderName, HeaderValue, StatusCode, header, request::Parts};
use millrace_es::{LogToken, StreamVersion};
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use crate::{
    Consistency, Page, PageRequest, Problem,
    conditional::{IfNoneMatch, body_tag, version_tag, version_tag_beside},
    consistency::{LOG_POSITION, PREFERENCE_APPLIED, preference_applied},
    context,
    query::Parameters,
    write::log_position,
};

/// The header of a bare array that says how to go on.
pub const NEXT_CURSOR: HeaderName = HeaderName::from_static("next-cursor");

/// The media type of most answers.
const JSON: &str = "application/json";

/// The query of a route that has no parameters of its own.
#[derive(Debug, Clone, Copy, Default, Deserialize)]
pub struct NoQuery {}

/// Everything a query's route needs from its request. `T` holds the route's own parameters; any
/// other is refused. `STRONG` says whether the route has a strong form.
#[derive(Debug)]
pub struct Read<T, const STRONG: bool = false> {
    /// The route's own parameters.
    pub query: T,
    /// How fresh the answer has to be.
    pub consistency: Consistency,
    /// Makes the answer.
    pub reading: Reading,
}

/// A [`Read`] whose route has a strong form: the queries for one entity.
pub type StrongRead<T> = Read<T, true>;

/// A [`Read`] of a paged list.
pub struct List<T> {
    /// The list's filters.
    pub query: T,
    /// Which page.
    pub page: PageRequest,
    /// How fresh the answer has to be.
    pub consistency: Consistency,
    /// Makes the answer.
    pub reading: Reading,
}

impl<T: DeserializeOwned, S: Sync, const STRONG: bool> FromRequestParts<S> for Read<T, STRONG> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        let mut parameters = Parameters::parse(parts.uri.query())?;
        let consistency = Consistency::take(&mut parameters, &parts.headers, STRONG)?;
        Ok(Self {
            query: parameters.into()?,
            reading: Reading::of(parts, &consistency)?,
            consistency,
        })
    }
}

impl<T: DeserializeOwned, S: Sync> FromRequestParts<S> for List<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        let mut parameters = Parameters::parse(parts.uri.query())?;
        let consistency = Consistency::take(&mut parameters, &parts.headers, false)?;
        let key = context::of(parts)?.cursor_key();
        let page = PageRequest::take(&mut parameters, parts.uri.path(), key)?;
        Ok(Self {
            query: parameters.into()?,
            page,
            reading: Reading::of(parts, &consistency)?,
            consistency,
        })
    }
}

/// Makes the answers of queries: `ETag` and 304, `Log-Position`, `Preference-Applied`.
#[derive(Debug)]
pub struct Reading {
    if_none_match: IfNoneMatch,
    waits: Option<Duration>,
}

impl Reading {
    fn of(parts: &Parts, consistency: &Consistency) -> Result<Self, Problem> {
        Ok(Self {
            if_none_match: IfNoneMatch::of(&parts.headers)?,
            waits: match consistency {
                Consistency::AtLeast { wait, .. } => Some(*wait),
                Consistency::Eventual | Consistency::Strong => None,
            },
        })
    }

    /// Answers with one entity, whose tag is its stream's version. `token` says how far the read
    /// model is.
    ///
    /// # Errors
    /// 500 when the body has no JSON form.
    pub fn entity<B: Serialize>(
        &self,
        body: &B,
        version: StreamVersion,
        token: Option<&LogToken>,
    ) -> Result<Response, Problem> {
        let tag = version_tag(version);
        let bytes = serde_json::to_vec(body).map_err(Problem::internal)?;
        Ok(self.answer(bytes.into(), JSON, tag, token))
    }

    /// Answers with content that is kept as it is; its tag is its content's.
    pub fn content(
        &self,
        content: Bytes,
        content_type: &'static str,
        token: Option<&LogToken>,
    ) -> Response {
        let tag = body_tag(&content);
        self.answer(content, content_type, tag, token)
    }

    /// Answers with one entity that shows `others`, facts of other streams, beside its own: its tag
    /// changes with them too. Without any, it is as [`Reading::entity`].
    ///
    /// # Errors
    /// 500 when the body has no JSON form.
    pub fn entity_beside<B: Serialize, O: Serialize>(
        &self,
        body: &B,
        version: StreamVersion,
        others: Option<O>,
        token: Option<&LogToken>,
    ) -> Result<Response, Problem> {
        let Some(others) = others else {
            return self.entity(body, version, token);
        };
        let others = serde_json::to_vec(&others).map_err(Problem::internal)?;
        let tag = version_tag_beside(version, &others);
        let bytes = serde_json::to_vec(body).map_err(Problem::internal)?;
        Ok(self.answer(bytes.into(), JSON, tag, token))
    }

    /// Answers with anything else, such as statistics; its tag is its content's.
    ///
    /// # Errors
    /// 500 when the body has no JSON form.
    pub fn json<B: Serialize>(
        &self,
        body: &B,
        token: Option<&LogToken>,
    ) -> Result<Response, Problem> {
        let bytes = serde_json::to_vec(body).map_err(Problem::internal)?;
        Ok(self.content(bytes.into(), JSON, token))
    }

    /// Answers with a page of a list.
    ///
    /// # Errors
    /// 500 when the body has no JSON form.
    pub fn page<B: Serialize>(
        &self,
        page: &Page<B>,
        token: Option<&LogToken>,
    ) -> Result<Response, Problem> {
        self.json(page, token)
    }

    /// Answers with a page as a bare array, its cursor in the header `Next-Cursor`.
    ///
    /// # Errors
    /// 500 when the body has no JSON form.
    pub fn array<B: Serialize>(
        &self,
        page: &Page<B>,
        token: Option<&LogToken>,
    ) -> Result<Response, Problem> {
        let mut response = self.json(&page.items, token)?;
        if let Some(cursor) = &page.next_cursor {
            let value = HeaderValue::from_str(cursor).map_err(Problem::internal)?;
            response.headers_mut().insert(NEXT_CURSOR, value);
        }
        Ok(response)
    }

    fn answer(
        &self,
        body: Bytes,
        content_type: &'static str,
        tag: HeaderValue,
        token: Option<&LogToken>,
    ) -> Response {
        let fresh = self.if_none_match.has(&tag);
        let mut response = if fresh {
            let mut response = Response::new(Body::empty());
            *response.status_mut() = StatusCode::NOT_MODIFIED;
            response
        } else {
            let mut response = Response::new(Body::from(body));
            response
                .headers_mut()
                .insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
            response
        };
        let headers = response.headers_mut();
        headers.insert(header::ETAG, tag);
        if let Some(value) = token.and_then(log_position) {
            headers.insert(LOG_POSITION, value);
        }
        if let Some(value) = self.waits.and_then(preference_applied) {
            headers.insert(PREFERENCE_APPLIED, value);
        }
        response
    }
}
