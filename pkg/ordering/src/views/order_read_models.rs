//! What is known about orders? The denormalised row of each, deleted ones included, that answers
//! `GET /orders/{id}` and all lists.
//!
//! `user_username` and `user_email` are facts of another context. A user's are one row, which any
//! number of orders of his show: it is kept beside the orders in a table of its own, [`users`], and
//! joined when they are read. So it does not matter what comes first, and a name that changes costs
//! one row.

/// An order's own columns in the order in which [`from_row`] reads them.
macro_rules! columns {
    () => {
        "id, user_id, items, items_count, total_amount, status, shipping_address, notes, \
         is_deleted, created_at, updated_at, version"
    };
}

/// The columns of an answer in the order in which [`shown_from_row`] reads them.
macro_rules! shown {
    () => {
        concat!(columns!(), ", username, email")
    };
}

/// What [`shown!`] is selected from. The limit keeps it a look-up by key for each order that is
/// shown, in the order in which they come, whatever the planner thinks of joins.
macro_rules! orders_with_users {
    () => {
        "order_read_models o LEFT JOIN LATERAL ( \
             SELECT username, email FROM order_users WHERE order_users.user_id = o.user_id LIMIT 1 \
         ) u ON true"
    };
}

pub mod lists;
mod routes;
pub mod users;

pub use routes::routes;

use millrace_contracts::customers::{self, CustomersEvent};
use millrace_es::{
    DecodeError, FoldError, Projection, Recorded, RecordedEvent, RowProjection, StreamVersion,
};
use millrace_kernel::{EntityId, Money, Timestamp};
use millrace_projecting::{Origin, Origins, PgRows, UnchangedColumns, bad_column};
use rust_decimal::Decimal;
use serde::Serialize;
use serde_json::value::RawValue;
use sqlx::{PgConnection, Row as _, postgres::PgRow, types::Json};
use time::OffsetDateTime;
use utoipa::ToSchema;

use crate::{
    CONTEXT,
    order::{
        OrderCreated, OrderDetails, OrderEvent, OrderId, OrderItem, OrderStatus, UserId,
        stored::order_event,
    },
};
use users::UserRow;

// ---------------------------------------------------------------------------------------- row

/// An order, as every answer about one shows it.
#[derive(Debug, Clone, Serialize, ToSchema)]
#[schema(as = Order)]
pub struct OrderRow {
    /// The order.
    #[schema(value_type = EntityId)]
    pub id: OrderId,
    /// Who ordered.
    #[schema(value_type = EntityId)]
    pub user_id: UserId,
    /// The user's name, once it is known here.
    #[schema(required)]
    pub user_username: Option<String>,
    /// The user's e-mail address, once it is known here.
    #[schema(required)]
    pub user_email: Option<String>,
    /// The lines; none where only a total was given.
    #[schema(value_type = Vec<OrderItem>)]
    pub items: Lines,
    /// How many lines.
    pub items_count: u32,
    /// What the order costs.
    pub total_amount: Money,
    /// Where it stands.
    pub status: OrderStatus,
    /// Where it goes.
    #[schema(required)]
    pub shipping_address: Option<String>,
    /// What else was said.
    #[schema(required)]
    pub notes: Option<String>,
    /// Whether it was deleted. It is kept, and left out of the lists.
    pub is_deleted: bool,
    /// When it was created.
    pub created_at: Timestamp,
    /// When something last happened to it.
    pub updated_at: Timestamp,
    /// The version of its stream.
    #[schema(value_type = u64)]
    pub version: StreamVersion,
}

impl OrderRow {
    fn created(event: &OrderCreated, version: StreamVersion) -> Self {
        Self {
            id: event.order_id.clone(),
            user_id: event.user_id.clone(),
            user_username: None,
            user_email: None,
            items: Lines::of(&event.items),
            items_count: event.items_count,
            total_amount: event.total_amount,
            status: OrderStatus::Pending,
            shipping_address: event.shipping_address.clone(),
            notes: event.notes.clone(),
            is_deleted: false,
            created_at: event.created_at,
            updated_at: event.created_at,
            version,
        }
    }

