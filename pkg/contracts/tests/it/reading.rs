//! What a reader makes of its owner's events.

use std::sync::Arc;

use millrace_contracts::{
    DecodeError,
    customers::{self, Address, CustomersEvent},
    ordering::{self, OrderingEvent},
};
use millrace_es::{
    Context, Epoch, EventId, Metadata, Partition, Position, RecordedEvent, StreamId, StreamVersion,
};
use serde_json::{Value, json, value::to_raw_value};

fn recorded(
    context: &str,
    event_type: &str,
    schema_version: u16,
    payload: &Value,
) -> RecordedEvent {
    RecordedEvent {
        id: EventId::generate(),
        context: Context::new(context).unwrap(),
        epoch: Epoch::new(1),
        position: Position::new(1),
        partition: Partition::new(0),
        previous: Position::ZERO,
        stream: StreamId::new("order-1").unwrap(),
        version: StreamVersion::new(1),
        event_type: event_type.to_owned().into(),
        schema_version,
        payload: to_raw_value(payload).unwrap(),
        metadata: Arc::new(Metadata::default()),
        recorded_at: "2026-01-31T12:00:00Z".parse().unwrap(),
    }
}

fn account(address: &Value) -> Value {
    let mut payload = json!({ "user_id": "1", "created_at": "2026-01-31T12:00:00Z" });
    let fields = address.as_object().unwrap().clone();
    payload.as_object_mut().unwrap().extend(fields);
    payload
}

#[test]
fn what_the_contract_does_not_name_is_left_out() {
    let payload = json!({
        "id": "1", "name": "Alice", "email": "alice@demo.com", "shoe_size": 38,
        "created_at": "2026-01-31T12:00:00Z",
    });
    let event = recorded(customers::CONTEXT, customers::USER_CREATED, 1, &payload);
    let Some(CustomersEvent::UserCreated(user)) = CustomersEvent::decode(&event).unwrap() else {
        panic!("a user was created");
    };
    assert_eq!((user.name.as_str(), user.id.as_str()), ("Alice", "1"));
    let again = serde_json::to_value(CustomersEvent::UserCreated(user)).unwrap();
    assert_eq!(again.get("shoe_size"), None);
    assert_eq!(again["created_at"], payload["created_at"]);
}

#[test]
fn an_address_comes_in_parts_or_as_one_text() {
    let parts = json!({
        "street": "123 Main St", "city": "Cityville", "state": "ST", "zip": "12345",
    });
    let text = json!({ "address": "somewhere" });
    for (address, shown) in [
        (parts, "123 Main St, Cityville, ST 12345"),
        (text, "somewhere"),
    ] {
        let payload = account(&address);
        let event = recorded(customers::CONTEXT, customers::ACCOUNT_CREATED, 1, &payload);
        let read = CustomersEvent::decode(&event).unwrap().unwrap();
        assert_eq!(serde_json::to_value(&read).unwrap(), payload);
        let CustomersEvent::AccountCreated(account) = read else {
            panic!("{read:?}")
        };
        assert_eq!(account.address.to_string(), shown);
    }
    let none = recorded(
        customers::CONTEXT,
        customers::ACCOUNT_CREATED,
        1,
        &account(&json!({ "street": "123 Main St" })),
    );
    let malformed = CustomersEvent::decode(&none).unwrap_err();
    assert!(matches!(malformed, DecodeError::Malformed { .. }));
    let text = Address::Text {
        address: "a".into(),
    };
    assert_eq!(text.to_string(), "a");
}

#[test]
fn other_events_say_nothing_and_newer_ones_are_waited_for() {
    let empty = json!({});
    let foreign = recorded("banking", ordering::ORDER_CREATED, 1, &empty);
    assert!(OrderingEvent::decode(&foreign).unwrap().is_none());
    assert!(CustomersEvent::decode(&foreign).unwrap().is_none());
    let private = recorded(ordering::CONTEXT, "order.packed", 7, &empty);
    assert!(OrderingEvent::decode(&private).unwrap().is_none());
    for (event_type, newest) in ordering::EVENT_TYPES {
        let newer = recorded(ordering::CONTEXT, event_type, newest + 1, &empty);
        assert!(
            OrderingEvent::decode(&newer)
                .unwrap_err()
                .needs_newer_release()
        );
        let broken = recorded(ordering::CONTEXT, event_type, newest, &empty);
        let malformed = OrderingEvent::decode(&broken).unwrap_err();
        assert!(matches!(malformed, DecodeError::Malformed { .. }));
    }
    for (event_type, newest) in customers::EVENT_TYPES {
        let newer = recorded(customers::CONTEXT, event_type, newest + 1, &empty);
        assert!(
            CustomersEvent::decode(&newer)
                .unwrap_err()
                .needs_newer_release()
        );
    }
}
