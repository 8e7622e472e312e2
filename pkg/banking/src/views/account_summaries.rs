//! What has moved on an account in all? Answered from a row of sums that the fold keeps.

use axum::{extract::State, response::Response};
use futures::FutureExt;
use millrace_es::{DecodeError, FoldError, Projection, Recorded, RecordedEvent, RowProjection};
use millrace_http::{NoQuery, PathId, Problem, Read, ReadParams};
use millrace_kernel::{EntityId, Money, Timestamp};
use millrace_projecting::{Origin, Origins, PgRows};
use millrace_querying::from_postgres;
use serde::Serialize;
use sqlx::{PgConnection, postgres::PgRow};
use utoipa::ToSchema;
use utoipa_axum::{router::OpenApiRouter, routes};

use crate::{
    CONTEXT,
    account::{
        AccountEvent, AccountId, AccountStatus, Currency, MovementKind, stored::account_event,
    },
    columns::{self, column},
    ledger::Standing,
    problems::not_found,
    queries::QueryState,
};

// ---------------------------------------------------------------------------------------- row

/// The movements of one kind.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Tally {
    count: u64,
    total: Money,
    largest: Money,
}

impl Tally {
    /// `None` past the range of a decimal.
    fn plus(self, other: Self) -> Option<Self> {
        Some(Self {
            count: self.count.checked_add(other.count)?,
            total: self.total.checked_add(other.total)?,
            largest: self.largest.max(other.largest),
        })
    }
}

/// An account's sums.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SummaryRow {
    account_id: AccountId,
    currency: Currency,
    standing: Standing,
    /// By kind, in the order of [`MovementKind::ALL`].
    tallies: [Tally; MovementKind::ALL.len()],
    first_movement_at: Option<Timestamp>,
    last_movement_at: Option<Timestamp>,
}

// --------------------------------------------------------------------------------------- fold

/// The projection `account-summaries`.
#[derive(Debug)]
pub struct AccountSummaries;

impl Projection for AccountSummaries {
    const NAME: &'static str = "account-summaries";
    const VERSION: u32 = 1;
    const CONTEXTS: &'static [&'static str] = &[CONTEXT];

    type Event = AccountEvent;

    fn decode(event: &RecordedEvent) -> Result<Option<AccountEvent>, DecodeError> {
        account_event(event)
    }
}

impl RowProjection for AccountSummaries {
    type Key = AccountId;
    type Row = SummaryRow;

    fn key(Recorded { event, .. }: Recorded<'_, AccountEvent>) -> AccountId {
        event.account_id().clone()
    }

    fn starts(event: &AccountEvent) -> bool {
        matches!(event, AccountEvent::Opened(_))
    }

    fn fold(
        row: Option<SummaryRow>,
        recorded: Recorded<'_, AccountEvent>,
    ) -> Result<Option<SummaryRow>, FoldError> {
        let standing = Standing::after(row.as_ref().map(|row| row.standing), recorded)?;
        let Recorded { event, envelope } = recorded;
        let (mut row, movement) = match (row, event) {
            (_, AccountEvent::Opened(event)) => {
                return Ok(Some(SummaryRow {
                    account_id: event.account_id.clone(),
                    currency: event.currency,
                    standing,
                    tallies: Default::default(),
                    first_movement_at: None,
                    last_movement_at: None,
                }));
            }
            (Some(row), event) => (row, event.movement()),
            (None, _) => return Err(FoldError::new("the account was never opened")),
        };
        row.standing = standing;
        if let Some(movement) = movement {
            let one = Tally {
                count: 1,
                total: movement.amount,
                largest: movement.amount,
            };
            for (kind, tally) in MovementKind::ALL.into_iter().zip(&mut row.tallies) {
                if kind == movement.kind {
                    let too_large = || FoldError::new("more moved than can be summed up");
                    *tally = tally.plus(one).ok_or_else(too_large)?;
                }
            }
            row.first_movement_at.get_or_insert(envelope.recorded_at);
            row.last_movement_at = Some(envelope.recorded_at);
        }
        Ok(Some(row))
    }
}

// -------------------------------------------------------------------------------------- table

