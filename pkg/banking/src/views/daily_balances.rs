//! How much was on an account at the end of each day? A row for every day on which something moved;
//! the days between are filled in by the query.
//!
//! A day is one of UTC, by the time at which the log took the event. Those times never fall along
//! the log, so an account's days are folded in order.

use std::collections::BTreeMap;

use axum::{extract::State, response::Response};
use futures::FutureExt;
use millrace_es::{
    DecodeError, FoldError, Projection, Recorded, RecordedEvent, RowProjection, StreamVersion,
};
use millrace_http::{Page, PathId, Problem, Read, ReadParams};
use millrace_kernel::{EntityId, Money, TimeBound};
use millrace_projecting::{Origin, Origins, PgRows};
use millrace_querying::{from_postgres, invalid_parameter};
use serde::{Deserialize, Serialize};
use sqlx::{PgConnection, Row as _, postgres::PgRow};
use time::Date;
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::{router::OpenApiRouter, routes};

use crate::{
    CONTEXT,
    account::{AccountEvent, AccountId},
    columns::{self, column},
    ledger::{check_balance, check_movement, check_opening, check_order},
    movements,
    problems::not_found,
    queries::QueryState,
};

// ---------------------------------------------------------------------------------------- row

/// Names a row: the account, and the day in UTC.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct DayOfAccount {
    /// The account.
    pub account_id: AccountId,
    /// The day.
    pub day: Date,
}

/// What moved on an account on a day.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DayRow {
    /// What was on it before the first movement of the day.
    opening: Money,
    /// What was on it after the last one.
    closing: Money,
    /// What came.
    credits: Money,
    /// What went.
    debits: Money,
    /// How many movements.
    movements: u64,
    /// The version of the last event.
    version: StreamVersion,
}

impl DayRow {
    /// A day on which nothing moved yet.
    const fn quiet(balance: Money, version: StreamVersion) -> Self {
        Self {
            opening: balance,
            closing: balance,
            credits: Money::ZERO,
            debits: Money::ZERO,
            movements: 0,
            version,
        }
    }
}

// --------------------------------------------------------------------------------------- fold

/// The projection `daily-balances`.
#[derive(Debug)]
pub struct DailyBalances;

impl Projection for DailyBalances {
    const NAME: &'static str = "daily-balances";
    const VERSION: u32 = 1;
    const CONTEXTS: &'static [&'static str] = &[CONTEXT];

    type Event = AccountEvent;

    fn decode(event: &RecordedEvent) -> Result<Option<AccountEvent>, DecodeError> {
        movements::decode(event)
    }
}

impl RowProjection for DailyBalances {
    type Key = DayOfAccount;
    type Row = DayRow;

    fn key(Recorded { event, envelope }: Recorded<'_, AccountEvent>) -> DayOfAccount {
        DayOfAccount {
            account_id: event.account_id().clone(),
            day: envelope.recorded_at.date(),
        }
    }

    fn starts(event: &AccountEvent) -> bool {
        matches!(event, AccountEvent::Opened(_))
    }

    fn fold(
        row: Option<DayRow>,
        Recorded { event, envelope }: Recorded<'_, AccountEvent>,
    ) -> Result<Option<DayRow>, FoldError> {
        let version = envelope.version;
        let Some(movement) = event.movement() else {
            check_opening(version)?;
            return Ok(Some(DayRow::quiet(Money::ZERO, version)));
        };
        let from = check_movement(&movement)?;
        let mut row = row.unwrap_or_else(|| DayRow::quiet(from, StreamVersion::ZERO));
        check_order(row.version, version)?;
        if version == row.version.next() {
            check_balance(row.closing, from)?;
        }
        let sum = if movement.kind.is_credit() {
            &mut row.credits
        } else {
            &mut row.debits
        };
        *sum = sum
            .checked_add(movement.amount)
            .ok_or_else(|| FoldError::new("more moved on one day than can be summed up"))?;
        row.movements += 1;
        row.closing = movement.balance;
        row.version = version;
        Ok(Some(row))
    }
}

// -------------------------------------------------------------------------------------- table

/// The columns of a day.
macro_rules! columns {
    () => {
        "account_id, day, opening, closing, credits, debits, movements, version"
    };
}

