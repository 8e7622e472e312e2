//! What did a user order in a month, and what does it come to? The invoices, and beside them what
//! is known about the users that they go to.
//!
//! A user's own events are all in one stream, so `invoice_account` has one owner. An invoice is a
//! row in which orders of many partitions meet: its rows are locked while they are folded, and its
//! fold comes to the same row in whatever order the orders come. E-mail and address are joined when
//! an invoice is read, so that a user who moves costs one row however many invoices he has.

mod routes;
mod rows;

pub use routes::{QUERIES, routes};
pub use rows::{AccountRow, InvoiceKey, InvoicesRow, Key};

use millrace_contracts::{
    customers::{self, CustomersEvent},
    ordering::{self, OrderStatus, OrderingEvent},
};
use millrace_es::{
    DecodeError, FoldError, Projection, Recorded, RecordedEvent, RowProjection, StreamVersion,
};
use millrace_kernel::{EntityId, Timestamp};

use crate::{
    addresses::{Addresses, Taken},
    month::Month,
    orders::{Line, Orders, TooMuch},
};

/// The projection `invoices`.
#[derive(Debug)]
pub struct Invoices;

/// What an event says to an invoice.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum InvoiceEvent {
    /// A user has an e-mail address.
    Emailed {
        /// The user.
        user_id: EntityId,
        /// His e-mail address.
        email: String,
        /// His name.
        name: String,
    },
    /// A user has an address.
    Moved {
        /// The user.
        user_id: EntityId,
        /// His address as it is shown.
        address: String,
        /// Since when.
        at: Timestamp,
    },
    /// An order was bought.
    Bought {
        /// Whose invoice it is on.
        invoice: InvoiceKey,
        /// Its line there.
        line: Line,
    },
    /// An order was cancelled or deleted.
    CalledOff {
        /// Whose invoice it was on.
        invoice: InvoiceKey,
        /// The order.
        order_id: EntityId,
    },
}

impl Projection for Invoices {
    const NAME: &'static str = "invoices";
    const VERSION: u32 = 1;
    const CONTEXTS: &'static [&'static str] = &[customers::CONTEXT, ordering::CONTEXT];

    type Event = InvoiceEvent;

    fn decode(event: &RecordedEvent) -> Result<Option<InvoiceEvent>, DecodeError> {
        if event.context.as_str() == customers::CONTEXT {
            return Ok(CustomersEvent::decode(event)?.map(of_user));
        }
        Ok(OrderingEvent::decode(event)?.and_then(of_order))
    }
}

fn of_user(event: CustomersEvent) -> InvoiceEvent {
    let emailed = |user_id, email, name| InvoiceEvent::Emailed {
        user_id,
        email,
        name,
    };
    let moved = |user_id, address: customers::Address, at| InvoiceEvent::Moved {
        user_id,
        address: address.to_string(),
        at,
    };
    match event {
        CustomersEvent::UserCreated(event) => emailed(event.id, event.email, event.name),
        CustomersEvent::UserUpdated(event) => emailed(event.id, event.email, event.name),
        CustomersEvent::AccountCreated(event) => {
            moved(event.user_id, event.address, event.created_at)
        }
        CustomersEvent::AccountUpdated(event) => {
            moved(event.user_id, event.address, event.updated_at)
        }
    }
}

fn of_order(event: OrderingEvent) -> Option<InvoiceEvent> {
    let invoice = |user_id, bought: Option<Timestamp>, created| InvoiceKey {
        user_id,
        month: Month::of(bought.unwrap_or(created)),
    };
    match event {
        OrderingEvent::OrderCreated(event) => {
            let line = Line::of(&event);
            let invoice = invoice(event.user_id, event.purchase_dt, event.created_at);
            Some(InvoiceEvent::Bought { invoice, line })
        }
        OrderingEvent::OrderStatusUpdated(event) if event.to == OrderStatus::Cancelled => {
            Some(InvoiceEvent::CalledOff {
                invoice: invoice(event.user_id, event.purchase_dt, event.created_at),
                order_id: event.order_id,
            })
        }
        OrderingEvent::OrderStatusUpdated(_) => None,
        OrderingEvent::OrderDeleted(event) => Some(InvoiceEvent::CalledOff {
            invoice: invoice(event.user_id, event.purchase_dt, event.created_at),
            order_id: event.order_id,
        }),
    }
}

impl RowProjection for Invoices {
    const SHARED: bool = true;

    type Key = Key;
    type Row = InvoicesRow;

    fn key(Recorded { event, .. }: Recorded<'_, InvoiceEvent>) -> Key {
        match event {
            InvoiceEvent::Emailed { user_id, .. } | InvoiceEvent::Moved { user_id, .. } => {
                Key::Account(user_id.clone())
            }
            InvoiceEvent::Bought { invoice, .. } | InvoiceEvent::CalledOff { invoice, .. } => {
                Key::Invoice(invoice.clone())
            }
        }
    }

    fn fold(
        row: Option<InvoicesRow>,
        Recorded { event, envelope }: Recorded<'_, InvoiceEvent>,
    ) -> Result<Option<InvoicesRow>, FoldError> {
        match event {
            InvoiceEvent::Emailed { email, name, .. } => Ok(fold_account(row, |account| {
                account.emailed(email, name, envelope.version);
            })),
            InvoiceEvent::Moved { address, at, .. } => Ok(fold_account(row, |account| {
                account.moved(Taken {
                    at: *at,
                    version: envelope.version,
                    address: address.clone(),
                });
            })),
            InvoiceEvent::Bought { line, .. } => {
                fold_orders(row, |orders| orders.put(line.clone()))
            }
            InvoiceEvent::CalledOff { order_id, .. } => {
                fold_orders(row, |orders| orders.take_off(order_id))
            }
        }
    }
}

fn fold_account(
    row: Option<InvoicesRow>,
    change: impl FnOnce(&mut AccountRow),
) -> Option<InvoicesRow> {
    let mut account = match row {
        Some(InvoicesRow::Account(account)) => account,
        _ => AccountRow::default(),
    };
    change(&mut account);
    Some(InvoicesRow::Account(account))
}

fn fold_orders(
    row: Option<InvoicesRow>,
    change: impl FnOnce(&mut Orders) -> Result<(), TooMuch>,
) -> Result<Option<InvoicesRow>, FoldError> {
    let mut orders = match row {
        Some(InvoicesRow::Invoice(orders)) => orders,
        _ => Orders::default(),
    };
    change(&mut orders).map_err(|TooMuch| FoldError::new("the invoice's total is too large"))?;
    Ok(Some(InvoicesRow::Invoice(orders)))
}

impl AccountRow {
    /// The user's latest e-mail address and name, by his stream.
    fn emailed(&mut self, email: &str, name: &str, version: StreamVersion) {
        if version > self.version {
            self.email = Some(email.to_owned());
            self.name = Some(name.to_owned());
            self.version = version;
        }
    }

    fn moved(&mut self, taken: Taken) {
        self.addresses = std::mem::take::<Addresses>(&mut self.addresses).with(taken);
    }
}

#[cfg(test)]
mod tests;
