//! Which orders does a user have? Answered from DynamoDB, newest first.
//!
//! An item per order under its user, sorted by the time of its creation. Every event of an order
//! says all that the item holds, so nothing is loaded to fold one.

use std::{collections::HashMap, time::Instant};

use aws_sdk_dynamodb::types::AttributeValue;
use axum::{extract::State, response::Response};
use millrace_es::{DecodeError, FoldError, Projection, Recorded, RecordedEvent, RowProjection};
use millrace_http::{List, ListParams, NoQuery, PathId, Problem};
use millrace_kernel::{EntityId, Money, Timestamp};
use millrace_projecting::{
    BadItem, Descending, DynamoRows, Item, KeyAttribute, Origin, TableDefinition, attribute,
};
use millrace_querying::{from_dynamodb, observe, unreadable};
use serde::Serialize;
use utoipa::ToSchema;
use utoipa_axum::{router::OpenApiRouter, routes};

use crate::{
    CONTEXT,
    order::{OrderDetails, OrderEvent, OrderId, OrderStatus, UserId, stored::order_event},
    queries::QueryState,
};

// ---------------------------------------------------------------------------------------- row

/// An order as its user's list shows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct OrderOfUser {
    /// The order.
    #[schema(value_type = EntityId)]
    pub order_id: OrderId,
    /// Who ordered.
    #[schema(value_type = EntityId)]
    pub user_id: UserId,
    /// What it costs.
    pub amount: Money,
    /// Where it stands.
    pub status: OrderStatus,
    /// When it was created.
    pub created_at: Timestamp,
}

impl OrderOfUser {
    /// An order as the event log has it.
    #[must_use]
    pub fn of(order: &OrderDetails) -> Self {
        Self {
            order_id: order.created.order_id.clone(),
            user_id: order.created.user_id.clone(),
            amount: order.created.total_amount,
            status: order.status,
            created_at: order.created.created_at,
        }
    }

    fn place(&self) -> PlaceInList {
        PlaceInList {
            user_id: self.user_id.clone(),
            created_at: self.created_at,
            order_id: self.order_id.clone(),
        }
    }
}

/// Where an order stands in its user's list.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PlaceInList {
    /// Whose list.
    pub user_id: UserId,
    /// When the order was created.
    pub created_at: Timestamp,
    /// The order.
    pub order_id: OrderId,
}

// --------------------------------------------------------------------------------------- fold

/// The projection `orders-by-user`.
#[derive(Debug)]
pub struct OrdersByUser;

impl Projection for OrdersByUser {
    const NAME: &'static str = "orders-by-user";
    const VERSION: u32 = 1;
    const CONTEXTS: &'static [&'static str] = &[CONTEXT];

    type Event = OrderEvent;

    fn decode(event: &RecordedEvent) -> Result<Option<OrderEvent>, DecodeError> {
        order_event(event)
    }
}

impl RowProjection for OrdersByUser {
    type Key = PlaceInList;
    type Row = OrderOfUser;

    fn key(Recorded { event, .. }: Recorded<'_, OrderEvent>) -> PlaceInList {
        let (order_id, user_id, created_at) = match event {
            OrderEvent::Created(e) => (&e.order_id, &e.user_id, e.created_at),
            OrderEvent::StatusUpdated(e) => (&e.order_id, &e.user_id, e.created_at),
            OrderEvent::Deleted(e) => (&e.order_id, &e.user_id, e.created_at),
        };
        PlaceInList {
            user_id: user_id.clone(),
            created_at,
            order_id: order_id.clone(),
        }
    }

    /// Every event makes the whole row anew.
    fn starts(_: &OrderEvent) -> bool {
        true
    }

    fn fold(
        _: Option<OrderOfUser>,
        recorded: Recorded<'_, OrderEvent>,
    ) -> Result<Option<OrderOfUser>, FoldError> {
        let (amount, status) = match recorded.event {
            OrderEvent::Created(e) => (e.total_amount, OrderStatus::Pending),
            OrderEvent::StatusUpdated(e) => (e.total_amount, e.to),
            OrderEvent::Deleted(_) => return Ok(None),
        };
        let place = Self::key(recorded);
        Ok(Some(OrderOfUser {
            order_id: place.order_id,
            user_id: place.user_id,
            amount,
            status,
            created_at: place.created_at,
        }))
    }
}

// -------------------------------------------------------------------------------------- table

const USER: &str = "user_id";
const PLACED: &str = "placed";
const ORDER: &str = "order_id";
const AMOUNT: &str = "amount";
const STATUS: &str = "status";
const CREATED: &str = "created_at";

impl PlaceInList {
    /// The sort key: microseconds since 1970 with leading zeros, so that text sorts as time does,
    /// then the order. Stored format.
    fn placed(&self) -> String {
        // Orders are created now, never before 1970.
        format!(
            "{:017}#{}",
            self.created_at.unix_micros().max(0),
            self.order_id
        )
    }
}

impl DynamoRows for OrdersByUser {
    const ORIGIN: Option<Origin> = Some(Origin {
        column: ORDER,
        prefix: "order-",
    });

