//! An installation of a test's own: a log and a stream, without roles.

use std::{ffi::OsStr, sync::Arc, time::Duration};

use millrace_es::{
    Context, EventId, Metadata, NewEvent, PartitionCount, Position, StreamId, StreamVersion,
};
use millrace_eventlog::{
    AppendRequest, EventLog, ExpectedVersion, PgEventLog, PgLogOptions, StreamAppend, migrate,
};
use millrace_projecting::{ContextHead, DynamoStore, Folder, PgStore, StoreKind};
use millrace_streaming::{Names, Topology, TopologyOptions, wire};
use millrace_testkit::{Database, Dynamo, Nats, dynamodb, nats, postgres};
use serde_json::{Value, json};
use tokio::process::Command;

use crate::run::{Ended, millrace, run};

pub struct World {
    pub database: Database,
    pub nats: Nats,
    pub dynamodb: Dynamo,
    pub log: PgEventLog,
    pub topology: Topology,
}

pub fn ordering() -> Context {
    Context::new("ordering").unwrap()
}

/// Whose events a view of orders reads as well; nothing happens there.
fn customers() -> Context {
    Context::new(millrace_contracts::customers::CONTEXT).unwrap()
}

impl World {
    /// A migrated log without events, and its empty stream.
    pub async fn new() -> Self {
        let (database, nats, dynamodb) = tokio::join!(postgres(), nats(), dynamodb());
        let own = millrace_ordering::migrations();
        migrate(&database.pool, &ordering(), PartitionCount::DEFAULT, own)
            .await
            .unwrap();
        migrate(&database.pool, &customers(), PartitionCount::DEFAULT, &[])
            .await
            .unwrap();
        let log = open_log(&database).await;
        let names = Names::new(&nats.namespace).unwrap();
        let topology = Topology::new(nats.jetstream.clone(), names, TopologyOptions::default());
        topology.ensure(&[ordering(), customers()]).await.unwrap();
        Self {
            database,
            nats,
            dynamodb,
            log,
            topology,
        }
    }

    /// As [`World::new`], with the first generation of every view.
    pub async fn with_views() -> Self {
        let world = Self::new().await;
        let (postgres, dynamodb) = world.stores();
        postgres.migrate().await.unwrap();
        dynamodb.migrate().await.unwrap();
        let heads = world.heads().await;
        for view in millrace_ordering::projections() {
            match view.store() {
                StoreKind::Postgres => postgres.ensure_generation(&view, &heads).await,
                StoreKind::DynamoDb => dynamodb.ensure_generation(&view, &heads).await,
            }
            .unwrap();
        }
        world
    }

    /// The head of every log that the views read.
    async fn heads(&self) -> Vec<ContextHead> {
        let mut heads = Vec::new();
        for context in [ordering(), customers()] {
            let log = millrace_eventlog::log_head(&self.database.pool, &context).await;
            let head = log.unwrap();
            heads.push(ContextHead {
                context,
                epoch: head.epoch,
                partition_positions: head.partition_positions,
            });
        }
        heads
    }

    fn stores(&self) -> (PgStore, DynamoStore) {
        let postgres = PgStore::open(&self.database.url).unwrap();
        let client = self.dynamodb.client.clone();
        (
            postgres,
            DynamoStore::new(client, self.nats.namespace.as_str()),
        )
    }

    async fn folder(&self, name: &str) -> Folder {
        let views = millrace_ordering::projections();
        let view = views.iter().find(|view| view.name() == name).unwrap();
        let (postgres, dynamodb) = self.stores();
        match view.store() {
            StoreKind::Postgres => {
                let generations = postgres.generations(name).await.unwrap();
                postgres.folder(&generations[0], view).await.unwrap()
            }
            StoreKind::DynamoDb => {
                let generations = dynamodb.generations(name).await.unwrap();
                dynamodb.folder(&generations[0], view).await.unwrap()
            }
        }
    }

    /// What a projector does: folds the log into a view that has nothing yet.
    pub async fn fold(&self, view: &str) {
        let events = self.log.read_log(Position::ZERO, 1_000).await.unwrap();
        self.folder(view).await.fold(events).await.unwrap();
    }

    /// What the owner of the partitions does between two batches.
    pub async fn settle(&self, view: &str) {
        self.folder(view).await.settle_requests().await.unwrap();
    }

    /// A command that is told where this installation is.
    pub fn command<S: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = S>) -> Command {
        let mut command = millrace(args);
        command
            .env("DATABASE_URL", &self.database.url)
            .env("NATS_URL", &self.nats.url)
            .env("DYNAMODB_ENDPOINT", &self.dynamodb.endpoint)
            .env("MILLRACE_NAMESPACE", &self.nats.namespace);
        command
    }

    pub async fn run<S: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = S>) -> Ended {
        run(self.command(args)).await
    }

    /// Appends one event to each order of these ids: its creation, or, when it is there, a change.
    pub async fn append(&self, orders: &[&str]) {
        for order in orders {
            let stream = StreamId::new(&format!("order-{order}")).unwrap();
            let there = self
                .log
                .read_stream(&stream, StreamVersion::ZERO, 1)
                .await
                .unwrap();
            if there.is_empty() {
                self.append_as("order.created", &[order], created(order))
                    .await;
            } else {
                self.append_as("order.status_updated", &[order], confirmed(order))
                    .await;
            }
        }
    }

    /// Appends one event of a type to each order of these ids.
    pub async fn append_as(&self, event_type: &'static str, orders: &[&str], payload: Value) {
        for order in orders {
            let event = NewEvent {
                id: EventId::generate(),
                event_type: event_type.into(),
                schema_version: 1,
                payload: serde_json::value::to_raw_value(&payload).unwrap(),
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
        let last = self
            .topology
            .state(&ordering())
            .await
            .unwrap()
            .unwrap()
            .last;
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

    /// A restore to an earlier point: what the log has after a position is gone. Whoever had the log
    /// open would halt it, so it is opened anew, as processes are started anew after a restore.
    pub async fn lose_after(&mut self, position: u64) {
        let position = Position::new(position).as_i64();
        for statement in [
            "DELETE FROM ordering.events WHERE position > $1",
            "UPDATE ordering.log_end SET position = $1, partition_positions = (
                 SELECT array_agg(coalesce((SELECT max(position) FROM ordering.events
                     WHERE partition = p), 0) ORDER BY p)
                 FROM generate_series(0, cardinality(partition_positions) - 1) p)",
        ] {
            sqlx::query(statement)
                .bind(position)
                .execute(&self.database.pool)
                .await
                .unwrap();
        }
        self.log = open_log(&self.database).await;
    }

    pub async fn head(&self) -> u64 {
        self.log.head().await.unwrap().position.get()
    }
}

async fn open_log(database: &Database) -> PgEventLog {
    PgEventLog::open(database.pool.clone(), PgLogOptions::new(ordering()))
        .await
        .unwrap()
}

fn created(order: &str) -> Value {
    json!({
        "order_id": order, "user_id": "ada", "items": [], "total_amount": "12.50",
        "created_at": "2026-01-02T03:04:05Z",
    })
}

fn confirmed(order: &str) -> Value {
    json!({
        "order_id": order, "user_id": "ada", "from": "PENDING", "to": "CONFIRMED",
        "total_amount": "12.50", "created_at": "2026-01-02T03:04:05Z",
        "updated_at": "2026-01-02T03:04:06Z",
    })
}

/// How long something that is to happen may take.
pub const SOON: Duration = Duration::from_secs(20);
