//! Logs with events in both stores, and the endpoint in front of one.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use axum::{Json, Router, routing::post};
use millrace_es::{Context, EventId, Metadata, NewEvent, PartitionCount, StreamId};
use millrace_eventlog::{
    AppendRequest, EventLog, ExpectedVersion, PgEventLog, PgLogOptions, StreamAppend,
    dynamodb::{DynamoEventLog, DynamoLogOptions, create_log_table},
    migrate,
};
use millrace_http::ServerLimits;
use millrace_internal::{InternalService, Owner, OwnerClient, RemoteLog};
use millrace_runtime::Secret;
use millrace_testkit::Database;
use serde_json::{Value, json};
use tokio::{net::TcpListener, task::JoinSet};
use tokio_util::sync::CancellationToken;

pub fn context() -> Context {
    Context::new("testing").unwrap()
}

/// A log in PostgreSQL, and the database it is in.
pub async fn in_postgres() -> (Arc<dyn EventLog>, Database) {
    let database = millrace_testkit::postgres().await;
    let count = PartitionCount::DEFAULT;
    migrate(&database.pool, &context(), count, &[])
        .await
        .unwrap();
    let log = PgEventLog::open(database.pool.clone(), PgLogOptions::new(context()));
    (Arc::new(log.await.unwrap()), database)
}

/// A log in DynamoDB.
pub async fn in_dynamodb() -> Arc<dyn EventLog> {
    let dynamodb = millrace_testkit::dynamodb().await;
    let (client, prefix) = (dynamodb.client, dynamodb.prefix);
    create_log_table(&client, &prefix, &context(), PartitionCount::DEFAULT)
        .await
        .unwrap();
    let options = DynamoLogOptions::new(prefix, context());
    Arc::new(DynamoEventLog::open(client, options).await.unwrap())
}

fn event(payload: &Value) -> NewEvent {
    NewEvent {
        id: EventId::generate(),
        event_type: "thing.happened".into(),
        schema_version: 3,
        payload: serde_json::value::to_raw_value(payload).unwrap(),
        metadata: Arc::new(Metadata {
            correlation_id: "a request \"with\" quotes".to_owned(),
            causation_id: Some("another".to_owned()),
            traceparent: None,
            actor: Some("ada".to_owned()),
            idempotency_key_hash: None,
        }),
    }
}

/// Appends events to a stream.
pub async fn append(log: &dyn EventLog, stream: &str, payloads: &[Value]) {
    let request = AppendRequest {
        streams: vec![StreamAppend {
            stream: StreamId::new(stream).unwrap(),
            expected: ExpectedVersion::Any,
            events: payloads.iter().map(event).collect(),
        }],
        ..AppendRequest::default()
    };
    log.append(request).await.unwrap();
}

/// A few streams with odd names and odd payloads.
pub async fn fill(log: &dyn EventLog) {
    for round in 0..4 {
        for stream in ["order-1", "order-2", "a/b c%2F?#", "größe-ü", ".."] {
            let odd = json!({"round": round, "text": "ü \u{1F600} \"\\", "big": 99_999_999.99});
            append(log, stream, &[odd.clone(), odd]).await;
        }
    }
}

/// A port that routes are served on, until it is dropped.
pub struct Door {
    pub address: SocketAddr,
    _serving: JoinSet<std::io::Result<()>>,
}

impl Door {
    pub async fn open(router: Router) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let (limits, stop) = (ServerLimits::default(), CancellationToken::new());
        let mut serving = JoinSet::new();
        serving.spawn(millrace_http::serve(
            listener,
            router,
            limits,
            stop,
            Duration::ZERO,
        ));
        Self {
            address,
            _serving: serving,
        }
    }
}

/// Opens a port in front of a log, with a command that gives back what it is sent.
pub async fn open_door(log: Arc<dyn EventLog>, token: Option<&str>) -> Door {
    let echo = post(|Json(body): Json<Value>| async move { Json(json!({"echo": body})) });
    let commands = Router::new().route("/commands/{id}/echo", echo);
    let service = InternalService::new(token.map(|token| Secret::new(token.to_owned())));
    let router = service.serve(log, Some(commands)).finish();
    Door::open(router).await
}

/// A client of the port.
pub fn client(address: SocketAddr, context: &Context, token: Option<&str>) -> OwnerClient {
    let owner: Owner = format!("{context}=http://{address}/").parse().unwrap();
    OwnerClient::new(owner, token.map(|token| Secret::new(token.to_owned()))).unwrap()
}

/// The log as another process reads it.
pub fn remote(door: &Door) -> RemoteLog {
    RemoteLog::new(client(door.address, &context(), None))
}