const LOAD: &str = concat!(
    "SELECT ",
    columns!(),
    " FROM daily_balances JOIN UNNEST($1::text[], $2::date[]) AS wanted (account_id, day)
     USING (account_id, day)"
);

const STORE: &str = concat!(
    "INSERT INTO daily_balances (",
    columns!(),
    ") SELECT * FROM UNNEST($1::text[], $2::date[], $3::numeric[], $4::numeric[], $5::numeric[], \
     $6::numeric[], $7::bigint[], $8::bigint[])
     ON CONFLICT (account_id, day) DO UPDATE SET
        opening = excluded.opening, closing = excluded.closing, credits = excluded.credits,
        debits = excluded.debits, movements = excluded.movements, version = excluded.version"
);

impl PgRows for DailyBalances {
    const ORIGINS: Origins = &[(
        "daily_balances",
        Origin {
            column: "account_id",
            prefix: "account-",
        },
    )];

    const TABLES: &'static str = r#"
CREATE TABLE daily_balances (
    account_id text COLLATE "C" NOT NULL,
    day date NOT NULL,
    opening numeric(18,2) NOT NULL,
    closing numeric(18,2) NOT NULL,
    credits numeric(28,2) NOT NULL,
    debits numeric(28,2) NOT NULL,
    movements bigint NOT NULL,
    version bigint NOT NULL,
    PRIMARY KEY (account_id, day)
) WITH (fillfactor = 80)"#;
    const INDEXES: &'static str = "";

    async fn load(
        conn: &mut PgConnection,
        keys: &[DayOfAccount],
    ) -> Result<Vec<(DayOfAccount, DayRow)>, sqlx::Error> {
        let accounts: Vec<&str> = keys.iter().map(|key| key.account_id.as_str()).collect();
        let days: Vec<Date> = keys.iter().map(|key| key.day).collect();
        let rows = sqlx::query(LOAD)
            .bind(accounts)
            .bind(days)
            .fetch_all(conn)
            .await?;
        rows.iter()
            .map(|row| {
                let key = DayOfAccount {
                    account_id: AccountId::new(columns::id(row, "account_id")?),
                    day: row.try_get("day")?,
                };
                Ok((key, from_row(row)?))
            })
            .collect()
    }

    async fn store(
        conn: &mut PgConnection,
        rows: &[(DayOfAccount, Option<DayRow>)],
    ) -> Result<(), sqlx::Error> {
        // No event removes a day.
        let kept = rows
            .iter()
            .filter_map(|(key, row)| Some((key, row.as_ref()?)));
        let (keys, rows): (Vec<&DayOfAccount>, Vec<&DayRow>) = kept.unzip();
        sqlx::query(STORE)
            .bind(column(&keys, |key| key.account_id.as_str()))
            .bind(column(&keys, |key| key.day))
            .bind(column(&rows, |row| row.opening.get()))
            .bind(column(&rows, |row| row.closing.get()))
            .bind(column(&rows, |row| row.credits.get()))
            .bind(column(&rows, |row| row.debits.get()))
            .bind(column(&rows, |row| {
                i64::try_from(row.movements).unwrap_or(i64::MAX)
            }))
            .bind(column(&rows, |row| row.version.as_i64()))
            .execute(conn)
            .await?;
        Ok(())
    }
}

fn from_row(row: &PgRow) -> Result<DayRow, sqlx::Error> {
    Ok(DayRow {
        opening: columns::money(row, "opening")?,
        closing: columns::money(row, "closing")?,
        credits: columns::money(row, "credits")?,
        debits: columns::money(row, "debits")?,
        movements: columns::count(row, "movements")?,
        version: columns::version(row)?,
    })
}

// ------------------------------------------------------------------------------------- routes

/// The most days of one answer: a year.
pub const MAX_DAYS: i64 = 366;

