//! The list of accounts: the one query that answers it for each way to select them.
//!
//! Every query goes on after a place in the list's order, newest first, so that a page costs the
//! same wherever it begins and survives what is inserted meanwhile; the first page begins after a
//! place before all others. An account keeps its place for life, whatever moves on it.

use millrace_kernel::Money;
use sqlx::{Postgres, postgres::PgArguments, query::Query};
use time::macros::datetime;

use crate::account::{AccountStatus, MAX_BALANCE};

/// After every account that there can be: the times of RFC 3339 end before.
pub(super) const END_OF_TIME: time::OffsetDateTime = datetime!(9999-12-31 23:59:59.999999 UTC);

/// Which accounts.
#[derive(Debug, Clone)]
pub(super) struct Selection {
    /// Those whose holder's name matches a pattern of `ILIKE`.
    pub(super) holder: Option<String>,
    /// Those of a status.
    pub(super) status: Option<AccountStatus>,
    /// Those with at least this on them.
    pub(super) min_balance: Option<Money>,
    /// Those with at most this on them.
    pub(super) max_balance: Option<Money>,
}

macro_rules! newest {
    ($from:literal, $condition:literal; $min:literal, $max:literal, $at:literal, $id:literal, $limit:literal) => {
        concat!(
            "SELECT ",
            columns!(),
            " FROM ",
            $from,
            " WHERE ",
            $condition,
            "balance >= ",
            $min,
            " AND balance <= ",
            $max,
            " AND (opened_at, account_id) < (",
            $at,
            ", ",
            $id,
            ")",
            " ORDER BY opened_at DESC, account_id DESC LIMIT ",
            $limit
        )
    };
}

const ALL: &str = newest!("accounts", ""; "$1", "$2", "$3", "$4", "$5");
const WITH_STATUS: &str = newest!("accounts", "status = $1 AND "; "$2", "$3", "$4", "$5", "$6");
/// How many have the name decides how they are found: few of them through the index of names, many
/// along the list. So it is planned anew each time, see [`Selection::query`].
const HELD: &str = newest!(
    "accounts JOIN (SELECT account_id FROM account_holders WHERE holder_name ILIKE $1) \
     AS held USING (account_id)",
    "($2::text IS NULL OR status = $2) AND ";
    "$3", "$4", "$5", "$6", "$7"
);

/// The query behind every list with the names of its parameters' types, for the test that looks
/// at their plans.
pub const QUERIES: [(&str, &str, &str); 3] = [
    ("all", "numeric, numeric, timestamptz, text, bigint", ALL),
    (
        "with_status",
        "text, numeric, numeric, timestamptz, text, bigint",
        WITH_STATUS,
    ),
    (
        "held",
        "text, text, numeric, numeric, timestamptz, text, bigint",
        HELD,
    ),
];

impl Selection {
    /// The query's name in the metric.
    pub(super) const fn name(&self) -> &'static str {
        match (&self.holder, self.status) {
            (Some(_), _) => "accounts_by_holder",
            (None, Some(_)) => "accounts_by_status",
            (None, None) => "accounts",
        }
    }

    /// The query with what selects the accounts; what is left to bind is the place (its time and
    /// its id) and the limit.
    pub(super) fn query(&self) -> Query<'_, Postgres, PgArguments> {
        let status = self.status.map(AccountStatus::as_str);
        let query = match (&self.holder, status) {
            // One plan for every name would walk along the whole list for a name that nobody has.
            (Some(pattern), status) => sqlx::query(HELD)
                .persistent(false)
                .bind(pattern)
                .bind(status),
            (None, Some(status)) => sqlx::query(WITH_STATUS).bind(status),
            (None, None) => sqlx::query(ALL),
        };
        query
            .bind(self.min_balance.unwrap_or(Money::ZERO).get())
            .bind(self.max_balance.unwrap_or(MAX_BALANCE).get())
    }
}
