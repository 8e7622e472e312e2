//! The writes: what their bodies may say, and the routes of the command service.
//!
//! A handler checks every field of its body, makes a command of it, and hands it to the
//! repository; what it answers is decided with the command and kept with its events. A transfer is
//! decided on both of its accounts and appended to both as one.

mod bodies;

use std::sync::Arc;

use axum::{
    extract::State,
    response::{IntoResponse, Response},
};
use http::StatusCode;
use millrace_es::StreamVersion;
use millrace_eventlog::{Answer, Execute, ExecuteAcross, Outcome, OutcomeAcross, Repository};
use millrace_http::{
    AnswerBuilder, ChangeHeaders, OptionalBody, PathId, Problem, Write, WriteHeaders, Written,
};
use millrace_kernel::{EntityId, Money};
use serde::Serialize;
use utoipa::ToSchema;
use utoipa_axum::{router::OpenApiRouter, routes};

use crate::{
    account::{
        Account, AccountCommand, AccountDetails, AccountId, AccountStatus, TransactionId, Transfer,
        TransferRefusal,
    },
    problems::{refused, transfer_refused},
};
use bodies::{CloseAccountBody, MoveMoneyBody, OpenAccountBody, TransferBody};

/// What the routes of the command service work with.
#[derive(Debug, Clone)]
pub struct CommandState {
    /// The accounts.
    pub accounts: Arc<Repository<Account>>,
}

/// The routes of the command service.
pub fn command_routes() -> OpenApiRouter<CommandState> {
    OpenApiRouter::new()
        .routes(routes!(open_account))
        .routes(routes!(deposit))
        .routes(routes!(withdraw))
        .routes(routes!(close_account))
        .routes(routes!(transfer))
}

/// An account as a command left it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct AccountAfter {
    /// The account.
    #[schema(value_type = EntityId)]
    pub account_id: AccountId,
    /// Who holds it, by name.
    pub holder_name: String,
    /// The user who holds it, where it is one.
    #[schema(required)]
    pub user_id: Option<EntityId>,
    /// What it is kept in: a code of ISO 4217.
    #[schema(pattern = "^[A-Z]{3}$")]
    pub currency: String,
    /// What is on it.
    pub balance: Money,
    /// Whether money moves on it.
    pub status: AccountStatus,
    /// The version of its stream.
    pub version: u64,
}

/// A movement on an account, and what it left there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct MovementAfter {
    /// The account.
    #[schema(value_type = EntityId)]
    pub account_id: AccountId,
    /// What is on it.
    pub balance: Money,
    /// The version of its stream.
    pub version: u64,
    /// The movement.
    #[schema(value_type = EntityId)]
    pub transaction_id: TransactionId,
}

/// A transfer, and what it left on the account that sent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct TransferAfter {
    /// The transfer.
    pub transfer_id: EntityId,
    /// The account that sent.
    pub from_account_id: EntityId,
    /// The account that received.
    pub to_account_id: EntityId,
    /// How much.
    pub amount: Money,
    /// What both accounts are kept in: a code of ISO 4217.
    #[schema(pattern = "^[A-Z]{3}$")]
    pub currency: String,
    /// What it was for.
    #[schema(required)]
    pub description: Option<String>,
    /// The movement on the account that sent.
    pub from: MovementAfter,
    /// The movement on the account that received.
    pub to: MovementElsewhere,
}

/// A movement on somebody else's account: what is on it is not for whoever sends to it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct MovementElsewhere {
    /// The account.
    #[schema(value_type = EntityId)]
    pub account_id: AccountId,
    /// The movement.
    #[schema(value_type = EntityId)]
    pub transaction_id: TransactionId,
}

