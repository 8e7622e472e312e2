//! An order, from its creation to its delivery, cancellation or deletion.
//!
//! Ids, events, commands, refusals, state, decisions, in that order. Everything is pure: times and
//! generated ids come in with the command. Events are stored formats: their fields may only be
//! added to, as optional ones, and everything else is a new schema version with a step in
//! [`stored`] that lifts the old one (a check over `schemas/` and `golden/` holds this).

use std::{fmt, str::FromStr};

use millrace_es::Aggregate;
use millrace_kernel::{Money, Timestamp, id_type};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

#[cfg(test)]
pub(crate) mod fixtures;
pub mod stored;
#[cfg(test)]
mod tests;
mod values;

pub use values::{
    InvalidItems, InvalidQuantity, InvalidTotal, Items, MAX_DESCRIPTION_CHARS, MAX_ITEMS,
    MAX_NOTES_CHARS, MAX_QUANTITY, MAX_REASON_CHARS, MAX_SHIPPING_ADDRESS_CHARS, MAX_TOTAL_AMOUNT,
    Quantity, Total,
};

// ---------------------------------------------------------------------------------------- ids

id_type! {
    /// Names an order.
    OrderId
}
id_type! {
    /// Names who ordered. Users live in another context; here they are a name only.
    UserId
}
id_type! {
    /// Names the account that is to pay. Accounts live in another context.
    AccountId
}

// ------------------------------------------------------------------------------------- events

/// Where an order stands. Stored format: the names are in events, tables and answers.
#[derive(
    Debug,
    Clone,
    Copy,
    PartialEq,
    Eq,
    Hash,
    PartialOrd,
    Ord,
    Serialize,
    Deserialize,
    JsonSchema,
    utoipa::ToSchema,
)]
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
    /// Every status.
    pub const ALL: [Self; 5] = [
        Self::Pending,
        Self::Confirmed,
        Self::Shipped,
        Self::Delivered,
        Self::Cancelled,
    ];

    /// The status as it is stored and answered.
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

    /// Whether an order may go from here to there. The same status is no step.
    #[must_use]
    pub const fn may_become(self, next: Self) -> bool {
        matches!(
            (self, next),
            (Self::Pending, Self::Confirmed | Self::Cancelled)
                | (Self::Confirmed, Self::Shipped | Self::Cancelled)
                | (Self::Shipped, Self::Delivered)
        )
    }

    /// Whether an order that stands here may be deleted: not once it has left the house.
    #[must_use]
    pub const fn may_be_deleted(self) -> bool {
        !matches!(self, Self::Shipped | Self::Delivered)
    }
}

impl fmt::Display for OrderStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A text that is no status.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("must be PENDING, CONFIRMED, SHIPPED, DELIVERED or CANCELLED")]
pub struct InvalidStatus;

impl FromStr for OrderStatus {
    type Err = InvalidStatus;
    fn from_str(text: &str) -> Result<Self, InvalidStatus> {
        Self::ALL
            .into_iter()
            .find(|status| status.as_str() == text)
            .ok_or(InvalidStatus)
    }
}

/// What an order is charged in. Stored format.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Currency {
    /// US dollars.
    #[serde(rename = "USD")]
    Usd,
}

impl Currency {
    /// The code of ISO 4217.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Usd => "USD",
        }
    }
}

/// One line of an order. Stored format.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema, utoipa::ToSchema)]
pub struct OrderItem {
    /// What was ordered.
    pub description: String,
    /// How many of it.
    pub quantity: u32,
    /// What one of it costs.
    pub unit_price: Money,
}

/// An order was created. Stored format `order.created` version 2.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct OrderCreated {
    /// The order.
    pub order_id: OrderId,
    /// Who ordered.
    pub user_id: UserId,
    /// The lines; none where only a total was given.
    pub items: Vec<OrderItem>,
    /// How many lines. Since version 2.
    pub items_count: u32,
    /// What the order costs.
    pub total_amount: Money,
    /// What it is charged in. Since version 2.
    pub currency: Currency,
    /// Where it goes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shipping_address: Option<String>,
    /// What else was said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub notes: Option<String>,
    /// The account that is to pay.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub payment_account_id: Option<AccountId>,
    /// The order in one phrase, for an invoice.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// When it was bought, where that is not when it was created.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub purchase_dt: Option<Timestamp>,
    /// When it was created.
    pub created_at: Timestamp,
}

/// An order's status changed. Stored format `order.status_updated` version 1.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct OrderStatusUpdated {
    /// The order.
    pub order_id: OrderId,
    /// Who ordered.
    pub user_id: UserId,
    /// The status before.
    pub from: OrderStatus,
    /// The status now.
    pub to: OrderStatus,
    /// Why, where it was said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// What the order costs.
    pub total_amount: Money,
    /// When it was bought, where that is not when it was created: who invoices by month finds the
    /// month by it. Events written before this field was added lack it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub purchase_dt: Option<Timestamp>,
    /// When the order was created.
    pub created_at: Timestamp,
    /// When its status changed.
    pub updated_at: Timestamp,
}

