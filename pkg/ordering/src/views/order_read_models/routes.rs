//! The routes that answer from the rows of orders.

use axum::{extract::State, response::Response};
use futures::FutureExt;
use millrace_es::LogToken;
use millrace_http::{
    Consistency, FieldError, List, ListParams, NoQuery, Page, PageRequest, Part, PathId, PathIds,
    PathTexts, Problem, Reading, StrongRead, StrongReadParams,
};
use millrace_kernel::{EntityId, Money, MoneyInput, TimeBound, Timestamp};
use millrace_querying::{facts_of_others, from_postgres, head_token, invalid_parameter, more_than};
use serde::Deserialize;
use sqlx::PgConnection;
use utoipa::IntoParams;
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{
    OrderRow,
    lists::{ABOVE, Bound, Newest, from_amount},
    shown_from_row,
    users::{self, UserRow},
};
use crate::{
    order::{OrderId, OrderStatus, UserId},
    problems::not_found,
    queries::QueryState,
};

const BY_ID: &str = concat!(
    "SELECT ",
    shown!(),
    " FROM ",
    orders_with_users!(),
    " WHERE id = $1"
);

/// The longest part of a name that is searched for, in characters.
const MAX_USERNAME_CHARS: usize = 100;

/// The routes that answer from this view.
pub fn routes() -> OpenApiRouter<QueryState> {
    OpenApiRouter::new()
        .routes(routes!(list_orders))
        .routes(routes!(get_order))
        .routes(routes!(list_orders_of_user))
        .routes(routes!(list_orders_with_status))
        .routes(routes!(list_orders_of_user_with_status))
        .routes(routes!(list_orders_in_date_range))
        .routes(routes!(search_orders_by_username))
        .routes(routes!(list_orders_above_amount))
}

/// Read an order
///
/// A deleted order is answered too, with `is_deleted`. With `consistency=strong` it is folded from
/// the event log; the user's name and e-mail address, which another context knows, stay eventual
/// even then, and are null if the answer had to do without them.
#[utoipa::path(
    get, path = "/orders/{id}", tag = "ordering",
    params(("id" = EntityId, Path, description = "The order."), StrongReadParams),
    responses((status = 200, description = "The order.", body = OrderRow)),
)]
async fn get_order(
    State(state): State<QueryState>,
    PathId(id): PathId,
    read: StrongRead<NoQuery>,
) -> Result<Response, Problem> {
    let id = OrderId::new(id);
    let (row, token) = match read.consistency {
        Consistency::Strong => strong(&state, &id).await?,
        eventual => {
            let model = &state.order_read_models;
            from_postgres(model, state.log.context(), eventual, "order", |conn| {
                by_id(conn, id.clone()).boxed()
            })
            .await?
        }
    };
    let row = row.ok_or_else(|| not_found(&id))?;
    read.reading
        .entity_beside(&row, row.version, row.of_others(), token.as_ref())
}

async fn by_id(conn: &mut PgConnection, id: OrderId) -> Result<Option<OrderRow>, sqlx::Error> {
    let row = sqlx::query(BY_ID)
        .bind(id.as_str())
        .fetch_optional(conn)
        .await?;
    row.as_ref().map(shown_from_row).transpose()
}

async fn strong(
    state: &QueryState,
    id: &OrderId,
) -> Result<(Option<OrderRow>, Option<LogToken>), Problem> {
    // The head first: the order is then at least as far.
    let token = head_token(&*state.log).await?;
    let (order, version) = state.orders.load(id.get()).await?;
    let Some(details) = order.details() else {
        return Ok((None, Some(token)));
    };
    let user_id = &details.created.user_id;
    let user = facts_of_others(&state.order_read_models, "order_user", |conn| {
        user_of(conn, user_id.clone()).boxed()
    })
    .await;
    let row = OrderRow::of(details, order.is_deleted(), version).of_user(user.flatten());
    Ok((Some(row), Some(token)))
}

async fn user_of(conn: &mut PgConnection, id: UserId) -> Result<Option<UserRow>, sqlx::Error> {
    let found = users::load(conn, &[id.as_str()]).await?;
    Ok(found.into_iter().next())
}

/// What the list of all orders may be asked.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct ListOrders {
    /// Whether deleted orders are listed too.
    #[serde(default)]
    #[param(required = false)]
    include_deleted: bool,
}

/// List orders
///
/// Newest first; deleted ones only if asked for.
#[utoipa::path(
    get, path = "/orders", tag = "ordering", params(ListOrders, ListParams),
    responses((status = 200, description = "A page of orders.", body = Page<OrderRow>)),
)]
async fn list_orders(
    State(state): State<QueryState>,
    list: List<ListOrders>,
) -> Result<Response, Problem> {
    let include_deleted = list.query.include_deleted;
    newest(&state, Newest::All { include_deleted }, list).await
}

/// List a user's orders
#[utoipa::path(
    get, path = "/orders/user/{userId}", tag = "ordering",
    params(("userId" = EntityId, Path, description = "The user."), ListParams),
    responses((status = 200, description = "A page of orders, newest first.", body = Page<OrderRow>)),
)]
async fn list_orders_of_user(
    State(state): State<QueryState>,
    PathId(user): PathId,
    list: List<NoQuery>,
) -> Result<Response, Problem> {
    newest(&state, Newest::OfUser(UserId::new(user)), list).await
}

/// List the orders of a status
#[utoipa::path(
    get, path = "/orders/status/{status}", tag = "ordering",
    params(("status" = OrderStatus, Path, description = "The status."), ListParams),
    responses((status = 200, description = "A page of orders, newest first.", body = Page<OrderRow>)),
)]
async fn list_orders_with_status(
    State(state): State<QueryState>,
    path: PathTexts<1>,
    list: List<NoQuery>,
) -> Result<Response, Problem> {
    let PathTexts([status]) = path;
    newest(&state, Newest::WithStatus(status_of(&status)?), list).await
}