/// The days of a range, the last one before it, from which the balance is carried over, and the
/// first one after it, which only shows that the account exists.
const DAYS: &str = concat!(
    "(SELECT ",
    columns!(),
    " FROM daily_balances WHERE account_id = $1 AND day < $2 ORDER BY day DESC LIMIT 1)
     UNION ALL
     (SELECT ",
    columns!(),
    " FROM daily_balances WHERE account_id = $1 AND day >= $2 AND day < $3)
     UNION ALL
     (SELECT ",
    columns!(),
    " FROM daily_balances WHERE account_id = $1 AND day >= $3 ORDER BY day LIMIT 1)"
);

/// The query with the names of its parameters' types, for the test that looks at its plan.
pub const QUERIES: [(&str, &str, &str); 1] = [("days", "text, date, date", DAYS)];

/// The routes that answer from this view.
pub fn routes() -> OpenApiRouter<QueryState> {
    OpenApiRouter::new().routes(routes!(list_daily_balances))
}

/// The range of days.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct Range {
    /// The first day: a date, or a time at which a day begins in UTC.
    #[param(inline)]
    from: TimeBound,
    /// The day after the last one: a date, or a time at which a day begins in UTC. At most 366 days
    /// after `from`.
    #[param(inline)]
    to: TimeBound,
}

impl Range {
    fn days(&self) -> Result<(Date, Date), Problem> {
        let (from, to) = (day("from", self.from)?, day("to", self.to)?);
        if from > to {
            return Err(invalid_parameter("from", "must not be after to"));
        }
        if (to - from).whole_days() > MAX_DAYS {
            let reason = format!("must be at most {MAX_DAYS} days after from; ask in parts");
            return Err(invalid_parameter("to", reason));
        }
        Ok((from, to))
    }
}

/// The day that begins at a bound.
fn day(name: &str, TimeBound(at): TimeBound) -> Result<Date, Problem> {
    if at.is_start_of_day() {
        return Ok(at.date());
    }
    let reason = "must be a date, or a time at which a day begins in UTC";
    Err(invalid_parameter(name, reason))
}

/// What was on an account on a day.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
struct DailyBalance {
    /// The day in UTC.
    #[serde(with = "iso_date")]
    #[schema(value_type = String, format = Date)]
    date: Date,
    /// What was on it when the day began.
    opening_balance: Money,
    /// What was on it when the day ended, or is on it now.
    closing_balance: Money,
    /// What came on this day.
    credits: Money,
    /// What went on this day.
    debits: Money,
    /// How many movements there were.
    movements: u64,
}

time::serde::format_description!(iso_date, Date, "[year]-[month]-[day]");

/// Read an account's daily balances
///
/// A row for every day of the range, the oldest first, whether something moved on it or not: a day
/// without movement has the balance of the day before, and a day before the account was opened has
/// 0.00. The range is one page, of at most 366 days.
#[utoipa::path(
    get, path = "/accounts/{id}/daily-balances", tag = "banking",
    params(("id" = EntityId, Path, description = "The account."), Range, ReadParams),
    responses((status = 200, description = "The days.", body = Page<DailyBalance>)),
)]
async fn list_daily_balances(
    State(state): State<QueryState>,
    PathId(id): PathId,
    read: Read<Range>,
) -> Result<Response, Problem> {
    let (from, to) = read.query.days()?;
    let id = AccountId::new(id);
    let (rows, token) = from_postgres(
        &state.daily_balances,
        state.log.context(),
        read.consistency,
        "account_daily_balances",
        |conn| days(conn, id.clone(), (from, to)).boxed(),
    )
    .await?;
    if rows.is_empty() {
        return Err(not_found(&id));
    }
    let page = Page {
        items: filled(&rows, from, to),
        next_cursor: None,
    };
    read.reading.page(&page, token.as_ref())
}

async fn days(
    conn: &mut PgConnection,
    id: AccountId,
    (from, to): (Date, Date),
) -> Result<BTreeMap<Date, DayRow>, sqlx::Error> {
    let rows = sqlx::query(DAYS)
        .bind(id.as_str())
        .bind(from)
        .bind(to)
        .fetch_all(conn)
        .await?;
    rows.iter()
        .map(|row| Ok((row.try_get("day")?, from_row(row)?)))
        .collect()
}

