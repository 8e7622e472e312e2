//! The tables of the invoices, and how rows go in and out.

use std::collections::BTreeSet;

use millrace_es::StreamVersion;
use millrace_kernel::{EntityId, Money};
use millrace_projecting::{Loaded, PgRows, bad_column};
use rust_decimal::Decimal;
use sqlx::{PgConnection, Row as _, postgres::PgRow, types::Json};
use time::OffsetDateTime;
use uuid::Uuid;

use super::Invoices;
use crate::{
    addresses::Addresses,
    month::Month,
    orders::{Line, Orders},
};

/// What names a row.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Key {
    /// A user's, in `invoice_account`.
    Account(EntityId),
    /// A user's month, in `invoices`.
    Invoice(InvoiceKey),
}

/// A user's month.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct InvoiceKey {
    /// The user.
    pub user_id: EntityId,
    /// The month.
    pub month: Month,
}

/// A row of one of the tables.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum InvoicesRow {
    /// Of `invoice_account`.
    Account(AccountRow),
    /// Of `invoices`.
    Invoice(Orders),
}

/// What is known about a user.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AccountRow {
    /// His e-mail address.
    pub email: Option<String>,
    /// His name.
    pub name: Option<String>,
    /// The version of his stream that they are from.
    pub version: StreamVersion,
    /// Where he had things sent.
    pub addresses: Addresses,
}

const LOAD_ACCOUNTS: &str = "
SELECT user_id, email, name, version, addresses FROM invoice_account WHERE user_id = ANY($1)";

const STORE_ACCOUNTS: &str = "
INSERT INTO invoice_account (user_id, email, name, version, addresses)
SELECT * FROM UNNEST($1::text[], $2::text[], $3::text[], $4::bigint[], $5::jsonb[])
ON CONFLICT (user_id) DO UPDATE SET
    email = excluded.email, name = excluded.name, version = excluded.version,
    addresses = excluded.addresses";

/// Orders of many partitions meet in a row: those that are missing are made, in one order, and wait
/// for whoever makes the same.
const MAKE_INVOICES: &str = "
INSERT INTO invoices (user_id, year, month, invoice_id, invoice_dt)
SELECT * FROM UNNEST($1::text[], $2::smallint[], $3::smallint[], $4::uuid[], $5::timestamptz[])
    AS t (user_id, year, month, invoice_id, invoice_dt)
ORDER BY user_id COLLATE \"C\", year, month
ON CONFLICT (user_id, year, month) DO NOTHING";

/// Then all of them are locked, in the same order: a statement of its own, so that it sees what was
/// committed while the first one waited.
const LOCK_INVOICES: &str = "
SELECT i.user_id, i.year, i.month, i.orders, i.gone, i.total
FROM UNNEST($1::text[], $2::smallint[], $3::smallint[]) AS k (user_id, year, month)
JOIN invoices i ON i.user_id = k.user_id AND i.year = k.year AND i.month = k.month
ORDER BY i.user_id, i.year, i.month
FOR UPDATE OF i";

const STORE_INVOICES: &str = "
UPDATE invoices i SET
    orders = k.orders, orders_count = k.orders_count, gone = k.gone, total = k.total
FROM UNNEST($1::text[], $2::smallint[], $3::smallint[], $4::jsonb[], $5::integer[], $6::jsonb[],
            $7::numeric[])
    AS k (user_id, year, month, orders, orders_count, gone, total)
WHERE i.user_id = k.user_id AND i.year = k.year AND i.month = k.month";