    const TABLE: TableDefinition = TableDefinition {
        partition_key: KeyAttribute::text(USER),
        sort_key: Some(KeyAttribute::text(PLACED)),
        local_indexes: &[],
        global_indexes: &[],
    };

    fn item_key(key: &PlaceInList) -> Item {
        HashMap::from([
            (USER.to_owned(), AttributeValue::S(key.user_id.to_string())),
            (PLACED.to_owned(), AttributeValue::S(key.placed())),
        ])
    }

    fn to_item(_: &PlaceInList, row: &OrderOfUser) -> Item {
        let text = |value: &dyn ToString| AttributeValue::S(value.to_string());
        HashMap::from([
            (ORDER.to_owned(), text(&row.order_id)),
            (AMOUNT.to_owned(), AttributeValue::N(row.amount.to_string())),
            (STATUS.to_owned(), text(&row.status)),
            (CREATED.to_owned(), text(&row.created_at)),
        ])
    }

    fn from_item(item: &Item) -> Result<OrderOfUser, BadItem> {
        Ok(OrderOfUser {
            order_id: OrderId::new(attribute(item, ORDER)?),
            user_id: UserId::new(attribute(item, USER)?),
            amount: attribute(item, AMOUNT)?,
            status: attribute(item, STATUS)?,
            created_at: attribute(item, CREATED)?,
        })
    }
}

// ------------------------------------------------------------------------------------- routes

/// The routes that answer from this view.
pub fn routes() -> OpenApiRouter<QueryState> {
    OpenApiRouter::new().routes(routes!(list_orders_placed_by_user))
}

/// List the orders that a user placed
///
/// Newest first, as a bare array; the header `Next-Cursor` says how to go on. A user who placed
/// none, or is not known, gets an empty one.
#[utoipa::path(
    get, path = "/api/orders/{userId}", tag = "ordering",
    params(("userId" = EntityId, Path, description = "The user."), ListParams),
    responses((
        status = 200,
        description = "The user's orders.",
        body = Vec<OrderOfUser>,
        headers(("Next-Cursor" = String, description = "Hand it back as `cursor` to get what follows.")),
    )),
)]
async fn list_orders_placed_by_user(
    State(state): State<QueryState>,
    PathId(user): PathId,
    list: List<NoQuery>,
) -> Result<Response, Problem> {
    let (reader, token) =
        from_dynamodb(&state.orders_by_user, state.log.context(), list.consistency).await?;
    let after = list.page.after::<String>()?;
    let started = Instant::now();
    let found = reader
        .descending::<OrdersByUser>(
            AttributeValue::S(user.to_string()),
            after.map(AttributeValue::S),
            list.page.limit + 1,
        )
        .await;
    observe("dynamodb", "orders_placed_by_user", started);
    let Descending { rows, unread } = found.map_err(|error| unreadable(error, None))?;
    let mut page = list.page.page(rows, |order| order.place().placed())?;
    if let (None, Some(AttributeValue::S(placed))) = (&page.next_cursor, unread) {
        page.next_cursor = Some(list.page.cursor(&placed)?);
    }
    list.reading.array(&page, token.as_ref())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::recorded;

    /// Folds every event of an order in turn.
    fn folded(events: &[OrderEvent]) -> Option<OrderOfUser> {
        events.iter().fold(None, |row, event| {
            let envelope = recorded(event, 1, 1);
            let recorded = Recorded {
                event,
                envelope: &envelope,
            };
            OrdersByUser::fold(row, recorded).unwrap()
        })
    }

    #[test]
    fn an_order_stands_in_its_users_list_until_it_is_deleted() {
        let events = crate::testing::life();
        let created = folded(&events[..1]).unwrap();
        assert_eq!(created.status, OrderStatus::Pending);
        assert_eq!(created.amount, Money::from_cents(49_950));
        let confirmed = folded(&events[..2]).unwrap();
        assert_eq!(confirmed.status, OrderStatus::Confirmed);
        assert_eq!(confirmed.created_at, created.created_at);
        assert_eq!(folded(&events), None);
    }

    #[test]
    fn every_event_of_an_order_has_its_place() {
        let events = crate::testing::life();
        let keys: Vec<_> = events
            .iter()
            .map(|event| {
                let envelope = recorded(event, 1, 1);
                OrdersByUser::key(Recorded {
                    event,
                    envelope: &envelope,
                })
            })
            .collect();
        assert!(keys.iter().all(|key| *key == keys[0]));
        assert_eq!(keys[0].placed(), "01769860800000001#o-1");
    }

    #[test]
    fn a_row_comes_back_from_its_item() {
        let events = crate::testing::life();
        let row = folded(&events[..1]).unwrap();
        let envelope = recorded(&events[0], 1, 1);
        let key = OrdersByUser::key(Recorded {
            event: &events[0],
            envelope: &envelope,
        });
        let mut item = OrdersByUser::to_item(&key, &row);
        item.extend(OrdersByUser::item_key(&key));
        assert_eq!(OrdersByUser::from_item(&item), Ok(row));
        item.remove(STATUS);
        assert_eq!(OrdersByUser::from_item(&item), Err(BadItem::at(STATUS)));
    }
}
