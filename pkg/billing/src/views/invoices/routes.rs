//! The routes that answer from the invoices.

use axum::{extract::State, response::Response};
use futures::FutureExt;
use millrace_contracts::ordering;
use millrace_es::Context;
use millrace_http::{Consistency, List, ListParams, Page, Problem, Read, ReadParams};
use millrace_kernel::{EntityId, Money, TimeBound, Timestamp};
use millrace_querying::{from_postgres, invalid_parameter, more_than};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use sqlx::{PgConnection, Row as _, postgres::PgRow, types::Json};
use time::{OffsetDateTime, macros::datetime};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::{router::OpenApiRouter, routes};
use uuid::Uuid;

use super::{InvoiceKey, rows};
use crate::{
    addresses::Addresses,
    month::{MAX_YEAR, MIN_YEAR, Month},
    orders::Line,
    queries::QueryState,
};

/// After every invoice that there can be: the times of RFC 3339 end before.
const END_OF_TIME: OffsetDateTime = datetime!(9999-12-31 23:59:59.999999 UTC);
/// Before every invoice that there can be.
const BEGINNING_OF_TIME: OffsetDateTime = datetime!(0000-01-01 0:00 UTC);

/// The routes that answer from this view.
pub fn routes() -> OpenApiRouter<QueryState> {
    OpenApiRouter::new()
        .routes(routes!(get_invoice))
        .routes(routes!(list_invoices))
}

// -------------------------------------------------------------------------------- one invoice

/// An invoice to the letter of what its readers know: amounts are JSON numbers with two decimals,
/// and a user whose id is a number is one.
#[derive(Debug, Serialize, ToSchema)]
struct Invoice {
    /// Names the invoice: always the same for a user and a month.
    #[schema(value_type = Uuid)]
    invoice_id: Uuid,
    /// The user: an integer where his id is one.
    #[schema(value_type = UserId)]
    user_id: Box<RawValue>,
    /// His latest e-mail address; null as long as nothing is known about him.
    #[schema(required)]
    email: Option<String>,
    /// His address when the month ended, or the first one known later if he had none then.
    #[schema(required)]
    shipping_address: Option<String>,
    /// The first instant of the month.
    invoice_dt: Timestamp,
    /// The orders that were bought in the month, in the order in which they were.
    orders: Vec<InvoiceOrder>,
    /// What they cost together, in US dollars.
    #[schema(value_type = f64, example = 150.00)]
    total: Box<RawValue>,
}

/// A user's id as an invoice shows it.
#[derive(Debug, ToSchema)]
#[schema(as = InvoiceUserId)]
#[expect(dead_code, reason = "stands in the document only")]
#[serde(untagged)]
enum UserId {
    /// An id of digits.
    Number(u64),
    /// Any other.
    Text(String),
}

/// An order on an invoice.
#[derive(Debug, Serialize, ToSchema)]
struct InvoiceOrder {
    /// The order.
    order_id: EntityId,
    /// What was ordered.
    description: String,
    /// What it costs, in US dollars.
    #[schema(value_type = f64, example = 50.00)]
    amount: Box<RawValue>,
    /// When it was bought.
    purchase_dt: Timestamp,
}

/// An amount as a JSON number with two decimals, exactly.
fn number(amount: Money) -> Result<Box<RawValue>, Problem> {
    RawValue::from_string(amount.to_string()).map_err(Problem::internal)
}

/// An id as a JSON integer if it is written as one, else as a string.
fn integer_or_text(id: &EntityId) -> Result<Box<RawValue>, Problem> {
    let text = id.as_str();
    let is_integer =
        text.bytes().all(|byte| byte.is_ascii_digit()) && (text == "0" || !text.starts_with('0'));
    let json = if is_integer {
        text.to_owned()
    } else {
        format!("\"{text}\"")
    };
    RawValue::from_string(json).map_err(Problem::internal)
}

impl InvoiceOrder {
    fn new(line: Line) -> Result<Self, Problem> {
        Ok(Self {
            order_id: line.order_id,
            description: line.description,
            amount: number(line.amount)?,
            purchase_dt: line.purchase_dt,
        })
    }
}

/// Whose invoice, and for which month.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct Which {
    /// The user.
    user_id: EntityId,
    /// The month, 1 to 12.
    #[param(minimum = 1, maximum = 12)]
    month: i64,
    /// The year.
    #[param(minimum = 0, maximum = 9999)]
    year: i64,
}

impl Which {
    fn key(self) -> Result<InvoiceKey, Problem> {
        let month = u8::try_from(self.month)
            .ok()
            .filter(|month| (1..=12).contains(month));
        let month = month.ok_or_else(|| invalid_parameter("month", "must be 1 to 12"))?;
        let year = i32::try_from(self.year).ok();
        let month = year
            .and_then(|year| Month::new(year, month))
            .ok_or_else(|| {
                invalid_parameter("year", format!("must be {MIN_YEAR} to {MAX_YEAR}"))
            })?;
        Ok(InvoiceKey {
            user_id: self.user_id,
            month,
        })
    }
}