/// An order was deleted. Stored format `order.deleted` version 1.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct OrderDeleted {
    /// The order.
    pub order_id: OrderId,
    /// Who ordered.
    pub user_id: UserId,
    /// The status it had.
    pub status: OrderStatus,
    /// What the order cost.
    pub total_amount: Money,
    /// When it was bought, where that is not when it was created: who invoices by month finds the
    /// month by it. Events written before this field was added lack it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub purchase_dt: Option<Timestamp>,
    /// When the order was created.
    pub created_at: Timestamp,
    /// When it was deleted.
    pub deleted_at: Timestamp,
}

/// What can happen to an order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum OrderEvent {
    /// It was created.
    Created(OrderCreated),
    /// Its status changed.
    StatusUpdated(OrderStatusUpdated),
    /// It was deleted.
    Deleted(OrderDeleted),
}

impl OrderEvent {
    /// The order it happened to.
    #[must_use]
    pub const fn order_id(&self) -> &OrderId {
        match self {
            Self::Created(event) => &event.order_id,
            Self::StatusUpdated(event) => &event.order_id,
            Self::Deleted(event) => &event.order_id,
        }
    }
}

// ----------------------------------------------------------------------------------- commands

/// Asks for a new order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CreateOrder {
    /// Its id, chosen or generated.
    pub order_id: OrderId,
    /// Who orders.
    pub user_id: UserId,
    /// What is ordered, and what it costs in all.
    pub total: Total,
    /// Where it goes.
    pub shipping_address: Option<String>,
    /// What else is to be said.
    pub notes: Option<String>,
    /// The account that is to pay.
    pub payment_account_id: Option<AccountId>,
    /// The order in one phrase.
    pub description: Option<String>,
    /// When it was bought, where that is not now.
    pub purchase_dt: Option<Timestamp>,
    /// Now.
    pub at: Timestamp,
}

/// What may be asked of an order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum OrderCommand {
    /// Be created.
    Create(Box<CreateOrder>),
    /// Take a status.
    UpdateStatus {
        /// The status to take.
        to: OrderStatus,
        /// Why, where it is said.
        reason: Option<String>,
        /// Now.
        at: Timestamp,
    },
    /// Take what its payment came to: a pending order is confirmed, or cancelled. On any other it
    /// changes nothing. Asked for by its payment alone.
    Settle {
        /// Whether it is paid.
        paid: bool,
        /// Why not, where it is not.
        reason: Option<String>,
        /// Now.
        at: Timestamp,
    },
    /// Go from the active orders.
    Delete {
        /// Now.
        at: Timestamp,
    },
}

// ----------------------------------------------------------------------------------- refusals

/// Why an order refuses a command.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum OrderRefusal {
    /// There is no such order.
    #[error("there is no such order")]
    NotFound,
    /// An order of this id exists, or existed.
    #[error("an order with this id exists already")]
    AlreadyExists,
    /// The order was deleted; nothing can happen to it any more.
    #[error("the order was deleted")]
    Deleted,
    /// No order goes from the one status to the other.
    #[error("an order that is {from} cannot become {to}")]
    Transition {
        /// The status it has.
        from: OrderStatus,
        /// The status that was asked for.
        to: OrderStatus,
    },
    /// The order is to be paid from an account, and is confirmed when it is and by nobody else.
    #[error("the order is confirmed when it is paid, and its payment is not at its end")]
    PaymentPending,
    /// The order has left the house.
    #[error("an order that is {status} cannot be deleted")]
    NotDeletable {
        /// The status it has.
        status: OrderStatus,
    },
}

// -------------------------------------------------------------------------------------- state

/// An order as its events made it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Order {
    /// Nothing happened yet.
    #[default]
    Absent,
    /// It is on its way through the statuses.
    Active(Box<OrderDetails>),
    /// It was deleted, and is kept as it was.
    Deleted(Box<OrderDetails>),
}

/// What is known about an order that exists or existed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OrderDetails {
    /// As it was created.
    pub created: OrderCreated,
    /// Where it stands.
    pub status: OrderStatus,
    /// When something last happened to it.
    pub updated_at: Timestamp,
}

impl Order {
    /// What is known, deleted or not; `None` when there is no such order.
    #[must_use]
    pub const fn details(&self) -> Option<&OrderDetails> {
        match self {
            Self::Absent => None,
            Self::Active(details) | Self::Deleted(details) => Some(details),
        }
    }

    /// Whether it was deleted.
    #[must_use]
    pub const fn is_deleted(&self) -> bool {
        matches!(self, Self::Deleted(_))
    }

    /// Whether it waits to be confirmed.
    #[must_use]
    pub fn is_pending(&self) -> bool {
        match self {
            Self::Active(order) => order.status == OrderStatus::Pending,
            Self::Absent | Self::Deleted(_) => false,
        }
    }

    /// Whether somebody wants it still: it is there, and not cancelled.
    #[must_use]
    pub fn is_wanted(&self) -> bool {
        match self {
            Self::Active(order) => order.status != OrderStatus::Cancelled,
            Self::Absent | Self::Deleted(_) => false,
        }
    }
}

