//! How many orders, and for how much? Answered from sums that the fold keeps, by day and status.
//!
//! An order counts on the day of its creation, under the status it has, until it is deleted. The
//! sums stand twice: per user, and over all users. The latter would be a handful of rows that
//! every partition fights over, so each partition has its own and the query adds them up.

use std::collections::BTreeMap;

use axum::{extract::State, response::Response};
use futures::FutureExt;
use millrace_es::{
    Additions, DecodeError, FoldError, Projection, Recorded, RecordedEvent, TallyProjection,
};
use millrace_http::{Problem, Read, ReadParams};
use millrace_kernel::{EntityId, IdInput, Money, TimeBound};
use millrace_projecting::PgTally;
use millrace_querying::{from_postgres, invalid_parameter};
use rust_decimal::Decimal;
use serde::{Deserialize, Serialize};
use sqlx::PgConnection;
use time::{Date, macros::date};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::{router::OpenApiRouter, routes};

use crate::{
    CONTEXT,
    order::{InvalidStatus, OrderEvent, OrderStatus, UserId, stored::order_event},
    queries::QueryState,
};

// ---------------------------------------------------------------------------------------- sum

/// Names a sum.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SumKey {
    /// Whose orders.
    pub whose: Whose,
    /// The day of their creation, in UTC.
    pub day: Date,
    /// The status they have.
    pub status: OrderStatus,
}

/// Whose orders a sum is over.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Whose {
    /// Everybody's, as far as their events came through one partition.
    All {
        /// The partition.
        partition: u16,
    },
    /// One user's.
    User(UserId),
}

impl Whose {
    /// What stands in `user_id`: no user has an empty id.
    fn user_id(&self) -> &str {
        match self {
            Self::All { .. } => EVERYBODY,
            Self::User(user) => user.as_str(),
        }
    }

    fn shard(&self) -> i16 {
        match self {
            Self::All { partition } => i16::try_from(*partition).unwrap_or(i16::MAX),
            Self::User(_) => 0,
        }
    }
}

/// What stands in place of a user's id in the sums over all users.
const EVERYBODY: &str = "";

/// What is added to a sum.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Change {
    /// Orders.
    pub count: i64,
    /// What they cost.
    pub amount: Decimal,
}

impl std::ops::AddAssign for Change {
    fn add_assign(&mut self, other: Self) {
        self.count += other.count;
        // An order costs less than 10^8; a decimal holds 10^28.
        self.amount = self.amount.saturating_add(other.amount);
    }
}

impl std::ops::Neg for Change {
    type Output = Self;
    fn neg(self) -> Self {
        Self {
            count: -self.count,
            amount: -self.amount,
        }
    }
}

// --------------------------------------------------------------------------------------- fold

/// The projection `order-statistics`.
#[derive(Debug)]
pub struct OrderStatistics;

impl Projection for OrderStatistics {
    const NAME: &'static str = "order-statistics";
    const VERSION: u32 = 1;
    const CONTEXTS: &'static [&'static str] = &[CONTEXT];

    type Event = OrderEvent;

    fn decode(event: &RecordedEvent) -> Result<Option<OrderEvent>, DecodeError> {
        order_event(event)
    }
}

impl TallyProjection for OrderStatistics {
    type Key = SumKey;
    type Delta = Change;

    fn tally(
        Recorded { event, envelope }: Recorded<'_, OrderEvent>,
    ) -> Result<Additions<SumKey, Change>, FoldError> {
        let (user, created_at, amount, gone, come) = match event {
            OrderEvent::Created(e) => {
                let come = Some(OrderStatus::Pending);
                (&e.user_id, e.created_at, e.total_amount, None, come)
            }
            OrderEvent::StatusUpdated(e) => {
                let (gone, come) = (Some(e.from), Some(e.to));
                (&e.user_id, e.created_at, e.total_amount, gone, come)
            }
            OrderEvent::Deleted(e) => {
                let gone = Some(e.status);
                (&e.user_id, e.created_at, e.total_amount, gone, None)
            }
        };
        let order = Change {
            count: 1,
            amount: amount.get(),
        };
        let steps = [gone.map(|s| (s, -order)), come.map(|s| (s, order))];
        let mut changes = Vec::with_capacity(4);
        for (status, change) in steps.into_iter().flatten() {
            for whose in [
                Whose::All {
                    partition: envelope.partition.get(),
                },
                Whose::User(user.clone()),
            ] {
                let day = created_at.date();
                changes.push((SumKey { whose, day, status }, change));
            }
        }
        Ok(changes)
    }
}

