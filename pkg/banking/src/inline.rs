//! The write model's table `accounts`, kept in the append's own transaction, and its reader.

use std::collections::HashMap;

use async_trait::async_trait;
use millrace_es::{RecordedEvent, StreamVersion};
use millrace_eventlog::PgInlineTable;
use millrace_kernel::{EntityId, Money};
use rust_decimal::Decimal;
use sqlx::{PgConnection, PgExecutor, Row};

use crate::{
    account::{
        AccountEvent, AccountId, AccountOpened, AccountStatus, Currency, UserId,
        stored::account_event,
    },
    balance::BalanceAttributes,
};

/// The table `accounts`.
#[derive(Debug)]
pub struct AccountsTable;

/// What a batch comes to for one account: how it stands now, and its opening where that is in the
/// batch.
struct Effect {
    opened: Option<AccountOpened>,
    now: BalanceAttributes,
}

const INSERT: &str = "
INSERT INTO accounts (account_id, holder_name, user_id, currency, balance, status, version)
SELECT * FROM UNNEST($1::text[], $2::text[], $3::text[], $4::text[], $5::numeric[], $6::text[],
    $7::bigint[])
ON CONFLICT (account_id) DO UPDATE SET
    holder_name = excluded.holder_name, user_id = excluded.user_id, currency = excluded.currency,
    balance = excluded.balance, status = excluded.status, version = excluded.version";

const UPDATE: &str = "
UPDATE accounts SET balance = new.balance, status = new.status, version = new.version
FROM UNNEST($1::text[], $2::numeric[], $3::text[], $4::bigint[])
    AS new (account_id, balance, status, version)
WHERE accounts.account_id = new.account_id";

// By the schema's name: the reader's connection need not be the log's.
const BY_ID: &str = "
SELECT account_id, holder_name, user_id, currency, balance, status, version
FROM banking.accounts WHERE account_id = $1";

#[async_trait]
impl PgInlineTable for AccountsTable {
    async fn apply(
        &self,
        conn: &mut PgConnection,
        events: &[RecordedEvent],
    ) -> Result<(), sqlx::Error> {
        let effects = effects(events)?;
        let mut inserts = Vec::new();
        let mut updates = Vec::with_capacity(effects.len());
        for Effect { opened, now } in &effects {
            match opened {
                Some(opened) => inserts.push((opened, now)),
                None => updates.push(now),
            }
        }
        insert(conn, &inserts).await?;
        update(conn, &updates).await
    }
}

/// What the events come to, each account once, in the order of their first event.
fn effects(events: &[RecordedEvent]) -> Result<Vec<Effect>, sqlx::Error> {
    let mut effects: Vec<Effect> = Vec::with_capacity(events.len());
    let mut places: HashMap<AccountId, usize> = HashMap::with_capacity(events.len());
    for recorded in events {
        let event = account_event(recorded).map_err(|error| sqlx::Error::Decode(error.into()))?;
        let Some(event) = event else { continue };
        let now = BalanceAttributes::after(&event, recorded.version);
        let opened = match event {
            AccountEvent::Opened(opened) => Some(opened),
            _ => None,
        };
        match places.get(&now.account_id) {
            Some(place) => {
                let effect = &mut effects[*place];
                effect.now = now;
                effect.opened = opened.or(effect.opened.take());
            }
            None => {
                places.insert(now.account_id.clone(), effects.len());
                effects.push(Effect { opened, now });
            }
        }
    }
    Ok(effects)
}

async fn insert(
    conn: &mut PgConnection,
    rows: &[(&AccountOpened, &BalanceAttributes)],
) -> Result<(), sqlx::Error> {
    fn column<'a, T>(
        rows: &[(&'a AccountOpened, &'a BalanceAttributes)],
        of: impl Fn(&'a AccountOpened, &'a BalanceAttributes) -> T,
    ) -> Vec<T> {
        rows.iter().map(|(opened, now)| of(opened, now)).collect()
    }
    if rows.is_empty() {
        return Ok(());
    }
    sqlx::query(INSERT)
        .bind(column(rows, |opened, _| opened.account_id.as_str()))
        .bind(column(rows, |opened, _| opened.holder_name.as_str()))
        .bind(column(rows, |opened, _| {
            opened.user_id.as_ref().map(UserId::as_str)
        }))
        .bind(column(rows, |opened, _| opened.currency.as_str()))
        .bind(column(rows, |_, now| now.balance.get()))
        .bind(column(rows, |_, now| now.status.as_str()))
        .bind(column(rows, |_, now| number(now.version)))
        .execute(conn)
        .await?;
    Ok(())
}

