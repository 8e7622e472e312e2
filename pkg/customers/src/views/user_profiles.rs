//! Who is a user? His name, e-mail address and shipping address, and how many orders he has.
//!
//! A user's own facts come in order from one partition of `customers`, his orders from any partition
//! of `ordering`. So nothing is loaded and written back: orders are counted by adding, and what is
//! said about the user replaces what was said before.

use std::time::Instant;

use axum::{extract::State, response::Response};
use futures::FutureExt;
use millrace_contracts::ordering::{self, OrderingEvent};
use millrace_es::{
    Additions, DecodeError, DomainEvent, FoldError, LogToken, Projection, Recorded, RecordedEvent,
    StreamVersion, TallyProjection,
};
use millrace_http::{Consistency, NoQuery, PathId, Problem, StrongRead, StrongReadParams};
use millrace_kernel::EntityId;
use millrace_projecting::PgTally;
use millrace_querying::{facts_of_others, from_postgres, head_token, observe};
use serde::Serialize;
use sqlx::{PgConnection, Row as _};
use utoipa::ToSchema;
use utoipa_axum::{router::OpenApiRouter, routes};

use crate::{
    CONTEXT,
    problems::not_found,
    queries::QueryState,
    user::{UserDetails, UserEvent, UserId},
};

// ---------------------------------------------------------------------------------------- row

/// A user, as every answer about one shows him.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
#[schema(as = User)]
pub struct UserProfile {
    /// The user.
    #[schema(value_type = EntityId)]
    pub id: UserId,
    /// His name.
    pub name: String,
    /// His e-mail address, as he writes it.
    pub email: String,
    /// Where he has things sent: `street, city, state zip`, or the address as it was given.
    #[schema(required)]
    pub shipping_address: Option<String>,
    /// How many orders he has that were not deleted. It comes from another context and is eventual;
    /// null if a strong answer had to do without it.
    #[schema(required)]
    pub orders_count: Option<u64>,
    /// The version of his stream.
    #[schema(value_type = u64)]
    pub version: StreamVersion,
}

impl UserProfile {
    /// A user as the event log has him.
    fn of(user: &UserDetails, version: StreamVersion, orders_count: Option<u64>) -> Self {
        Self {
            id: user.id.clone(),
            name: user.name.clone(),
            email: user.email.clone(),
            shipping_address: user.address.as_ref().map(ToString::to_string),
            orders_count,
            version,
        }
    }
}

/// What is added to a user's row.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Change {
    /// Orders.
    pub orders: i64,
    /// The version of the user's stream that says the rest; 0 says nothing.
    pub version: StreamVersion,
    /// His name and e-mail address, if they are said.
    pub user: Option<(String, String)>,
    /// His shipping address, if it is said.
    pub shipping_address: Option<String>,
}

impl std::ops::AddAssign for Change {
    fn add_assign(&mut self, other: Self) {
        self.orders += other.orders;
        // What one partition says comes in order.
        self.version = other.version.max(self.version);
        self.user = other.user.or(self.user.take());
        self.shipping_address = other.shipping_address.or(self.shipping_address.take());
    }
}

// --------------------------------------------------------------------------------------- fold

/// The projection `user-profiles`.
#[derive(Debug)]
pub struct UserProfiles;

/// What happened, as far as this projection reads it: a variant per context.
#[derive(Debug)]
pub enum Fact {
    /// Something happened to a user.
    User(UserEvent),
    /// Something happened to an order.
    Order(OrderingEvent),
}

impl Projection for UserProfiles {
    const NAME: &'static str = "user-profiles";
    const VERSION: u32 = 1;
    const CONTEXTS: &'static [&'static str] = &[CONTEXT, ordering::CONTEXT];

    type Event = Fact;

    fn decode(event: &RecordedEvent) -> Result<Option<Fact>, DecodeError> {
        if event.context.as_str() == CONTEXT {
            return UserEvent::decode(&event.event_type, event.schema_version, &event.payload)
                .map(|event| Some(Fact::User(event)));
        }
        // What is not counted is not read either, and cannot stop what is.
        match &*event.event_type {
            ordering::ORDER_CREATED | ordering::ORDER_DELETED => {
                Ok(OrderingEvent::decode(event)?.map(Fact::Order))
            }
            _ => Ok(None),
        }
    }
}

