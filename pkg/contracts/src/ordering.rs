//! What others may know of the context `ordering`: that an order was created, took another status,
//! or was deleted.

use std::fmt;

use millrace_es::{DecodeError, RecordedEvent};
use millrace_kernel::{EntityId, Money, Timestamp};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::read::read;

/// The owner.
pub const CONTEXT: &str = "ordering";

/// The type of [`OrderCreated`].
pub const ORDER_CREATED: &str = "order.created";
/// The type of [`OrderStatusUpdated`].
pub const ORDER_STATUS_UPDATED: &str = "order.status_updated";
/// The type of [`OrderDeleted`].
pub const ORDER_DELETED: &str = "order.deleted";

const CREATED_NEWEST: u16 = 2;
const STATUS_UPDATED_NEWEST: u16 = 1;
const DELETED_NEWEST: u16 = 1;

/// Every public event type with the owner's newest schema version that can be read.
pub const EVENT_TYPES: [(&str, u16); 3] = [
    (ORDER_CREATED, CREATED_NEWEST),
    (ORDER_STATUS_UPDATED, STATUS_UPDATED_NEWEST),
    (ORDER_DELETED, DELETED_NEWEST),
];

/// Where an order stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "UPPERCASE")]
pub enum OrderStatus {
    /// Taken, not yet confirmed.
    Pending,
    /// Confirmed, not yet sent.
    Confirmed,
    /// On its way.
    Shipped,
    /// Arrived.
    Delivered,
    /// Called off before it was sent.
    Cancelled,
}

impl OrderStatus {
    /// The status as events have it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "PENDING",
            Self::Confirmed => "CONFIRMED",
            Self::Shipped => "SHIPPED",
            Self::Delivered => "DELIVERED",
            Self::Cancelled => "CANCELLED",
        }
    }
}

impl fmt::Display for OrderStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// One line of an order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Item {
    /// What was ordered.
    pub description: String,
    /// How many of it.
    pub quantity: u32,
    /// What one of it costs.
    pub unit_price: Money,
}

/// An order was created.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct OrderCreated {
    /// The order.
    pub order_id: EntityId,
    /// Who ordered.
    pub user_id: EntityId,
    /// The lines; none where only a total was given.
    pub items: Vec<Item>,
    /// What the order costs, in US dollars.
    pub total_amount: Money,
    /// Where it goes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shipping_address: Option<String>,
    /// What else was said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub notes: Option<String>,
    /// The account that is to pay.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub payment_account_id: Option<EntityId>,
    /// The order in one phrase.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// When it was bought, where that is not when it was created.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub purchase_dt: Option<Timestamp>,
    /// When it was created.
    pub created_at: Timestamp,
}

/// An order's status changed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct OrderStatusUpdated {
    /// The order.
    pub order_id: EntityId,
    /// Who ordered.
    pub user_id: EntityId,
    /// The status before.
    pub from: OrderStatus,
    /// The status now.
    pub to: OrderStatus,
    /// Why, where it was said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// What the order costs, in US dollars.
    pub total_amount: Money,
    /// When it was bought, where that is known here and not when it was created.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub purchase_dt: Option<Timestamp>,
    /// When the order was created.
    pub created_at: Timestamp,
    /// When its status changed.
    pub updated_at: Timestamp,
}

/// An order was deleted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct OrderDeleted {
    /// The order.
    pub order_id: EntityId,
    /// Who ordered.
    pub user_id: EntityId,
    /// The status it had.
    pub status: OrderStatus,
    /// What the order cost, in US dollars.
    pub total_amount: Money,
    /// When it was bought, where that is known here and not when it was created.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub purchase_dt: Option<Timestamp>,
    /// When the order was created.
    pub created_at: Timestamp,
    /// When it was deleted.
    pub deleted_at: Timestamp,
}

/// What others may know of what happened to an order. Serialised, it is the payload alone.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub enum OrderingEvent {
    /// It was created.
    OrderCreated(OrderCreated),
    /// Its status changed.
    OrderStatusUpdated(OrderStatusUpdated),
    /// It was deleted.
    OrderDeleted(OrderDeleted),
}

impl OrderingEvent {
    /// Reads an event of any log; `None` when it is another context's, or not public.
    ///
    /// # Errors
    /// [`DecodeError::NewerVersion`] and [`DecodeError::Malformed`].
    pub fn decode(event: &RecordedEvent) -> Result<Option<Self>, DecodeError> {
        if event.context.as_str() != CONTEXT {
            return Ok(None);
        }
        Self::read(&event.event_type, event.schema_version, &event.payload)
    }

    /// Reads a payload of this context's; `None` when its type is not public.
    ///
    /// # Errors
    /// [`DecodeError::NewerVersion`] and [`DecodeError::Malformed`].
    pub fn read(
        event_type: &str,
        version: u16,
        payload: &RawValue,
    ) -> Result<Option<Self>, DecodeError> {
        match event_type {
            ORDER_CREATED => {
                read(event_type, version, payload, CREATED_NEWEST).map(Self::OrderCreated)
            }
            ORDER_STATUS_UPDATED => read(event_type, version, payload, STATUS_UPDATED_NEWEST)
                .map(Self::OrderStatusUpdated),
            ORDER_DELETED => {
                read(event_type, version, payload, DELETED_NEWEST).map(Self::OrderDeleted)
            }
            _ => return Ok(None),
        }
        .map(Some)
    }

    /// The public type, such as `order.created`.
    #[must_use]
    pub const fn event_type(&self) -> &'static str {
        match self {
            Self::OrderCreated(_) => ORDER_CREATED,
            Self::OrderStatusUpdated(_) => ORDER_STATUS_UPDATED,
            Self::OrderDeleted(_) => ORDER_DELETED,
        }
    }

    /// The order it happened to.
    #[must_use]
    pub const fn order_id(&self) -> &EntityId {
        match self {
            Self::OrderCreated(event) => &event.order_id,
            Self::OrderStatusUpdated(event) => &event.order_id,
            Self::OrderDeleted(event) => &event.order_id,
        }
    }

    /// Who ordered.
    #[must_use]
    pub const fn user_id(&self) -> &EntityId {
        match self {
            Self::OrderCreated(event) => &event.user_id,
            Self::OrderStatusUpdated(event) => &event.user_id,
            Self::OrderDeleted(event) => &event.user_id,
        }
    }
}