    /// The row of an order as the event log has it. What other contexts know is missing in it, until
    /// [`OrderRow::of_user`] adds it.
    #[must_use]
    pub fn of(details: &OrderDetails, is_deleted: bool, version: StreamVersion) -> Self {
        Self {
            status: details.status,
            updated_at: details.updated_at,
            is_deleted,
            ..Self::created(&details.created, version)
        }
    }

    /// The row with what is known about its user.
    #[must_use]
    fn of_user(self, user: Option<UserRow>) -> Self {
        let (username, email) = user.map(|user| (user.username, user.email)).unzip();
        Self {
            user_username: username,
            user_email: email,
            ..self
        }
    }

    /// What it shows of other contexts, if anything.
    fn of_others(&self) -> Option<(&Option<String>, &Option<String>)> {
        let known = self.user_username.is_some() || self.user_email.is_some();
        known.then_some((&self.user_username, &self.user_email))
    }
}

/// An order's lines as JSON, which goes through as it is stored.
#[derive(Debug, Clone, Serialize)]
#[serde(transparent)]
pub struct Lines(Box<RawValue>);

impl Lines {
    fn of(items: &[OrderItem]) -> Self {
        // Texts and numbers always have a JSON form.
        Self(serde_json::value::to_raw_value(items).unwrap_or_else(|_| RawValue::NULL.to_owned()))
    }
}

// --------------------------------------------------------------------------------------- fold

/// The projection `order-read-models`.
#[derive(Debug)]
pub struct OrderReadModels;

/// What happened, as far as this projection reads it: a variant per context.
#[derive(Debug)]
pub enum Fact {
    /// Something happened to an order.
    Order(OrderEvent),
    /// A user is called this.
    User(UserRow),
}

/// Names a row.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Key {
    /// An order's.
    Order(OrderId),
    /// A user's.
    User(UserId),
}

/// A row of one of the two tables.
#[derive(Debug, Clone)]
pub enum Row {
    /// An order, without what is known about its user.
    Order(OrderRow),
    /// What is known about a user.
    User(UserRow),
}

impl Projection for OrderReadModels {
    const NAME: &'static str = "order-read-models";
    /// 2 keeps what is known about users in a table of its own.
    const VERSION: u32 = 2;
    const CONTEXTS: &'static [&'static str] = &[CONTEXT, customers::CONTEXT];

    type Event = Fact;

    fn decode(event: &RecordedEvent) -> Result<Option<Fact>, DecodeError> {
        if event.context.as_str() == CONTEXT {
            return Ok(order_event(event)?.map(Fact::Order));
        }
        // What is not shown is not read either, and cannot stop what is.
        match &*event.event_type {
            customers::USER_CREATED | customers::USER_UPDATED => {
                let event = CustomersEvent::decode(event)?;
                Ok(event.and_then(UserRow::said_by).map(Fact::User))
            }
            _ => Ok(None),
        }
    }
}

impl RowProjection for OrderReadModels {
    type Key = Key;
    type Row = Row;

    fn key(Recorded { event, .. }: Recorded<'_, Fact>) -> Key {
        match event {
            Fact::Order(event) => Key::Order(event.order_id().clone()),
            Fact::User(user) => Key::User(user.user_id.clone()),
        }
    }

    fn starts(event: &Fact) -> bool {
        // What is said about a user is always all that is known here.
        matches!(event, Fact::Order(OrderEvent::Created(_)) | Fact::User(_))
    }

    fn fold(
        row: Option<Row>,
        Recorded { event, envelope }: Recorded<'_, Fact>,
    ) -> Result<Option<Row>, FoldError> {
        let version = envelope.version;
        let event = match event {
            Fact::Order(event) => event,
            Fact::User(user) => return Ok(Some(Row::User(user.clone()))),
        };
        let row = match (row, event) {
            (_, OrderEvent::Created(event)) => OrderRow::created(event, version),
            (Some(Row::Order(row)), OrderEvent::StatusUpdated(event)) => OrderRow {
                status: event.to,
                updated_at: event.updated_at,
                version,
                ..row
            },
            (Some(Row::Order(row)), OrderEvent::Deleted(event)) => OrderRow {
                is_deleted: true,
                updated_at: event.deleted_at,
                version,
                ..row
            },
            (None | Some(Row::User(_)), OrderEvent::StatusUpdated(_) | OrderEvent::Deleted(_)) => {
                return Err(FoldError::new("the order was never created"));
            }
        };
        Ok(Some(Row::Order(row)))
    }
}