/// The invoice of a user and a month, if it has orders, and what is known of the user.
const BY_KEY: &str = "
SELECT i.orders, i.total, a.email, a.addresses
FROM invoices i LEFT JOIN invoice_account a USING (user_id)
WHERE i.user_id = $1 AND i.year = $2 AND i.month = $3 AND i.orders_count > 0";

#[derive(Debug)]
struct Found {
    lines: Vec<Line>,
    total: Money,
    email: Option<String>,
    addresses: Addresses,
}

fn addresses(row: &PgRow) -> Result<Addresses, sqlx::Error> {
    let known: Option<Json<Addresses>> = row.try_get("addresses")?;
    Ok(known.map(|Json(addresses)| addresses).unwrap_or_default())
}

async fn by_key(conn: &mut PgConnection, key: InvoiceKey) -> Result<Option<Found>, sqlx::Error> {
    let row = sqlx::query(BY_KEY)
        .bind(key.user_id.as_str())
        .bind(key.month.year())
        .bind(i32::from(key.month.number()))
        .fetch_optional(conn)
        .await?;
    let Some(row) = row else { return Ok(None) };
    Ok(Some(Found {
        lines: rows::lines(&row)?,
        total: rows::money(&row, "total")?,
        email: row.try_get("email")?,
        addresses: addresses(&row)?,
    }))
}

/// Read a user's invoice for a month
///
/// An order is in the month in which it was bought, in UTC. Cancelled and deleted orders are on no
/// invoice; a month without orders has none.
#[utoipa::path(
    get, path = "/invoice-service/invoices", tag = "billing", params(Which, ReadParams),
    responses(
        (status = 200, description = "The invoice.", body = Invoice),
        (status = 404, description = "The user has no orders in that month."),
    ),
)]
async fn get_invoice(
    State(state): State<QueryState>,
    read: Read<Which>,
) -> Result<Response, Problem> {
    let key = read.query.key()?;
    let context = read_context(&read.consistency)?;
    let (found, token) = from_postgres(
        &state.invoices,
        &context,
        read.consistency,
        "invoice",
        |conn| by_key(conn, key.clone()).boxed(),
    )
    .await?;
    let InvoiceKey { user_id, month } = key;
    let found = found.ok_or_else(|| {
        Problem::not_found(format_args!("an invoice of user {user_id} for {month}"))
    })?;
    let orders: Result<_, Problem> = found.lines.into_iter().map(InvoiceOrder::new).collect();
    let invoice = Invoice {
        invoice_id: month.invoice_id(&user_id),
        user_id: integer_or_text(&user_id)?,
        email: found.email,
        shipping_address: found.addresses.at_the_end_of(month).map(str::to_owned),
        invoice_dt: month.starts_at(),
        orders: orders?,
        total: number(found.total)?,
    };
    read.reading.json(&invoice, token.as_ref())
}

/// The context whose position an answer says: the one that was waited for, else that of orders.
fn read_context(consistency: &Consistency) -> Result<Context, Problem> {
    match consistency {
        Consistency::AtLeast { token, .. } => Ok(token.context.clone()),
        Consistency::Eventual | Consistency::Strong => {
            Context::new(ordering::CONTEXT).map_err(Problem::internal)
        }
    }
}

// ------------------------------------------------------------------------------------ the list

/// An invoice in a list.
#[derive(Debug, Serialize, ToSchema)]
struct InvoiceSummary {
    /// Names the invoice.
    #[schema(value_type = Uuid)]
    invoice_id: Uuid,
    /// The user.
    user_id: EntityId,
    /// His latest e-mail address; null as long as nothing is known about him.
    #[schema(required)]
    email: Option<String>,
    /// His address when the month ended, or the first one known later if he had none then.
    #[schema(required)]
    shipping_address: Option<String>,
    /// The first instant of the month.
    invoice_dt: Timestamp,
    /// How many orders are on it.
    orders_count: u32,
    /// What they cost together, in US dollars.
    total: Money,
}

/// Which invoices are listed.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct Filter {
    /// Those of this user.
    user_id: Option<EntityId>,
    /// Those of months that begin then or later: a date or a time.
    #[param(inline)]
    from: Option<TimeBound>,
    /// Those of months that begin earlier: a date or a time.
    #[param(inline)]
    to: Option<TimeBound>,
}