/// The columns of a summary; the sums of each kind stand in the order of [`MovementKind::ALL`].
macro_rules! columns {
    () => {
        "account_id, currency, balance, status, version, first_movement_at, last_movement_at, \
         deposits_count, deposits_total, deposits_largest, \
         withdrawals_count, withdrawals_total, withdrawals_largest, \
         transfers_sent_count, transfers_sent_total, transfers_sent_largest, \
         transfers_received_count, transfers_received_total, transfers_received_largest"
    };
}

/// The names of [`columns!`] that hold the sums of each kind: how many, how much, the largest.
const TALLIES: [[&str; 3]; MovementKind::ALL.len()] = [
    ["deposits_count", "deposits_total", "deposits_largest"],
    [
        "withdrawals_count",
        "withdrawals_total",
        "withdrawals_largest",
    ],
    [
        "transfers_sent_count",
        "transfers_sent_total",
        "transfers_sent_largest",
    ],
    [
        "transfers_received_count",
        "transfers_received_total",
        "transfers_received_largest",
    ],
];

const LOAD: &str = concat!(
    "SELECT ",
    columns!(),
    " FROM account_summaries WHERE account_id = ANY($1)"
);

const STORE: &str = concat!(
    "INSERT INTO account_summaries AS t (",
    columns!(),
    ") SELECT * FROM UNNEST($1::text[], $2::text[], $3::numeric[], $4::text[], $5::bigint[], \
     $6::timestamptz[], $7::timestamptz[], $8::bigint[], $9::numeric[], $10::numeric[], \
     $11::bigint[], $12::numeric[], $13::numeric[], $14::bigint[], $15::numeric[], \
     $16::numeric[], $17::bigint[], $18::numeric[], $19::numeric[])
     ON CONFLICT (account_id) DO UPDATE SET (",
    columns!(),
    ") = ROW (excluded.*)"
);

impl PgRows for AccountSummaries {
    const ORIGINS: Origins = &[(
        "account_summaries",
        Origin {
            column: "account_id",
            prefix: "account-",
        },
    )];

    /// In the order of the columns above, which one statement writes as a whole row.
    const TABLES: &'static str = r#"
CREATE TABLE account_summaries (
    account_id text COLLATE "C" PRIMARY KEY,
    currency text COLLATE "C" NOT NULL,
    balance numeric(18,2) NOT NULL,
    status text COLLATE "C" NOT NULL,
    version bigint NOT NULL,
    first_movement_at timestamptz,
    last_movement_at timestamptz,
    deposits_count bigint NOT NULL,
    deposits_total numeric(28,2) NOT NULL,
    deposits_largest numeric(18,2) NOT NULL,
    withdrawals_count bigint NOT NULL,
    withdrawals_total numeric(28,2) NOT NULL,
    withdrawals_largest numeric(18,2) NOT NULL,
    transfers_sent_count bigint NOT NULL,
    transfers_sent_total numeric(28,2) NOT NULL,
    transfers_sent_largest numeric(18,2) NOT NULL,
    transfers_received_count bigint NOT NULL,
    transfers_received_total numeric(28,2) NOT NULL,
    transfers_received_largest numeric(18,2) NOT NULL
) WITH (fillfactor = 80)"#;
    const INDEXES: &'static str = "";

    async fn load(
        conn: &mut PgConnection,
        keys: &[AccountId],
    ) -> Result<Vec<(AccountId, SummaryRow)>, sqlx::Error> {
        let ids: Vec<&str> = keys.iter().map(AccountId::as_str).collect();
        let rows = sqlx::query(LOAD).bind(ids).fetch_all(conn).await?;
        rows.iter()
            .map(|row| from_row(row).map(|row| (row.account_id.clone(), row)))
            .collect()
    }

    async fn store(
        conn: &mut PgConnection,
        rows: &[(AccountId, Option<SummaryRow>)],
    ) -> Result<(), sqlx::Error> {
        // No event removes a summary.
        let rows: Vec<&SummaryRow> = rows.iter().filter_map(|(_, row)| row.as_ref()).collect();
        let mut query = sqlx::query(STORE)
            .bind(column(&rows, |row| row.account_id.as_str()))
            .bind(column(&rows, |row| row.currency.as_str()))
            .bind(column(&rows, |row| row.standing.balance.get()))
            .bind(column(&rows, |row| row.standing.status.as_str()))
            .bind(column(&rows, |row| row.standing.version.as_i64()))
            .bind(column(&rows, |row| {
                row.first_movement_at.map(Timestamp::get)
            }))
            .bind(column(&rows, |row| {
                row.last_movement_at.map(Timestamp::get)
            }));
        for kind in 0..MovementKind::ALL.len() {
            query = query
                .bind(column(&rows, |row| {
                    i64::try_from(row.tallies[kind].count).unwrap_or(i64::MAX)
                }))
                .bind(column(&rows, |row| row.tallies[kind].total.get()))
                .bind(column(&rows, |row| row.tallies[kind].largest.get()));
        }
        query.execute(conn).await?;
        Ok(())
    }
}

/// Reads a row that has [`columns!`].
fn from_row(row: &PgRow) -> Result<SummaryRow, sqlx::Error> {
    let mut tallies = [Tally::default(); MovementKind::ALL.len()];
    for (tally, [count, total, largest]) in tallies.iter_mut().zip(TALLIES) {
        *tally = Tally {
            count: columns::count(row, count)?,
            total: columns::money(row, total)?,
            largest: columns::money(row, largest)?,
        };
    }
    Ok(SummaryRow {
        account_id: AccountId::new(columns::id(row, "account_id")?),
        currency: columns::currency(row, "currency")?,
        standing: Standing {
            balance: columns::money(row, "balance")?,
            status: columns::said(row, "status")?,
            version: columns::version(row)?,
        },
        tallies,
        first_movement_at: columns::optional_time(row, "first_movement_at")?,
        last_movement_at: columns::optional_time(row, "last_movement_at")?,
    })
}

// ------------------------------------------------------------------------------------- routes

const BY_ID: &str = concat!(
    "SELECT ",
    columns!(),
    " FROM account_summaries WHERE account_id = $1"
);

/// The routes that answer from this view.
pub fn routes() -> OpenApiRouter<QueryState> {
    OpenApiRouter::new().routes(routes!(get_account_summary))
}

/// Some movements, summed up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
struct MovementSums {
    /// How many.
    count: u64,
    /// How much they moved together.
    total: Money,
    /// The most that one moved; `0.00` when there are none.
    largest: Money,
    /// What one moved on average, rounded half up; `0.00` when there are none.
    average: Money,
}

impl From<Tally> for MovementSums {
    fn from(tally: Tally) -> Self {
        Self {
            count: tally.count,
            total: tally.total,
            largest: tally.largest,
            average: tally.total.average(tally.count),
        }
    }
}

/// What has moved on an account.
#[derive(Debug, Clone, Serialize, ToSchema)]
struct AccountSummary {
    /// The account.
    #[schema(value_type = EntityId)]
    account_id: AccountId,
    /// What it is kept in.
    #[schema(value_type = String, pattern = "^[A-Z]{3}$", example = "USD")]
    currency: Currency,
    /// What is on it.
    balance: Money,
    /// Whether money moves on it.
    status: AccountStatus,
    /// The version of its stream.
    #[schema(value_type = u64)]
    version: millrace_es::StreamVersion,
    /// All movements, whichever way.
    movements: MovementSums,
    /// What came: deposits, and transfers from other accounts.
    credits: MovementSums,
    /// What went: withdrawals, and transfers to other accounts.
    debits: MovementSums,
    /// Paid in.
    deposits: MovementSums,
    /// Paid out.
    withdrawals: MovementSums,
    /// Sent to other accounts.
    transfers_sent: MovementSums,
    /// Received from other accounts.
    transfers_received: MovementSums,
    /// When something first moved on it, if it did.
    #[schema(required)]
    first_movement_at: Option<Timestamp>,
    /// When something last moved on it, if it did.
    #[schema(required)]
    last_movement_at: Option<Timestamp>,
}

impl AccountSummary {
    fn of(row: SummaryRow) -> Result<Self, &'static str> {
        let sum = |wanted: fn(MovementKind) -> bool| {
            MovementKind::ALL
                .into_iter()
                .zip(row.tallies)
                .filter(|(kind, _)| wanted(*kind))
                .try_fold(Tally::default(), |sum, (_, tally)| sum.plus(tally))
                .map(MovementSums::from)
                .ok_or("a sum of movements is too large")
        };
        Ok(Self {
            movements: sum(|_| true)?,
            credits: sum(MovementKind::is_credit)?,
            debits: sum(|kind| !kind.is_credit())?,
            deposits: sum(|kind| kind == MovementKind::Deposit)?,
            withdrawals: sum(|kind| kind == MovementKind::Withdrawal)?,
            transfers_sent: sum(|kind| kind == MovementKind::TransferSent)?,
            transfers_received: sum(|kind| kind == MovementKind::TransferReceived)?,
            account_id: row.account_id,
            currency: row.currency,
            balance: row.standing.balance,
            status: row.standing.status,
            version: row.standing.version,
            first_movement_at: row.first_movement_at,
            last_movement_at: row.last_movement_at,
        })
    }
}