// -------------------------------------------------------------------------------------- table

const LOAD: &str = concat!(
    "SELECT ",
    columns!(),
    " FROM order_read_models WHERE id = ANY($1)"
);

const STORE: &str = concat!(
    "INSERT INTO order_read_models (",
    columns!(),
    ") SELECT * FROM UNNEST($1::text[], $2::text[], $3::text[]::json[], $4::integer[], \
     $5::numeric[], $6::text[], $7::text[], $8::text[], $9::boolean[], $10::timestamptz[], \
     $11::timestamptz[], $12::bigint[])
     ON CONFLICT (id) DO UPDATE SET
        user_id = excluded.user_id, items = excluded.items,
        items_count = excluded.items_count, total_amount = excluded.total_amount,
        status = excluded.status, shipping_address = excluded.shipping_address,
        notes = excluded.notes, is_deleted = excluded.is_deleted,
        created_at = excluded.created_at, updated_at = excluded.updated_at,
        version = excluded.version"
);

impl PgRows for OrderReadModels {
    const ORIGINS: Origins = &[
        (
            "order_read_models",
            Origin {
                column: "id",
                prefix: "order-",
            },
        ),
        (
            "order_users",
            Origin {
                column: "user_id",
                prefix: "user-",
            },
        ),
    ];

    const TABLES: &'static str = r#"
CREATE TABLE order_read_models (
    id text COLLATE "C" PRIMARY KEY,
    user_id text COLLATE "C" NOT NULL,
    total_amount numeric(10,2) NOT NULL,
    status varchar(20) COLLATE "C" NOT NULL DEFAULT 'PENDING',
    created_at timestamptz NOT NULL,
    updated_at timestamptz NOT NULL,
    shipping_address text,
    notes text,
    is_deleted boolean NOT NULL DEFAULT false,
    items_count integer NOT NULL DEFAULT 0,
    items json NOT NULL DEFAULT '[]',
    version bigint NOT NULL
);
CREATE TABLE order_users (
    user_id text COLLATE "C" PRIMARY KEY,
    username text NOT NULL,
    email text NOT NULL
)"#;

    /// One for each list; each ends with what the list is sorted by, so that a page is read from
    /// where the last one ended and never sorted. Lists leave deleted orders out, and so do their
    /// indexes; only the first serves `include_deleted` too. A name is looked for among the users,
    /// and each one's orders are then in the second.
    const INDEXES: &'static str = "
CREATE EXTENSION IF NOT EXISTS pg_trgm WITH SCHEMA public;
CREATE INDEX order_read_models_created
    ON order_read_models (created_at DESC, id DESC);
CREATE INDEX order_read_models_user
    ON order_read_models (user_id, created_at DESC, id DESC) WHERE NOT is_deleted;
CREATE INDEX order_read_models_status
    ON order_read_models (status, created_at DESC, id DESC) WHERE NOT is_deleted;
CREATE INDEX order_read_models_user_status
    ON order_read_models (user_id, status, created_at DESC, id DESC) WHERE NOT is_deleted;
CREATE INDEX order_read_models_amount
    ON order_read_models (total_amount DESC, id DESC) WHERE NOT is_deleted;
CREATE INDEX order_users_username
    ON order_users USING gin (username public.gin_trgm_ops)";

    const UNCHANGED: UnchangedColumns = &[(
        "order_read_models",
        &[
            "user_id",
            "items",
            "items_count",
            "total_amount",
            "status",
            "shipping_address",
            "notes",
            "is_deleted",
            "created_at",
            "updated_at",
            "version",
        ],
    )];

    async fn load(conn: &mut PgConnection, keys: &[Key]) -> Result<Vec<(Key, Row)>, sqlx::Error> {
        let (mut orders, mut users) = (Vec::with_capacity(keys.len()), Vec::new());
        for key in keys {
            match key {
                Key::Order(id) => orders.push(id.as_str()),
                Key::User(id) => users.push(id.as_str()),
            }
        }
        let mut found = Vec::with_capacity(keys.len());
        if !orders.is_empty() {
            let rows = sqlx::query(LOAD).bind(orders).fetch_all(&mut *conn).await?;
            for row in &rows {
                let row = from_row(row)?;
                found.push((Key::Order(row.id.clone()), Row::Order(row)));
            }
        }
        if !users.is_empty() {
            for row in users::load(conn, &users).await? {
                found.push((Key::User(row.user_id.clone()), Row::User(row)));
            }
        }
        Ok(found)
    }

