//! What is known about accounts? The row of each, that answers `GET /accounts/{id}` and the list.

/// The columns of an account.
macro_rules! columns {
    () => {
        "account_id, holder_name, user_id, currency, balance, status, opened_at, updated_at, \
         closed_at, version"
    };
}

pub mod lists;
mod routes;

pub use routes::routes;

use millrace_es::{
    DecodeError, FoldError, Projection, Recorded, RecordedEvent, RowProjection, StreamVersion,
};
use millrace_kernel::{EntityId, Money, Timestamp};
use millrace_projecting::{Origin, Origins, PgRows};
use serde::Serialize;
use sqlx::{PgConnection, Row as _, postgres::PgRow};
use utoipa::ToSchema;

use crate::{
    CONTEXT,
    account::{
        AccountEvent, AccountId, AccountOpened, AccountStatus, Currency, UserId,
        stored::account_event,
    },
    columns::{self, column},
    ledger::Standing,
};

// ---------------------------------------------------------------------------------------- row

/// An account, as every answer about one shows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
#[schema(as = Account)]
pub struct AccountRow {
    /// The account.
    #[schema(value_type = EntityId)]
    pub account_id: AccountId,
    /// Who holds it, by name.
    pub holder_name: String,
    /// The user who holds it, where it is one.
    #[schema(required, value_type = Option<EntityId>)]
    pub user_id: Option<UserId>,
    /// What it is kept in.
    #[schema(value_type = String, pattern = "^[A-Z]{3}$", example = "USD")]
    pub currency: Currency,
    /// What is on it; never below 0.
    pub balance: Money,
    /// Whether money moves on it.
    pub status: AccountStatus,
    /// When it was opened.
    pub opened_at: Timestamp,
    /// When something last happened to it.
    pub updated_at: Timestamp,
    /// When it was closed, if it was.
    #[schema(required)]
    pub closed_at: Option<Timestamp>,
    /// The version of its stream.
    #[schema(value_type = u64)]
    pub version: StreamVersion,
}

impl AccountRow {
    /// The row of an account that was just opened.
    pub(crate) fn opened(event: &AccountOpened, version: StreamVersion, at: Timestamp) -> Self {
        Self {
            account_id: event.account_id.clone(),
            holder_name: event.holder_name.clone(),
            user_id: event.user_id.clone(),
            currency: event.currency,
            balance: Money::ZERO,
            status: AccountStatus::Open,
            opened_at: at,
            updated_at: at,
            closed_at: None,
            version,
        }
    }

    /// The row after something happened, at this time.
    pub(crate) fn standing_at(self, standing: Standing, at: Timestamp) -> Self {
        Self {
            balance: standing.balance,
            status: standing.status,
            version: standing.version,
            updated_at: at,
            closed_at: (standing.status == AccountStatus::Closed).then_some(at),
            ..self
        }
    }

    const fn standing(&self) -> Standing {
        Standing {
            balance: self.balance,
            status: self.status,
            version: self.version,
        }
    }
}

/// A row as the fold has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeptRow {
    row: AccountRow,
    /// Whether this batch opened the account: its name is not there to be searched for yet.
    is_new: bool,
}

// --------------------------------------------------------------------------------------- fold

/// The projection `accounts`.
#[derive(Debug)]
pub struct Accounts;

impl Projection for Accounts {
    const NAME: &'static str = "accounts";
    const VERSION: u32 = 1;
    const CONTEXTS: &'static [&'static str] = &[CONTEXT];

    type Event = AccountEvent;

    fn decode(event: &RecordedEvent) -> Result<Option<AccountEvent>, DecodeError> {
        account_event(event)
    }
}

impl RowProjection for Accounts {
    type Key = AccountId;
    type Row = KeptRow;

    fn key(Recorded { event, .. }: Recorded<'_, AccountEvent>) -> AccountId {
        event.account_id().clone()
    }

    fn starts(event: &AccountEvent) -> bool {
        matches!(event, AccountEvent::Opened(_))
    }

