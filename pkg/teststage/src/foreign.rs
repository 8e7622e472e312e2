use std::sync::Arc;

use millrace_es::{EventId, Metadata, NewEvent, RecordedEvent, StreamId};
use millrace_eventlog::{AppendRequest, EventLog, ExpectedVersion, PgEventLog, StreamAppend};
use millrace_testkit::Database;
use serde::Serialize;
use serde_json::value::to_raw_value;

use crate::logs;

/// The log of another context, as far as those who listen to it may know it: nothing decides here
/// what may happen.
#[derive(Clone)]
pub struct Foreign(Arc<PgEventLog>);

impl Foreign {
    /// Makes the log of a context on this database.
    pub async fn open(database: &Database, context: &str) -> Self {
        Self(logs::pg_log(database, context, Vec::new(), &[]).await)
    }

    /// Appends one event of this type and schema version, whatever the stream has already.
    pub async fn append(
        &self,
        stream: StreamId,
        (event_type, schema_version): (&'static str, u16),
        payload: &impl Serialize,
    ) {
        let event = NewEvent {
            id: EventId::generate(),
            event_type: event_type.into(),
            schema_version,
            payload: to_raw_value(payload).expect("a payload has JSON"),
            metadata: Arc::new(Metadata::default()),
        };
        let request = AppendRequest {
            streams: vec![StreamAppend {
                stream,
                expected: ExpectedVersion::Any,
                events: vec![event],
            }],
            ..AppendRequest::default()
        };
        self.0.append(request).await.expect("the log takes it");
    }

    /// The log.
    #[must_use]
    pub fn log(&self) -> Arc<dyn EventLog> {
        self.0.clone()
    }

    /// See [`token`](crate::token).
    pub async fn token(&self) -> String {
        logs::token(&*self.0).await
    }

    /// See [`events`](crate::events).
    pub async fn events(&self) -> Vec<RecordedEvent> {
        logs::events(&*self.0).await
    }
}