// -------------------------------------------------------------------------------------- table

const ADD: &str = "
INSERT INTO order_statistics AS t (user_id, day, status, shard, count, amount)
SELECT * FROM UNNEST($1::text[], $2::date[], $3::text[], $4::smallint[], $5::bigint[], $6::numeric[])
ON CONFLICT (user_id, day, status, shard)
DO UPDATE SET count = t.count + excluded.count, amount = t.amount + excluded.amount";

impl PgTally for OrderStatistics {
    const TABLES: &'static str = r#"
CREATE TABLE order_statistics (
    user_id text COLLATE "C" NOT NULL,
    day date NOT NULL,
    status varchar(20) NOT NULL,
    shard smallint NOT NULL,
    count bigint NOT NULL,
    amount numeric(20,2) NOT NULL,
    PRIMARY KEY (user_id, day, status, shard)
) WITH (fillfactor = 70)"#;
    const INDEXES: &'static str = "";

    async fn add(conn: &mut PgConnection, deltas: &[(SumKey, Change)]) -> Result<(), sqlx::Error> {
        let users: Vec<&str> = deltas.iter().map(|(key, _)| key.whose.user_id()).collect();
        let days: Vec<Date> = deltas.iter().map(|(key, _)| key.day).collect();
        let statuses: Vec<&str> = deltas.iter().map(|(key, _)| key.status.as_str()).collect();
        let shards: Vec<i16> = deltas.iter().map(|(key, _)| key.whose.shard()).collect();
        let counts: Vec<i64> = deltas.iter().map(|(_, change)| change.count).collect();
        let amounts: Vec<Decimal> = deltas.iter().map(|(_, change)| change.amount).collect();
        sqlx::query(ADD)
            .bind(users)
            .bind(days)
            .bind(statuses)
            .bind(shards)
            .bind(counts)
            .bind(amounts)
            .execute(conn)
            .await?;
        Ok(())
    }
}

// ------------------------------------------------------------------------------------- routes

/// The most sums, of a day and a status each, that one answer is made of: five statuses for 200
/// years.
const MAX_SUMS: i64 = 5 * 366 * 200;

/// Before every order there can be.
const FIRST_DAY: Date = date!(0001 - 01 - 01);
/// After every order there can be.
const LAST_DAY: Date = date!(9999 - 12 - 31);

const SUMS: &str = "
SELECT day, status, sum(count)::bigint, sum(amount)
FROM order_statistics
WHERE user_id = $1 AND day >= $2 AND day < $3
GROUP BY day, status
HAVING sum(count) <> 0
ORDER BY day, status
LIMIT $4";

/// The query with the names of its parameters' types, for the test that looks at its plans.
pub const QUERY: (&str, &str, &str) = ("sums", "text, date, date, bigint", SUMS);

/// The routes that answer from this view.
pub fn routes() -> OpenApiRouter<QueryState> {
    OpenApiRouter::new().routes(routes!(get_order_statistics))
}

/// Which orders are counted.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct Which {
    /// Orders created on this day or after it: a date, or a time at which a day begins in UTC.
    from: Option<TimeBound>,
    /// Orders created before this day: a date, or a time at which a day begins in UTC.
    to: Option<TimeBound>,
    /// This user's orders only.
    #[param(value_type = Option<IdInput>)]
    user_id: Option<EntityId>,
}

/// How many orders, and for how much.
#[derive(Debug, Default, Serialize, ToSchema)]
#[schema(as = OrderStatistics)]
struct Statistics {
    /// How many orders.
    total_orders: u64,
    /// What they cost.
    total_amount: Money,
    /// What one of them costs on average, rounded half up; `0.00` when there are none.
    average_amount: Money,
    /// By the status they have; a status that no order has is missing.
    #[schema(value_type = BTreeMap<String, Sum>)]
    by_status: BTreeMap<&'static str, Sum>,
    /// By the day of their creation in UTC, oldest first; a day without orders is missing.
    by_day: Vec<DaySum>,
}

