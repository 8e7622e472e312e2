//! Messages reach a topic once and in order, and what may pass is told from what never will.

use std::sync::Arc;

use axum::{Router, http::StatusCode, routing::post};
use millrace_effects::{Attribute, MAX_MESSAGE_BYTES, Notice, Topic};
use millrace_projecting::EffectError;
use millrace_runtime::aws;
use tokio::{net::TcpListener, task::JoinSet};

use crate::sns::{Endpoint, Queue, embedded, moto};

async fn topic(endpoint: &str, arn: &str) -> Arc<Topic> {
    let client = aws::sns_client(Some(endpoint)).await;
    Arc::new(Topic::new(client, arn.parse().unwrap()))
}

fn notice(group: &str, nth: usize) -> Notice {
    Notice {
        id: format!("{group}-{nth}"),
        group: group.to_owned(),
        message: format!("{{\"group\":\"{group}\",\"nth\":{nth}}}"),
        attributes: vec![
            ("event_type", Attribute::Text("order.created".to_owned())),
            ("total_amount", Attribute::Number("4.50".to_owned())),
        ],
    }
}

/// Publishes `count` messages of each of `groups`, groups side by side.
async fn publish(topic: &Arc<Topic>, groups: usize, count: usize) {
    let mut senders = JoinSet::new();
    for group in 0..groups {
        let topic = Arc::clone(topic);
        senders.spawn(async move {
            for nth in 0..count {
                topic
                    .publish(notice(&format!("g{group}"), nth))
                    .await
                    .unwrap();
            }
        });
    }
    senders.join_all().await;
}

#[tokio::test]
async fn a_fifo_topic_keeps_each_groups_order_and_drops_repeats() {
    let (_server, endpoint) = moto().await;
    let arn = endpoint.create("orders.fifo").await;
    let queue = Queue::of(&endpoint, &arn).await;
    let topic = topic(&endpoint.url, &arn).await;
    publish(&topic, 7, 5).await;
    // Sent again, as after a kill.
    publish(&topic, 7, 5).await;
    let messages = queue.messages().await;
    assert_eq!(messages.len(), 35);
    for group in 0..7 {
        let own: Vec<String> = messages
            .iter()
            .map(|one| one["Body"].as_str().unwrap().to_owned())
            .filter(|body| body.contains(&format!("\"g{group}\"")))
            .collect();
        let expected: Vec<String> = (0..5)
            .map(|nth| notice(&format!("g{group}"), nth).message)
            .collect();
        assert_eq!(own, expected);
    }
    let attributes = &messages[0]["MessageAttributes"];
    assert_eq!(attributes["event_type"]["StringValue"], "order.created");
    assert_eq!(attributes["total_amount"]["DataType"], "Number");
}

/// What it is, the topic at each endpoint, and the request.
type Case<'a> = (&'a str, &'a [String; 2], Vec<(&'a str, &'a str)>);

#[tokio::test]
async fn the_endpoint_of_up_answers_as_moto_does() {
    let (_server, moto) = moto().await;
    let (_tasks, ours) = embedded().await;
    let fifo = [moto.create("o.fifo").await, ours.create("o.fifo").await];
    let plain = [moto.create("o").await, ours.create("o").await];
    let large = "x".repeat(MAX_MESSAGE_BYTES + 1);
    const BATCH: &str = "PublishBatchRequestEntries.member.1.";
    let (id, message) = (format!("{BATCH}Id"), format!("{BATCH}Message"));
    let second = id.replace(".1.", ".2.");
    let second_message = message.replace(".1.", ".2.");
    let group = format!("{BATCH}MessageGroupId");
    let dedup = format!("{BATCH}MessageDeduplicationId");
    let deduplicated = ("MessageDeduplicationId", "d");
    let cases: [Case<'_>; 9] = [
        (
            "published",
            &fifo,
            vec![
                ("Action", "Publish"),
                ("Message", "m"),
                ("MessageGroupId", "g"),
                deduplicated,
            ],
        ),
        (
            "a batch",
            &fifo,
            vec![
                ("Action", "PublishBatch"),
                (&id, "7"),
                (&message, "m"),
                (&group, "g"),
                (&dedup, "e"),
            ],
        ),
        (
            "no group in a batch",
            &fifo,
            vec![
                ("Action", "PublishBatch"),
                (&id, "7"),
                (&message, "m"),
                (&dedup, "e"),
            ],
        ),
        (
            "ids twice",
            &plain,
            vec![
                ("Action", "PublishBatch"),
                (&id, "7"),
                (&message, "m"),
                (&second, "7"),
                (&second_message, "n"),
            ],
        ),
        (
            "no id of the message",
            &fifo,
            vec![
                ("Action", "Publish"),
                ("Message", "m"),
                ("MessageGroupId", "g"),
            ],
        ),
        (
            "an id where none may be",
            &plain,
            vec![
                ("Action", "Publish"),
                ("Message", "m"),
                ("MessageGroupId", "g"),
                deduplicated,
            ],
        ),
        (
            "too long",
            &plain,
            vec![("Action", "Publish"), ("Message", &large)],
        ),
        (
            "subscribed",
            &plain,
            vec![
                ("Action", "Subscribe"),
                ("Protocol", "http"),
                ("Endpoint", "http://127.0.0.1:1/"),
            ],
        ),
        (
            "a name that is none",
            &plain,
            vec![("Action", "CreateTopic"), ("Name", "no name")],
        ),
    ];
    for (what, arns, parameters) in cases {
        let mut answers = Vec::new();
        for (endpoint, arn) in [&moto, &ours].into_iter().zip(arns) {
            let mut all = parameters.clone();
            all.push(("TopicArn", arn));
            answers.push(endpoint.query(&all).await);
        }
        let (theirs, own) = (&answers[0], &answers[1]);
        assert_eq!(theirs.status, own.status, "{what}: {theirs:?} {own:?}");
        assert_eq!(
            theirs.element("Code"),
            own.element("Code"),
            "{what}: {own:?}"
        );
        for name in ["MessageId", "Id", "SubscriptionArn"] {
            let there = |text: Option<&str>| text.map(|text| text.len());
            assert_eq!(
                there(theirs.element("MessageId")),
                there(own.element("MessageId")),
                "{what}"
            );
            assert_eq!(
                theirs.element(name).is_some(),
                own.element(name).is_some(),
                "{what}: {name}"
            );
        }
    }
    let missing = ("TopicArn", "arn:aws:sns:us-east-1:000000000000:nope");
    for endpoint in [&moto, &ours] {
        let asked = [("Action", "Publish"), ("Message", "m"), missing];
        let answer = endpoint.query(&asked).await;
        assert_eq!(
            (answer.status, answer.element("Code")),
            (404, Some("NotFound"))
        );
    }
}