    fn fold(
        kept: Option<KeptRow>,
        recorded: Recorded<'_, AccountEvent>,
    ) -> Result<Option<KeptRow>, FoldError> {
        let before = kept.as_ref().map(|kept| kept.row.standing());
        let standing = Standing::after(before, recorded)?;
        let at = recorded.envelope.recorded_at;
        Ok(match (kept, recorded.event) {
            (_, AccountEvent::Opened(event)) => Some(KeptRow {
                row: AccountRow::opened(event, standing.version, at),
                is_new: true,
            }),
            (Some(kept), _) => Some(KeptRow {
                row: kept.row.standing_at(standing, at),
                is_new: kept.is_new,
            }),
            (None, _) => None,
        })
    }
}

// -------------------------------------------------------------------------------------- table

const LOAD: &str = concat!(
    "SELECT ",
    columns!(),
    " FROM accounts WHERE account_id = ANY($1)"
);

const STORE: &str = concat!(
    "INSERT INTO accounts (",
    columns!(),
    ") SELECT * FROM UNNEST($1::text[], $2::text[], $3::text[], $4::text[], $5::numeric[], \
     $6::text[], $7::timestamptz[], $8::timestamptz[], $9::timestamptz[], $10::bigint[])
     ON CONFLICT (account_id) DO UPDATE SET
        holder_name = excluded.holder_name, user_id = excluded.user_id,
        currency = excluded.currency, balance = excluded.balance, status = excluded.status,
        opened_at = excluded.opened_at, updated_at = excluded.updated_at,
        closed_at = excluded.closed_at, version = excluded.version"
);

const STORE_HOLDERS: &str = "
INSERT INTO account_holders (account_id, holder_name)
SELECT * FROM UNNEST($1::text[], $2::text[])
ON CONFLICT (account_id) DO UPDATE SET holder_name = excluded.holder_name";

impl PgRows for Accounts {
    const ORIGINS: Origins = &[
        (
            "accounts",
            Origin {
                column: "account_id",
                prefix: "account-",
            },
        ),
        (
            "account_holders",
            Origin {
                column: "account_id",
                prefix: "account-",
            },
        ),
    ];

    /// The names stand once more beside the accounts, where a search finds them: an account is
    /// written with every movement, and the parts of its name would be indexed again each time.
    const TABLES: &'static str = r#"
CREATE TABLE accounts (
    account_id text COLLATE "C" PRIMARY KEY,
    holder_name text NOT NULL,
    user_id text COLLATE "C",
    currency text COLLATE "C" NOT NULL,
    balance numeric(18,2) NOT NULL CHECK (balance >= 0),
    status text COLLATE "C" NOT NULL,
    opened_at timestamptz NOT NULL,
    updated_at timestamptz NOT NULL,
    closed_at timestamptz,
    version bigint NOT NULL
) WITH (fillfactor = 80);
CREATE TABLE account_holders (
    account_id text COLLATE "C" PRIMARY KEY,
    holder_name text NOT NULL
)"#;

    /// The first two end with what the list is sorted by, so that a page is read from where the
    /// last one ended and never sorted. The balance after it is looked at in the index: accounts
    /// outside the wanted range cost no visit of their rows.
    const INDEXES: &'static str = "
CREATE EXTENSION IF NOT EXISTS pg_trgm WITH SCHEMA public;
CREATE INDEX accounts_opened
    ON accounts (opened_at DESC, account_id DESC, balance);
CREATE INDEX accounts_status
    ON accounts (status, opened_at DESC, account_id DESC, balance);
CREATE INDEX account_holders_name
    ON account_holders USING gin (holder_name public.gin_trgm_ops)";

