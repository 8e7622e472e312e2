//! What is known about orders? The denormalised row of each, deleted ones included, that answers
//! `GET /orders/{id}` and all lists.
//!
//! `user_username` and `user_email` are facts of another context; they stay null until its events
//! are read as well, and every query and index is made for them already.

/// The columns in the order in which [`from_row`] reads them.
macro_rules! columns {
    () => {
        "id, user_id, user_username, user_email, items, items_count, total_amount, status, \
         shipping_address, notes, is_deleted, created_at, updated_at, version"
    };
}

pub mod lists;
mod routes;

pub use routes::routes;

use millrace_es::{
    DecodeError, DomainEvent, FoldError, Projection, Recorded, RecordedEvent, RowProjection,
    StreamVersion,
};
use millrace_kernel::{EntityId, Money, Timestamp};
use millrace_projecting::{PgRows, bad_column};
use rust_decimal::Decimal;
use serde::Serialize;
use serde_json::value::RawValue;
use sqlx::{PgConnection, Row as _, postgres::PgRow, types::Json};
use time::OffsetDateTime;
use utoipa::ToSchema;

use crate::{
    CONTEXT,
    order::{OrderCreated, OrderDetails, OrderEvent, OrderId, OrderItem, OrderStatus, UserId},
};

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

    /// The row of an order as the event log has it. What other contexts know is missing in it.
    #[must_use]
    pub fn of(details: &OrderDetails, is_deleted: bool, version: StreamVersion) -> Self {
        Self {
            status: details.status,
            updated_at: details.updated_at,
            is_deleted,
            ..Self::created(&details.created, version)
        }
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
}

impl Projection for OrderReadModels {
    const NAME: &'static str = "order-read-models";
    const VERSION: u32 = 1;
    const CONTEXTS: &'static [&'static str] = &[CONTEXT];

    type Event = Fact;

    fn decode(event: &RecordedEvent) -> Result<Option<Fact>, DecodeError> {
        OrderEvent::decode(&event.event_type, event.schema_version, &event.payload)
            .map(|event| Some(Fact::Order(event)))
    }
}

impl RowProjection for OrderReadModels {
    type Key = OrderId;
    type Row = OrderRow;

    fn key(Recorded { event, .. }: Recorded<'_, Fact>) -> OrderId {
        let Fact::Order(event) = event;
        event.order_id().clone()
    }

    fn starts(event: &Fact) -> bool {
        matches!(event, Fact::Order(OrderEvent::Created(_)))
    }

    fn fold(
        row: Option<OrderRow>,
        Recorded { event, envelope }: Recorded<'_, Fact>,
    ) -> Result<Option<OrderRow>, FoldError> {
        let version = envelope.version;
        let Fact::Order(event) = event;
        match (row, event) {
            (_, OrderEvent::Created(event)) => Ok(Some(OrderRow::created(event, version))),
            (Some(row), OrderEvent::StatusUpdated(event)) => Ok(Some(OrderRow {
                status: event.to,
                updated_at: event.updated_at,
                version,
                ..row
            })),
            (Some(row), OrderEvent::Deleted(event)) => Ok(Some(OrderRow {
                is_deleted: true,
                updated_at: event.deleted_at,
                version,
                ..row
            })),
            (None, OrderEvent::StatusUpdated(_) | OrderEvent::Deleted(_)) => {
                Err(FoldError::new("the order was never created"))
            }
        }
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
    ") SELECT * FROM UNNEST($1::text[], $2::text[], $3::text[], $4::text[], $5::text[]::json[], \
     $6::integer[], $7::numeric[], $8::text[], $9::text[], $10::text[], $11::boolean[], \
     $12::timestamptz[], $13::timestamptz[], $14::bigint[])
     ON CONFLICT (id) DO UPDATE SET
        user_id = excluded.user_id, user_username = excluded.user_username,
        user_email = excluded.user_email, items = excluded.items,
        items_count = excluded.items_count, total_amount = excluded.total_amount,
        status = excluded.status, shipping_address = excluded.shipping_address,
        notes = excluded.notes, is_deleted = excluded.is_deleted,
        created_at = excluded.created_at, updated_at = excluded.updated_at,
        version = excluded.version"
);

const DELETE: &str = "DELETE FROM order_read_models WHERE id = ANY($1)";

impl PgRows for OrderReadModels {
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
    user_username varchar(100),
    user_email varchar(255),
    items_count integer NOT NULL DEFAULT 0,
    items json NOT NULL DEFAULT '[]',
    version bigint NOT NULL
)"#;

    /// One for each list; each ends with what the list is sorted by, so that a page is read from
    /// where the last one ended and never sorted. Lists leave deleted orders out, and so do their
    /// indexes; only the first serves `include_deleted` too.
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
CREATE INDEX order_read_models_username
    ON order_read_models USING gin (user_username public.gin_trgm_ops) WHERE NOT is_deleted";

    async fn load(
        conn: &mut PgConnection,
        keys: &[OrderId],
    ) -> Result<Vec<(OrderId, OrderRow)>, sqlx::Error> {
        let ids: Vec<&str> = keys.iter().map(OrderId::as_str).collect();
        let rows = sqlx::query(LOAD).bind(ids).fetch_all(conn).await?;
        rows.iter()
            .map(|row| from_row(row).map(|row| (row.id.clone(), row)))
            .collect()
    }

    async fn store(
        conn: &mut PgConnection,
        rows: &[(OrderId, Option<OrderRow>)],
    ) -> Result<(), sqlx::Error> {
        let kept: Vec<&OrderRow> = rows.iter().filter_map(|(_, row)| row.as_ref()).collect();
        let removed: Vec<&str> = rows
            .iter()
            .filter_map(|(id, row)| row.is_none().then_some(id.as_str()))
            .collect();
        if !kept.is_empty() {
            upsert(conn, &kept).await?;
        }
        if !removed.is_empty() {
            sqlx::query(DELETE).bind(removed).execute(conn).await?;
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
        .bind(column(rows, |row| row.user_username.as_deref()))
        .bind(column(rows, |row| row.user_email.as_deref()))
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
pub(crate) fn from_row(row: &PgRow) -> Result<OrderRow, sqlx::Error> {
    let id = |index: usize, column| {
        let text: String = row.try_get(index)?;
        EntityId::new(text).map_err(bad_column(column))
    };
    let status: &str = row.try_get(7)?;
    Ok(OrderRow {
        id: OrderId::new(id(0, "id")?),
        user_id: UserId::new(id(1, "user_id")?),
        user_username: row.try_get(2)?,
        user_email: row.try_get(3)?,
        items: Lines(row.try_get::<Json<Box<RawValue>>, _>(4)?.0),
        items_count: u32::try_from(row.try_get::<i32, _>(5)?).map_err(bad_column("items_count"))?,
        total_amount: Money::new(row.try_get::<Decimal, _>(6)?)
            .map_err(bad_column("total_amount"))?,
        status: status
            .parse()
            .map_err(bad_column::<crate::order::InvalidStatus>("status"))?,
        shipping_address: row.try_get(8)?,
        notes: row.try_get(9)?,
        is_deleted: row.try_get(10)?,
        created_at: row.try_get::<OffsetDateTime, _>(11)?.into(),
        updated_at: row.try_get::<OffsetDateTime, _>(12)?.into(),
        version: StreamVersion::from_i64(row.try_get(13)?),
    })
}
