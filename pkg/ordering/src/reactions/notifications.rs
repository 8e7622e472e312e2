//! Tells others of every event of an order, through a topic.

use std::sync::Arc;

use async_trait::async_trait;
use millrace_contracts::ordering::OrderingEvent;
use millrace_effects::{Attribute, Notice, Topic};
use millrace_es::{
    DecodeError, EventId, Position, Reaction, Recorded, RecordedEvent, StreamVersion,
};
use millrace_kernel::Timestamp;
use millrace_projecting::{EffectError, React};
use serde::Serialize;

use crate::CONTEXT;

/// A message for every order created, every change of its status, and its deletion.
pub struct OrderNotifications;

impl Reaction for OrderNotifications {
    const NAME: &'static str = "order-notifications";
    const CONTEXTS: &'static [&'static str] = &[CONTEXT];
    type Event = OrderingEvent;

    fn decode(event: &RecordedEvent) -> Result<Option<OrderingEvent>, DecodeError> {
        super::public(event)
    }
}

/// The message: a CloudEvent in its JSON form. What `data` holds is the public contract of the
/// event's type, and nothing else of it.
#[derive(Debug, Serialize)]
struct Message<'a> {
    specversion: &'static str,
    id: EventId,
    source: &'a str,
    #[serde(rename = "type")]
    event_type: &'a str,
    subject: &'a str,
    time: Timestamp,
    datacontenttype: &'static str,
    /// The event's place in the log of its context.
    position: Position,
    /// The event's place in its order's history.
    streamversion: StreamVersion,
    correlationid: &'a str,
    data: &'a OrderingEvent,
}

/// Publishes the messages.
pub struct Notifications {
    topic: Arc<Topic>,
    source: String,
}

impl Notifications {
    /// To a topic, in the name of a namespace.
    #[must_use]
    pub fn new(topic: Arc<Topic>, namespace: &str) -> Self {
        Self {
            topic,
            source: format!("/{namespace}/{CONTEXT}"),
        }
    }
}

#[async_trait]
impl React<OrderNotifications> for Notifications {
    async fn react(&self, event: Recorded<'_, OrderingEvent>) -> Result<(), EffectError> {
        let notice = notice(&self.source, event).map_err(EffectError::refused)?;
        self.topic.publish(notice).await
    }
}

fn notice(source: &str, event: Recorded<'_, OrderingEvent>) -> Result<Notice, serde_json::Error> {
    let Recorded { event, envelope } = event;
    let message = Message {
        specversion: "1.0",
        id: envelope.id,
        source,
        event_type: event.event_type(),
        subject: envelope.stream.as_str(),
        time: envelope.recorded_at,
        datacontenttype: "application/json",
        position: envelope.position,
        streamversion: envelope.version,
        correlationid: &envelope.metadata.correlation_id,
        data: event,
    };
    Ok(Notice {
        id: envelope.id.to_string(),
        group: event.order_id().to_string(),
        message: serde_json::to_string(&message)?,
        attributes: attributes(event),
    })
}

/// What subscribers filter by.
fn attributes(event: &OrderingEvent) -> Vec<(&'static str, Attribute)> {
    let (status, amount) = match event {
        OrderingEvent::OrderCreated(event) => ("PENDING", event.total_amount),
        OrderingEvent::OrderStatusUpdated(event) => (event.to.as_str(), event.total_amount),
        OrderingEvent::OrderDeleted(event) => (event.status.as_str(), event.total_amount),
    };
    let text = |text: &str| Attribute::Text(text.to_owned());
    vec![
        ("context", text(CONTEXT)),
        ("event_type", text(event.event_type())),
        ("order_id", text(event.order_id().as_str())),
        ("user_id", text(event.user_id().as_str())),
        ("status", text(status)),
        ("total_amount", Attribute::Number(amount.to_string())),
    ]
}

#[cfg(test)]
mod tests {
    use millrace_effects::MAX_ATTRIBUTES;
    use serde_json::Value;

    use super::*;
    use crate::testing;

    #[test]
    fn a_message_says_what_happened_and_nothing_private() {
        let event = testing::created();
        let public = OrderNotifications::decode(&event).unwrap().unwrap();
        let both = Recorded {
            event: &public,
            envelope: &event,
        };
        let notice = notice("/millrace/ordering", both).unwrap();
        assert_eq!(notice.id, event.id.to_string());
        assert_eq!(notice.group, "o-1");
        assert!(notice.attributes.len() <= MAX_ATTRIBUTES);
        let status = notice.attributes.iter().find(|(name, _)| *name == "status");
        assert_eq!(status.unwrap().1, Attribute::Text("PENDING".into()));
        let message: Value = serde_json::from_str(&notice.message).unwrap();
        assert_eq!(message["specversion"], "1.0");
        assert_eq!(message["type"], "order.created");
        assert_eq!(message["source"], "/millrace/ordering");
        assert_eq!(message["subject"], "order-o-1");
        assert_eq!(message["data"]["order_id"], "o-1");
        assert_eq!(message["data"]["total_amount"], "499.50");
        // Private to this context.
        assert!(message["data"].get("items_count").is_none());
    }
}