/// Read an account's summary
///
/// How much has moved on it, how often, the largest, the average, and when.
#[utoipa::path(
    get, path = "/accounts/{id}/summary", tag = "banking",
    params(("id" = EntityId, Path, description = "The account."), ReadParams),
    responses((status = 200, description = "The summary.", body = AccountSummary)),
)]
async fn get_account_summary(
    State(state): State<QueryState>,
    PathId(id): PathId,
    read: Read<NoQuery>,
) -> Result<Response, Problem> {
    let id = AccountId::new(id);
    let (row, token) = from_postgres(
        &state.account_summaries,
        state.log.context(),
        read.consistency,
        "account_summary",
        |conn| by_id(conn, id.clone()).boxed(),
    )
    .await?;
    let row = row.ok_or_else(|| not_found(&id))?;
    let summary = AccountSummary::of(row).map_err(Problem::internal)?;
    read.reading
        .entity(&summary, summary.version, token.as_ref())
}

async fn by_id(conn: &mut PgConnection, id: AccountId) -> Result<Option<SummaryRow>, sqlx::Error> {
    let row = sqlx::query(BY_ID)
        .bind(id.as_str())
        .fetch_optional(conn)
        .await?;
    row.as_ref().map(from_row).transpose()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::testing::{at, deposited, fold, folded, life};

    fn summary(events: &[AccountEvent]) -> serde_json::Value {
        let row = folded::<AccountSummaries>(events).unwrap();
        serde_json::to_value(AccountSummary::of(row).unwrap()).unwrap()
    }

    #[test]
    fn a_summary_adds_up() {
        let none = json!({"count": 0, "total": "0.00", "largest": "0.00", "average": "0.00"});
        assert_eq!(
            summary(&life()),
            json!({
                "account_id": "a-1",
                "currency": "USD",
                "balance": "0.00",
                "status": "CLOSED",
                "version": 6,
                "movements":
                    {"count": 4, "total": "200.00", "largest": "100.00", "average": "50.00"},
                "credits":
                    {"count": 1, "total": "100.00", "largest": "100.00", "average": "100.00"},
                "debits": {"count": 3, "total": "100.00", "largest": "50.00", "average": "33.33"},
                "deposits":
                    {"count": 1, "total": "100.00", "largest": "100.00", "average": "100.00"},
                "withdrawals":
                    {"count": 2, "total": "80.00", "largest": "50.00", "average": "40.00"},
                "transfers_sent":
                    {"count": 1, "total": "20.00", "largest": "20.00", "average": "20.00"},
                "transfers_received": none,
                "first_movement_at": at(2).to_string(),
                "last_movement_at": at(5).to_string(),
            })
        );
        let empty = summary(&life()[..1]);
        assert_eq!(empty["movements"], none);
        assert_eq!(empty["first_movement_at"], json!(null));
    }

    #[test]
    fn a_contradiction_is_refused() {
        let row = folded::<AccountSummaries>(&life()[..4]);
        assert!(fold::<AccountSummaries>(row, &deposited("1", "1"), 5).is_err());
        assert!(fold::<AccountSummaries>(None, &deposited("1", "1"), 5).is_err());
    }

    #[test]
    fn the_columns_are_in_the_order_of_the_kinds() {
        let named: Vec<&str> = TALLIES.into_iter().flatten().collect();
        let columns: Vec<&str> = columns!().split(", ").map(str::trim).collect();
        assert_eq!(columns[7..], named);
    }
}
