//! How many orders, and for how much? Answered from sums that the fold keeps, by day and status.
//!
//! An order counts on the day of its creation, under the status it has, until it is deleted. The
//! sums stand twice: per user, and over all users. The latter would be a handful of rows that
//! every partition fights over, so each partition has its own and the query adds them up.

use millrace_es::{
    DecodeError, DomainEvent, FoldError, Projection, Recorded, RecordedEvent, TallyProjection,
};
use millrace_projecting::PgTally;
use rust_decimal::Decimal;
use sqlx::PgConnection;
use time::Date;

use crate::{
    CONTEXT,
    order::{OrderEvent, OrderStatus, UserId},
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
        OrderEvent::decode(&event.event_type, event.schema_version, &event.payload).map(Some)
    }
}

impl TallyProjection for OrderStatistics {
    type Key = SumKey;
    type Delta = Change;

    fn tally(
        Recorded { event, envelope }: Recorded<'_, OrderEvent>,
    ) -> Result<Vec<(SumKey, Change)>, FoldError> {
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
