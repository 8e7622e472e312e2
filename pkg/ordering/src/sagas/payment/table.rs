//! The write model's table `payments`: where each payment stands, and which of them are due.

use std::{collections::HashMap, time::Duration};

use async_trait::async_trait;
use millrace_es::{DomainEvent, RecordedEvent, StreamVersion};
use millrace_eventlog::{LogError, PgInlineTable};
use millrace_kernel::{EntityId, Money, Timestamp};
use millrace_sagas::{Claimed, Schedule, ScheduleError, Standing};
use serde::Serialize;
use sqlx::{PgConnection, PgPool, Row, postgres::PgRow};
use utoipa::ToSchema;

use super::{PaymentEvent, PaymentRequested, PaymentStatus, stored};
use crate::order::{OrderEvent, OrderId, OrderStatus, stored::order_event};

/// The table `payments`.
#[derive(Debug)]
pub struct PaymentsTable;

const INSERT: &str = "
INSERT INTO payments (order_id, account_id, amount, currency, status, transaction_id,
    refund_transaction_id, version, requested_at, updated_at, due_at)
SELECT new.*, now() FROM UNNEST($1::text[], $2::text[], $3::numeric[], $4::text[], $5::text[],
    $6::text[], $7::text[], $8::bigint[], $9::timestamptz[], $9::timestamptz[]) AS new
ON CONFLICT (order_id) DO NOTHING";

// A claim is kept while the same process goes on.
const UPDATE: &str = "
UPDATE payments SET status = new.status, reason = COALESCE(new.reason, payments.reason),
    version = new.version, updated_at = new.updated_at,
    attempts = CASE WHEN payments.status = new.status THEN payments.attempts ELSE 0 END,
    due_at = CASE WHEN new.unfinished THEN COALESCE(payments.due_at, now()) END
FROM UNNEST($1::text[], $2::text[], $3::text[], $4::bigint[], $5::timestamptz[], $6::bool[])
    AS new (order_id, status, reason, version, updated_at, unfinished)
WHERE payments.order_id = new.order_id";

// An order that is called off: its payment has to look at it.
const WAKE: &str = "
UPDATE payments SET due_at = now()
WHERE order_id = ANY($1::text[]) AND status IN ('PENDING', 'VOIDING', 'PAID')";

// By the schema's name: the reader's connection need not be the log's.
const BY_ORDER: &str = "
SELECT order_id, account_id, amount, status, transaction_id, reason, attempts, requested_at,
    updated_at, version
FROM ordering.payments WHERE order_id = $1";

const CLAIM: &str = "
UPDATE ordering.payments SET due_at = now() + $2 * interval '1 millisecond',
    attempts = LEAST(attempts, 1000000) + 1
WHERE order_id IN (
    SELECT order_id FROM ordering.payments WHERE due_at <= now()
    ORDER BY due_at LIMIT $1 FOR UPDATE SKIP LOCKED)
RETURNING order_id, attempts, due_at::text AS claim";

const IDLE: &str = "
UPDATE ordering.payments SET due_at = NULL, attempts = 0
WHERE order_id = $1 AND due_at = $2::timestamptz";

const LATER: &str = "
UPDATE ordering.payments SET due_at = now() + $3 * interval '1 millisecond'
WHERE order_id = $1 AND due_at = $2::timestamptz";

const STANDING: &str = "
SELECT count(*) AS unfinished,
    COALESCE(EXTRACT(EPOCH FROM now() - min(updated_at)), 0)::float8 AS oldest,
    (SELECT count(*) FROM ordering.payments WHERE status = 'REFUND_REFUSED' AND settled IS NULL)
        AS left_to_people
FROM ordering.payments WHERE status IN ('PENDING', 'VOIDING', 'REFUNDING')";

/// What a batch comes to for one payment.
struct Effect {
    requested: Option<PaymentRequested>,
    status: PaymentStatus,
    reason: Option<String>,
    version: StreamVersion,
    updated_at: Timestamp,
    changed: bool,
}

#[async_trait]
impl PgInlineTable for PaymentsTable {
    async fn apply(
        &self,
        conn: &mut PgConnection,
        events: &[RecordedEvent],
    ) -> Result<(), sqlx::Error> {
        let effects = effects(events)?;
        insert(conn, &effects).await?;
        update(conn, &effects).await?;
        let called_off = called_off(events)?;
        if !called_off.is_empty() {
            sqlx::query(WAKE).bind(called_off).execute(conn).await?;
        }
        Ok(())
    }
}