/// How many orders, and what they cost.
#[derive(Debug, Default, Clone, Copy, Serialize, ToSchema)]
#[schema(as = OrderSum)]
struct Sum {
    /// How many orders.
    count: u64,
    /// What they cost.
    amount: Money,
}

/// The orders of one day.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = OrderDaySum)]
struct DaySum {
    /// The day in UTC.
    #[serde(with = "iso_date")]
    #[schema(value_type = String, format = Date)]
    date: Date,
    /// How many orders.
    count: u64,
    /// What they cost.
    amount: Money,
}

time::serde::format_description!(iso_date, Date, "[year]-[month]-[day]");

/// Read the statistics of orders
///
/// An order counts on the day of its creation, under the status it has. Deleted orders do not
/// count, cancelled ones do.
#[utoipa::path(
    get, path = "/orders/statistics", tag = "ordering", params(Which, ReadParams),
    responses((status = 200, description = "The statistics.", body = Statistics)),
)]
async fn get_order_statistics(
    State(state): State<QueryState>,
    read: Read<Which>,
) -> Result<Response, Problem> {
    let Which { from, to, user_id } = read.query;
    let (from, to) = (day("from", from)?, day("to", to)?);
    if let (Some(from), Some(to)) = (from, to)
        && from > to
    {
        return Err(invalid_parameter("from", "must not be after to"));
    }
    let range = (from.unwrap_or(FIRST_DAY), to.unwrap_or(LAST_DAY));
    let whose = user_id.map_or_else(|| EVERYBODY.to_owned(), |user| user.to_string());
    let (sums, token) = from_postgres(
        &state.order_statistics,
        state.log.context(),
        read.consistency,
        "order_statistics",
        |conn| sums(conn, whose.clone(), range).boxed(),
    )
    .await?;
    let statistics = Statistics::of(&sums).map_err(Problem::internal)?;
    read.reading.json(&statistics, token.as_ref())
}

/// The day that begins at a bound.
fn day(name: &str, bound: Option<TimeBound>) -> Result<Option<Date>, Problem> {
    match bound {
        Some(TimeBound(at)) if !at.is_start_of_day() => Err(invalid_parameter(
            name,
            "must be a date, or a time at which a day begins in UTC: orders are counted by day",
        )),
        bound => Ok(bound.map(|TimeBound(at)| at.date())),
    }
}

/// A day's orders of one status: the day, the status, how many, and what they cost.
type StatusOfDay = (Date, OrderStatus, u64, Money);

async fn sums(
    conn: &mut PgConnection,
    whose: String,
    (from, to): (Date, Date),
) -> Result<Vec<StatusOfDay>, sqlx::Error> {
    let decode = |error: Box<dyn std::error::Error + Send + Sync>| sqlx::Error::Decode(error);
    sqlx::query_as::<_, (Date, String, i64, Decimal)>(SUMS)
        .bind(whose)
        .bind(from)
        .bind(to)
        .bind(MAX_SUMS)
        .fetch_all(conn)
        .await?
        .into_iter()
        .map(|(day, status, count, amount)| {
            let status = status
                .parse()
                .map_err(|e: InvalidStatus| decode(e.into()))?;
            let count = u64::try_from(count).map_err(|e| decode(e.into()))?;
            let amount = Money::new(amount).map_err(|e| decode(e.into()))?;
            Ok((day, status, count, amount))
        })
        .collect()
}

impl Sum {
    /// `None` past the range of a decimal.
    fn plus(self, count: u64, amount: Money) -> Option<Self> {
        Some(Self {
            count: self.count.checked_add(count)?,
            amount: self.amount.checked_add(amount)?,
        })
    }
}

