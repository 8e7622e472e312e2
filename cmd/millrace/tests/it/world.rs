//! An installation of a test's own: a log and a stream, without roles.

use std::{ffi::OsStr, sync::Arc, time::Duration};

use millrace_es::{Context, EventId, Metadata, NewEvent, PartitionCount, Position, StreamId};
use millrace_eventlog::{
    AppendRequest, EventLog, ExpectedVersion, PgEventLog, PgLogOptions, StreamAppend, migrate,
};
use millrace_streaming::{Names, Topology, TopologyOptions, wire};
use millrace_testkit::{Database, Nats, nats, postgres};
use tokio::process::Command;

use crate::run::{Ended, millrace, run};

pub struct World {
    pub database: Database,
    pub nats: Nats,
    pub log: PgEventLog,
    pub topology: Topology,
}

pub fn ordering() -> Context {
    Context::new("ordering").unwrap()
}

impl World {
    /// A migrated log without events, and its empty stream.
    pub async fn new() -> Self {
        let (database, nats) = tokio::join!(postgres(), nats());
        migrate(&database.pool, &ordering(), PartitionCount::DEFAULT, &[])
            .await
            .unwrap();
        let options = PgLogOptions::new(ordering());
        let log = PgEventLog::open(database.pool.clone(), options).await.unwrap();
        let names = Names::new(&nats.namespace).unwrap();
        let topology = Topology::new(nats.jetstream.clone(), names, TopologyOptions::default());
        topology.ensure(&[ordering()]).await.unwrap();
        Self {
            database,
            nats,
            log,
            topology,
        }
    }

    /// A command that is told where this installation is.
    pub fn command<S: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = S>) -> Command {
        let mut command = millrace(args);
        command
            .env("DATABASE_URL", &self.database.url)
            .env("NATS_URL", &self.nats.url)
            .env("MILLRACE_NAMESPACE", &self.nats.namespace);
        command
    }

    pub async fn run<S: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = S>) -> Ended {
        run(self.command(args)).await
    }

    /// Appends one event to each order of these ids.
    pub async fn append(&self, orders: &[&str]) {
        for order in orders {
            let event = NewEvent {
                id: EventId::generate(),
                event_type: "order.created".into(),
                schema_version: 1,
                payload: serde_json::value::to_raw_value(&serde_json::json!({"order_id": order}))
                    .unwrap(),
                metadata: Arc::new(Metadata {
                    correlation_id: "test".to_owned(),
                    ..Metadata::default()
                }),
            };
            let append = StreamAppend {
                stream: StreamId::new(&format!("order-{order}")).unwrap(),
                expected: ExpectedVersion::Any,
                events: vec![event],
            };
            let request = AppendRequest {
                streams: vec![append],
                ..AppendRequest::default()
            };
            self.log.append(request).await.unwrap();
        }
    }

    /// What the relay does: position n becomes sequence n.
    pub async fn publish(&self) {
        let last = self.topology.state(&ordering()).await.unwrap().unwrap().last;
        for event in self.log.read_log(last, 1_000).await.unwrap() {
            let message = wire::encode(self.topology.names(), &event);
            let jetstream = self.topology.jetstream();
            jetstream
                .publish_with_headers(message.subject, message.headers, message.body)
                .await
                .unwrap()
                .await
                .unwrap();
        }
    }

    /// A restore to an earlier point: what the log has after a position is gone.
    pub async fn lose_after(&self, position: u64) {
        let position = Position::new(position).as_i64();
        for statement in [
            "DELETE FROM ordering.events WHERE position > $1",
            "UPDATE ordering.log_head SET position = $1, partition_positions = (
                 SELECT array_agg(coalesce((SELECT max(position) FROM ordering.events
                     WHERE partition = p), 0) ORDER BY p)
                 FROM generate_series(0, partition_count - 1) p)",
        ] {
            sqlx::query(statement)
                .bind(position)
                .execute(&self.database.pool)
                .await
                .unwrap();
        }
    }

    pub async fn head(&self) -> u64 {
        self.log.head().await.unwrap().position.get()
    }
}

/// How long something that is to happen may take.
pub const SOON: Duration = Duration::from_secs(20);
