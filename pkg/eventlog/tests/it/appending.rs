//! What one process sees of its own appends.

use millrace_es::{PartitionCount, Position, StreamVersion};
use millrace_eventlog::{
    Answer, AnswerKey, AppendError, AppendRequest, EventLog, ExpectedVersion, LogError, PgEventLog,
    PgLogOptions, migrate,
};

use crate::support::{append, context, open, store, stream};

#[tokio::test]
async fn an_append_is_read_back_as_it_was_written() {
    let database = store().await;
    let log = open(&database).await;
    let request = append("thing-1", ExpectedVersion::NoStream, 3);
    let written = request.streams[0].events.clone();

    let appended = log.append(request).await.unwrap();

    assert_eq!(appended.position, Position::new(3));
    assert_eq!(appended.versions, [StreamVersion::new(3)]);
    let events = log.read_log(Position::ZERO, 10).await.unwrap();
    let again = log
        .read_stream(&stream("thing-1"), StreamVersion::ZERO, 10)
        .await
        .unwrap();
    assert_eq!(events.len(), 3);
    assert_eq!(again.len(), 3);
    for (n, (read, new)) in events.iter().zip(&written).enumerate() {
        let n = n as u64;
        assert_eq!(read.id, new.id);
        assert_eq!(read.payload.get(), new.payload.get());
        assert_eq!(read.metadata, new.metadata);
        assert_eq!(read.position, Position::new(n + 1));
        assert_eq!(read.previous, Position::new(n));
        assert_eq!(read.version, StreamVersion::new(n + 1));
        assert_eq!(read.recorded_at, appended.recorded_at);
    }
    let head = log.head().await.unwrap();
    assert_eq!(head.position, Position::new(3));
    let partition = stream("thing-1").partition(PartitionCount::DEFAULT);
    assert_eq!(
        head.partition_positions[usize::from(partition.get())],
        Position::new(3)
    );
    assert_eq!(
        log.read_partition(partition, Position::new(1), Position::new(2), 10)
            .await
            .unwrap()
            .len(),
        1
    );
}

#[tokio::test]
async fn large_and_small_batches_write_the_same_rows() {
    let database = store().await;
    let log = open(&database).await;
    for events in [1, 500, 32, 33, 1] {
        let name = format!("thing-{events}");
        log.append(append(&name, ExpectedVersion::Any, events))
            .await
            .unwrap();
    }
    let events = log.read_log(Position::ZERO, 1_000).await.unwrap();
    assert_eq!(events.len(), 567);
    log.append(append(
        "thing-1",
        ExpectedVersion::Exact(StreamVersion::new(2)),
        1,
    ))
    .await
    .unwrap();
}

#[tokio::test]
async fn a_key_is_answered_once_with_its_answer_and_its_place() {
    let database = store().await;
    let log = open(&database).await;
    let key = AnswerKey {
        key_hash: [7; 32],
        request_hash: [8; 32],
    };
    let answer = Answer {
        status: 201,
        headers: vec![("etag".to_owned(), "\"1\"".to_owned())],
        body: "{\"id\":1}".into(),
    };
    let request = |name: &str| AppendRequest {
        answer: Some((key, answer.clone())),
        ..append(name, ExpectedVersion::NoStream, 1)
    };
    let first = log.append(request("thing-1")).await.unwrap();

    let error = log.append(request("thing-2")).await.unwrap_err();

    let AppendError::DuplicateKey(stored) = error else {
        panic!("{error:?}");
    };
    assert_eq!(stored.answer, answer);
    assert_eq!(stored.token, first.token);
    assert_eq!(log.stored_answer(&key).await.unwrap(), Some(*stored));
    assert_eq!(log.head().await.unwrap().position, Position::new(1));
}

#[tokio::test]
async fn an_expired_key_is_free_again() {
    let database = store().await;
    let log = open(&database).await;
    let key = AnswerKey {
        key_hash: [1; 32],
        request_hash: [2; 32],
    };
    let request = |status| AppendRequest {
        answer: Some((
            key,
            Answer {
                status,
                headers: Vec::new(),
                body: "no".into(),
            },
        )),
        ..AppendRequest::default()
    };
    log.append(request(409)).await.unwrap();
    log.append(request(422)).await.unwrap_err();
    sqlx::query("UPDATE testing.answers SET expires_at = now() - interval '1 second'")
        .execute(&database.pool)
        .await
        .unwrap();

    assert_eq!(log.stored_answer(&key).await.unwrap(), None);
    log.append(request(422)).await.unwrap();

    let stored = log.stored_answer(&key).await.unwrap().unwrap();
    assert_eq!(stored.answer.status, 422);
    assert_eq!(stored.token.to_string(), "testing/0~1");
}

#[tokio::test]
async fn migrating_twice_and_at_once_is_harmless() {
    let database = millrace_testkit::postgres().await;
    let migrating = (0..4).map(|_| {
        let pool = database.pool.clone();
        async move { migrate(&pool, &context(), PartitionCount::DEFAULT, &[]).await }
    });
    for done in futures::future::join_all(migrating).await {
        done.unwrap();
    }
    open(&database).await;
}

#[tokio::test]
async fn another_partition_count_does_not_start() {
    let database = store().await;
    let mut options = PgLogOptions::new(context());
    options.partitions = PartitionCount::new(8).unwrap();
    let error = PgEventLog::open(database.pool.clone(), options)
        .await
        .unwrap_err();
    assert!(matches!(&error, LogError::Misconfigured(text) if text.contains("16 partitions")));
    let count = PartitionCount::new(8).unwrap();
    let error = migrate(&database.pool, &context(), count, &[])
        .await
        .unwrap_err();
    assert!(matches!(error, LogError::Misconfigured(_)));
}

#[tokio::test]
async fn a_closed_log_finishes_what_it_took_and_takes_no_more() {
    let database = store().await;
    let log = open(&database).await;
    let appends: Vec<_> = (0..50)
        .map(|n| log.append(append(&format!("thing-{n}"), ExpectedVersion::NoStream, 1)))
        .collect();
    let (appended, ()) = tokio::join!(futures::future::join_all(appends), async {
        tokio::task::yield_now().await;
        log.close().await;
    });
    let taken = appended.iter().filter(|verdict| verdict.is_ok()).count() as u64;
    assert_eq!(log.head().await.unwrap().position, Position::new(taken));
    let late = log.append(append("thing-x", ExpectedVersion::Any, 1)).await;
    assert!(matches!(
        late,
        Err(AppendError::Unavailable(LogError::Closed))
    ));
}
