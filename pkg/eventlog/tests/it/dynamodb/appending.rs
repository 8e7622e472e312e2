//! What is appended, with what beside it, and in how many calls.

use std::{sync::Arc, time::Duration};

use aws_sdk_dynamodb::types::AttributeValue;
use futures::future::join_all;
use millrace_es::{PartitionCount, Position, RecordedEvent, StreamVersion};
use millrace_eventlog::{
    Answer, AnswerKey, AppendError, AppendRequest, EventLog, ExpectedVersion, LogError,
    conformance::audit,
    dynamodb::{
        DynamoEventLog, DynamoInline, DynamoLogOptions, InlineChange, Item,
        MAX_DYNAMO_APPEND_EVENTS, create_log_table, inline_item,
    },
};

use super::{
    script::Script,
    support::{items, name, open, open_with, table, through},
};
use crate::support::{append, context, stream};

const ANY: ExpectedVersion = ExpectedVersion::Any;

/// Keeps of each stream how it ends, and of each batch nothing else.
struct Ends;

impl DynamoInline for Ends {
    fn change(
        &self,
        event: &RecordedEvent,
    ) -> Result<Option<InlineChange>, Box<dyn std::error::Error + Send + Sync>> {
        if event.payload.get().contains("unreadable") {
            return Err("it cannot be read".into());
        }
        let number = |number: u64| AttributeValue::N(number.to_string());
        let mut set = Item::from([
            ("version".to_owned(), number(event.version.get())),
            ("position".to_owned(), number(event.position.get())),
        ]);
        if event.version.get() == 1 {
            set.insert("first".to_owned(), AttributeValue::S(event.id.to_string()));
        }
        Ok(Some(InlineChange {
            table: "ends",
            key: event.stream.to_string(),
            set,
        }))
    }
}

fn with_ends(options: &mut DynamoLogOptions) {
    options.inline = vec![Arc::new(Ends)];
}

fn keyed(number: u8, request: AppendRequest) -> AppendRequest {
    AppendRequest {
        answer: Some((
            AnswerKey {
                key_hash: [number; 32],
                request_hash: [number; 32],
            },
            Answer {
                status: 201,
                headers: vec![("etag".to_owned(), "\"1\"".to_owned())],
                body: vec![number].into(),
            },
        )),
        ..request
    }
}

fn number(item: &Item, name: &str) -> u64 {
    item[name].as_n().unwrap().parse().unwrap()
}

