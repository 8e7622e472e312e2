//! Receipts and notifications, at a real S3 server and a real SNS endpoint.

use std::sync::Arc;

use http::StatusCode;
use millrace_effects::{Archive, ArchiveKeys, ArchiveOptions, Topic};
use millrace_ordering::{order_notifications, order_receipts};
use millrace_parts::{serve_sns, topic_arn};
use millrace_runtime::aws;
use millrace_testkit::{
    Reply, S3_ACCESS_KEY_ID, S3_BUCKET, S3_SECRET_ACCESS_KEY, S3Fault, S3Server, eventually, s3,
};
use millrace_teststage::PATIENCE;
use serde_json::{Value, json};
use tokio::{net::TcpListener, task::JoinSet};

use crate::system::System;

pub fn archive_at(server: &S3Server) -> Archive {
    millrace_runtime::install_crypto();
    let options = ArchiveOptions {
        endpoint: Some(server.endpoint()),
        keys: Some(ArchiveKeys {
            id: S3_ACCESS_KEY_ID.to_owned(),
            secret: S3_SECRET_ACCESS_KEY.to_owned(),
        }),
    };
    Archive::open(&format!("s3://{S3_BUCKET}"), &options).unwrap()
}

/// The SNS endpoint of `up`, and its topic.
pub struct Sns {
    pub url: String,
    topic: Arc<Topic>,
    _tasks: JoinSet<()>,
}

impl Sns {
    pub async fn start() -> Self {
        millrace_runtime::install_crypto();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            let topics = ["orders.fifo".to_owned()];
            serve_sns(listener, &topics, std::future::pending())
                .await
                .unwrap();
        });
        Self {
            topic: Self::topic_of(&url).await,
            url,
            _tasks: tasks,
        }
    }

    /// The topic, reached at this address.
    pub async fn topic_of(url: &str) -> Arc<Topic> {
        let client = aws::sns_client(Some(url)).await;
        let arn = topic_arn("orders.fifo").parse().unwrap();
        Arc::new(Topic::new(client, arn))
    }

    /// What was sent, oldest first.
    pub async fn messages(&self) -> Vec<Value> {
        let text = reqwest::get(&self.url).await.unwrap().text().await.unwrap();
        let shown: Value = serde_json::from_str(&text).unwrap();
        let newest_first = shown["messages"].as_array().unwrap();
        newest_first.iter().rev().cloned().collect()
    }

    async fn until_messages(&self, count: usize) -> Vec<Value> {
        eventually("the messages were sent", PATIENCE, || async {
            let messages = self.messages().await;
            (messages.len() >= count).then_some(messages)
        })
        .await
    }
}

async fn until_objects(server: &S3Server, count: usize) {
    eventually("the receipts are written", PATIENCE, || async {
        (server.objects().len() >= count).then_some(())
    })
    .await;
}

async fn page(system: &System, path: &str) -> Reply {
    let request = system.request(http::Method::GET, path);
    request.header("accept", "text/html").send().await
}