/// List a user's orders of a status
#[utoipa::path(
    get, path = "/orders/user/{userId}/status/{status}", tag = "ordering",
    params(
        ("userId" = EntityId, Path, description = "The user."),
        ("status" = OrderStatus, Path, description = "The status."),
        ListParams,
    ),
    responses((status = 200, description = "A page of orders, newest first.", body = Page<OrderRow>)),
)]
async fn list_orders_of_user_with_status(
    State(state): State<QueryState>,
    path: PathIds<2>,
    list: List<NoQuery>,
) -> Result<Response, Problem> {
    let PathIds([user, status]) = path;
    let status = status_of(status.as_str())?;
    let selection = Newest::OfUserWithStatus(UserId::new(user), status);
    newest(&state, selection, list).await
}

fn status_of(text: &str) -> Result<OrderStatus, Problem> {
    text.parse()
        .map_err(|invalid: crate::order::InvalidStatus| {
            let error = FieldError::new(Part::Path, "/status", invalid.to_string());
            Problem::invalid(vec![error])
        })
}

/// The range of a list.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct DateRange {
    /// Orders created at this instant or after it; a date is its beginning in UTC.
    from: TimeBound,
    /// Orders created before this instant; a date is its beginning in UTC.
    to: TimeBound,
}

/// List the orders created in a range of time
#[utoipa::path(
    get, path = "/orders/date-range", tag = "ordering", params(DateRange, ListParams),
    responses((status = 200, description = "A page of orders, newest first.", body = Page<OrderRow>)),
)]
async fn list_orders_in_date_range(
    State(state): State<QueryState>,
    list: List<DateRange>,
) -> Result<Response, Problem> {
    let DateRange {
        from: TimeBound(from),
        to: TimeBound(to),
    } = list.query;
    if from > to {
        return Err(invalid_parameter("from", "must not be after to"));
    }
    newest(&state, Newest::Between { from, to }, list).await
}

/// What is searched for.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct Search {
    /// A part of the user's name, whatever its case.
    #[param(min_length = 1, max_length = 100)]
    username: String,
}

/// Search orders by their user's name
#[utoipa::path(
    get, path = "/orders/search/username", tag = "ordering", params(Search, ListParams),
    responses((status = 200, description = "A page of orders, newest first.", body = Page<OrderRow>)),
)]
async fn search_orders_by_username(
    State(state): State<QueryState>,
    list: List<Search>,
) -> Result<Response, Problem> {
    let part = &list.query.username;
    if part.is_empty() || part.chars().count() > MAX_USERNAME_CHARS {
        let reason = format!("must have 1 to {MAX_USERNAME_CHARS} characters");
        return Err(invalid_parameter("username", reason));
    }
    newest(&state, Newest::named(part), list).await
}

/// The bound of a list.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct Above {
    /// Orders that cost more than this.
    #[param(value_type = MoneyInput)]
    amount: Money,
}

/// List the orders that cost more than an amount
#[utoipa::path(
    get, path = "/orders/amount-greater-than", tag = "ordering", params(Above, ListParams),
    responses((
        status = 200,
        description = "A page of orders, the most expensive first.",
        body = Page<OrderRow>,
    )),
)]
async fn list_orders_above_amount(
    State(state): State<QueryState>,
    list: List<Above>,
) -> Result<Response, Problem> {
    let amount = list.query.amount.get();
    let (from, id) = match list.page.after::<(Money, EntityId)>()? {
        Some((amount, id)) => (from_amount(Some(amount)), id.to_string()),
        None => (from_amount(None), String::new()),
    };
    let limit = more_than(&list.page);
    let (rows, token) = from_postgres(
        &state.order_read_models,
        state.log.context(),
        list.consistency,
        "orders_above_amount",
        |conn| {
            let query = sqlx::query(ABOVE).bind(amount).bind(from);
            fetch(conn, query.bind(id.clone()).bind(limit)).boxed()
        },
    )
    .await?;
    let page = list
        .page
        .page(rows, |row| (row.total_amount, row.id.clone()))?;
    list.reading.page(&page, token.as_ref())
}

/// Answers with a page of a list that is sorted by time.
async fn newest<T>(
    state: &QueryState,
    selection: Newest,
    list: List<T>,
) -> Result<Response, Problem> {
    let List {
        page,
        consistency,
        reading,
        ..
    } = list;
    let (at, id) = match page.after::<(Timestamp, EntityId)>()? {
        Some((at, id)) => (at.get(), id.to_string()),
        None => (selection.start(), String::new()),
    };
    let limit = more_than(&page);
    let (rows, token) = from_postgres(
        &state.order_read_models,
        state.log.context(),
        consistency,
        selection.name(),
        |conn| {
            let (selection, id) = (selection.clone(), id.clone());
            async move {
                let query = selection.query().bind(at).bind(id).bind(limit);
                fetch(conn, query).await
            }
            .boxed()
        },
    )
    .await?;
    answer(&page, rows, &reading, token.as_ref())
}

fn answer(
    page: &PageRequest,
    rows: Vec<OrderRow>,
    reading: &Reading,
    token: Option<&LogToken>,
) -> Result<Response, Problem> {
    let page = page.page(rows, |row| (row.created_at, row.id.clone()))?;
    reading.page(&page, token)
}

async fn fetch(conn: &mut PgConnection, query: Bound<'_>) -> Result<Vec<OrderRow>, sqlx::Error> {
    let rows = query.fetch_all(conn).await?;
    rows.iter().map(shown_from_row).collect()
}