#[tokio::test]
async fn events_come_back_as_they_were_appended() {
    let dynamo = table().await;
    let log = open(&dynamo).await;
    let request = append("thing-1", ExpectedVersion::NoStream, 3);
    let written = request.streams[0].events.clone();

    let appended = log.append(request).await.unwrap();

    assert_eq!(appended.position, Position::new(3));
    assert_eq!(appended.versions, [StreamVersion::new(3)]);
    let events = log.read_log(Position::ZERO, 10).await.unwrap();
    let again = log
        .read_stream(&stream("thing-1"), StreamVersion::new(1), 1)
        .await
        .unwrap();
    assert_eq!(again.len(), 1);
    assert_eq!(again[0].id, written[1].id);
    assert_eq!(events.len(), 3);
    for (n, (read, new)) in (1..).zip(events.iter().zip(&written)) {
        assert_eq!(read.id, new.id);
        assert_eq!(read.payload.get(), new.payload.get());
        assert_eq!(read.metadata, new.metadata);
        assert_eq!(read.position, Position::new(n));
        assert_eq!(read.previous, Position::new(n - 1));
        assert_eq!(read.recorded_at, appended.recorded_at);
    }
    let partition = stream("thing-1").partition(PartitionCount::DEFAULT);
    let page = log.read_partition(partition, Position::new(1), Position::new(2), 10);
    assert_eq!(page.await.unwrap().len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn appends_that_wait_share_transactions_of_a_hundred_items() {
    let dynamo = table().await;
    let script = Script::before(&dynamo.endpoint).await;
    let client = through(&dynamo, &script.endpoint());
    let log = open_with(&dynamo, client, with_ends).await;
    log.append(append("hot", ANY, 1)).await.unwrap();
    script.calls();

    // An event and a key each, and one row between all of them.
    let deposits = (0..120).map(|n| log.append(keyed(n, append("hot", ANY, 1))));
    for verdict in join_all(deposits).await {
        verdict.unwrap();
    }

    let transactions = script.calls_of("TransactWriteItems");
    let sizes: Vec<usize> = transactions
        .iter()
        .map(|body| body["TransactItems"].as_array().unwrap().len())
        .collect();
    assert!(sizes.iter().all(|&size| size <= 100), "{sizes:?}");
    // 49 deposits fit with the head and the row; the first may have come alone.
    assert!(sizes.contains(&100), "{sizes:?}");
    assert!(sizes.len() <= 4, "{sizes:?}");
    let row = log.inline_item("ends", "hot").await.unwrap().unwrap();
    assert_eq!(
        (number(&row, "version"), number(&row, "position")),
        (121, 121)
    );
    assert_eq!(audit(&log).await.len(), 121);
}

#[tokio::test]
async fn a_hot_stream_costs_one_call_an_append() {
    let dynamo = table().await;
    let script = Script::before(&dynamo.endpoint).await;
    let client = through(&dynamo, &script.endpoint());
    let log = open_with(&dynamo, client, |_| {}).await;
    log.append(append("hot", ANY, 1)).await.unwrap();
    script.calls();
    for version in 1..=10 {
        let expected = ExpectedVersion::Exact(StreamVersion::new(version));
        log.append(append("hot", expected, 1)).await.unwrap();
        log.append(append(
            &format!("new-{version}"),
            ExpectedVersion::NoStream,
            1,
        ))
        .await
        .unwrap();
    }
    let mut calls = script.calls();
    // The leader looks after its lease now and then.
    calls.retain(|(_, body)| body["Key"]["pk"]["S"] != "lease");
    let operations: Vec<_> = calls
        .iter()
        .map(|(operation, _)| operation.as_str())
        .collect();
    assert_eq!(operations, ["TransactWriteItems"; 20]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stale_expectation_does_not_sink_its_batch() {
    let dynamo = table().await;
    let log = open(&dynamo).await;
    log.append(append("there", ANY, 2)).await.unwrap();
    log.append(keyed(1, append("once", ANY, 1))).await.unwrap();
    // As after a start: nothing is remembered, and all of it is guessed at first.
    log.close().await;
    let script = Script::before(&dynamo.endpoint).await;
    let log = open_with(&dynamo, through(&dynamo, &script.endpoint()), |_| {}).await;

    let stale = log.append(append("there", ExpectedVersion::NoStream, 1));
    let repeated = log.append(keyed(1, append("once", ExpectedVersion::NoStream, 1)));
    let others = (0..40).map(|n| {
        let name = format!("new-{n}");
        log.append(append(&name, ExpectedVersion::NoStream, 1))
    });
    let (stale, repeated, others) = futures::join!(stale, repeated, join_all(others));

    assert!(
        matches!(&stale, Err(AppendError::Conflict { actual, .. }) if actual.get() == 2),
        "{stale:?}"
    );
    assert!(
        matches!(&repeated, Err(AppendError::DuplicateKey(stored)) if stored.answer.body == vec![1]),
        "{repeated:?}"
    );
    for verdict in others {
        verdict.unwrap();
    }
    let transactions = script.calls_of("TransactWriteItems").len();
    assert!(transactions <= 5, "{transactions} transactions");
    assert_eq!(audit(&log).await.len(), 43);
}

#[tokio::test]
async fn an_expired_key_is_free_again_while_its_item_is_still_there() {
    let dynamo = table().await;
    let log = open(&dynamo).await;
    let refusal = |status| {
        let mut request = keyed(1, AppendRequest::default());
        if let Some((_, answer)) = &mut request.answer {
            answer.status = status;
        }
        request
    };
    let key = refusal(0).answer.unwrap().0;
    log.append(refusal(409)).await.unwrap();
    let kept = items(&dynamo).await;
    let kept = kept
        .iter()
        .find(|item| item.contains_key("expires"))
        .unwrap();
    let in_a_day = millrace_kernel::Timestamp::now().get().unix_timestamp() + 24 * 60 * 60;
    assert!(number(kept, "expires").abs_diff(u64::try_from(in_a_day).unwrap()) < 60);
    let repeated = log.append(refusal(422)).await;
    assert!(
        matches!(repeated, Err(AppendError::DuplicateKey(_))),
        "{repeated:?}"
    );
    dynamo
        .client
        .update_item()
        .table_name(name(&dynamo))
        .key("pk", kept["pk"].clone())
        .key("sk", kept["sk"].clone())
        .update_expression("SET expires = :past")
        .expression_attribute_values(":past", AttributeValue::N("1700000000".to_owned()))
        .send()
        .await
        .unwrap();

    assert_eq!(log.stored_answer(&key).await.unwrap(), None);
    log.append(refusal(422)).await.unwrap();

    let stored = log.stored_answer(&key).await.unwrap().unwrap();
    assert_eq!(stored.answer.status, 422);
    assert_eq!(stored.token.to_string(), "testing/0~1");
}

#[tokio::test]
async fn what_can_never_fit_is_refused_before_any_call() {
    let dynamo = table().await;
    let script = Script::before(&dynamo.endpoint).await;
    let client = through(&dynamo, &script.endpoint());
    let log = open_with(&dynamo, client, with_ends).await;
    script.calls();
    let large = |kib: usize| {
        let mut request = append("large", ANY, 1);
        request.streams[0].events[0].payload =
            serde_json::value::to_raw_value(&"x".repeat(kib * 1024)).unwrap();
        request
    };
    let mut heavy = large(390);
    for _ in 0..10 {
        heavy.streams[0]
            .events
            .extend(large(390).streams[0].events.clone());
    }
    let impossible = [
        (
            append("many", ANY, MAX_DYNAMO_APPEND_EVENTS + 1),
            "101 items",
        ),
        (large(401), "DynamoDB takes items of at most"),
        (heavy, "a transaction of DynamoDB takes"),
    ];
    for (request, reason) in impossible {
        let refused = log.append(request).await;
        assert!(
            matches!(&refused, Err(AppendError::Invalid(why)) if why.contains(reason)),
            "{refused:?}"
        );
    }
    assert!(script.calls().is_empty());
    // What only its write-model rows make too large is refused before it is written.
    let rows = AppendRequest {
        streams: (0..60)
            .map(|n| append(&format!("s-{n}"), ANY, 1).streams.remove(0))
            .collect(),
        ..AppendRequest::default()
    };
    let mut unreadable = append("s", ANY, 1);
    unreadable.streams[0].events[0].payload =
        serde_json::value::to_raw_value("unreadable").unwrap();
    let (mate, rows, unreadable) = futures::join!(
        log.append(append("mate", ANY, 1)),
        log.append(rows),
        log.append(unreadable)
    );
    mate.unwrap();
    for (refused, reason) in [(rows, "121 items"), (unreadable, "cannot be read")] {
        assert!(
            matches!(&refused, Err(AppendError::Invalid(why)) if why.contains(reason)),
            "{refused:?}"
        );
    }
    log.append(large(390)).await.unwrap();
    assert_eq!(audit(&log).await.len(), 2);
}

#[tokio::test]
async fn rows_of_the_write_model_follow_every_append_and_an_import() {
    let dynamo = table().await;
    let log = open_with(&dynamo, dynamo.client.clone(), with_ends).await;
    assert_eq!(log.inline_item("ends", "a").await.unwrap(), None);
    for _ in 0..3 {
        log.append(append("a", ANY, 2)).await.unwrap();
    }
    let owner = context();
    let before = inline_item(&dynamo.client, &dynamo.prefix, &owner, "ends", "a");
    let before = before.await.unwrap().unwrap();
    assert_eq!(
        (number(&before, "version"), number(&before, "position")),
        (6, 6)
    );
    let events = log.read_log(Position::ZERO, 10).await.unwrap();
    assert_eq!(before["first"].as_s().unwrap(), &events[0].id.to_string());

    // The same events in a log that has none of them.
    let copy = table().await;
    let log = open_with(&copy, copy.client.clone(), with_ends).await;
    let head = log.import_tail(events).await.unwrap();
    assert_eq!((head.position, head.halted), (Position::new(6), None));
    assert_eq!(log.inline_item("ends", "a").await.unwrap().unwrap(), before);
}

#[tokio::test]
async fn a_long_tail_is_taken_back_in_parts() {
    let dynamo = table().await;
    let log = open(&dynamo).await;
    for n in 0..4 {
        log.append(append(&format!("s-{n}"), ANY, 90))
            .await
            .unwrap();
    }
    let events = audit(&log).await;
    let copy = table().await;
    let log = open_with(&copy, copy.client.clone(), with_ends).await;
    log.import_tail(events[..100].to_vec()).await.unwrap();
    let refused = log.import_tail(events[90..].to_vec()).await;
    assert!(matches!(refused, Err(LogError::Corrupt(_))), "{refused:?}");
    assert_eq!(log.head().await.unwrap().halted, None);
    log.import_tail(events[100..].to_vec()).await.unwrap();
    assert_eq!(*log.appended().borrow(), Position::new(360));
    let after = audit(&log).await;
    assert_eq!(after.len(), 360);
    assert!(events.iter().zip(&after).all(|(a, b)| a.id == b.id));
    log.append(append("s-0", ANY, 1)).await.unwrap();
}

#[tokio::test]
async fn a_log_that_went_back_under_a_running_process_is_halted() {
    let dynamo = table().await;
    let log = open(&dynamo).await;
    for _ in 0..3 {
        log.append(append("a", ANY, 1)).await.unwrap();
    }
    // As a table that was restored to an earlier point would have it.
    dynamo
        .client
        .update_item()
        .table_name(name(&dynamo))
        .key("pk", AttributeValue::S("head".to_owned()))
        .key("sk", AttributeValue::N("0".to_owned()))
        .update_expression("SET #p = :p")
        .expression_attribute_names("#p", "position")
        .expression_attribute_values(":p", AttributeValue::N("2".to_owned()))
        .send()
        .await
        .unwrap();
    let refused = log.append(append("b", ANY, 1)).await;
    assert!(
        matches!(refused, Err(AppendError::Halted { .. })),
        "{refused:?}"
    );
    let halted = log.head().await.unwrap().halted.unwrap();
    assert!(halted.contains("restored"), "{halted}");
}

#[tokio::test]
async fn making_a_table_twice_and_at_once_is_harmless() {
    let dynamo = millrace_testkit::dynamodb().await;
    let making = (0..4).map(|_| {
        let (client, prefix) = (dynamo.client.clone(), dynamo.prefix.clone());
        async move { create_log_table(&client, &prefix, &context(), PartitionCount::DEFAULT).await }
    });
    for made in join_all(making).await {
        made.unwrap();
    }
    let count = PartitionCount::new(8).unwrap();
    let made = create_log_table(&dynamo.client, &dynamo.prefix, &context(), count).await;
    assert!(matches!(made, Err(LogError::Misconfigured(_))), "{made:?}");
    let mut options = DynamoLogOptions::new(dynamo.prefix.clone(), context());
    options.partitions = count;
    let opened = DynamoEventLog::open(dynamo.client.clone(), options).await;
    assert!(
        matches!(&opened, Err(LogError::Misconfigured(text)) if text.contains("16 partitions")),
        "{opened:?}"
    );
    let options = DynamoLogOptions::new("nobody", context());
    let opened = DynamoEventLog::open(dynamo.client.clone(), options).await;
    assert!(
        matches!(&opened, Err(LogError::Missing(text)) if text.contains("is not there")),
        "{opened:?}"
    );
}

#[tokio::test]
async fn a_closed_log_finishes_what_it_took_and_takes_no_more() {
    let dynamo = table().await;
    let log = open(&dynamo).await;
    let appends: Vec<_> = (0..50)
        .map(|n| log.append(append(&format!("thing-{n}"), ExpectedVersion::NoStream, 1)))
        .collect();
    let (appended, ()) = tokio::join!(join_all(appends), async {
        tokio::task::yield_now().await;
        log.close().await;
    });
    let taken = appended.iter().filter(|verdict| verdict.is_ok()).count() as u64;
    assert!(taken > 0);
    assert_eq!(log.head().await.unwrap().position, Position::new(taken));
    let late = log.append(append("thing-x", ANY, 1)).await;
    assert!(matches!(
        late,
        Err(AppendError::Unavailable(LogError::Closed))
    ));
    // It let go of the lease, so the next process does not wait for it.
    let next = open(&dynamo).await;
    let first = next.append(append("thing-y", ANY, 1));
    tokio::time::timeout(Duration::from_millis(1_500), first)
        .await
        .unwrap()
        .unwrap();
}