/// Every day from one and before another, given the days on which something moved.
fn filled(rows: &BTreeMap<Date, DayRow>, from: Date, to: Date) -> Vec<DailyBalance> {
    let before = rows.range(..from).next_back();
    let mut balance = before.map_or(Money::ZERO, |(_, row)| row.closing);
    let days = std::iter::successors(Some(from), |day| day.next_day());
    days.take_while(|day| *day < to)
        .map(|date| {
            let row = rows.get(&date).copied();
            let row = row.unwrap_or_else(|| DayRow::quiet(balance, StreamVersion::ZERO));
            balance = row.closing;
            DailyBalance {
                date,
                opening_balance: row.opening,
                closing_balance: row.closing,
                credits: row.credits,
                debits: row.debits,
                movements: row.movements,
            }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use time::macros::date;

    use super::*;
    use crate::testing::{deposited, fold, life, recorded};

    /// The days of an account after these events.
    fn folded(events: &[AccountEvent]) -> BTreeMap<Date, DayRow> {
        let mut days = BTreeMap::new();
        for (version, event) in (1..).zip(events) {
            let envelope = recorded(event, version);
            if DailyBalances::decode(&envelope).unwrap().is_none() {
                continue;
            }
            let recorded = Recorded {
                event,
                envelope: &envelope,
            };
            let day = DailyBalances::key(recorded).day;
            let row = DailyBalances::fold(days.remove(&day), recorded).unwrap();
            days.insert(day, row.unwrap());
        }
        days
    }

    #[test]
    fn every_day_has_a_balance_whether_something_moved_or_not() {
        let days = folded(&life());
        assert_eq!(days.len(), 3, "three days on which something happened");
        let shown = |from: Date, to: Date| -> Vec<_> {
            let days = filled(&days, from, to);
            let shown = |day: &DailyBalance| {
                json!([
                    day.date.to_string(),
                    day.opening_balance,
                    day.closing_balance,
                    day.credits,
                    day.debits,
                    day.movements
                ])
            };
            days.iter().map(shown).collect()
        };
        assert_eq!(
            shown(date!(2025 - 12 - 31), date!(2026 - 01 - 06)),
            [
                json!(["2025-12-31", "0.00", "0.00", "0.00", "0.00", 0]),
                json!(["2026-01-01", "0.00", "0.00", "0.00", "0.00", 0]),
                json!(["2026-01-02", "0.00", "70.00", "100.00", "30.00", 2]),
                json!(["2026-01-03", "70.00", "0.00", "0.00", "70.00", 2]),
                json!(["2026-01-04", "0.00", "0.00", "0.00", "0.00", 0]),
                json!(["2026-01-05", "0.00", "0.00", "0.00", "0.00", 0]),
            ]
        );
        assert!(shown(date!(2026 - 01 - 02), date!(2026 - 01 - 02)).is_empty());
    }

    #[test]
    fn the_balance_of_the_last_day_before_a_range_is_carried_into_it() {
        let days = folded(&life()[..3]);
        let page = filled(&days, date!(2026 - 03 - 01), date!(2026 - 03 - 03));
        assert!(page.iter().all(|day| {
            day.opening_balance == Money::from_cents(7_000)
                && day.closing_balance == day.opening_balance
        }));
        assert_eq!(page.len(), 2);
    }

    #[test]
    fn a_contradiction_within_a_day_is_refused() {
        let days = folded(&life()[..3]);
        let row = days.get(&date!(2026 - 01 - 02)).copied();
        let refused = |event: &AccountEvent, version| {
            let refused = fold::<DailyBalances>(row, event, version);
            refused.unwrap_err().to_string()
        };
        assert_eq!(
            refused(&deposited("1", "1"), 4),
            "the movement begins at 0.00 and the account is at 70.00"
        );
        assert_eq!(
            refused(&deposited("1", "71"), 3),
            "version 3 comes after version 3 of the account"
        );
        assert_eq!(refused(&life()[0], 4), "the account was opened before");
    }

    #[test]
    fn a_range_is_of_whole_days_and_of_one_year_at_most() {
        let range = |from: &str, to: &str| {
            let range = Range {
                from: from.parse().unwrap(),
                to: to.parse().unwrap(),
            };
            range
                .days()
                .map_err(|problem| problem.errors()[0].pointer().to_owned())
        };
        let whole = range("2026-01-01", "2027-01-02T01:00:00+01:00").unwrap();
        assert_eq!(whole, (date!(2026 - 01 - 01), date!(2027 - 01 - 02)));
        assert_eq!(range("2026-01-01", "2027-01-03").unwrap_err(), "/to");
        assert_eq!(range("2026-01-02", "2026-01-01").unwrap_err(), "/from");
        let within = range("2026-01-01T12:00:00Z", "2026-01-02");
        assert_eq!(within.unwrap_err(), "/from");
        let within = range("2026-01-01", "2026-01-02T12:00:00Z");
        assert_eq!(within.unwrap_err(), "/to");
    }
}