// ----------------------------------------------------------------------------------- decisions

impl Aggregate for Order {
    const CATEGORY: &'static str = "order";
    const SNAPSHOT_VERSION: u16 = 1;

    type Command = OrderCommand;
    type Event = OrderEvent;
    type Refusal = OrderRefusal;

    fn decide(&self, command: &OrderCommand) -> Result<Vec<OrderEvent>, OrderRefusal> {
        match (self, command) {
            (Self::Absent, OrderCommand::Create(order)) => Ok(vec![created(order)]),
            (Self::Active(_) | Self::Deleted(_), OrderCommand::Create(_)) => {
                Err(OrderRefusal::AlreadyExists)
            }
            (Self::Absent, _) => Err(OrderRefusal::NotFound),
            (Self::Active(order), OrderCommand::UpdateStatus { to, reason, at }) => {
                order.update_status(*to, reason.as_deref(), *at)
            }
            (Self::Active(order), OrderCommand::Settle { paid, reason, at }) => {
                Ok(order.settle(*paid, reason.as_deref(), *at))
            }
            (Self::Deleted(_), OrderCommand::Settle { .. }) => Ok(Vec::new()),
            (Self::Active(order), OrderCommand::Delete { at }) => order.delete(*at),
            (Self::Deleted(_), OrderCommand::UpdateStatus { .. }) => Err(OrderRefusal::Deleted),
            (Self::Deleted(_), OrderCommand::Delete { .. }) => Ok(Vec::new()),
        }
    }

    fn evolve(self, event: &OrderEvent) -> Self {
        match (self, event) {
            (_, OrderEvent::Created(created)) => Self::Active(Box::new(OrderDetails {
                status: OrderStatus::Pending,
                updated_at: created.created_at,
                created: created.clone(),
            })),
            (Self::Active(mut order), OrderEvent::StatusUpdated(change)) => {
                order.status = change.to;
                order.updated_at = change.updated_at;
                Self::Active(order)
            }
            (Self::Active(mut order), OrderEvent::Deleted(deletion)) => {
                order.updated_at = deletion.deleted_at;
                Self::Deleted(order)
            }
            // No decision leads here; a fact that cannot be placed changes nothing.
            (state, OrderEvent::StatusUpdated(_) | OrderEvent::Deleted(_)) => state,
        }
    }
}

fn created(order: &CreateOrder) -> OrderEvent {
    OrderEvent::Created(OrderCreated {
        order_id: order.order_id.clone(),
        user_id: order.user_id.clone(),
        items: order.total.items().to_vec(),
        items_count: order.total.items_count(),
        total_amount: order.total.amount(),
        currency: Currency::Usd,
        shipping_address: order.shipping_address.clone(),
        notes: order.notes.clone(),
        payment_account_id: order.payment_account_id.clone(),
        description: order.description.clone(),
        purchase_dt: order.purchase_dt,
        created_at: order.at,
    })
}

impl OrderDetails {
    fn update_status(
        &self,
        to: OrderStatus,
        reason: Option<&str>,
        at: Timestamp,
    ) -> Result<Vec<OrderEvent>, OrderRefusal> {
        let from = self.status;
        if from == to {
            return Ok(Vec::new());
        }
        if !from.may_become(to) {
            return Err(OrderRefusal::Transition { from, to });
        }
        if to == OrderStatus::Confirmed && self.created.payment_account_id.is_some() {
            return Err(OrderRefusal::PaymentPending);
        }
        Ok(vec![self.become_(to, reason, at)])
    }

    fn settle(&self, paid: bool, reason: Option<&str>, at: Timestamp) -> Vec<OrderEvent> {
        let to = if paid {
            OrderStatus::Confirmed
        } else {
            OrderStatus::Cancelled
        };
        match self.status {
            OrderStatus::Pending => vec![self.become_(to, reason, at)],
            OrderStatus::Confirmed
            | OrderStatus::Shipped
            | OrderStatus::Delivered
            | OrderStatus::Cancelled => Vec::new(),
        }
    }

    fn become_(&self, to: OrderStatus, reason: Option<&str>, at: Timestamp) -> OrderEvent {
        OrderEvent::StatusUpdated(OrderStatusUpdated {
            order_id: self.created.order_id.clone(),
            user_id: self.created.user_id.clone(),
            from: self.status,
            to,
            reason: reason.map(str::to_owned),
            total_amount: self.created.total_amount,
            purchase_dt: self.created.purchase_dt,
            created_at: self.created.created_at,
            updated_at: at,
        })
    }

    fn delete(&self, at: Timestamp) -> Result<Vec<OrderEvent>, OrderRefusal> {
        let status = self.status;
        if !status.may_be_deleted() {
            return Err(OrderRefusal::NotDeletable { status });
        }
        Ok(vec![OrderEvent::Deleted(OrderDeleted {
            order_id: self.created.order_id.clone(),
            user_id: self.created.user_id.clone(),
            status,
            total_amount: self.created.total_amount,
            purchase_dt: self.created.purchase_dt,
            created_at: self.created.created_at,
            deleted_at: at,
        })])
    }
}
