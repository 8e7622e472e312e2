//! A log read through its owner is the log.

use std::sync::Arc;

use millrace_es::{Partition, Position, RecordedEvent, StreamId, StreamVersion};
use millrace_eventlog::{
    AppendError, AppendRequest, EventLog, LogError, MAX_PAGE_BYTES, conformance, is_last,
};
use serde_json::json;

use crate::support::{append, fill, in_dynamodb, in_postgres, open_door, remote};

fn as_json(events: &[RecordedEvent]) -> Vec<serde_json::Value> {
    events
        .iter()
        .map(|event| serde_json::to_value(event).unwrap())
        .collect()
}

/// Everything that can be asked is answered as by the log itself.
async fn reads_the_same(log: Arc<dyn EventLog>) {
    fill(&*log).await;
    let door = open_door(Arc::clone(&log), None).await;
    let remote = remote(&door);
    let head = log.head().await.unwrap();
    assert_eq!(remote.head().await.unwrap(), head);
    for (after, limit) in [
        (0, 7),
        (3, 1),
        (5, 5_000),
        (head.position.get(), 10),
        (900, 3),
    ] {
        let after = Position::new(after);
        let own = log.read_log(after, limit).await.unwrap();
        let read = remote.read_log(after, limit).await.unwrap();
        assert_eq!(
            as_json(&read),
            as_json(&own),
            "after {after}, limit {limit}"
        );
    }
    for stream in ["order-1", "a/b c%2F?#", "größe-ü", "..", "order-none"] {
        let stream = StreamId::new(stream).unwrap();
        let own = log.read_stream(&stream, StreamVersion::new(2), 4).await;
        let read = remote.read_stream(&stream, StreamVersion::new(2), 4).await;
        assert_eq!(as_json(&read.unwrap()), as_json(&own.unwrap()), "{stream}");
    }
    for event in log.read_log(Position::ZERO, 9).await.unwrap() {
        let (partition, through) = (event.partition, Position::new(30));
        let own = log.read_partition(partition, event.previous, through, 3);
        let read = remote.read_partition(partition, event.previous, through, 3);
        assert_eq!(as_json(&read.await.unwrap()), as_json(&own.await.unwrap()));
    }
    // Gapless, chained, and the same in any choice of partitions.
    conformance::audit(&remote).await;
}

#[tokio::test]
async fn a_log_in_postgres_reads_the_same_through_its_owner() {
    let (log, _database) = in_postgres().await;
    reads_the_same(log).await;
}

#[tokio::test]
async fn a_log_in_dynamodb_reads_the_same_through_its_owner() {
    reads_the_same(in_dynamodb().await).await;
}

/// A page that ends by its bytes is the same page there and here, so that its reader knows whether
/// to read on.
#[tokio::test]
async fn a_page_bounded_in_bytes_stays_one() {
    let (log, _database) = in_postgres().await;
    let payload = json!({"text": "x".repeat(500 * 1024)});
    for _ in 0..20 {
        append(&*log, "order-large", std::slice::from_ref(&payload)).await;
    }
    let door = open_door(Arc::clone(&log), None).await;
    let page = remote(&door).read_log(Position::ZERO, 100).await.unwrap();
    let bytes: usize = page.iter().map(|event| event.payload.get().len()).sum();
    assert!(bytes > MAX_PAGE_BYTES && page.len() < 20, "{}", page.len());
    assert!(!is_last(&page, 100));
    assert_eq!(
        page.len(),
        log.read_log(Position::ZERO, 100).await.unwrap().len()
    );
}

#[tokio::test]
async fn nothing_is_written_through_it() {
    let (log, _database) = in_postgres().await;
    let door = open_door(log, None).await;
    let remote = remote(&door);
    let appended = remote.append(AppendRequest::default()).await;
    assert!(
        matches!(appended, Err(AppendError::Invalid(_))),
        "{appended:?}"
    );
    for refused in [
        remote.halt("no reason").await,
        remote.resume().await,
        remote.start_epoch().await.map(drop),
        remote.import_tail(Vec::new()).await.map(drop),
    ] {
        let error = refused.unwrap_err();
        assert!(error.to_string().contains("its owner's to do"), "{error}");
    }
    let stream = StreamId::new("order-1").unwrap();
    assert!(remote.load_snapshot(&stream).await.unwrap().is_none());
}

#[tokio::test]
async fn an_owner_whose_store_is_away_is_unreachable() {
    let mut server = millrace_testkit::own_postgres().await;
    let pool = server.pool().await;
    let (context, count) = (
        crate::support::context(),
        millrace_es::PartitionCount::DEFAULT,
    );
    millrace_eventlog::migrate(&pool, &context, count, &[])
        .await
        .unwrap();
    let options = millrace_eventlog::PgLogOptions::new(context);
    let log = millrace_eventlog::PgEventLog::open(pool, options)
        .await
        .unwrap();
    let door = open_door(Arc::new(log), None).await;
    let remote = remote(&door);
    remote.head().await.unwrap();
    server.kill().await;
    let error = remote.head().await.unwrap_err();
    assert!(matches!(error, LogError::Unreachable(_)), "{error:?}");
    let partition = remote.read_partition(Partition::new(1), Position::ZERO, Position::new(9), 5);
    let error = partition.await.unwrap_err();
    assert!(matches!(error, LogError::Unreachable(_)), "{error:?}");
    server.restart().await;
    millrace_testkit::eventually(
        "the log to be read again",
        std::time::Duration::from_secs(20),
        || async { remote.head().await.ok() },
    )
    .await;
}
