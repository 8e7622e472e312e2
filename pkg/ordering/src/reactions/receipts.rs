//! Archives the receipt of every order: once as JSON, and once to be read and printed.

mod page;
mod routes;

use std::fmt;

use async_trait::async_trait;
use bytes::Bytes;
use millrace_contracts::ordering::{OrderCreated, OrderingEvent};
use millrace_effects::Archive;
use millrace_es::{DecodeError, EventId, Position, Reaction, Recorded, RecordedEvent};
use millrace_kernel::{EntityId, Money, Timestamp};
use millrace_projecting::{EffectError, React};
use serde::Serialize;

use self::page::page;
pub use self::routes::routes;
use crate::CONTEXT;

/// A receipt for every order created.
pub struct OrderReceipts;

impl Reaction for OrderReceipts {
    const NAME: &'static str = "order-receipts";
    const CONTEXTS: &'static [&'static str] = &[CONTEXT];
    type Event = OrderCreated;

    fn decode(event: &RecordedEvent) -> Result<Option<OrderCreated>, DecodeError> {
        Ok(match super::public(event)? {
            Some(OrderingEvent::OrderCreated(created)) => Some(created),
            _ => None,
        })
    }
}

/// The two forms of a receipt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Form {
    Json,
    Html,
}

impl Form {
    const ALL: [Self; 2] = [Self::Json, Self::Html];

    const fn content_type(self) -> &'static str {
        match self {
            Self::Json => "application/json",
            Self::Html => "text/html; charset=utf-8",
        }
    }

    /// Where the receipt of an order lies. A stored format: `receipts/<yyyy>/<mm>/<order id>.json`,
    /// by the month in which the order was created, in UTC.
    fn path(self, id: &impl fmt::Display, created_at: Timestamp) -> String {
        let at = created_at.get();
        let extension = match self {
            Self::Json => "json",
            Self::Html => "html",
        };
        format!(
            "receipts/{:04}/{:02}/{id}.{extension}",
            at.year(),
            u8::from(at.month())
        )
    }
}

/// A receipt, as it is archived. Made of its event and of nothing else, so that it is the same
/// whenever it is made. A stored format: fields may only be added.
#[derive(Debug, Serialize)]
struct Receipt<'a> {
    order_id: &'a EntityId,
    user_id: &'a EntityId,
    created_at: Timestamp,
    #[serde(skip_serializing_if = "Option::is_none")]
    purchase_dt: Option<Timestamp>,
    #[serde(skip_serializing_if = "Option::is_none")]
    description: Option<&'a str>,
    items: Vec<Line<'a>>,
    total_amount: Money,
    currency: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    shipping_address: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    notes: Option<&'a str>,
    event_id: EventId,
    position: Position,
}

#[derive(Debug, Serialize)]
struct Line<'a> {
    description: &'a str,
    quantity: u32,
    unit_price: Money,
}

impl<'a> Receipt<'a> {
    fn of(event: Recorded<'a, OrderCreated>) -> Self {
        let Recorded {
            event: order,
            envelope,
        } = event;
        let items = order.items.iter().map(|item| Line {
            description: &item.description,
            quantity: item.quantity,
            unit_price: item.unit_price,
        });
        Self {
            order_id: &order.order_id,
            user_id: &order.user_id,
            created_at: order.created_at,
            purchase_dt: order.purchase_dt,
            description: order.description.as_deref(),
            items: items.collect(),
            total_amount: order.total_amount,
            currency: "USD",
            shipping_address: order.shipping_address.as_deref(),
            notes: order.notes.as_deref(),
            event_id: envelope.id,
            position: envelope.position,
        }
    }

    fn content(&self, form: Form) -> Result<Bytes, serde_json::Error> {
        Ok(match form {
            Form::Json => serde_json::to_vec_pretty(self)?.into(),
            Form::Html => page(self).into(),
        })
    }
}

/// Writes the receipts into an archive.
pub struct Receipts {
    archive: Archive,
}

impl Receipts {
    /// Into this archive.
    #[must_use]
    pub const fn new(archive: Archive) -> Self {
        Self { archive }
    }
}

#[async_trait]
impl React<OrderReceipts> for Receipts {
    /// Each object is created, never replaced: one that is there is the same.
    async fn react(&self, event: Recorded<'_, OrderCreated>) -> Result<(), EffectError> {
        let receipt = Receipt::of(event);
        for form in Form::ALL {
            let path = form.path(receipt.order_id, receipt.created_at);
            let content = receipt.content(form).map_err(EffectError::refused)?;
            self.archive
                .create(&path, form.content_type(), content)
                .await?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;
    use crate::testing;

    #[test]
    fn a_receipt_lies_in_the_month_of_its_creation() {
        let path = |at: &str| Form::Json.path(&"o-1", at.parse().unwrap());
        assert_eq!(path("2026-01-31T23:59:59Z"), "receipts/2026/01/o-1.json");
        // The month in UTC, whatever the clock that wrote it.
        assert_eq!(
            path("2026-01-31T23:59:59-05:00"),
            "receipts/2026/02/o-1.json"
        );
    }

    #[test]
    fn a_receipt_is_the_same_whenever_it_is_made() {
        let event = testing::created();
        let order = OrderReceipts::decode(&event).unwrap().unwrap();
        let receipt = || {
            Receipt::of(Recorded {
                event: &order,
                envelope: &event,
            })
        };
        for form in Form::ALL {
            let (one, two) = (receipt().content(form), receipt().content(form));
            assert_eq!(one.unwrap(), two.unwrap());
        }
        let json: Value = serde_json::from_slice(&receipt().content(Form::Json).unwrap()).unwrap();
        assert_eq!(json["order_id"], "o-1");
        assert_eq!(json["total_amount"], "499.50");
        assert_eq!(json["items"][0]["unit_price"], "249.75");
    }

    #[test]
    fn other_events_have_no_receipt() {
        for event in testing::recorded_life() {
            let is_created = event.event_type == "order.created";
            let decoded = OrderReceipts::decode(&event).unwrap();
            assert_eq!(decoded.is_some(), is_created, "{}", event.event_type);
        }
    }

    #[test]
    fn a_payment_is_left_alone() {
        let mut event = testing::created();
        event.event_type = "payment.requested".into();
        assert!(OrderReceipts::decode(&event).unwrap().is_none());
    }

    #[test]
    fn an_event_that_is_not_known_stops_the_reaction() {
        let mut event = testing::created();
        event.event_type = "order.gift_wrapped".into();
        let error = OrderReceipts::decode(&event).unwrap_err();
        assert!(error.needs_newer_release(), "{error}");
    }
}