impl TallyProjection for UserProfiles {
    type Key = UserId;
    type Delta = Change;

    fn tally(
        Recorded { event, envelope }: Recorded<'_, Fact>,
    ) -> Result<Additions<UserId, Change>, FoldError> {
        let said = Change {
            version: envelope.version,
            ..Change::default()
        };
        let counted = |orders| Change {
            orders,
            ..Change::default()
        };
        let change = match event {
            Fact::User(UserEvent::Created(e)) => Change {
                user: Some((e.name.clone(), e.email.clone())),
                ..said
            },
            Fact::User(UserEvent::Updated(e)) => Change {
                user: Some((e.name.clone(), e.email.clone())),
                ..said
            },
            Fact::User(UserEvent::AccountCreated(e)) => Change {
                shipping_address: Some(e.address.to_string()),
                ..said
            },
            Fact::User(UserEvent::AccountUpdated(e)) => Change {
                shipping_address: Some(e.address.to_string()),
                ..said
            },
            Fact::Order(OrderingEvent::OrderCreated(_)) => counted(1),
            Fact::Order(OrderingEvent::OrderDeleted(_)) => counted(-1),
            // A cancelled order is one that he has.
            Fact::Order(OrderingEvent::OrderStatusUpdated(_)) => return Ok(Vec::new()),
        };
        let user = match event {
            Fact::User(event) => event.user_id().clone(),
            Fact::Order(event) => UserId::new(event.user_id().clone()),
        };
        Ok(vec![(user, change)])
    }
}

// -------------------------------------------------------------------------------------- table

const ADD: &str = "
INSERT INTO user_profiles AS t
    (user_id, name, email, shipping_address, orders_count, version)
SELECT * FROM UNNEST($1::text[], $2::text[], $3::text[], $4::text[], $5::bigint[], $6::bigint[])
ON CONFLICT (user_id) DO UPDATE SET
    name = COALESCE(excluded.name, t.name),
    email = COALESCE(excluded.email, t.email),
    shipping_address = COALESCE(excluded.shipping_address, t.shipping_address),
    orders_count = t.orders_count + excluded.orders_count,
    version = GREATEST(t.version, excluded.version)";

impl PgTally for UserProfiles {
    /// A row of version 0 is of somebody who ordered and is no user yet.
    const TABLES: &'static str = r#"
CREATE TABLE user_profiles (
    user_id text COLLATE "C" PRIMARY KEY,
    name text,
    email text,
    shipping_address text,
    orders_count bigint NOT NULL,
    version bigint NOT NULL
) WITH (fillfactor = 70)"#;
    const INDEXES: &'static str = "";

    async fn add(conn: &mut PgConnection, deltas: &[(UserId, Change)]) -> Result<(), sqlx::Error> {
        fn column<'a, T>(deltas: &'a [(UserId, Change)], of: impl Fn(&'a Change) -> T) -> Vec<T> {
            deltas.iter().map(|(_, change)| of(change)).collect()
        }
        let users: Vec<&str> = deltas.iter().map(|(user, _)| user.as_str()).collect();
        sqlx::query(ADD)
            .bind(users)
            .bind(column(deltas, |change| {
                change.user.as_ref().map(|(name, _)| name.as_str())
            }))
            .bind(column(deltas, |change| {
                change.user.as_ref().map(|(_, email)| email.as_str())
            }))
            .bind(column(deltas, |change| change.shipping_address.as_deref()))
            .bind(column(deltas, |change| change.orders))
            .bind(column(deltas, |change| change.version.as_i64()))
            .execute(conn)
            .await?;
        Ok(())
    }
}

// ------------------------------------------------------------------------------------- routes

const BY_ID: &str = "
SELECT name, email, shipping_address, orders_count, version
FROM user_profiles WHERE user_id = $1 AND version > 0";

/// Somebody's orders may be read before he is.
const ORDERS_COUNT: &str = "SELECT orders_count FROM user_profiles WHERE user_id = $1";

