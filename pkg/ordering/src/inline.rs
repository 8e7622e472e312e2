//! The write model's table `orders`, kept in the append's own transaction.

use std::collections::HashMap;

use async_trait::async_trait;
use millrace_es::RecordedEvent;
use millrace_eventlog::PgInlineTable;
use sqlx::PgConnection;

use crate::order::{OrderCreated, OrderEvent, OrderId, OrderStatus, stored::order_event};

/// The table `orders`.
#[derive(Debug)]
pub struct OrdersTable;

/// What a batch comes to for one order.
#[expect(
    clippy::large_enum_variant,
    reason = "nearly every effect is an insert"
)]
enum Effect {
    Insert(OrderCreated, Latest),
    Update(Latest),
    Delete,
}

/// What changes after the creation.
struct Latest {
    status: OrderStatus,
    updated_at: millrace_kernel::Timestamp,
}

const INSERT: &str = "
INSERT INTO orders
    (id, user_id, total_amount, status, created_at, updated_at, shipping_address, notes)
SELECT * FROM UNNEST($1::text[], $2::text[], $3::numeric[], $4::text[], $5::timestamptz[],
    $6::timestamptz[], $7::text[], $8::text[])
ON CONFLICT (id) DO UPDATE SET
    user_id = excluded.user_id, total_amount = excluded.total_amount, status = excluded.status,
    created_at = excluded.created_at, updated_at = excluded.updated_at,
    shipping_address = excluded.shipping_address, notes = excluded.notes";

const UPDATE: &str = "
UPDATE orders SET status = new.status, updated_at = new.updated_at
FROM UNNEST($1::text[], $2::text[], $3::timestamptz[]) AS new (id, status, updated_at)
WHERE orders.id = new.id";

const DELETE: &str = "DELETE FROM orders WHERE id = ANY($1::text[])";

#[async_trait]
impl PgInlineTable for OrdersTable {
    async fn apply(
        &self,
        conn: &mut PgConnection,
        events: &[RecordedEvent],
    ) -> Result<(), sqlx::Error> {
        let effects = effects(events)?;
        let mut inserts = Vec::with_capacity(effects.len());
        let (mut updates, mut deletes) = (Vec::new(), Vec::new());
        for (id, effect) in &effects {
            match effect {
                Effect::Insert(order, latest) => inserts.push((order, latest)),
                Effect::Update(latest) => updates.push((id, latest)),
                Effect::Delete => deletes.push(id.as_str()),
            }
        }
        insert(conn, &inserts).await?;
        update(conn, &updates).await?;
        if !deletes.is_empty() {
            sqlx::query(DELETE).bind(deletes).execute(conn).await?;
        }
        Ok(())
    }
}

/// What the events come to, each order once, in the order of their first event.
fn effects(events: &[RecordedEvent]) -> Result<Vec<(OrderId, Effect)>, sqlx::Error> {
    let mut effects: Vec<(OrderId, Effect)> = Vec::with_capacity(events.len());
    let mut places: HashMap<OrderId, usize> = HashMap::with_capacity(events.len());
    for recorded in events {
        let event = order_event(recorded).map_err(|error| sqlx::Error::Decode(error.into()))?;
        let Some(event) = event else { continue };
        let id = event.order_id().clone();
        let place = places.get(&id).copied();
        let before = place.map(|place| &mut effects[place].1);
        let effect = match (before, event) {
            (_, OrderEvent::Created(order)) => {
                let latest = Latest {
                    status: OrderStatus::Pending,
                    updated_at: order.created_at,
                };
                Effect::Insert(order, latest)
            }
            (Some(Effect::Insert(_, latest)), OrderEvent::StatusUpdated(change)) => {
                latest.status = change.to;
                latest.updated_at = change.updated_at;
                continue;
            }
            (_, OrderEvent::StatusUpdated(change)) => Effect::Update(Latest {
                status: change.to,
                updated_at: change.updated_at,
            }),
            (_, OrderEvent::Deleted(_)) => Effect::Delete,
        };
        match place {
            Some(place) => effects[place].1 = effect,
            None => {
                places.insert(id.clone(), effects.len());
                effects.push((id, effect));
            }
        }
    }
    Ok(effects)
}

async fn insert(
    conn: &mut PgConnection,
    rows: &[(&OrderCreated, &Latest)],
) -> Result<(), sqlx::Error> {
    fn column<'a, T>(
        rows: &[(&'a OrderCreated, &'a Latest)],
        of: impl Fn(&'a OrderCreated, &'a Latest) -> T,
    ) -> Vec<T> {
        rows.iter()
            .map(|(order, latest)| of(order, latest))
            .collect()
    }
    if rows.is_empty() {
        return Ok(());
    }
    sqlx::query(INSERT)
        .bind(column(rows, |order, _| order.order_id.as_str()))
        .bind(column(rows, |order, _| order.user_id.as_str()))
        .bind(column(rows, |order, _| order.total_amount.get()))
        .bind(column(rows, |_, latest| latest.status.as_str()))
        .bind(column(rows, |order, _| order.created_at.get()))
        .bind(column(rows, |_, latest| latest.updated_at.get()))
        .bind(column(rows, |order, _| order.shipping_address.as_deref()))
        .bind(column(rows, |order, _| order.notes.as_deref()))
        .execute(conn)
        .await?;
    Ok(())
}

async fn update(conn: &mut PgConnection, rows: &[(&OrderId, &Latest)]) -> Result<(), sqlx::Error> {
    if rows.is_empty() {
        return Ok(());
    }
    let ids: Vec<&str> = rows.iter().map(|(id, _)| id.as_str()).collect();
    let statuses: Vec<&str> = rows.iter().map(|(_, new)| new.status.as_str()).collect();
    let times: Vec<_> = rows.iter().map(|(_, new)| new.updated_at.get()).collect();
    sqlx::query(UPDATE)
        .bind(ids)
        .bind(statuses)
        .bind(times)
        .execute(conn)
        .await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{life, recorded};

    #[test]
    fn a_batch_comes_to_one_effect_per_order() {
        let life = life();
        let events: Vec<_> = (1_u64..)
            .zip(&life)
            .map(|(version, event)| recorded(event, version, 0))
            .collect();
        let of = |events: &[RecordedEvent]| effects(events).unwrap().pop().unwrap().1;
        let Effect::Insert(_, latest) = of(&events[..2]) else {
            panic!("created and confirmed is one insert");
        };
        assert_eq!(latest.status, OrderStatus::Confirmed);
        assert!(matches!(of(&events[1..2]), Effect::Update(_)));
        assert!(matches!(of(&events), Effect::Delete));
        assert!(matches!(of(&events[1..]), Effect::Delete));
        assert_eq!(effects(&events).unwrap().len(), 1);
    }
}