#[tokio::test]
async fn every_order_has_its_receipt_and_its_messages_once() {
    let (server, sns) = tokio::join!(s3(), Sns::start());
    let archive = archive_at(&server);
    let reactions = vec![
        order_receipts(archive.clone()),
        order_notifications(sns.topic.clone(), "millrace"),
    ];
    let system = System::with(reactions, Some(archive)).await;
    let mut ids = Vec::new();
    for nth in 0..6 {
        let id = system.order("ada", &format!("{}.50", nth + 1)).await;
        system.become_(&id, "CONFIRMED").await;
        ids.push(id);
    }
    system.delete(&format!("/orders/{}", ids[0])).await;
    until_objects(&server, 12).await;
    let messages = sns.until_messages(13).await;
    assert_eq!((server.objects().len(), messages.len()), (12, 13));
    for (key, object) in server.objects() {
        let year = &key[.."receipts/2026/01/".len()];
        assert!(year.starts_with("receipts/2"), "{key}");
        assert!(object.checksum_sha256.is_some(), "{key}");
        assert!(object.content_type.is_some(), "{key}");
    }
    for id in &ids {
        let own: Vec<&str> = messages
            .iter()
            .filter(|one| one["message_group_id"] == id.as_str())
            .map(|one| one["message"]["type"].as_str().unwrap())
            .collect();
        assert_eq!(own[..2], ["order.created", "order.status_updated"]);
    }
    let first = &messages[0];
    assert_eq!(first["message_deduplication_id"], first["message"]["id"]);
    assert_eq!(first["attributes"]["status"], "PENDING");
    assert_eq!(first["message"]["source"], "/millrace/ordering");

    // The deleted one keeps its receipt.
    let path = format!("/orders/{}/receipt", ids[0]);
    let receipt = system.get_now(&path).await.expect(StatusCode::OK);
    assert_eq!(receipt.body["order_id"], ids[0].as_str());
    assert_eq!(receipt.body["total_amount"], "1.50");
    let shown = page(&system, &path).await;
    assert_eq!(shown.status, StatusCode::OK);
    let kind = shown.headers["content-type"].to_str().unwrap();
    assert!(kind.starts_with("text/html"), "{kind}");
    assert!(shown.headers.contains_key("content-security-policy"));
    let link = system.get(&format!("{path}?link=true")).await;
    let url = link.expect(StatusCode::OK).body["url"]
        .as_str()
        .unwrap()
        .to_owned();
    let got = reqwest::get(url).await.unwrap();
    assert!(got.status().is_success());
    let content: Value = serde_json::from_str(&got.text().await.unwrap()).unwrap();
    assert_eq!(content["order_id"], ids[0].as_str());
    system
        .get("/orders/nobody/receipt")
        .await
        .expect(StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn an_archive_that_suffers_holds_up_neither_orders_nor_views() {
    let server = s3().await;
    let archive = archive_at(&server);
    let system = System::with(vec![order_receipts(archive.clone())], Some(archive)).await;
    let mut count = 0;
    for fault in [
        S3Fault::Status(503),
        S3Fault::Status(500),
        S3Fault::RefuseKeys,
        S3Fault::NoAnswer,
    ] {
        server.hurt(Some(fault));
        let id = system.order("ada", "4.50").await;
        system
            .get_now(&format!("/orders/{id}"))
            .await
            .expect(StatusCode::OK);
        let path = format!("/orders/{id}/receipt");
        let away = system.get(&path).await;
        let away = away.expect(StatusCode::SERVICE_UNAVAILABLE);
        assert!(away.headers.contains_key("retry-after"), "{fault:?}");
        assert!(
            !away.body.to_string().contains("127.0.0.1"),
            "{}",
            away.body
        );
        server.hurt(None);
        count += 2;
        until_objects(&server, count).await;
        system.get_now(&path).await.expect(StatusCode::OK);
    }
    server.stop().await;
    let id = system.order("ada", "4.50").await;
    system
        .get_now(&format!("/orders/{id}"))
        .await
        .expect(StatusCode::OK);
    server.start().await;
    until_objects(&server, count + 2).await;
    assert_eq!(server.objects().len(), count + 2);
}

#[tokio::test]
async fn a_receipt_that_is_not_written_yet_says_when_to_ask_again() {
    let folder = tempfile::tempdir().unwrap();
    let place = format!("file://{}", folder.path().display());
    let archive = Archive::open(&place, &ArchiveOptions::default()).unwrap();
    // Nobody performs the reaction.
    let system = System::with(Vec::new(), Some(archive.clone())).await;
    let id = system.order("ada", "4.50").await;
    let path = format!("/orders/{id}/receipt");
    system.get_now(&format!("/orders/{id}")).await;
    let early = system.get(&path).await.expect(StatusCode::NOT_FOUND);
    assert_eq!(early.body["type"], "/problems/receipt-not-ready");
    assert_eq!(early.headers["retry-after"], "1");
    let link = system.get(&format!("{path}?link=true")).await;
    let link = link.expect(StatusCode::CONFLICT);
    assert_eq!(link.body["type"], "/problems/no-receipt-link");
    system
        .get(&format!("{path}?format=pdf"))
        .await
        .expect(StatusCode::UNPROCESSABLE_ENTITY);
}

#[tokio::test]
async fn an_installation_without_an_archive_has_no_receipts() {
    let system = System::start().await;
    let id = system.order("ada", "4.50").await;
    system.get_now(&format!("/orders/{id}")).await;
    let none = system.get(&format!("/orders/{id}/receipt")).await;
    let none = none.expect(StatusCode::NOT_FOUND);
    assert_eq!(none.body["type"], "/problems/not-found");
    let detail = none.body["detail"].as_str().unwrap();
    assert!(detail.contains("archives none"), "{detail}");
}

#[tokio::test]
async fn what_a_user_says_is_text_in_a_receipt() {
    let folder = tempfile::tempdir().unwrap();
    let place = format!("file://{}", folder.path().display());
    let archive = Archive::open(&place, &ArchiveOptions::default()).unwrap();
    let system = System::with(vec![order_receipts(archive.clone())], Some(archive)).await;
    let body = json!({
        "user_id": "ada", "shipping_address": "<img src=x onerror=alert(1)>",
        "items": [{ "description": "Tea & <b>cake</b>", "quantity": 2, "unit_price": "4.50" }],
    });
    let reply = system.post("/orders", body).await;
    let id = reply.expect(StatusCode::CREATED).body["id"]
        .as_str()
        .unwrap()
        .to_owned();
    let path = format!("/orders/{id}/receipt");
    let text = eventually("the receipt is written", PATIENCE, || async {
        let read = page(&system, &path).await;
        (read.status == StatusCode::OK).then(|| String::from_utf8(read.bytes.to_vec()).unwrap())
    })
    .await;
    assert!(text.contains("Tea &amp; &lt;b&gt;cake"), "{text}");
    assert!(!text.contains("<img"), "{text}");
}
