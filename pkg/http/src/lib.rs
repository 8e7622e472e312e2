//! Everything about HTTP that is the same for all routes, so that a context's route is a few lines.
//!
//! A write's handler takes a [`Write`], a query's a [`Read`] or a [`List`]; both refuse whatever the
//! contract does not know. Whatever goes wrong is a [`Problem`].

mod body;
mod conditional;
mod consistency;
mod context;
mod failure;
mod fields;
mod json;
mod page;
mod path;
mod problem;
mod query;
mod read;
mod trace;
mod write;

pub use body::{BODY_READ_TIMEOUT, Json, MAX_BODY_BYTES};
pub use conditional::{body_tag, version_tag};
pub use consistency::{Consistency, DEFAULT_WAIT, LOG_POSITION, MAX_WAIT, MIN_LOG_POSITION};
pub use context::{RequestContext, X_ACTOR, X_REQUEST_ID};
pub use fields::{FieldError, FieldErrors, MAX_FIELD_ERRORS, Part};
pub use page::{CursorKey, DEFAULT_PAGE_ITEMS, MAX_PAGE_ITEMS, Page, PageRequest, ShortSecret};
pub use path::{PathId, PathIds, PathTexts};
pub use problem::{PROBLEM_JSON, Problem, ProblemType, types};
pub use read::{List, NEXT_CURSOR, NoQuery, Read, Reading, StrongRead};
pub use write::{
    AnswerBuilder, IDEMPOTENCY_KEY, IDEMPOTENT_REPLAYED, NoBody, Write, WriteBody, respond,
};
