//! Reading what the views stored.

use std::{error::Error, str::FromStr};

use millrace_es::StreamVersion;
use millrace_kernel::{EntityId, Money, Timestamp};
use millrace_projecting::bad_column;
use rust_decimal::Decimal;
use sqlx::{Row as _, postgres::PgRow};
use time::OffsetDateTime;

use crate::account::Currency;

pub(crate) fn currency(row: &PgRow, column: &'static str) -> Result<Currency, sqlx::Error> {
    Currency::stored(row.try_get(column)?).map_err(bad_column(column))
}

/// A text that says a value of its own kind, such as a status.
pub(crate) fn said<T>(row: &PgRow, column: &'static str) -> Result<T, sqlx::Error>
where
    T: FromStr<Err: Error + Send + Sync + 'static>,
{
    row.try_get::<&str, _>(column)?
        .parse()
        .map_err(bad_column(column))
}

pub(crate) fn id(row: &PgRow, column: &'static str) -> Result<EntityId, sqlx::Error> {
    said(row, column)
}

pub(crate) fn optional_id(
    row: &PgRow,
    column: &'static str,
) -> Result<Option<EntityId>, sqlx::Error> {
    row.try_get::<Option<&str>, _>(column)?
        .map(|text| text.parse().map_err(bad_column(column)))
        .transpose()
}

pub(crate) fn money(row: &PgRow, column: &'static str) -> Result<Money, sqlx::Error> {
    Money::new(row.try_get::<Decimal, _>(column)?).map_err(bad_column(column))
}

pub(crate) fn count(row: &PgRow, column: &'static str) -> Result<u64, sqlx::Error> {
    u64::try_from(row.try_get::<i64, _>(column)?).map_err(bad_column(column))
}

pub(crate) fn time(row: &PgRow, column: &'static str) -> Result<Timestamp, sqlx::Error> {
    Ok(row.try_get::<OffsetDateTime, _>(column)?.into())
}

pub(crate) fn optional_time(
    row: &PgRow,
    column: &'static str,
) -> Result<Option<Timestamp>, sqlx::Error> {
    let at: Option<OffsetDateTime> = row.try_get(column)?;
    Ok(at.map(Timestamp::from))
}

pub(crate) fn version(row: &PgRow) -> Result<StreamVersion, sqlx::Error> {
    row.try_get("version").map(StreamVersion::from_i64)
}

/// The values of a column of an `UNNEST`.
pub(crate) fn column<'a, R, T>(rows: &[&'a R], of: impl Fn(&'a R) -> T) -> Vec<T> {
    rows.iter().map(|row| of(row)).collect()
}
