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
use millrace_es::{Metadata, StreamVersion};
use millrace_eventlog::{Answer, Execute, ExecuteError, Outcome, Repository, StreamAppend};
use millrace_http::{
    AnswerBuilder, ChangeHeaders, NoBody, PathId, Problem, Write, WriteHeaders, Written,
};
use millrace_kernel::{EntityId, Timestamp};
use serde::Serialize;
use utoipa_axum::{router::OpenApiRouter, routes};

use crate::{
    order::{CreateOrder, Order, OrderCommand, OrderDetails, OrderId},
    problems::refused,
    sagas::payment,
    views::{order_read_models::OrderRow, orders_by_user::OrderOfUser},
};
use bodies::{CreateOrderBody, DescribedOrderBody, PlaceOrderBody, UpdateStatusBody};

/// What the routes of the command service work with.
#[derive(Debug, Clone)]
pub struct CommandState {
    /// The orders.
    pub orders: Arc<Repository<Order>>,
}

/// The routes of the command service.
pub fn command_routes() -> OpenApiRouter<CommandState> {
    OpenApiRouter::new()
        .routes(routes!(create_order))
        .routes(routes!(update_order_status))
        .routes(routes!(delete_order))
        .routes(routes!(place_order))
        .routes(routes!(create_described_order))
}

/// Create an order
///
/// From its items, or a total, or both when they agree. Without an `id` it gets a fresh one. With a
/// `payment_account_id` it is paid from that account, which `/orders/{id}/payment` shows, and
/// confirmed when it is paid.
#[utoipa::path(
    post, path = "/orders", tag = "ordering", params(WriteHeaders),
    request_body = CreateOrderBody,
    responses((status = 201, description = "The order.", body = OrderRow)),
)]
async fn create_order(
    State(state): State<CommandState>,
    write: Write<CreateOrderBody>,
) -> Result<Response, Problem> {
    let (body, request) = Request::split(write);
    let order = body.order(&request.0.context, Timestamp::now())?;
    request.create(&state, order, |done| done.row()).await
}

/// Change an order's status
///
/// `PENDING → CONFIRMED → SHIPPED → DELIVERED`, and `CANCELLED` from `PENDING` or `CONFIRMED`. The
/// status it has already is answered with 200 and changes nothing. An order with a payment is
/// confirmed by it and by nobody else; one that is cancelled gets its money back.
#[utoipa::path(
    put, path = "/orders/{id}/status", tag = "ordering",
    params(("id" = EntityId, Path, description = "The order."), ChangeHeaders),
    request_body = UpdateStatusBody,
    responses((status = 200, description = "The order as it is now.", body = OrderRow)),
)]
async fn update_order_status(
    State(state): State<CommandState>,
    PathId(id): PathId,
    write: Write<UpdateStatusBody>,
) -> Result<Response, Problem> {
    let (body, request) = Request::split(write);
    let command = body.command(Timestamp::now())?;
    let answer = |done: &Done<'_>| AnswerBuilder::json(StatusCode::OK, &done.row());
    request.run(&state, OrderId::new(id), command, answer).await
}

/// Delete an order
///
/// It leaves the lists and is kept in its history. What was paid for it is given back. Not once it was
/// shipped. Deleting it again is
/// answered the same and changes nothing.
#[utoipa::path(
    delete, path = "/orders/{id}", tag = "ordering",
    params(("id" = EntityId, Path, description = "The order."), ChangeHeaders),
    responses((status = 204, description = "The order is deleted.")),
)]
async fn delete_order(
    State(state): State<CommandState>,
    PathId(id): PathId,
    write: Write<NoBody>,
) -> Result<Response, Problem> {
    let (NoBody, request) = Request::split(write);
    let at = Timestamp::now();
    let answer = |_: &Done<'_>| AnswerBuilder::no_content();
    request
        .run(
            &state,
            OrderId::new(id),
            OrderCommand::Delete { at },
            answer,
        )
        .await
}

