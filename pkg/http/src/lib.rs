//! Everything about HTTP that is the same for all routes, so that a context's route is a few lines.
//!
//! A write's handler takes a [`Write`], a query's a [`Read`] or a [`List`]; both refuse whatever the
//! contract does not know. Whatever goes wrong is a [`Problem`].

mod api;
mod body;
mod conditional;
mod connection;
mod consistency;
mod context;
mod edge;
mod failure;
mod fields;
mod forward;
mod json;
mod metrics;
mod openapi;
mod page;
mod path;
mod problem;
mod query;
mod read;
mod server;
mod surface;
mod trace;
mod ui;
mod write;

pub use api::{Api, ApiOptions, DEFAULT_MAX_IN_FLIGHT, DEFAULT_REQUEST_DEADLINE, private};
pub use body::{DEFAULT_BODY_TIMEOUT, Json, MAX_BODY_BYTES};
pub use conditional::{body_tag, version_tag};
pub use consistency::{Consistency, DEFAULT_WAIT, LOG_POSITION, MAX_WAIT, MIN_LOG_POSITION};
pub use context::{RequestContext, X_ACTOR, X_REQUEST_ID};
pub use failure::Written;
pub use fields::{FieldError, FieldErrors, MAX_FIELD_ERRORS, Part};
pub use forward::{Forwarder, InvalidOrigin};
pub use openapi::{ChangeHeaders, ListParams, ReadParams, StrongReadParams, WriteHeaders};
pub use page::{CursorKey, DEFAULT_PAGE_ITEMS, MAX_PAGE_ITEMS, Page, PageRequest, ShortSecret};
pub use path::{PathId, PathIds, PathTexts};
pub use problem::{PROBLEM_JSON, Problem, ProblemType, types};
pub use read::{List, NEXT_CURSOR, NoQuery, Read, Reading, StrongRead};
pub use server::{ServerLimits, serve};
pub use write::{
    AnswerBuilder, IDEMPOTENCY_KEY, IDEMPOTENT_REPLAYED, NoBody, OptionalBody, Write, WriteBody,
    respond,
};