/// What the events come to, each payment once, in the order of their first event.
fn effects(events: &[RecordedEvent]) -> Result<Vec<(OrderId, Effect)>, sqlx::Error> {
    let mut effects: Vec<(OrderId, Effect)> = Vec::new();
    let mut places: HashMap<OrderId, usize> = HashMap::new();
    for recorded in events {
        if !stored::is_type(&recorded.event_type) {
            continue;
        }
        let version = recorded.schema_version;
        let event = PaymentEvent::decode(&recorded.event_type, version, &recorded.payload)
            .map_err(|error| sqlx::Error::Decode(error.into()))?;
        let id = event.order_id().clone();
        let place = *places.entry(id.clone()).or_insert(effects.len());
        let latest = Effect {
            status: event.status(),
            reason: event.reason().map(str::to_owned),
            version: recorded.version,
            updated_at: event.at(),
            changed: !matches!(event, PaymentEvent::Requested(_)),
            requested: match event {
                PaymentEvent::Requested(requested) => Some(requested),
                _ => None,
            },
        };
        match effects.get_mut(place) {
            Some((_, before)) => {
                *before = Effect {
                    requested: before.requested.take(),
                    reason: latest.reason.or(before.reason.take()),
                    ..latest
                };
            }
            None => effects.push((id, latest)),
        }
    }
    Ok(effects)
}

/// The orders that were cancelled or deleted.
fn called_off(events: &[RecordedEvent]) -> Result<Vec<String>, sqlx::Error> {
    let mut orders = Vec::new();
    for recorded in events {
        let event = order_event(recorded).map_err(|error| sqlx::Error::Decode(error.into()))?;
        match event {
            Some(OrderEvent::StatusUpdated(change)) if change.to == OrderStatus::Cancelled => {
                orders.push(change.order_id.to_string());
            }
            Some(OrderEvent::Deleted(deletion)) => orders.push(deletion.order_id.to_string()),
            Some(OrderEvent::Created(_) | OrderEvent::StatusUpdated(_)) | None => {}
        }
    }
    Ok(orders)
}

async fn insert(conn: &mut PgConnection, all: &[(OrderId, Effect)]) -> Result<(), sqlx::Error> {
    fn column<'a, T>(
        rows: &[(&'a PaymentRequested, &'a Effect)],
        of: impl Fn(&'a PaymentRequested, &'a Effect) -> T,
    ) -> Vec<T> {
        rows.iter().map(|(row, effect)| of(row, effect)).collect()
    }
    let rows: Vec<(&PaymentRequested, &Effect)> = all
        .iter()
        .filter_map(|(_, effect)| Some((effect.requested.as_ref()?, effect)))
        .collect();
    if rows.is_empty() {
        return Ok(());
    }
    let pending = PaymentStatus::Pending.as_str();
    sqlx::query(INSERT)
        .bind(column(&rows, |row, _| row.order_id.as_str()))
        .bind(column(&rows, |row, _| row.account_id.as_str()))
        .bind(column(&rows, |row, _| row.amount.get()))
        .bind(column(&rows, |row, _| row.currency.as_str()))
        .bind(column(&rows, |_, _| pending))
        .bind(column(&rows, |row, _| row.transaction_id.as_str()))
        .bind(column(&rows, |row, _| row.refund_transaction_id.as_str()))
        .bind(column(&rows, |_, effect| number(effect.version)))
        .bind(column(&rows, |row, _| row.requested_at.get()))
        .execute(conn)
        .await?;
    Ok(())
}

async fn update(conn: &mut PgConnection, all: &[(OrderId, Effect)]) -> Result<(), sqlx::Error> {
    fn column<'a, T>(
        rows: &[&'a (OrderId, Effect)],
        of: impl Fn(&'a OrderId, &'a Effect) -> T,
    ) -> Vec<T> {
        rows.iter().map(|(id, effect)| of(id, effect)).collect()
    }
    let rows: Vec<&(OrderId, Effect)> = all.iter().filter(|(_, it)| it.changed).collect();
    if rows.is_empty() {
        return Ok(());
    }
    sqlx::query(UPDATE)
        .bind(column(&rows, |id, _| id.as_str()))
        .bind(column(&rows, |_, it| it.status.as_str()))
        .bind(column(&rows, |_, it| it.reason.as_deref()))
        .bind(column(&rows, |_, it| number(it.version)))
        .bind(column(&rows, |_, it| it.updated_at.get()))
        .bind(column(&rows, |_, it| it.status.is_unfinished()))
        .execute(conn)
        .await?;
    Ok(())
}

/// A version as PostgreSQL has it.
fn number(version: StreamVersion) -> i64 {
    i64::try_from(version.get()).unwrap_or(i64::MAX)
}

/// Where the payment of an order stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
#[schema(as = Payment)]
pub struct PaymentRow {
    /// The order.
    pub order_id: EntityId,
    /// The account that pays.
    pub account_id: EntityId,
    /// How much.
    pub amount: Money,
    /// Where it stands.
    pub status: PaymentStatus,
    /// The movement on the account, as the account's lists have it once it was made.
    pub transaction_id: EntityId,
    /// Why no money moved, or why it was not given back.
    #[schema(required)]
    pub reason: Option<String>,
    /// How often what it is at was tried.
    pub attempts: u32,
    /// When it was asked for.
    pub requested_at: Timestamp,
    /// When it last got on.
    pub updated_at: Timestamp,
    /// The version of its stream.
    #[schema(value_type = u64)]
    pub version: StreamVersion,
}

