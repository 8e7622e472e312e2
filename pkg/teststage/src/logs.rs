use std::sync::Arc;

use futures::TryStreamExt as _;
use millrace_es::{Context, PartitionCount, Position, RecordedEvent};
use millrace_eventlog::{
    EventLog, MAX_PAGE_EVENTS, Migration, PgEventLog, PgInlineTable, PgLogOptions,
    dynamodb::{DynamoEventLog, DynamoInline, DynamoLogOptions, create_log_table},
    events_after, migrate,
};
use millrace_testkit::{Database, Dynamo};

fn named(context: &str) -> Context {
    Context::new(context).expect("a name of a context")
}

/// Opens the log of a context on this database, as another process of it would, and makes it where
/// there is none. `migrations` make the tables that follow in its transactions.
pub async fn pg_log(
    database: &Database,
    context: &str,
    inline: Vec<Arc<dyn PgInlineTable>>,
    migrations: &[Migration],
) -> Arc<PgEventLog> {
    let mut options = PgLogOptions::new(named(context));
    options.inline = inline;
    let (pool, partitions) = (&database.pool, options.partitions);
    migrate(pool, &options.context, partitions, migrations)
        .await
        .expect("the tables of the log are made");
    let log = PgEventLog::open(pool.clone(), options).await;
    Arc::new(log.expect("the log opens"))
}

/// Makes and opens the log of a context in DynamoDB.
pub async fn dynamo_log(
    dynamo: &Dynamo,
    context: &str,
    inline: Vec<Arc<dyn DynamoInline>>,
) -> Arc<DynamoEventLog> {
    let (client, prefix) = (&dynamo.client, &dynamo.prefix);
    create_log_table(client, prefix, &named(context), PartitionCount::DEFAULT)
        .await
        .expect("the table of the log is made");
    let mut options = DynamoLogOptions::new(prefix.clone(), named(context));
    options.inline = inline;
    let log = DynamoEventLog::open(client.clone(), options).await;
    Arc::new(log.expect("the log opens"))
}

/// The position of a log's newest event.
pub async fn head(log: &dyn EventLog) -> Position {
    log.head().await.expect("the log has a head").position
}

/// The position of a log's newest event as a reader asks for it, such as `ordering/42`.
pub async fn token(log: &dyn EventLog) -> String {
    format!("{}/{}", log.context(), head(log).await)
}

/// Every event of a log, oldest first.
pub async fn events(log: &dyn EventLog) -> Vec<RecordedEvent> {
    let through = head(log).await;
    events_after(log, Position::ZERO, through, MAX_PAGE_EVENTS)
        .try_collect()
        .await
        .expect("the log is read")
}
