//! The writes: what their bodies may say, and the routes of the command service.
//!
//! A handler checks every field of its body, makes a command of it, and hands it to the
//! repository; what it answers is decided with the command and kept with its events.

mod bodies;

use std::sync::Arc;

use axum::{
    extract::State,
    response::{IntoResponse, Response},
};
use http::StatusCode;
use millrace_contracts::customers::Address;
use millrace_eventlog::{Answer, Execute, Outcome, Repository};
use millrace_http::{AnswerBuilder, ChangeHeaders, PathId, Problem, Write, WriteHeaders, Written};
use millrace_kernel::{EntityId, Timestamp};
use serde::Serialize;
use utoipa::ToSchema;
use utoipa_axum::{router::OpenApiRouter, routes};

use crate::{
    problems::refused,
    user::{User, UserCommand, UserDetails, UserId},
};
use bodies::{CreateUserBody, SetAddressBody, UpdateUserBody};

/// What the routes of the command service work with.
#[derive(Debug, Clone)]
pub struct CommandState {
    /// The users.
    pub users: Arc<Repository<User>>,
}

/// The routes of the command service.
pub fn command_routes() -> OpenApiRouter<CommandState> {
    OpenApiRouter::new()
        .routes(routes!(create_user))
        .routes(routes!(update_user))
        .routes(routes!(set_user_address))
}

/// A user, as a write answers.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = UserAfter)]
struct UserAfter<'a> {
    /// The user.
    #[schema(value_type = EntityId)]
    id: &'a UserId,
    /// His name.
    name: &'a str,
    /// His e-mail address, as he writes it.
    email: &'a str,
}

impl<'a> UserAfter<'a> {
    fn of(user: &'a UserDetails) -> Self {
        Self {
            id: &user.id,
            name: &user.name,
            email: &user.email,
        }
    }
}

/// A user's account, as a write answers.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = UserAccountAfter)]
struct UserAccountAfter<'a> {
    /// The user.
    #[schema(value_type = EntityId)]
    user_id: &'a UserId,
    /// The street; null for an address in one text, like the city, the state and the postal code.
    #[schema(required)]
    street: Option<&'a str>,
    /// The city.
    #[schema(required)]
    city: Option<&'a str>,
    /// The state.
    #[schema(required)]
    state: Option<&'a str>,
    /// The postal code.
    #[schema(required)]
    zip: Option<&'a str>,
    /// The address in one text; null for one in parts.
    #[schema(required)]
    address: Option<&'a str>,
    /// How it is shown: `street, city, state zip`, or the text.
    shipping_address: String,
}

impl<'a> UserAccountAfter<'a> {
    fn of(user_id: &'a UserId, address: &'a Address) -> Self {
        let ([street, city, state, zip], text) = match address {
            Address::Parts {
                street,
                city,
                state,
                zip,
            } => (
                [street, city, state, zip].map(|part| Some(part.as_str())),
                None,
            ),
            Address::Text { address } => ([None; 4], Some(address.as_str())),
        };
        Self {
            user_id,
            street,
            city,
            state,
            zip,
            address: text,
            shipping_address: address.to_string(),
        }
    }
}

/// Create a user
///
/// Without an `id` he gets a fresh one. No two users have one e-mail address, whatever the case of
/// its letters.
#[utoipa::path(
    post, path = "/system-api/users", tag = "customers", params(WriteHeaders),
    request_body = CreateUserBody,
    responses((status = 201, description = "The user.", body = UserAfter)),
)]
async fn create_user(
    State(state): State<CommandState>,
    write: Write<CreateUserBody>,
) -> Result<Response, Problem> {
    let (body, request) = write.split();
    let user = body.user(&request.context, Timestamp::now())?;
    let id = user.user_id.clone();
    run(&state, request, id, UserCommand::Create(user), |user| {
        AnswerBuilder::json(StatusCode::CREATED, &UserAfter::of(user)).location(location(&user.id))
    })
    .await
}

/// Change a user's name or e-mail address
///
/// What is left out stays. The read models that show them follow.
#[utoipa::path(
    put, path = "/system-api/users/{id}", tag = "customers",
    params(("id" = EntityId, Path, description = "The user."), ChangeHeaders),
    request_body = UpdateUserBody,
    responses((status = 200, description = "The user as he is now.", body = UserAfter)),
)]
async fn update_user(
    State(state): State<CommandState>,
    PathId(id): PathId,
    write: Write<UpdateUserBody>,
) -> Result<Response, Problem> {
    let (body, request) = write.split();
    let command = body.command(Timestamp::now())?;
    run(&state, request, UserId::new(id), command, |user| {
        AnswerBuilder::json(StatusCode::OK, &UserAfter::of(user))
    })
    .await
}

/// Give a user's account an address
///
/// In parts, or as one text. Another one replaces it.
#[utoipa::path(
    post, path = "/system-api/accounts", tag = "customers", params(ChangeHeaders),
    request_body = SetAddressBody,
    responses((status = 201, description = "The account as it is now.", body = UserAccountAfter)),
)]
async fn set_user_address(
    State(state): State<CommandState>,
    write: Write<SetAddressBody>,
) -> Result<Response, Problem> {
    let (body, request) = write.split();
    let (id, command) = body.command(&request.context, Timestamp::now())?;
    run(&state, request, id, command, |user| match &user.address {
        Some(address) => {
            let account = UserAccountAfter::of(&user.id, address);
            AnswerBuilder::json(StatusCode::CREATED, &account).location(location(&user.id))
        }
        // No address is taken back.
        None => AnswerBuilder::no_content(),
    })
    .await
}

fn location(id: &UserId) -> String {
    format!("/users/{id}")
}

async fn run(
    state: &CommandState,
    request: Write<()>,
    id: UserId,
    command: UserCommand,
    answer: impl Fn(&UserDetails) -> AnswerBuilder + Send + Sync,
) -> Result<Response, Problem> {
    let request = Execute {
        id: id.get(),
        new: matches!(command, UserCommand::Create(_)),
        command,
        if_match: request.if_match,
        metadata: request.metadata,
        key: request.key,
    };
    let respond_to = |outcome: Outcome<'_, User>| answer_of(&id, &outcome, &answer);
    let executed = state.users.execute(request, respond_to).await?;
    Ok(Written(executed).into_response())
}

fn answer_of(
    id: &UserId,
    outcome: &Outcome<'_, User>,
    answer: impl Fn(&UserDetails) -> AnswerBuilder,
) -> Answer {
    match outcome {
        Outcome::Refused { refusal, .. } => refused(id, refusal).into_answer(),
        Outcome::Done { state, version, .. } => match state.details() {
            Some(user) => answer(user).version(*version).build(),
            // No command leaves a user absent without refusing.
            None => Problem::internal("a user is absent after his command").into_answer(),
        },
    }
}