impl PgRows for Invoices {
    /// `gone` are the orders that were taken off, so that none comes back that becomes known late.
    const TABLES: &'static str = r#"
CREATE TABLE invoice_account (
    user_id text COLLATE "C" PRIMARY KEY,
    email text,
    name text,
    version bigint NOT NULL,
    addresses jsonb NOT NULL
);
CREATE TABLE invoices (
    user_id text COLLATE "C",
    year smallint NOT NULL,
    month smallint NOT NULL CHECK (month BETWEEN 1 AND 12),
    invoice_id uuid NOT NULL,
    invoice_dt timestamptz NOT NULL,
    orders jsonb NOT NULL DEFAULT '[]',
    orders_count integer NOT NULL DEFAULT 0,
    gone jsonb NOT NULL DEFAULT '[]',
    total numeric(28,2) NOT NULL DEFAULT 0,
    PRIMARY KEY (user_id, year, month)
) WITH (fillfactor = 80)"#;

    /// An invoice whose orders were all called off is none, and in no list.
    const INDEXES: &'static str = "
CREATE INDEX invoices_newest
    ON invoices (invoice_dt DESC, user_id DESC) WHERE orders_count > 0;
CREATE INDEX invoices_of_user
    ON invoices (user_id, invoice_dt DESC) WHERE orders_count > 0";

    async fn load(conn: &mut PgConnection, keys: &[Key]) -> Result<Loaded<Self>, sqlx::Error> {
        let (mut users, mut invoices) = (Vec::new(), Vec::new());
        for key in keys {
            match key {
                Key::Account(user_id) => users.push(user_id.as_str()),
                Key::Invoice(invoice) => invoices.push(invoice),
            }
        }
        let mut loaded = Vec::with_capacity(keys.len());
        if !users.is_empty() {
            let rows = sqlx::query(LOAD_ACCOUNTS).bind(users);
            for row in rows.fetch_all(&mut *conn).await? {
                loaded.push((Key::Account(user_id(&row)?), account(&row)?));
            }
        }
        if !invoices.is_empty() {
            make(conn, &invoices).await?;
            let (users, years, months) = columns(&invoices);
            let rows = sqlx::query(LOCK_INVOICES)
                .bind(users)
                .bind(years)
                .bind(months);
            for row in rows.fetch_all(&mut *conn).await? {
                loaded.push((Key::Invoice(invoice_key(&row)?), invoice(&row)?));
            }
        }
        Ok(loaded)
    }

    async fn store(
        conn: &mut PgConnection,
        rows: &[(Key, Option<InvoicesRow>)],
    ) -> Result<(), sqlx::Error> {
        let (mut accounts, mut invoices) = (Vec::new(), Vec::new());
        // No event removes a row.
        for row in rows {
            match row {
                (Key::Account(user_id), Some(InvoicesRow::Account(row))) => {
                    accounts.push((user_id, row));
                }
                (Key::Invoice(key), Some(InvoicesRow::Invoice(row))) => invoices.push((key, row)),
                _ => {}
            }
        }
        if !accounts.is_empty() {
            store_accounts(conn, &accounts).await?;
        }
        if !invoices.is_empty() {
            store_invoices(conn, &invoices).await?;
        }
        Ok(())
    }
}

type KeyColumns<'a> = (Vec<&'a str>, Vec<i16>, Vec<i16>);

fn columns<'a>(keys: &[&'a InvoiceKey]) -> KeyColumns<'a> {
    (
        keys.iter().map(|key| key.user_id.as_str()).collect(),
        keys.iter().map(|key| year(key.month)).collect(),
        keys.iter()
            .map(|key| i16::from(key.month.number()))
            .collect(),
    )
}

/// A year of four digits.
fn year(month: Month) -> i16 {
    i16::try_from(month.year()).unwrap_or(i16::MAX)
}

async fn make(conn: &mut PgConnection, keys: &[&InvoiceKey]) -> Result<(), sqlx::Error> {
    let ids: Vec<Uuid> = keys
        .iter()
        .map(|key| key.month.invoice_id(&key.user_id))
        .collect();
    let times: Vec<OffsetDateTime> = keys.iter().map(|key| key.month.starts_at().get()).collect();
    let (users, years, months) = columns(keys);
    sqlx::query(MAKE_INVOICES)
        .bind(users)
        .bind(years)
        .bind(months)
        .bind(ids)
        .bind(times)
        .execute(conn)
        .await?;
    Ok(())
}

