//! What moved on an account, when, and of what kind? Every movement, answered from PostgreSQL.

/// The columns of a movement.
macro_rules! columns {
    () => {
        "account_id, version, transaction_id, type, amount, balance_after, counterparty, \
         transfer_id, description, occurred_at"
    };
}

use axum::{extract::State, response::Response};
use futures::FutureExt;
use millrace_es::{
    DecodeError, FoldError, Projection, Recorded, RecordedEvent, RowProjection, StreamVersion,
};
use millrace_http::{List, ListParams, Page, PathId, Problem};
use millrace_kernel::{EntityId, Money, MoneyInput, TimeBound, Timestamp};
use millrace_projecting::{Origin, Origins, PgRows};
use millrace_querying::{from_postgres, invalid_parameter, more_than};
use serde::Deserialize;
use sqlx::{PgConnection, Row as _, postgres::PgRow};
use time::{OffsetDateTime, macros::datetime};
use utoipa::IntoParams;
use utoipa_axum::{router::OpenApiRouter, routes};

use crate::{
    CONTEXT,
    account::{AccountEvent, AccountId, MovementKind, TransactionId, TransferId},
    columns::{self, column},
    movements::{self, Entry, Place, Transaction},
    problems::not_found,
    queries::QueryState,
};

// --------------------------------------------------------------------------------------- fold

/// The projection `transactions`.
#[derive(Debug)]
pub struct Transactions;

impl Projection for Transactions {
    const NAME: &'static str = "transactions";
    const VERSION: u32 = 1;
    const CONTEXTS: &'static [&'static str] = &[CONTEXT];

    type Event = AccountEvent;

    fn decode(event: &RecordedEvent) -> Result<Option<AccountEvent>, DecodeError> {
        movements::decode(event)
    }
}

impl RowProjection for Transactions {
    type Key = Place;
    type Row = Entry;

    fn key(recorded: Recorded<'_, AccountEvent>) -> Place {
        movements::place(recorded)
    }

    /// Every event makes a row of its own.
    fn starts(_: &AccountEvent) -> bool {
        true
    }

    fn fold(
        _: Option<Entry>,
        recorded: Recorded<'_, AccountEvent>,
    ) -> Result<Option<Entry>, FoldError> {
        movements::entry(recorded)
    }
}

// -------------------------------------------------------------------------------------- table

const STORE: &str = concat!(
    "INSERT INTO transactions (",
    columns!(),
    ") SELECT * FROM UNNEST($1::text[], $2::bigint[], $3::text[], $4::text[], $5::numeric[], \
     $6::numeric[], $7::text[], $8::text[], $9::text[], $10::timestamptz[])
     ON CONFLICT (account_id, version) DO UPDATE SET
        transaction_id = excluded.transaction_id, type = excluded.type,
        amount = excluded.amount, balance_after = excluded.balance_after,
        counterparty = excluded.counterparty, transfer_id = excluded.transfer_id,
        description = excluded.description, occurred_at = excluded.occurred_at"
);

const STORE_ACCOUNTS: &str = "
INSERT INTO transaction_accounts (account_id, opened_version)
SELECT * FROM UNNEST($1::text[], $2::bigint[])
ON CONFLICT (account_id) DO NOTHING";

const LOAD: &str = concat!(
    "SELECT ",
    columns!(),
    " FROM transactions JOIN UNNEST($1::text[], $2::bigint[]) AS wanted (account_id, version)
     USING (account_id, version)"
);

const LOAD_ACCOUNTS: &str = "
SELECT account_id, opened_version AS version FROM transaction_accounts
WHERE account_id = ANY($1)";

impl PgRows for Transactions {
    const ORIGINS: Origins = &[
        (
            "transactions",
            Origin {
                column: "account_id",
                prefix: "account-",
            },
        ),
        (
            "transaction_accounts",
            Origin {
                column: "account_id",
                prefix: "account-",
            },
        ),
    ];

    const TABLES: &'static str = r#"
CREATE TABLE transactions (
    account_id text COLLATE "C" NOT NULL,
    version bigint NOT NULL,
    transaction_id text COLLATE "C" NOT NULL,
    type text COLLATE "C" NOT NULL,
    amount numeric(18,2) NOT NULL,
    balance_after numeric(18,2) NOT NULL,
    counterparty text COLLATE "C",
    transfer_id text COLLATE "C",
    description text,
    occurred_at timestamptz NOT NULL,
    PRIMARY KEY (account_id, version)
);
CREATE TABLE transaction_accounts (
    account_id text COLLATE "C" PRIMARY KEY,
    opened_version bigint NOT NULL
)"#;