impl Statistics {
    /// Adds up the sums of each day and status, sorted by day.
    fn of(sums: &[StatusOfDay]) -> Result<Self, &'static str> {
        let mut all = Sum::default();
        let mut by_status: BTreeMap<&'static str, Sum> = BTreeMap::new();
        let mut by_day: Vec<DaySum> = Vec::new();
        for &(date, status, count, amount) in sums {
            let add = |sum: Sum| {
                sum.plus(count, amount)
                    .ok_or("a sum of orders is too large")
            };
            all = add(all)?;
            let of_status = by_status.entry(status.as_str()).or_default();
            *of_status = add(*of_status)?;
            match by_day.last_mut() {
                Some(day) if day.date == date => {
                    let sum = add(Sum {
                        count: day.count,
                        amount: day.amount,
                    })?;
                    (day.count, day.amount) = (sum.count, sum.amount);
                }
                _ => by_day.push(DaySum {
                    date,
                    count,
                    amount,
                }),
            }
        }
        Ok(Self {
            total_orders: all.count,
            total_amount: all.amount,
            average_amount: all.amount.average(all.count),
            by_status,
            by_day,
        })
    }
}

#[cfg(test)]
mod tests {
    use time::macros::date;

    use super::*;
    use crate::testing::{life, recorded};

    /// The sums after these events, without those that are nothing.
    fn tallied(events: &[OrderEvent]) -> BTreeMap<SumKey, Change> {
        let mut sums: BTreeMap<SumKey, Change> = BTreeMap::new();
        for (version, event) in (1..).zip(events) {
            let envelope = recorded(event, version, 3);
            let recorded = Recorded {
                event,
                envelope: &envelope,
            };
            for (key, change) in OrderStatistics::tally(recorded).unwrap() {
                *sums.entry(key).or_default() += change;
            }
        }
        sums.retain(|_, sum| *sum != Change::default());
        sums
    }

    #[test]
    fn an_order_counts_once_for_all_and_once_for_its_user_until_it_is_deleted() {
        let life = life();
        for (upto, status) in [(1, OrderStatus::Pending), (2, OrderStatus::Confirmed)] {
            let sums = tallied(&life[..upto]);
            assert_eq!(sums.len(), 2);
            for (key, sum) in sums {
                assert_eq!((key.day, key.status), (date!(2026 - 01 - 31), status));
                assert_eq!((sum.count, sum.amount), (1, "499.50".parse().unwrap()));
                assert!(match &key.whose {
                    Whose::All { partition } => *partition == 3,
                    Whose::User(user) => user.as_str() == "shivam_99",
                });
            }
        }
        assert_eq!(tallied(&life), BTreeMap::new());
    }

    #[test]
    fn statistics_add_up() {
        let amount = Money::from_cents;
        let (one, two) = (date!(2026 - 01 - 31), date!(2026 - 02 - 01));
        let statistics = Statistics::of(&[
            (one, OrderStatus::Cancelled, 1, amount(100)),
            (one, OrderStatus::Pending, 2, amount(400)),
            (two, OrderStatus::Pending, 1, amount(1)),
        ])
        .unwrap();
        assert_eq!(
            serde_json::to_value(&statistics).unwrap(),
            serde_json::json!({
                "total_orders": 4,
                "total_amount": "5.01",
                "average_amount": "1.25",
                "by_status": {
                    "CANCELLED": {"count": 1, "amount": "1.00"},
                    "PENDING": {"count": 3, "amount": "4.01"},
                },
                "by_day": [
                    {"date": "2026-01-31", "count": 3, "amount": "5.00"},
                    {"date": "2026-02-01", "count": 1, "amount": "0.01"},
                ],
            })
        );
    }

    #[test]
    fn a_bound_within_a_day_is_refused() {
        let bound = |text: &str| day("from", Some(text.parse().unwrap()));
        assert_eq!(bound("2026-01-31").unwrap(), Some(date!(2026 - 01 - 31)));
        assert_eq!(
            bound("2026-01-31T01:00:00+01:00").unwrap(),
            Some(date!(2026 - 01 - 31))
        );
        let problem = bound("2026-01-31T12:00:00Z").unwrap_err();
        assert_eq!(problem.errors()[0].pointer(), "/from");
    }
}