async fn store_accounts(
    conn: &mut PgConnection,
    rows: &[(&EntityId, &AccountRow)],
) -> Result<(), sqlx::Error> {
    let users: Vec<&str> = rows.iter().map(|(user_id, _)| user_id.as_str()).collect();
    let emails: Vec<Option<&str>> = rows.iter().map(|(_, row)| row.email.as_deref()).collect();
    let names: Vec<Option<&str>> = rows.iter().map(|(_, row)| row.name.as_deref()).collect();
    let versions: Vec<i64> = rows.iter().map(|(_, row)| row.version.as_i64()).collect();
    let addresses: Vec<Json<&Addresses>> =
        rows.iter().map(|(_, row)| Json(&row.addresses)).collect();
    sqlx::query(STORE_ACCOUNTS)
        .bind(users)
        .bind(emails)
        .bind(names)
        .bind(versions)
        .bind(addresses)
        .execute(conn)
        .await?;
    Ok(())
}

async fn store_invoices(
    conn: &mut PgConnection,
    rows: &[(&InvoiceKey, &Orders)],
) -> Result<(), sqlx::Error> {
    let keys: Vec<&InvoiceKey> = rows.iter().map(|(key, _)| *key).collect();
    let (users, years, months) = columns(&keys);
    let orders: Vec<Json<&[Line]>> = rows.iter().map(|(_, row)| Json(row.lines())).collect();
    let counts: Vec<i32> = rows
        .iter()
        .map(|(_, row)| i32::try_from(row.lines().len()).unwrap_or(i32::MAX))
        .collect();
    let gone: Vec<Json<&BTreeSet<EntityId>>> =
        rows.iter().map(|(_, row)| Json(row.gone())).collect();
    let totals: Vec<Decimal> = rows.iter().map(|(_, row)| row.total().get()).collect();
    sqlx::query(STORE_INVOICES)
        .bind(users)
        .bind(years)
        .bind(months)
        .bind(orders)
        .bind(counts)
        .bind(gone)
        .bind(totals)
        .execute(conn)
        .await?;
    Ok(())
}

pub(super) fn user_id(row: &PgRow) -> Result<EntityId, sqlx::Error> {
    row.try_get::<&str, _>("user_id")?
        .parse()
        .map_err(bad_column("user_id"))
}

pub(super) fn money(row: &PgRow, column: &'static str) -> Result<Money, sqlx::Error> {
    Money::new(row.try_get::<Decimal, _>(column)?).map_err(bad_column(column))
}

pub(super) fn lines(row: &PgRow) -> Result<Vec<Line>, sqlx::Error> {
    Ok(row.try_get::<Json<Vec<Line>>, _>("orders")?.0)
}

fn invoice_key(row: &PgRow) -> Result<InvoiceKey, sqlx::Error> {
    Ok(InvoiceKey {
        user_id: user_id(row)?,
        month: month(row)?,
    })
}

pub(super) fn month(row: &PgRow) -> Result<Month, sqlx::Error> {
    let (year, month): (i16, i16) = (row.try_get("year")?, row.try_get("month")?);
    let month = u8::try_from(month).ok();
    month
        .and_then(|month| Month::new(year.into(), month))
        .ok_or_else(|| bad_column("month")("there is no such month"))
}

fn invoice(row: &PgRow) -> Result<InvoicesRow, sqlx::Error> {
    let gone: Json<BTreeSet<EntityId>> = row.try_get("gone")?;
    let orders = Orders::stored(lines(row)?, gone.0, money(row, "total")?);
    Ok(InvoicesRow::Invoice(orders))
}

fn account(row: &PgRow) -> Result<InvoicesRow, sqlx::Error> {
    Ok(InvoicesRow::Account(AccountRow {
        email: row.try_get("email")?,
        name: row.try_get("name")?,
        version: StreamVersion::from_i64(row.try_get("version")?),
        addresses: row.try_get::<Json<Addresses>, _>("addresses")?.0,
    }))
}