    /// Each ends with what a statement is sorted by, so that a page is read from where the last one
    /// ended and never sorted, and then has the amount: what is too small is passed over without a
    /// visit of its row.
    const INDEXES: &'static str = "
CREATE INDEX transactions_time
    ON transactions (account_id, occurred_at DESC, version DESC, amount);
CREATE INDEX transactions_type
    ON transactions (account_id, type, occurred_at DESC, version DESC, amount)";

    async fn load(
        conn: &mut PgConnection,
        keys: &[Place],
    ) -> Result<Vec<(Place, Entry)>, sqlx::Error> {
        let accounts: Vec<&str> = keys.iter().map(|key| key.account_id.as_str()).collect();
        let versions: Vec<i64> = keys.iter().map(|key| key.version.as_i64()).collect();
        let moved = sqlx::query(LOAD)
            .bind(&accounts)
            .bind(versions)
            .fetch_all(&mut *conn)
            .await?;
        let opened = sqlx::query(LOAD_ACCOUNTS)
            .bind(accounts)
            .fetch_all(conn)
            .await?;
        let mut found = Vec::with_capacity(keys.len());
        for row in &moved {
            found.push((place(row)?, Entry::Moved(from_row(row)?)));
        }
        for row in &opened {
            found.push((place(row)?, Entry::Opened));
        }
        Ok(found)
    }

    async fn store(
        conn: &mut PgConnection,
        rows: &[(Place, Option<Entry>)],
    ) -> Result<(), sqlx::Error> {
        // No event removes a row.
        let mut opened = Vec::new();
        let mut moved = Vec::with_capacity(rows.len());
        for (place, entry) in rows {
            match entry {
                Some(Entry::Opened) => opened.push(place),
                Some(Entry::Moved(transaction)) => moved.push((&place.account_id, transaction)),
                None => {}
            }
        }
        if !opened.is_empty() {
            sqlx::query(STORE_ACCOUNTS)
                .bind(column(&opened, |place| place.account_id.as_str()))
                .bind(column(&opened, |place| place.version.as_i64()))
                .execute(&mut *conn)
                .await?;
        }
        if !moved.is_empty() {
            upsert(conn, &moved).await?;
        }
        Ok(())
    }
}