/// Open an account
///
/// Without an `id` it gets a fresh one. An `initial_deposit` above 0 is its first movement.
#[utoipa::path(
    post, path = "/accounts", tag = "banking", params(WriteHeaders),
    request_body = OpenAccountBody,
    responses((status = 201, description = "The account.", body = AccountAfter)),
)]
async fn open_account(
    State(state): State<CommandState>,
    write: Write<OpenAccountBody>,
) -> Result<Response, Problem> {
    let (body, request) = write.split();
    let account = body.account(&request.context)?;
    let id = account.account_id.clone();
    let location = format!("/accounts/{id}");
    let command = AccountCommand::Open(Box::new(account));
    run(&state, request, id, command, |done| {
        AnswerBuilder::json(StatusCode::CREATED, &done.account()).location(location.clone())
    })
    .await
}

/// Pay money in
#[utoipa::path(
    post, path = "/accounts/{id}/deposits", tag = "banking",
    params(("id" = EntityId, Path, description = "The account."), ChangeHeaders),
    request_body = MoveMoneyBody,
    responses((status = 201, description = "The movement.", body = MovementAfter)),
)]
async fn deposit(
    State(state): State<CommandState>,
    PathId(id): PathId,
    write: Write<MoveMoneyBody>,
) -> Result<Response, Problem> {
    let (body, request) = write.split();
    let wanted = body.movement()?;
    let moved = wanted.transaction_id.clone();
    let command = AccountCommand::Deposit(wanted);
    let answer = |done: &Done<'_>| AnswerBuilder::json(StatusCode::CREATED, &done.movement(&moved));
    run(&state, request, AccountId::new(id), command, answer).await
}

/// Pay money out
///
/// At most what is there: an account is never overdrawn.
#[utoipa::path(
    post, path = "/accounts/{id}/withdrawals", tag = "banking",
    params(("id" = EntityId, Path, description = "The account."), ChangeHeaders),
    request_body = MoveMoneyBody,
    responses((status = 201, description = "The movement.", body = MovementAfter)),
)]
async fn withdraw(
    State(state): State<CommandState>,
    PathId(id): PathId,
    write: Write<MoveMoneyBody>,
) -> Result<Response, Problem> {
    let (body, request) = write.split();
    let wanted = body.movement()?;
    let moved = wanted.transaction_id.clone();
    let command = AccountCommand::Withdraw(wanted);
    let answer = |done: &Done<'_>| AnswerBuilder::json(StatusCode::CREATED, &done.movement(&moved));
    run(&state, request, AccountId::new(id), command, answer).await
}

/// Close an account
///
/// Not while money is on it. Closing it again is answered the same and changes nothing.
#[utoipa::path(
    post, path = "/accounts/{id}/close", tag = "banking",
    params(("id" = EntityId, Path, description = "The account."), ChangeHeaders),
    request_body = Option<CloseAccountBody>,
    responses((status = 200, description = "The account as it is now.", body = AccountAfter)),
)]
async fn close_account(
    State(state): State<CommandState>,
    PathId(id): PathId,
    write: Write<OptionalBody<CloseAccountBody>>,
) -> Result<Response, Problem> {
    let (OptionalBody(body), request) = write.split();
    let reason = body.unwrap_or_default().reason()?;
    let command = AccountCommand::Close { reason };
    let answer = |done: &Done<'_>| AnswerBuilder::json(StatusCode::OK, &done.account());
    run(&state, request, AccountId::new(id), command, answer).await
}

/// Transfer money between two accounts
///
/// It happens on both or on neither. `ETag` and `If-Match` are about the account that sends;
/// `Log-Position` covers both.
#[utoipa::path(
    post, path = "/transfers", tag = "banking", params(ChangeHeaders),
    request_body = TransferBody,
    responses((status = 201, description = "The transfer.", body = TransferAfter)),
)]
async fn transfer(
    State(state): State<CommandState>,
    write: Write<TransferBody>,
) -> Result<Response, Problem> {
    let (body, request) = write.split();
    let transfer = body.transfer(&request.context)?;
    let across = ExecuteAcross {
        ids: [
            transfer.from().account_id.get(),
            transfer.to().account_id.get(),
        ],
        if_match: [request.if_match, None],
        metadata: request.metadata,
        key: request.key,
        new: [false; 2],
    };
    let executed = state
        .accounts
        .execute_across(
            across,
            |accounts| transfer.decide(accounts),
            |outcome| answer_of_transfer(&transfer, &outcome),
        )
        .await?;
    Ok(Written(executed).into_response())
}

