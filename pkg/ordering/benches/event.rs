//! What one event costs on its way, part by part and without servers: `cargo bench -p
//! millrace-ordering`. `baseline_*` is serde_json alone on the same text, beside it in the same run.

#![allow(clippy::unwrap_used)]

use std::sync::Arc;

use divan::{Bencher, black_box};
use millrace_es::{
    Aggregate, Context, DomainEvent, Epoch, EventId, Metadata, Partition, Position, Recorded,
    RecordedEvent, RowProjection, StreamId, StreamVersion,
};
use millrace_ordering::{
    order::{Order, OrderCommand, OrderEvent, OrderStatus},
    views::order_read_models::{Fact, OrderReadModels},
};
use millrace_streaming::{Names, wire};
use serde_json::value::RawValue;

fn main() {
    divan::main();
}

const CREATED: &str = r#"{"order_id":"0197f3a0-0001-7000-8000-000000000001","user_id":"shivam_99","items":[{"description":"A chair of oak","quantity":2,"unit_price":"249.75"}],"items_count":1,"total_amount":"499.50","shipping_address":"1 Mill Lane, Springfield, IL 62701","created_at":"2026-01-31T12:00:00Z"}"#;

fn recorded() -> RecordedEvent {
    RecordedEvent {
        id: EventId::generate(),
        context: Context::new("ordering").unwrap(),
        epoch: Epoch::new(1),
        position: Position::new(42),
        partition: Partition::new(3),
        previous: Position::new(40),
        stream: StreamId::new("order-0197f3a0-0001-7000-8000-000000000001").unwrap(),
        version: StreamVersion::new(1),
        event_type: "order.created".into(),
        schema_version: 2,
        payload: RawValue::from_string(CREATED.to_owned()).unwrap(),
        metadata: Arc::new(Metadata {
            correlation_id: "0197f3a0-0000-7000-8000-000000000042".to_owned(),
            ..Metadata::default()
        }),
        recorded_at: "2026-01-31T12:00:00.000001Z".parse().unwrap(),
    }
}

fn created() -> OrderEvent {
    let event = recorded();
    OrderEvent::decode(&event.event_type, event.schema_version, &event.payload).unwrap()
}

#[divan::bench]
fn decode_payload(bencher: Bencher) {
    let event = recorded();
    bencher.bench_local(|| {
        OrderEvent::decode(
            &event.event_type,
            event.schema_version,
            black_box(&event.payload),
        )
    });
}

#[divan::bench]
fn encode_payload(bencher: Bencher) {
    let event = created();
    bencher.bench_local(|| black_box(&event).encode());
}

#[divan::bench]
fn baseline_parse_value(bencher: Bencher) {
    bencher.bench_local(|| serde_json::from_str::<serde_json::Value>(black_box(CREATED)));
}

#[divan::bench]
fn decide_and_evolve(bencher: Bencher) {
    let order = Order::default().evolve(&created());
    let command = OrderCommand::UpdateStatus {
        to: OrderStatus::Confirmed,
        reason: None,
        at: "2026-02-01T12:00:00Z".parse().unwrap(),
    };
    bencher.bench_local(|| {
        let events = order.decide(black_box(&command)).unwrap();
        events
            .iter()
            .fold(order.clone(), |order, event| order.evolve(event))
    });
}

#[divan::bench]
fn fold_read_model(bencher: Bencher) {
    let envelope = recorded();
    let fact = Fact::Order(created());
    bencher.bench_local(|| {
        OrderReadModels::fold(
            None,
            Recorded {
                event: black_box(&fact),
                envelope: &envelope,
            },
        )
    });
}

#[divan::bench]
fn message_encode(bencher: Bencher) {
    let names = Names::new("millrace").unwrap();
    let event = recorded();
    bencher.bench_local(|| wire::encode(&names, black_box(&event)));
}

#[divan::bench]
fn message_decode(bencher: Bencher) {
    let names = Names::new("millrace").unwrap();
    let event = recorded();
    let message = wire::encode(&names, &event);
    bencher.bench_local(|| {
        wire::decode(
            &names,
            &event.context,
            event.position.get(),
            &message.subject,
            Some(black_box(&message.headers)),
            &message.body,
        )
    });
}