/// Place an order by its amount alone
#[utoipa::path(
    post, path = "/api/orders", tag = "ordering", params(WriteHeaders),
    request_body = PlaceOrderBody,
    responses((status = 201, description = "The order.", body = OrderOfUser)),
)]
async fn place_order(
    State(state): State<CommandState>,
    write: Write<PlaceOrderBody>,
) -> Result<Response, Problem> {
    let (body, request) = Request::split(write);
    let order = body.order(&request.0.context, Timestamp::now())?;
    request
        .create(&state, order, |done| OrderOfUser::of(done.order))
        .await
}

/// Create an order that is described in one phrase
#[utoipa::path(
    post, path = "/order-service/orders", tag = "ordering", params(WriteHeaders),
    request_body = DescribedOrderBody,
    responses((status = 201, description = "The order.", body = OrderRow)),
)]
async fn create_described_order(
    State(state): State<CommandState>,
    write: Write<DescribedOrderBody>,
) -> Result<Response, Problem> {
    let (body, request) = Request::split(write);
    let order = body.order(&request.0.context, Timestamp::now())?;
    request.create(&state, order, |done| done.row()).await
}

/// A write without its body.
struct Request(Write<()>);

/// What a command came to: the order after it.
struct Done<'a> {
    order: &'a OrderDetails,
    is_deleted: bool,
    version: StreamVersion,
}

impl Done<'_> {
    fn row(&self) -> OrderRow {
        OrderRow::of(self.order, self.is_deleted, self.version)
    }
}

impl Request {
    fn split<T>(write: Write<T>) -> (T, Self) {
        let (body, rest) = write.split();
        (body, Self(rest))
    }

    /// Creates an order: 201 with what `show` makes of it.
    async fn create<T: Serialize>(
        self,
        state: &CommandState,
        order: CreateOrder,
        show: impl Fn(&Done<'_>) -> T + Send + Sync,
    ) -> Result<Response, Problem> {
        let id = order.order_id.clone();
        let command = OrderCommand::Create(Box::new(order));
        let answer = |done: &Done<'_>| {
            let location = format!("/orders/{}", done.order.created.order_id);
            AnswerBuilder::json(StatusCode::CREATED, &show(done)).location(location)
        };
        self.run(state, id, command, answer).await
    }

    async fn run(
        self,
        state: &CommandState,
        id: OrderId,
        command: OrderCommand,
        answer: impl Fn(&Done<'_>) -> AnswerBuilder + Send + Sync,
    ) -> Result<Response, Problem> {
        let request = Execute {
            id: id.get(),
            new: matches!(command, OrderCommand::Create(_)),
            command,
            if_match: self.0.if_match,
            metadata: self.0.metadata,
            key: self.0.key,
        };
        let metadata = Arc::new(request.metadata.clone());
        let beside = |outcome: Outcome<'_, Order>| begun_beside(outcome, &metadata);
        let respond_to = |outcome: Outcome<'_, Order>| answer_of(&id, &outcome, &answer);
        let executed = state
            .orders
            .execute_beside(request, beside, respond_to)
            .await?;
        Ok(Written(executed).into_response())
    }
}

/// What is appended beside: an order that is to be paid begins its payment.
fn begun_beside(
    outcome: Outcome<'_, Order>,
    metadata: &Arc<Metadata>,
) -> Result<Vec<StreamAppend>, ExecuteError> {
    match outcome {
        Outcome::Done { events, .. } => payment::begin_beside(events, metadata),
        Outcome::Refused { .. } => Ok(Vec::new()),
    }
}

fn answer_of(
    id: &OrderId,
    outcome: &Outcome<'_, Order>,
    answer: impl Fn(&Done<'_>) -> AnswerBuilder,
) -> Answer {
    match outcome {
        Outcome::Refused { refusal, .. } => refused(id, **refusal).into_answer(),
        Outcome::Done { state, version, .. } => match state.details() {
            Some(order) => {
                let done = Done {
                    order,
                    is_deleted: state.is_deleted(),
                    version: *version,
                };
                answer(&done).version(*version).build()
            }
            // No command leaves an order absent without refusing.
            None => Problem::internal("an order is absent after its command").into_answer(),
        },
    }
}