/// The queries with the names of their parameters' types, for the test that looks at their plans.
pub const QUERIES: [(&str, &str, &str); 2] = [
    ("one", "text", BY_ID),
    ("orders_count", "text", ORDERS_COUNT),
];

/// The routes that answer from this view.
pub fn routes() -> OpenApiRouter<QueryState> {
    OpenApiRouter::new().routes(routes!(get_user))
}

/// Read a user
///
/// With `consistency=strong` he is folded from the event log; `orders_count`, which another context
/// knows, stays eventual even then.
#[utoipa::path(
    get, path = "/users/{id}", tag = "customers",
    params(("id" = EntityId, Path, description = "The user."), StrongReadParams),
    responses((status = 200, description = "The user.", body = UserProfile)),
)]
async fn get_user(
    State(state): State<QueryState>,
    PathId(id): PathId,
    read: StrongRead<NoQuery>,
) -> Result<Response, Problem> {
    let id = UserId::new(id);
    let (profile, token) = match read.consistency {
        Consistency::Strong => {
            let started = Instant::now();
            let found = strong(&state, &id).await?;
            observe("log", "user", started);
            found
        }
        eventual => {
            let model = &state.user_profiles;
            from_postgres(model, state.log.context(), eventual, "user", |conn| {
                by_id(conn, id.clone()).boxed()
            })
            .await?
        }
    };
    let profile = profile.ok_or_else(|| not_found(&id))?;
    let others = profile.orders_count.filter(|count| *count > 0);
    read.reading
        .entity_beside(&profile, profile.version, others, token.as_ref())
}

async fn by_id(conn: &mut PgConnection, id: UserId) -> Result<Option<UserProfile>, sqlx::Error> {
    let row = sqlx::query(BY_ID)
        .bind(id.as_str())
        .fetch_optional(conn)
        .await?;
    let Some(row) = row else {
        return Ok(None);
    };
    Ok(Some(UserProfile {
        id,
        name: row.try_get(0)?,
        email: row.try_get(1)?,
        shipping_address: row.try_get(2)?,
        orders_count: Some(count(row.try_get(3)?)),
        version: StreamVersion::from_i64(row.try_get(4)?),
    }))
}

async fn strong(
    state: &QueryState,
    id: &UserId,
) -> Result<(Option<UserProfile>, Option<LogToken>), Problem> {
    // The head first: the user is then at least as far.
    let token = head_token(&*state.log).await?;
    let (user, version) = state.users.load(id.get()).await?;
    let Some(user) = user.details() else {
        return Ok((None, Some(token)));
    };
    let orders_count = facts_of_others(&state.user_profiles, "user_orders_count", |conn| {
        orders_count(conn, id.clone()).boxed()
    })
    .await;
    let profile = UserProfile::of(user, version, orders_count);
    Ok((Some(profile), Some(token)))
}

async fn orders_count(conn: &mut PgConnection, id: UserId) -> Result<u64, sqlx::Error> {
    let found: Option<i64> = sqlx::query_scalar(ORDERS_COUNT)
        .bind(id.as_str())
        .fetch_optional(conn)
        .await?;
    Ok(count(found.unwrap_or(0)))
}

/// A sum of which a deletion was seen before its creation cannot be: both are of one stream.
fn count(sum: i64) -> u64 {
    u64::try_from(sum).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(version: u64, name: Option<&str>, address: Option<&str>) -> Change {
        Change {
            orders: 1,
            version: StreamVersion::new(version),
            user: name.map(|name| (name.to_owned(), format!("{name}@demo.com"))),
            shipping_address: address.map(str::to_owned),
        }
    }

    #[test]
    fn what_is_said_later_replaces_what_was_said_and_orders_add_up() {
        let changes = [
            said(1, Some("Ann"), None),
            said(2, None, Some("here")),
            said(0, None, None),
            said(3, Some("Anna"), None),
            said(0, None, None),
        ];
        let mut sum = Change::default();
        for change in changes {
            sum += change;
        }
        let expected = Change {
            orders: 5,
            ..said(3, Some("Anna"), Some("here"))
        };
        assert_eq!(sum, expected);
    }
}