async fn upsert(
    conn: &mut PgConnection,
    moved: &[(&AccountId, &Transaction)],
) -> Result<(), sqlx::Error> {
    let accounts: Vec<&str> = moved.iter().map(|(account, _)| account.as_str()).collect();
    let rows: Vec<&Transaction> = moved.iter().map(|(_, row)| *row).collect();
    let (counterparties, transfers) = (
        column(&rows, |row| {
            row.counterparty.as_ref().map(AccountId::as_str)
        }),
        column(&rows, |row| {
            row.transfer_id.as_ref().map(TransferId::as_str)
        }),
    );
    sqlx::query(STORE)
        .bind(accounts)
        .bind(column(&rows, |row| row.version.as_i64()))
        .bind(column(&rows, |row| row.transaction_id.as_str()))
        .bind(column(&rows, |row| row.r#type.as_str()))
        .bind(column(&rows, |row| row.amount.get()))
        .bind(column(&rows, |row| row.balance_after.get()))
        .bind(counterparties)
        .bind(transfers)
        .bind(column(&rows, |row| row.description.as_deref()))
        .bind(column(&rows, |row| row.occurred_at.get()))
        .execute(conn)
        .await?;
    Ok(())
}

fn place(row: &PgRow) -> Result<Place, sqlx::Error> {
    Ok(Place {
        account_id: AccountId::new(columns::id(row, "account_id")?),
        version: columns::version(row)?,
    })
}

/// Reads a row that has [`columns!`].
fn from_row(row: &PgRow) -> Result<Transaction, sqlx::Error> {
    Ok(Transaction {
        transaction_id: TransactionId::new(columns::id(row, "transaction_id")?),
        r#type: columns::said(row, "type")?,
        amount: columns::money(row, "amount")?,
        balance_after: columns::money(row, "balance_after")?,
        counterparty: columns::optional_id(row, "counterparty")?.map(AccountId::new),
        transfer_id: columns::optional_id(row, "transfer_id")?.map(TransferId::new),
        description: row.try_get("description")?,
        occurred_at: columns::time(row, "occurred_at")?,
        version: columns::version(row)?,
    })
}

// ------------------------------------------------------------------------------------- routes

/// After every movement that there can be.
const END_OF_TIME: OffsetDateTime = datetime!(9999-12-31 23:59:59.999999 UTC);

macro_rules! newest {
    ($condition:literal; $from:literal, $min:literal, $at:literal, $version:literal, $limit:literal) => {
        concat!(
            "SELECT ",
            columns!(),
            " FROM transactions WHERE account_id = $1",
            $condition,
            " AND occurred_at >= ",
            $from,
            " AND amount >= ",
            $min,
            " AND (occurred_at, version) < (",
            $at,
            ", ",
            $version,
            ")",
            " ORDER BY occurred_at DESC, version DESC LIMIT ",
            $limit
        )
    };
}

const OF_ACCOUNT: &str = newest!(""; "$2", "$3", "$4", "$5", "$6");
const OF_TYPE: &str = newest!(" AND type = $2"; "$3", "$4", "$5", "$6", "$7");
const EXISTS: &str = "SELECT FROM transaction_accounts WHERE account_id = $1";

/// The query behind every list with the names of its parameters' types, for the test that looks
/// at their plans.
pub const QUERIES: [(&str, &str, &str); 3] = [
    (
        "of_account",
        "text, timestamptz, numeric, timestamptz, bigint, bigint",
        OF_ACCOUNT,
    ),
    (
        "of_type",
        "text, text, timestamptz, numeric, timestamptz, bigint, bigint",
        OF_TYPE,
    ),
    ("exists", "text", EXISTS),
];

/// The routes that answer from this view.
pub fn routes() -> OpenApiRouter<QueryState> {
    OpenApiRouter::new().routes(routes!(read_account_statement))
}

/// What a statement is asked for.
#[derive(Debug, Clone, Copy, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct Which {
    /// Movements at this instant or after it; a date is its beginning in UTC.
    #[param(inline)]
    from: Option<TimeBound>,
    /// Movements before this instant; a date is its beginning in UTC.
    #[param(inline)]
    to: Option<TimeBound>,
    /// Movements of this kind.
    r#type: Option<MovementKind>,
    /// Movements of at least this amount.
    #[param(inline, value_type = Option<MoneyInput>)]
    min_amount: Option<Money>,
}

/// Read an account's statement
///
/// The movements in a range of time, of a kind, and of a size, the newest first.
#[utoipa::path(
    get, path = "/accounts/{id}/statement", tag = "banking",
    params(("id" = EntityId, Path, description = "The account."), Which, ListParams),
    responses((status = 200, description = "A page of movements.", body = Page<Transaction>)),
)]
async fn read_account_statement(
    State(state): State<QueryState>,
    PathId(id): PathId,
    list: List<Which>,
) -> Result<Response, Problem> {
    let which = list.query;
    if let (Some(from), Some(to)) = (which.from, which.to)
        && from > to
    {
        return Err(invalid_parameter("from", "must not be after to"));
    }
    let id = AccountId::new(id);
    let after = list.page.after::<(Timestamp, StreamVersion)>()?;
    // Nothing that happened at `to` is before it, whatever its version.
    let (at, version) = match (after, which.to) {
        (Some((at, version)), _) => (at.get(), version),
        (None, Some(TimeBound(to))) => (to.get(), StreamVersion::ZERO),
        (None, None) => (END_OF_TIME, StreamVersion::ZERO),
    };
    let limit = more_than(&list.page);
    let (rows, token) = from_postgres(
        &state.transactions,
        state.log.context(),
        list.consistency,
        "account_statement",
        |conn| fetch(conn, id.clone(), which, (at, version), limit).boxed(),
    )
    .await?;
    let rows = rows.ok_or_else(|| not_found(&id))?;
    let page = list.page.page(rows, |row| (row.occurred_at, row.version))?;
    list.reading.page(&page, token.as_ref())
}

/// The movements after a place; `None` when there is no such account.
async fn fetch(
    conn: &mut PgConnection,
    id: AccountId,
    which: Which,
    (at, version): (OffsetDateTime, StreamVersion),
    limit: i64,
) -> Result<Option<Vec<Transaction>>, sqlx::Error> {
    let query = match which.r#type {
        None => sqlx::query(OF_ACCOUNT).bind(id.as_str()),
        Some(kind) => sqlx::query(OF_TYPE).bind(id.as_str()).bind(kind.as_str()),
    };
    let from = which.from.map(|TimeBound(from)| from.get());
    let rows = query
        .bind(from.unwrap_or(OffsetDateTime::UNIX_EPOCH))
        .bind(which.min_amount.unwrap_or(Money::ZERO).get())
        .bind(at)
        .bind(version.as_i64())
        .bind(limit)
        .fetch_all(&mut *conn)
        .await?;
    if rows.is_empty() {
        let account = sqlx::query(EXISTS).bind(id.as_str());
        if account.fetch_optional(conn).await?.is_none() {
            return Ok(None);
        }
    }
    rows.iter()
        .map(from_row)
        .collect::<Result<_, _>>()
        .map(Some)
}