async fn update(conn: &mut PgConnection, rows: &[&BalanceAttributes]) -> Result<(), sqlx::Error> {
    fn column<'a, T>(
        rows: &[&'a BalanceAttributes],
        of: impl Fn(&'a BalanceAttributes) -> T,
    ) -> Vec<T> {
        rows.iter().map(|now| of(now)).collect()
    }
    if rows.is_empty() {
        return Ok(());
    }
    sqlx::query(UPDATE)
        .bind(column(rows, |now| now.account_id.as_str()))
        .bind(column(rows, |now| now.balance.get()))
        .bind(column(rows, |now| now.status.as_str()))
        .bind(column(rows, |now| number(now.version)))
        .execute(conn)
        .await?;
    Ok(())
}

fn number(version: StreamVersion) -> i64 {
    i64::try_from(version.get()).unwrap_or(i64::MAX)
}

/// A row of the table `accounts`: an account as the newest append left it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AccountsRow {
    /// The account.
    pub account_id: AccountId,
    /// Who holds it, by name.
    pub holder_name: String,
    /// The user who holds it, where it is one.
    pub user_id: Option<UserId>,
    /// What it is kept in.
    pub currency: Currency,
    /// What is on it.
    pub balance: Money,
    /// Whether money moves on it.
    pub status: AccountStatus,
    /// The version of its stream.
    pub version: StreamVersion,
}

impl AccountsRow {
    /// Reads the row of an account, on a connection to the log's own primary: a strong read, which
    /// shows every append that was answered before it and costs the same however long the account's
    /// stream is. `None` when there is no such account.
    ///
    /// # Errors
    /// When the database cannot be reached, or a column holds what it must not.
    pub async fn by_id(
        database: impl PgExecutor<'_>,
        id: &AccountId,
    ) -> Result<Option<Self>, sqlx::Error> {
        let row = sqlx::query(BY_ID)
            .bind(id.as_str())
            .fetch_optional(database)
            .await?;
        let Some(row) = row else {
            return Ok(None);
        };
        let user_id: Option<String> = row.try_get("user_id")?;
        let currency: String = row.try_get("currency")?;
        Ok(Some(Self {
            account_id: id.clone(),
            holder_name: row.try_get("holder_name")?,
            user_id: user_id
                .map(|id| EntityId::new(id).map(UserId::new).map_err(unreadable))
                .transpose()?,
            currency: Currency::stored(&currency).map_err(unreadable)?,
            balance: Money::new(row.try_get::<Decimal, _>("balance")?).map_err(unreadable)?,
            status: row
                .try_get::<String, _>("status")?
                .parse()
                .map_err(unreadable)?,
            version: StreamVersion::new(
                u64::try_from(row.try_get::<i64, _>("version")?).map_err(unreadable)?,
            ),
        }))
    }
}

fn unreadable(error: impl std::error::Error + Send + Sync + 'static) -> sqlx::Error {
    sqlx::Error::Decode(error.into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        account::fixtures::{self as account, money},
        testing::recorded,
    };

    #[test]
    fn a_batch_comes_to_one_effect_per_account() {
        let life = account::events(&[
            account::open(),
            account::deposit("2"),
            account::withdraw("2"),
            account::close(),
        ]);
        let events: Vec<_> = (1_u64..)
            .zip(&life)
            .map(|(version, event)| recorded(event, version))
            .collect();
        let of = |events: &[RecordedEvent]| {
            let mut effects = effects(events).unwrap();
            assert_eq!(effects.len(), 1);
            effects.pop().unwrap()
        };
        let Effect { opened, now } = of(&events[..2]);
        assert!(opened.is_some(), "opened and paid into is one insert");
        assert_eq!((now.balance, now.version.get()), (money("2"), 2));
        let Effect { opened, now } = of(&events[1..]);
        assert!(opened.is_none());
        assert_eq!(now.status, AccountStatus::Closed);
        assert_eq!((now.balance, now.version.get()), (money("0"), 4));
    }
}