/// The rows of the table `payments`, in the database of the event log.
#[derive(Debug, Clone)]
pub struct Payments {
    pool: PgPool,
}

impl Payments {
    /// Reads and schedules through connections to the primary of the event log.
    #[must_use]
    pub const fn new(pool: PgPool) -> Self {
        Self { pool }
    }

    /// The payment of an order, as the newest append left it.
    ///
    /// # Errors
    /// [`LogError::Unreachable`] when the store does not answer, [`LogError::Corrupt`] when a row
    /// is not as it is written.
    pub async fn of(&self, id: &OrderId) -> Result<Option<PaymentRow>, LogError> {
        let row = sqlx::query(BY_ORDER)
            .bind(id.as_str())
            .fetch_optional(&self.pool)
            .await
            .and_then(|row| row.as_ref().map(from_row).transpose());
        row.map_err(|error| match error {
            sqlx::Error::Decode(_) | sqlx::Error::ColumnDecode { .. } => {
                LogError::Corrupt(format!("the payment of order {id}: {error}"))
            }
            error => LogError::Unreachable(error.into()),
        })
    }
}

fn from_row(row: &PgRow) -> Result<PaymentRow, sqlx::Error> {
    fn wrong(error: impl std::error::Error + Send + Sync + 'static) -> sqlx::Error {
        sqlx::Error::Decode(error.into())
    }
    let id = |column: &str| EntityId::new(row.try_get::<String, _>(column)?).map_err(wrong);
    let time = |column: &str| Ok::<_, sqlx::Error>(Timestamp::new(row.try_get(column)?));
    let status: &str = row.try_get("status")?;
    let status = PaymentStatus::ALL
        .into_iter()
        .find(|known| known.as_str() == status)
        .ok_or_else(|| sqlx::Error::Decode(format!("{status:?} is no status").into()))?;
    Ok(PaymentRow {
        order_id: id("order_id")?,
        account_id: id("account_id")?,
        amount: Money::new(row.try_get("amount")?).map_err(wrong)?,
        status,
        transaction_id: id("transaction_id")?,
        reason: row.try_get("reason")?,
        attempts: u32::try_from(row.try_get::<i32, _>("attempts")?).map_err(wrong)?,
        requested_at: time("requested_at")?,
        updated_at: time("updated_at")?,
        version: StreamVersion::new(
            u64::try_from(row.try_get::<i64, _>("version")?).map_err(wrong)?,
        ),
    })
}

fn unscheduled(error: sqlx::Error) -> ScheduleError {
    ScheduleError(error.into())
}

fn count(row: &PgRow, column: &str) -> Result<u64, sqlx::Error> {
    Ok(u64::try_from(row.try_get::<i64, _>(column)?).unwrap_or(0))
}

fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}

#[async_trait]
impl Schedule for Payments {
    async fn claim(&self, limit: usize, lives: Duration) -> Result<Vec<Claimed>, ScheduleError> {
        let rows = sqlx::query(CLAIM)
            .bind(i64::try_from(limit).unwrap_or(i64::MAX))
            .bind(millis(lives))
            .fetch_all(&self.pool)
            .await
            .map_err(unscheduled)?;
        let claimed = |row: &PgRow| -> Result<Claimed, sqlx::Error> {
            Ok(Claimed {
                id: EntityId::new(row.try_get::<String, _>("order_id")?)
                    .map_err(|error| sqlx::Error::Decode(error.into()))?,
                attempts: u32::try_from(row.try_get::<i32, _>("attempts")?).unwrap_or(u32::MAX),
                claim: row.try_get("claim")?,
            })
        };
        let claims: Result<_, _> = rows.iter().map(claimed).collect();
        claims.map_err(unscheduled)
    }

    async fn idle(&self, claimed: &Claimed) -> Result<(), ScheduleError> {
        sqlx::query(IDLE)
            .bind(claimed.id.as_str())
            .bind(&claimed.claim)
            .execute(&self.pool)
            .await
            .map_err(unscheduled)?;
        Ok(())
    }

    async fn later(&self, claimed: &Claimed, pause: Duration) -> Result<(), ScheduleError> {
        sqlx::query(LATER)
            .bind(claimed.id.as_str())
            .bind(&claimed.claim)
            .bind(millis(pause))
            .execute(&self.pool)
            .await
            .map_err(unscheduled)?;
        Ok(())
    }

    async fn standing(&self) -> Result<Standing, ScheduleError> {
        let row = sqlx::query(STANDING).fetch_one(&self.pool).await;
        let standing = row.and_then(|row| {
            Ok(Standing {
                unfinished: count(&row, "unfinished")?,
                oldest: Duration::try_from_secs_f64(row.try_get("oldest")?).unwrap_or_default(),
                left_to_people: count(&row, "left_to_people")?,
            })
        });
        standing.map_err(unscheduled)
    }
}