#[tokio::test]
async fn the_endpoint_of_up_shows_what_was_sent_once() {
    let (_tasks, endpoint) = embedded().await;
    let arn = endpoint.create("orders.fifo").await;
    let topic = topic(&endpoint.url, &arn).await;
    publish(&topic, 3, 4).await;
    publish(&topic, 3, 4).await;
    let shown = endpoint.shown().await;
    assert_eq!(shown["topics"][0]["messages_sent"], 12);
    let messages = shown["messages"].as_array().unwrap();
    assert_eq!(messages.len(), 12);
    let own: Vec<u64> = messages
        .iter()
        .filter(|one| one["message_group_id"] == "g1")
        .map(|one| one["message"]["nth"].as_u64().unwrap())
        .collect();
    // The newest first.
    assert_eq!(own, [3, 2, 1, 0]);
    assert_eq!(messages[0]["attributes"]["total_amount"], "4.50");
}

#[tokio::test]
async fn a_message_that_is_refused_holds_no_other_up() {
    let (_tasks, endpoint) = embedded().await;
    let arn = endpoint.create("orders.fifo").await;
    let topic = topic(&endpoint.url, &arn).await;
    // What our own check lets through and the endpoint refuses.
    let mut empty = notice("empty", 0);
    empty.message.clear();
    let mut large = notice("large", 0);
    large.message = "x".repeat(MAX_MESSAGE_BYTES);
    let mut senders = JoinSet::new();
    for notice in [empty, large, notice("a", 0), notice("b", 0), notice("c", 0)] {
        let topic = Arc::clone(&topic);
        senders.spawn(async move {
            let group = notice.group.clone();
            (group, topic.publish(notice).await)
        });
    }
    for (group, sent) in senders.join_all().await {
        match group.as_str() {
            "empty" | "large" => {
                assert!(
                    matches!(sent, Err(EffectError::Refused(_))),
                    "{group}: {sent:?}"
                );
            }
            _ => sent.unwrap(),
        }
    }
    assert_eq!(
        endpoint.shown().await["messages"].as_array().unwrap().len(),
        3
    );
}

/// An endpoint that answers everything so.
async fn scripted(status: StatusCode, code: &'static str) -> (JoinSet<()>, String) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let text = format!(
        "<ErrorResponse xmlns=\"http://sns.amazonaws.com/doc/2010-03-31/\"><Error><Type>Sender</Type>\
         <Code>{code}</Code><Message>TopicArn or not</Message></Error></ErrorResponse>"
    );
    let router = Router::new().route("/", post(move || async move { (status, text) }));
    let mut tasks = JoinSet::new();
    tasks.spawn(async move { axum::serve(listener, router).await.unwrap() });
    (tasks, url)
}

#[tokio::test]
async fn whatever_sns_suffers_passes() {
    const ARN: &str = "arn:aws:sns:us-east-1:000000000000:orders.fifo";
    for (status, code) in [
        (StatusCode::INTERNAL_SERVER_ERROR, "InternalError"),
        (StatusCode::SERVICE_UNAVAILABLE, "ServiceUnavailable"),
        (StatusCode::FORBIDDEN, "InvalidClientTokenId"),
        (StatusCode::FORBIDDEN, "AuthorizationError"),
        (StatusCode::BAD_REQUEST, "Throttling"),
        (StatusCode::NOT_FOUND, "NotFound"),
        (StatusCode::BAD_REQUEST, "InvalidParameter"),
    ] {
        let (_tasks, url) = scripted(status, code).await;
        let topic = topic(&url, ARN).await;
        let failed = topic.publish(notice("g", 0)).await.unwrap_err();
        assert!(
            matches!(failed, EffectError::Unavailable(_)),
            "{code}: {failed:?}"
        );
    }
    let nobody = Endpoint::new(format!(
        "http://127.0.0.1:{}",
        millrace_testkit::free_port()
    ));
    let topic = topic(&nobody.url, ARN).await;
    let failed = topic.publish(notice("g", 0)).await.unwrap_err();
    assert!(matches!(failed, EffectError::Unavailable(_)), "{failed:?}");
}
