//! What is known here about those who ordered: a row each, from the public events of `customers`.

use millrace_contracts::customers::{CustomersEvent, UserCreated, UserUpdated};
use millrace_kernel::EntityId;
use millrace_projecting::bad_column;
use sqlx::{PgConnection, Row as _};

use crate::order::UserId;

/// A user, as his newest event has him.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UserRow {
    /// The user.
    pub user_id: UserId,
    /// His name.
    pub username: String,
    /// His e-mail address.
    pub email: String,
}

impl UserRow {
    /// What an event says about a user, if it says his name.
    pub(super) fn said_by(event: CustomersEvent) -> Option<Self> {
        match event {
            CustomersEvent::UserCreated(UserCreated {
                id, name, email, ..
            })
            | CustomersEvent::UserUpdated(UserUpdated {
                id, name, email, ..
            }) => Some(Self {
                user_id: UserId::new(id),
                username: name,
                email,
            }),
            CustomersEvent::AccountCreated(_) | CustomersEvent::AccountUpdated(_) => None,
        }
    }
}

const LOAD: &str = "SELECT user_id, username, email FROM order_users WHERE user_id = ANY($1)";

const STORE: &str = "
INSERT INTO order_users (user_id, username, email)
SELECT * FROM UNNEST($1::text[], $2::text[], $3::text[])
ON CONFLICT (user_id) DO UPDATE SET username = excluded.username, email = excluded.email";

/// The rows of some users.
pub(super) async fn load(
    conn: &mut PgConnection,
    ids: &[&str],
) -> Result<Vec<UserRow>, sqlx::Error> {
    let rows = sqlx::query(LOAD).bind(ids).fetch_all(conn).await?;
    rows.iter()
        .map(|row| {
            let id = EntityId::new(row.try_get::<String, _>(0)?).map_err(bad_column("user_id"))?;
            Ok(UserRow {
                user_id: UserId::new(id),
                username: row.try_get(1)?,
                email: row.try_get(2)?,
            })
        })
        .collect()
}

pub(super) async fn upsert(conn: &mut PgConnection, rows: &[&UserRow]) -> Result<(), sqlx::Error> {
    let ids: Vec<&str> = rows.iter().map(|row| row.user_id.as_str()).collect();
    let names: Vec<&str> = rows.iter().map(|row| row.username.as_str()).collect();
    let emails: Vec<&str> = rows.iter().map(|row| row.email.as_str()).collect();
    sqlx::query(STORE)
        .bind(ids)
        .bind(names)
        .bind(emails)
        .execute(conn)
        .await?;
    Ok(())
}