    async fn store(
        conn: &mut PgConnection,
        rows: &[(Key, Option<Row>)],
    ) -> Result<(), sqlx::Error> {
        let (mut orders, mut users) = (Vec::with_capacity(rows.len()), Vec::new());
        for (_, row) in rows {
            match row {
                Some(Row::Order(row)) => orders.push(row),
                Some(Row::User(row)) => users.push(row),
                // No fold takes a row away.
                None => {}
            }
        }
        if !orders.is_empty() {
            upsert(conn, &orders).await?;
        }
        if !users.is_empty() {
            users::upsert(conn, &users).await?;
        }
        Ok(())
    }
}

async fn upsert(conn: &mut PgConnection, rows: &[&OrderRow]) -> Result<(), sqlx::Error> {
    fn column<'a, T>(rows: &[&'a OrderRow], of: impl Fn(&'a OrderRow) -> T) -> Vec<T> {
        rows.iter().map(|row| of(row)).collect()
    }
    let items_counts = column(rows, |row| {
        i32::try_from(row.items_count).unwrap_or(i32::MAX)
    });
    sqlx::query(STORE)
        .bind(column(rows, |row| row.id.as_str()))
        .bind(column(rows, |row| row.user_id.as_str()))
        .bind(column(rows, |row| row.items.0.get()))
        .bind(items_counts)
        .bind(column(rows, |row| row.total_amount.get()))
        .bind(column(rows, |row| row.status.as_str()))
        .bind(column(rows, |row| row.shipping_address.as_deref()))
        .bind(column(rows, |row| row.notes.as_deref()))
        .bind(column(rows, |row| row.is_deleted))
        .bind(column(rows, |row| row.created_at.get()))
        .bind(column(rows, |row| row.updated_at.get()))
        .bind(column(rows, |row| row.version.as_i64()))
        .execute(conn)
        .await?;
    Ok(())
}

/// Reads a row whose columns are [`columns!`].
fn from_row(row: &PgRow) -> Result<OrderRow, sqlx::Error> {
    let id = |index: usize, column| {
        let text: String = row.try_get(index)?;
        EntityId::new(text).map_err(bad_column(column))
    };
    let status: &str = row.try_get(5)?;
    Ok(OrderRow {
        id: OrderId::new(id(0, "id")?),
        user_id: UserId::new(id(1, "user_id")?),
        user_username: None,
        user_email: None,
        items: Lines(row.try_get::<Json<Box<RawValue>>, _>(2)?.0),
        items_count: u32::try_from(row.try_get::<i32, _>(3)?).map_err(bad_column("items_count"))?,
        total_amount: Money::new(row.try_get::<Decimal, _>(4)?)
            .map_err(bad_column("total_amount"))?,
        status: status
            .parse()
            .map_err(bad_column::<crate::order::InvalidStatus>("status"))?,
        shipping_address: row.try_get(6)?,
        notes: row.try_get(7)?,
        is_deleted: row.try_get(8)?,
        created_at: row.try_get::<OffsetDateTime, _>(9)?.into(),
        updated_at: row.try_get::<OffsetDateTime, _>(10)?.into(),
        version: StreamVersion::from_i64(row.try_get(11)?),
    })
}

/// Reads a row whose columns are [`shown!`].
fn shown_from_row(row: &PgRow) -> Result<OrderRow, sqlx::Error> {
    Ok(OrderRow {
        user_username: row.try_get(12)?,
        user_email: row.try_get(13)?,
        ..from_row(row)?
    })
}

/// When an order was created; none of one that is not known here yet.
pub(crate) async fn created_at(
    conn: &mut PgConnection,
    id: OrderId,
) -> Result<Option<Timestamp>, sqlx::Error> {
    let row = sqlx::query("SELECT created_at FROM order_read_models WHERE id = $1")
        .bind(id.as_str())
        .fetch_optional(conn)
        .await?;
    row.map(|row| row.try_get::<OffsetDateTime, _>(0).map(Timestamp::from))
        .transpose()
}