macro_rules! newest {
    ($condition:literal; $from:literal, $at:literal, $user:literal, $limit:literal) => {
        concat!(
            "SELECT i.user_id, i.year, i.month, i.orders_count, i.total, a.email, a.addresses
             FROM invoices i LEFT JOIN invoice_account a USING (user_id)
             WHERE i.orders_count > 0 AND ",
            $condition,
            "i.invoice_dt >= ",
            $from,
            " AND (i.invoice_dt, i.user_id) < (",
            $at,
            ", ",
            $user,
            ") ORDER BY i.invoice_dt DESC, i.user_id DESC LIMIT ",
            $limit
        )
    };
}

const ALL: &str = newest!(""; "$1", "$2", "$3", "$4");
const OF_USER: &str = newest!("i.user_id = $1 AND "; "$2", "$3", "$4", "$5");

/// The queries with the names of their parameters' types, for the test that looks at their plans.
pub const QUERIES: [(&str, &str, &str); 3] = [
    ("one", "text, integer, integer", BY_KEY),
    ("all", "timestamptz, timestamptz, text, bigint", ALL),
    (
        "of_user",
        "text, timestamptz, timestamptz, text, bigint",
        OF_USER,
    ),
];

/// A page of the list: it goes on after a place, newest first.
#[derive(Debug, Clone)]
struct Selection {
    user_id: Option<EntityId>,
    from: OffsetDateTime,
    after: (OffsetDateTime, String),
    limit: i64,
}

async fn fetch(
    conn: &mut PgConnection,
    selection: Selection,
) -> Result<Vec<InvoiceSummary>, sqlx::Error> {
    let query = match &selection.user_id {
        Some(user_id) => sqlx::query(OF_USER).bind(user_id.as_str().to_owned()),
        None => sqlx::query(ALL),
    };
    let rows = query
        .bind(selection.from)
        .bind(selection.after.0)
        .bind(selection.after.1)
        .bind(selection.limit)
        .fetch_all(conn)
        .await?;
    rows.iter().map(summary).collect()
}

fn summary(row: &PgRow) -> Result<InvoiceSummary, sqlx::Error> {
    let (user_id, month) = (rows::user_id(row)?, rows::month(row)?);
    let orders_count: i32 = row.try_get("orders_count")?;
    let address = addresses(row)?.at_the_end_of(month).map(str::to_owned);
    Ok(InvoiceSummary {
        invoice_id: month.invoice_id(&user_id),
        user_id,
        email: row.try_get("email")?,
        shipping_address: address,
        invoice_dt: month.starts_at(),
        orders_count: u32::try_from(orders_count).unwrap_or(0),
        total: rows::money(row, "total")?,
    })
}

/// List invoices
///
/// The newest month first. Without their orders; amounts are decimal strings here as everywhere
/// else.
#[utoipa::path(
    get, path = "/invoices", tag = "billing", params(Filter, ListParams),
    responses((status = 200, description = "A page of invoices.", body = Page<InvoiceSummary>)),
)]
async fn list_invoices(
    State(state): State<QueryState>,
    list: List<Filter>,
) -> Result<Response, Problem> {
    let Filter { user_id, from, to } = list.query;
    let bound = |bound: TimeBound| bound.0.get();
    let from = from.map_or(BEGINNING_OF_TIME, bound);
    let to = to.map_or(END_OF_TIME, bound);
    if from > to {
        return Err(invalid_parameter("from", "must not be after to"));
    }
    // No id comes before the empty text, so a month that begins at `to` is left out.
    let after = match list.page.after::<(Timestamp, EntityId)>()? {
        Some((at, user)) => (at.get(), user.to_string()),
        None => (to, String::new()),
    };
    let context = read_context(&list.consistency)?;
    let selection = Selection {
        user_id,
        from,
        after,
        limit: more_than(&list.page),
    };
    let name = match &selection.user_id {
        Some(_) => "invoices_by_user",
        None => "invoices",
    };
    let (rows, token) = from_postgres(&state.invoices, &context, list.consistency, name, |conn| {
        fetch(conn, selection.clone()).boxed()
    })
    .await?;
    let page = list.page.page(rows, |invoice| {
        (invoice.invoice_dt, invoice.user_id.clone())
    })?;
    list.reading.page(&page, token.as_ref())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_amount_is_a_number_with_two_decimals() {
        for (amount, json) in [
            ("50", "50.00"),
            ("150.1", "150.10"),
            ("99999999.99", "99999999.99"),
            ("9999999999999999.99", "9999999999999999.99"),
        ] {
            assert_eq!(number(amount.parse().unwrap()).unwrap().get(), json);
        }
    }

    #[test]
    fn a_user_is_an_integer_where_his_id_is_written_as_one() {
        for (id, json) in [
            ("1", "1"),
            ("0", "0"),
            ("18446744073709551616", "18446744073709551616"),
            ("007", "\"007\""),
            ("shivam_99", "\"shivam_99\""),
        ] {
            let id = EntityId::new(id).unwrap();
            assert_eq!(integer_or_text(&id).unwrap().get(), json);
        }
    }
}
