//! The lists of orders, each with the one query that answers it.
//!
//! Every query goes on after a place in its list's order, so that a page costs the same wherever
//! it begins and survives what is inserted meanwhile; the first page begins after a place before
//! all others.

use millrace_kernel::{Money, Timestamp};
use millrace_projecting::containing;
use rust_decimal::Decimal;
use sqlx::{Postgres, postgres::PgArguments, query::Query};
use time::macros::datetime;

use crate::order::{OrderStatus, UserId};

/// After every order that there can be: the times of RFC 3339 end before.
const END_OF_TIME: time::OffsetDateTime = datetime!(9999-12-31 23:59:59.999999 UTC);
/// Above every amount that there can be.
const ABOVE_ALL_AMOUNTS: Decimal = Decimal::from_parts(100_000_000, 0, 0, false, 0);

/// Which orders, newest first.
#[derive(Debug, Clone)]
pub(super) enum Newest {
    /// All of them, with deleted ones if wanted.
    All { include_deleted: bool },
    /// Those created from one instant and before another.
    Between { from: Timestamp, to: Timestamp },
    /// A user's.
    OfUser(UserId),
    /// Those of a status.
    WithStatus(OrderStatus),
    /// A user's of a status.
    OfUserWithStatus(UserId, OrderStatus),
    /// Those whose user's name matches a pattern of `ILIKE`.
    Named(String),
}

macro_rules! newest {
    ($($condition:literal),+; $at:literal, $id:literal, $limit:literal) => {
        concat!(
            "SELECT ", shown!(), " FROM ", orders_with_users!(), " WHERE ", $($condition,)+
            " AND (created_at, id) < (", $at, ", ", $id, ")",
            " ORDER BY created_at DESC, id DESC LIMIT ", $limit
        )
    };
}

const ALL: &str = newest!("created_at >= $1", " AND (NOT is_deleted OR $2)"; "$3", "$4", "$5");
const OF_USER: &str = newest!("user_id = $1 AND NOT is_deleted"; "$2", "$3", "$4");
const WITH_STATUS: &str = newest!("status = $1 AND NOT is_deleted"; "$2", "$3", "$4");
const OF_USER_WITH_STATUS: &str =
    newest!("user_id = $1 AND status = $2 AND NOT is_deleted"; "$3", "$4", "$5");

/// Of each user who has the name, no more than the page can hold is read.
const NAMED: &str = concat!(
    "SELECT ",
    shown!(),
    " FROM (SELECT user_id AS named_id, username, email FROM order_users WHERE username ILIKE $1) u",
    " CROSS JOIN LATERAL (SELECT ",
    columns!(),
    " FROM order_read_models WHERE user_id = u.named_id AND NOT is_deleted",
    " AND (created_at, id) < ($2, $3) ORDER BY created_at DESC, id DESC LIMIT $4) o",
    " ORDER BY created_at DESC, id DESC LIMIT $4"
);

pub(super) const ABOVE: &str = concat!(
    "SELECT ",
    shown!(),
    " FROM ",
    orders_with_users!(),
    " WHERE total_amount > $1 AND NOT is_deleted",
    " AND (total_amount, id) < ($2, $3) ORDER BY total_amount DESC, id DESC LIMIT $4"
);

/// The query behind every list with the names of its parameters' types, for the test that looks
/// at their plans.
pub const QUERIES: [(&str, &str, &str); 6] = [
    (
        "all",
        "timestamptz, boolean, timestamptz, text, bigint",
        ALL,
    ),
    ("of_user", "text, timestamptz, text, bigint", OF_USER),
    (
        "with_status",
        "text, timestamptz, text, bigint",
        WITH_STATUS,
    ),
    (
        "of_user_with_status",
        "text, text, timestamptz, text, bigint",
        OF_USER_WITH_STATUS,
    ),
    ("named", "text, timestamptz, text, bigint", NAMED),
    ("above", "numeric, numeric, text, bigint", ABOVE),
];

/// A query with its arguments so far.
pub(super) type Bound<'q> = Query<'q, Postgres, PgArguments>;

impl Newest {
    /// The query's name in the metric.
    pub(super) const fn name(&self) -> &'static str {
        match self {
            Self::All { .. } => "orders",
            Self::Between { .. } => "orders_by_date_range",
            Self::OfUser(_) => "orders_by_user",
            Self::WithStatus(_) => "orders_by_status",
            Self::OfUserWithStatus(..) => "orders_by_user_and_status",
            Self::Named(_) => "orders_by_username",
        }
    }

    /// The place before all of the list.
    pub(super) fn start(&self) -> time::OffsetDateTime {
        match self {
            Self::Between { to, .. } => to.get(),
            _ => END_OF_TIME,
        }
    }

    /// The query with what selects the orders; what is left to bind is the place (its time and its
    /// id) and the limit.
    pub(super) fn query(&self) -> Bound<'_> {
        match self {
            Self::All { include_deleted } => sqlx::query(ALL)
                .bind(time::OffsetDateTime::UNIX_EPOCH)
                .bind(*include_deleted),
            Self::Between { from, .. } => sqlx::query(ALL).bind(from.get()).bind(false),
            Self::OfUser(user) => sqlx::query(OF_USER).bind(user.as_str()),
            Self::WithStatus(status) => sqlx::query(WITH_STATUS).bind(status.as_str()),
            Self::OfUserWithStatus(user, status) => sqlx::query(OF_USER_WITH_STATUS)
                .bind(user.as_str())
                .bind(status.as_str()),
            Self::Named(pattern) => sqlx::query(NAMED).bind(pattern),
        }
    }

    /// Those whose user's name contains a text, whatever its case.
    pub(super) fn named(part: &str) -> Self {
        Self::Named(containing(part))
    }
}

/// The place above all amounts, or the given one.
pub(super) fn from_amount(after: Option<Money>) -> Decimal {
    after.map_or(ABOVE_ALL_AMOUNTS, Money::get)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_page_begins_above_every_amount() {
        assert!(crate::order::MAX_TOTAL_AMOUNT.get() < ABOVE_ALL_AMOUNTS);
    }
}