/// What a command came to: the account after it.
struct Done<'a> {
    details: &'a AccountDetails,
    status: AccountStatus,
    version: StreamVersion,
}

impl<'a> Done<'a> {
    /// `None` for an account that never existed.
    fn of(state: &'a Account, version: StreamVersion) -> Option<Self> {
        Some(Self {
            details: state.details()?,
            status: state.status()?,
            version,
        })
    }

    fn account(&self) -> AccountAfter {
        let opened = &self.details.opened;
        AccountAfter {
            account_id: opened.account_id.clone(),
            holder_name: opened.holder_name.clone(),
            user_id: opened.user_id.as_ref().map(|id| id.get().clone()),
            currency: opened.currency.to_string(),
            balance: self.details.balance,
            status: self.status,
            version: self.version.get(),
        }
    }

    fn movement(&self, transaction_id: &TransactionId) -> MovementAfter {
        MovementAfter {
            account_id: self.details.opened.account_id.clone(),
            balance: self.details.balance,
            version: self.version.get(),
            transaction_id: transaction_id.clone(),
        }
    }
}

/// Runs a command to one account.
async fn run(
    state: &CommandState,
    request: Write<()>,
    id: AccountId,
    command: AccountCommand,
    answer: impl Fn(&Done<'_>) -> AnswerBuilder + Send + Sync,
) -> Result<Response, Problem> {
    let execute = Execute {
        id: id.get(),
        new: matches!(command, AccountCommand::Open(_)),
        command,
        if_match: request.if_match,
        metadata: request.metadata,
        key: request.key,
    };
    let respond_to = |outcome: Outcome<'_, Account>| answer_of(&id, &outcome, &answer);
    let executed = state.accounts.execute(execute, respond_to).await?;
    Ok(Written(executed).into_response())
}

fn answer_of(
    id: &AccountId,
    outcome: &Outcome<'_, Account>,
    answer: impl Fn(&Done<'_>) -> AnswerBuilder,
) -> Answer {
    match outcome {
        Outcome::Refused { refusal, .. } => refused(id, **refusal).into_answer(),
        Outcome::Done { state, version, .. } => match Done::of(state, *version) {
            Some(done) => answer(&done).version(*version).build(),
            // No command leaves an account absent without refusing.
            None => Problem::internal("an account is absent after its command").into_answer(),
        },
    }
}

fn answer_of_transfer(
    transfer: &Transfer,
    outcome: &OutcomeAcross<'_, Account, TransferRefusal, 2>,
) -> Answer {
    let (states, versions) = match outcome {
        OutcomeAcross::Refused { refusal, .. } => {
            return transfer_refused(transfer, **refusal).into_answer();
        }
        OutcomeAcross::Done {
            states, versions, ..
        } => (states, versions),
    };
    let Some(from) = Done::of(states[0], versions[0]) else {
        // No transfer leaves an account absent without refusing.
        return Problem::internal("an account is absent after its transfer").into_answer();
    };
    let body = TransferAfter {
        transfer_id: transfer.transfer_id().get().clone(),
        from_account_id: transfer.from().account_id.get().clone(),
        to_account_id: transfer.to().account_id.get().clone(),
        amount: transfer.amount().get(),
        currency: from.details.opened.currency.to_string(),
        description: transfer.description().map(str::to_owned),
        from: from.movement(&transfer.from().transaction_id),
        to: MovementElsewhere {
            account_id: transfer.to().account_id.clone(),
            transaction_id: transfer.to().transaction_id.clone(),
        },
    };
    AnswerBuilder::json(StatusCode::CREATED, &body)
        .version(from.version)
        .build()
}
