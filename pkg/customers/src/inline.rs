//! The write model's tables `users` and `accounts`, kept in the append's own transaction.

use std::collections::HashMap;

use async_trait::async_trait;
use millrace_contracts::customers::Address;
use millrace_es::{DomainEvent, RecordedEvent};
use millrace_eventlog::PgInlineTable;
use millrace_kernel::Timestamp;
use sqlx::PgConnection;

use crate::user::{UserEvent, UserId};

/// The tables `users` and `accounts`.
#[derive(Debug)]
pub struct UsersTables;

/// What a batch comes to for one user: every event says all of its row.
#[derive(Default)]
struct Effect {
    user: Option<Change<(String, String)>>,
    account: Option<Change<Address>>,
}

/// A row as it is now.
struct Change<T> {
    now: T,
    first_at: Timestamp,
    last_at: Timestamp,
}

const USERS: &str = "
INSERT INTO users (id, name, email, created_at, updated_at)
SELECT * FROM UNNEST($1::text[], $2::text[], $3::text[], $4::timestamptz[], $5::timestamptz[])
ON CONFLICT (id) DO UPDATE SET
    name = excluded.name, email = excluded.email, updated_at = excluded.updated_at";

const ACCOUNTS: &str = "
INSERT INTO accounts (user_id, street, city, state, zip, address, created_at, updated_at)
SELECT * FROM UNNEST($1::text[], $2::text[], $3::text[], $4::text[], $5::text[], $6::text[],
    $7::timestamptz[], $8::timestamptz[])
ON CONFLICT (user_id) DO UPDATE SET
    street = excluded.street, city = excluded.city, state = excluded.state, zip = excluded.zip,
    address = excluded.address, updated_at = excluded.updated_at";

#[async_trait]
impl PgInlineTable for UsersTables {
    async fn apply(
        &self,
        conn: &mut PgConnection,
        events: &[RecordedEvent],
    ) -> Result<(), sqlx::Error> {
        let effects = effects(events)?;
        let users: Vec<_> = effects
            .iter()
            .filter_map(|(id, effect)| Some((id, effect.user.as_ref()?)))
            .collect();
        let accounts: Vec<_> = effects
            .iter()
            .filter_map(|(id, effect)| Some((id, effect.account.as_ref()?)))
            .collect();
        store_users(conn, &users).await?;
        store_accounts(conn, &accounts).await
    }
}

impl<T> Change<T> {
    /// Takes a later change into an earlier one.
    fn note(change: &mut Option<Self>, now: T, at: Timestamp) {
        let first_at = change.as_ref().map_or(at, |change| change.first_at);
        *change = Some(Self {
            now,
            first_at,
            last_at: at,
        });
    }
}

/// What the events come to, each user once, in the order of their first event.
fn effects(events: &[RecordedEvent]) -> Result<Vec<(UserId, Effect)>, sqlx::Error> {
    let mut effects: Vec<(UserId, Effect)> = Vec::with_capacity(events.len());
    let mut places: HashMap<UserId, usize> = HashMap::with_capacity(events.len());
    for recorded in events {
        let event = UserEvent::decode(
            &recorded.event_type,
            recorded.schema_version,
            &recorded.payload,
        )
        .map_err(|error| sqlx::Error::Decode(error.into()))?;
        let id = event.user_id().clone();
        let place = *places.entry(id.clone()).or_insert_with(|| {
            effects.push((id, Effect::default()));
            effects.len() - 1
        });
        let effect = &mut effects[place].1;
        match event {
            UserEvent::Created(e) => {
                Change::note(&mut effect.user, (e.name, e.email), e.created_at);
            }
            UserEvent::Updated(e) => {
                Change::note(&mut effect.user, (e.name, e.email), e.updated_at);
            }
            UserEvent::AccountCreated(e) => {
                Change::note(&mut effect.account, e.address, e.created_at);
            }
            UserEvent::AccountUpdated(e) => {
                Change::note(&mut effect.account, e.address, e.updated_at);
            }
        }
    }
    Ok(effects)
}

async fn store_users(
    conn: &mut PgConnection,
    rows: &[(&UserId, &Change<(String, String)>)],
) -> Result<(), sqlx::Error> {
    if rows.is_empty() {
        return Ok(());
    }
    let ids: Vec<&str> = rows.iter().map(|(id, _)| id.as_str()).collect();
    let names: Vec<&str> = rows.iter().map(|(_, it)| it.now.0.as_str()).collect();
    let emails: Vec<&str> = rows.iter().map(|(_, it)| it.now.1.as_str()).collect();
    let created: Vec<_> = rows.iter().map(|(_, it)| it.first_at.get()).collect();
    let updated: Vec<_> = rows.iter().map(|(_, it)| it.last_at.get()).collect();
    sqlx::query(USERS)
        .bind(ids)
        .bind(names)
        .bind(emails)
        .bind(created)
        .bind(updated)
        .execute(conn)
        .await?;
    Ok(())
}

async fn store_accounts(
    conn: &mut PgConnection,
    rows: &[(&UserId, &Change<Address>)],
) -> Result<(), sqlx::Error> {
    fn column<'a>(
        rows: &[(&UserId, &'a Change<Address>)],
        of: impl Fn(&'a Address) -> Option<&'a String>,
    ) -> Vec<Option<&'a str>> {
        rows.iter()
            .map(|(_, it)| of(&it.now).map(String::as_str))
            .collect()
    }
    if rows.is_empty() {
        return Ok(());
    }
    let created: Vec<_> = rows.iter().map(|(_, it)| it.first_at.get()).collect();
    let updated: Vec<_> = rows.iter().map(|(_, it)| it.last_at.get()).collect();
    sqlx::query(ACCOUNTS)
        .bind(rows.iter().map(|(id, _)| id.as_str()).collect::<Vec<_>>())
        .bind(column(rows, |address| match address {
            Address::Parts { street, .. } => Some(street),
            Address::Text { .. } => None,
        }))
        .bind(column(rows, |address| match address {
            Address::Parts { city, .. } => Some(city),
            Address::Text { .. } => None,
        }))
        .bind(column(rows, |address| match address {
            Address::Parts { state, .. } => Some(state),
            Address::Text { .. } => None,
        }))
        .bind(column(rows, |address| match address {
            Address::Parts { zip, .. } => Some(zip),
            Address::Text { .. } => None,
        }))
        .bind(column(rows, |address| match address {
            Address::Parts { .. } => None,
            Address::Text { address } => Some(address),
        }))
        .bind(created)
        .bind(updated)
        .execute(conn)
        .await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        testing::recorded,
        user::fixtures::{self as user, at},
    };

    #[test]
    fn a_batch_comes_to_one_effect_per_user() {
        let life = user::events(&[
            user::create(),
            user::update(Some("Ann"), None),
            user::live_at(user::parts()),
            user::live_at(user::text("elsewhere")),
        ]);
        let events: Vec<_> = (1_u64..)
            .zip(&life)
            .map(|(version, event)| recorded(event, version))
            .collect();
        let mut all = effects(&events).unwrap();
        assert_eq!(all.len(), 1);
        let (_, effect) = all.pop().unwrap();
        let user = effect.user.unwrap();
        assert_eq!(user.now, ("Ann".to_owned(), "Shivam@demo.com".to_owned()));
        assert_eq!((user.first_at, user.last_at), (at(1), at(2)));
        assert_eq!(effect.account.unwrap().now, user::text("elsewhere"));

        let (_, later) = effects(&events[3..]).unwrap().pop().unwrap();
        assert!(later.user.is_none());
    }
}