    async fn load(
        conn: &mut PgConnection,
        keys: &[AccountId],
    ) -> Result<Vec<(AccountId, KeptRow)>, sqlx::Error> {
        let ids: Vec<&str> = keys.iter().map(AccountId::as_str).collect();
        let rows = sqlx::query(LOAD).bind(ids).fetch_all(conn).await?;
        rows.iter()
            .map(|row| {
                let row = from_row(row)?;
                let is_new = false;
                Ok((row.account_id.clone(), KeptRow { row, is_new }))
            })
            .collect()
    }

    async fn store(
        conn: &mut PgConnection,
        rows: &[(AccountId, Option<KeptRow>)],
    ) -> Result<(), sqlx::Error> {
        // No event removes an account.
        let kept = rows.iter().filter_map(|(_, row)| row.as_ref());
        let (mut all, mut new) = (Vec::with_capacity(rows.len()), Vec::new());
        for KeptRow { row, is_new } in kept {
            all.push(row);
            if *is_new {
                new.push(row);
            }
        }
        upsert(conn, &all).await?;
        if !new.is_empty() {
            sqlx::query(STORE_HOLDERS)
                .bind(column(&new, |row| row.account_id.as_str()))
                .bind(column(&new, |row| row.holder_name.as_str()))
                .execute(conn)
                .await?;
        }
        Ok(())
    }
}

async fn upsert(conn: &mut PgConnection, rows: &[&AccountRow]) -> Result<(), sqlx::Error> {
    sqlx::query(STORE)
        .bind(column(rows, |row| row.account_id.as_str()))
        .bind(column(rows, |row| row.holder_name.as_str()))
        .bind(column(rows, |row| row.user_id.as_ref().map(UserId::as_str)))
        .bind(column(rows, |row| row.currency.as_str()))
        .bind(column(rows, |row| row.balance.get()))
        .bind(column(rows, |row| row.status.as_str()))
        .bind(column(rows, |row| row.opened_at.get()))
        .bind(column(rows, |row| row.updated_at.get()))
        .bind(column(rows, |row| row.closed_at.map(Timestamp::get)))
        .bind(column(rows, |row| row.version.as_i64()))
        .execute(conn)
        .await?;
    Ok(())
}

/// Reads a row that has [`columns!`].
fn from_row(row: &PgRow) -> Result<AccountRow, sqlx::Error> {
    Ok(AccountRow {
        account_id: AccountId::new(columns::id(row, "account_id")?),
        holder_name: row.try_get("holder_name")?,
        user_id: columns::optional_id(row, "user_id")?.map(UserId::new),
        currency: columns::currency(row, "currency")?,
        balance: columns::money(row, "balance")?,
        status: columns::said(row, "status")?,
        opened_at: columns::time(row, "opened_at")?,
        updated_at: columns::time(row, "updated_at")?,
        closed_at: columns::optional_time(row, "closed_at")?,
        version: columns::version(row)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{at, deposited, fold, folded, life};

    #[test]
    fn an_account_is_kept_as_its_events_made_it() {
        let events = life();
        let opened = folded::<Accounts>(&events[..1]).unwrap();
        assert!(opened.is_new);
        assert_eq!(opened.row.holder_name, "Ann");
        assert_eq!(
            (opened.row.opened_at, opened.row.updated_at),
            (at(1), at(1))
        );
        let row = folded::<Accounts>(&events[..4]).unwrap().row;
        assert_eq!(row.balance, Money::from_cents(5_000));
        assert_eq!((row.opened_at, row.updated_at), (at(1), at(4)));
        assert_eq!(row.closed_at, None);
        let row = folded::<Accounts>(&events).unwrap().row;
        assert_eq!(row.status, AccountStatus::Closed);
        assert_eq!(row.closed_at, Some(at(6)));
        assert_eq!(row.version, StreamVersion::new(6));
    }

    #[test]
    fn a_contradiction_is_refused() {
        let row = folded::<Accounts>(&life()[..4]);
        assert!(fold::<Accounts>(row, &deposited("1", "1"), 5).is_err());
        assert!(fold::<Accounts>(None, &deposited("1", "1"), 5).is_err());
    }
}
