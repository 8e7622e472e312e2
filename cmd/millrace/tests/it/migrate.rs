//! `millrace migrate` on an installation that is there already.

use std::sync::Arc;

use millrace_es::{Context, EventId, Metadata, NewEvent, PartitionCount, StreamId};
use millrace_eventlog::{
    AppendRequest, EventLog, ExpectedVersion, PgEventLog, PgLogOptions, StreamAppend,
    dynamodb::{DynamoEventLog, DynamoLogOptions, create_log_table},
};
use serde_json::json;

use crate::{
    run::{Ended, run},
    world::World,
};

fn banking() -> Context {
    Context::new("banking").unwrap()
}

/// The log of banking as it is in a store, made there if need be.
async fn log_in(world: &World, store: &str) -> Arc<dyn EventLog> {
    if store == "postgres" {
        let (pool, count) = (&world.database.pool, PartitionCount::DEFAULT);
        millrace_eventlog::migrate(pool, &banking(), count, &[])
            .await
            .unwrap();
        let log = PgEventLog::open(pool.clone(), PgLogOptions::new(banking())).await;
        return Arc::new(log.unwrap());
    }
    let (client, namespace) = (&world.dynamodb.client, &world.nats.namespace);
    create_log_table(client, namespace, &banking(), PartitionCount::DEFAULT)
        .await
        .unwrap();
    let options = DynamoLogOptions::new(namespace.clone(), banking());
    Arc::new(DynamoEventLog::open(client.clone(), options).await.unwrap())
}

async fn append(log: &dyn EventLog) {
    let event = NewEvent {
        id: EventId::generate(),
        event_type: "account.opened".into(),
        schema_version: 1,
        payload: serde_json::value::to_raw_value(&json!({})).unwrap(),
        metadata: Arc::new(Metadata::default()),
    };
    let append = StreamAppend {
        stream: StreamId::new("account-a").unwrap(),
        expected: ExpectedVersion::NoStream,
        events: vec![event],
    };
    let request = AppendRequest {
        streams: vec![append],
        ..AppendRequest::default()
    };
    log.append(request).await.unwrap();
    log.close().await;
}

async fn migrate(world: &World, store: &str) -> Ended {
    let mut command = world.command(["migrate"]);
    command.env("MILLRACE_BANKING_LOG", store);
    run(command).await
}

#[tokio::test]
async fn a_log_stays_in_the_store_where_its_events_are() {
    for (store, other) in [("postgres", "dynamodb"), ("dynamodb", "postgres")] {
        let world = World::new().await;
        // As long as neither has an event, either will do.
        for store in [other, store] {
            let done = migrate(&world, store).await;
            assert_eq!(done.code, 0, "{}", done.err);
        }
        append(&*log_in(&world, store).await).await;
        let again = migrate(&world, store).await;
        assert_eq!(again.code, 0, "{}", again.err);
        let refused = migrate(&world, other).await;
        assert_eq!(refused.code, 1, "{}", refused.err);
        for said in [
            format!("its 1 events are in {store}"),
            format!("set MILLRACE_BANKING_LOG={store}"),
        ] {
            assert!(refused.err.contains(&said), "{}", refused.err);
        }
    }
}
