//! A log on a database of its own, and events to append.

use std::sync::Arc;

use millrace_es::{Context, EventId, Metadata, NewEvent, PartitionCount, StreamId};
use millrace_eventlog::{
    AppendRequest, ExpectedVersion, Migration, PgEventLog, PgLogOptions, StreamAppend, migrate,
};
use millrace_testkit::Database;

pub fn context() -> Context {
    Context::new("testing").unwrap()
}

/// A migrated database.
pub async fn store() -> Database {
    store_with(&[]).await
}

pub async fn store_with(extra: &[Migration]) -> Database {
    let database = millrace_testkit::postgres().await;
    migrate(&database.pool, &context(), PartitionCount::DEFAULT, extra)
        .await
        .unwrap();
    database
}

pub async fn open(database: &Database) -> PgEventLog {
    open_with(database, |_| {}).await
}

pub async fn open_with(database: &Database, change: impl FnOnce(&mut PgLogOptions)) -> PgEventLog {
    let mut options = PgLogOptions::new(context());
    change(&mut options);
    PgEventLog::open(database.pool.clone(), options)
        .await
        .unwrap()
}

pub fn stream(name: &str) -> StreamId {
    StreamId::new(name).unwrap()
}

pub fn event(text: &str) -> NewEvent {
    NewEvent {
        id: EventId::generate(),
        event_type: "thing.happened".into(),
        schema_version: 1,
        payload: serde_json::value::to_raw_value(&serde_json::json!({ "text": text })).unwrap(),
        metadata: Arc::new(Metadata {
            correlation_id: "test".to_owned(),
            ..Metadata::default()
        }),
    }
}

/// An append of so many events to one stream.
pub fn append(name: &str, expected: ExpectedVersion, events: usize) -> AppendRequest {
    AppendRequest {
        streams: vec![StreamAppend {
            stream: stream(name),
            expected,
            events: (0..events).map(|n| event(&format!("{name} {n}"))).collect(),
        }],
        ..AppendRequest::default()
    }
}
