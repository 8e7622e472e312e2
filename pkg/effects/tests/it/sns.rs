//! SNS endpoints of tests: moto with a queue that hears a topic, and the one of `up`.

use millrace_parts::{Moto, serve_sns};
use serde_json::{Value, json};
use tokio::{net::TcpListener, task::JoinSet};

/// An endpoint and requests to it, without a client's help.
pub struct Endpoint {
    pub url: String,
    http: reqwest::Client,
}

/// What an endpoint answered: its status and its text.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub text: String,
}

impl Answer {
    /// What stands in the first element of this name.
    pub fn element(&self, name: &str) -> Option<&str> {
        let (_, rest) = self.text.split_once(&format!("<{name}>"))?;
        Some(rest.split_once(&format!("</{name}>"))?.0)
    }
}

impl Endpoint {
    pub fn new(url: String) -> Self {
        millrace_runtime::install_crypto();
        Self {
            url,
            http: reqwest::Client::new(),
        }
    }

    /// A request of the query protocol.
    pub async fn query(&self, parameters: &[(&str, &str)]) -> Answer {
        let mut form = url::form_urlencoded::Serializer::new(String::new());
        form.extend_pairs(parameters);
        let sent = self
            .http
            .post(&self.url)
            .header("content-type", "application/x-www-form-urlencoded")
            .header(
                "authorization",
                "AWS4-HMAC-SHA256 Credential=local/20260101/us-east-1/sns/aws4_request, \
                 SignedHeaders=host, Signature=none",
            )
            .body(form.finish())
            .send()
            .await
            .unwrap();
        Answer {
            status: sent.status().as_u16(),
            text: sent.text().await.unwrap(),
        }
    }

    pub async fn create(&self, name: &str) -> String {
        let mut parameters = vec![("Action", "CreateTopic"), ("Name", name)];
        if name.ends_with(".fifo") {
            parameters.push(("Attributes.entry.1.key", "FifoTopic"));
            parameters.push(("Attributes.entry.1.value", "true"));
        }
        let answer = self.query(&parameters).await;
        answer.element("TopicArn").expect(&answer.text).to_owned()
    }

    /// A request to SQS.
    pub async fn sqs(&self, action: &str, body: &Value) -> Value {
        let sent = self
            .http
            .post(&self.url)
            .header("content-type", "application/x-amz-json-1.0")
            .header("x-amz-target", format!("AmazonSQS.{action}"))
            .header(
                "authorization",
                "AWS4-HMAC-SHA256 Credential=local/20260101/us-east-1/sqs/aws4_request, \
                 SignedHeaders=host, Signature=none",
            )
            .body(body.to_string())
            .send()
            .await
            .unwrap();
        assert!(sent.status().is_success(), "{action}: {}", sent.status());
        serde_json::from_str(&sent.text().await.unwrap()).unwrap_or_default()
    }

    pub async fn shown(&self) -> Value {
        let text = reqwest::get(&self.url).await.unwrap().text().await.unwrap();
        serde_json::from_str(&text).unwrap()
    }
}

/// A queue that hears a topic, messages as they were sent.
pub struct Queue<'a> {
    endpoint: &'a Endpoint,
    url: String,
}

impl<'a> Queue<'a> {
    pub async fn of(endpoint: &'a Endpoint, topic: &str) -> Self {
        let name = topic.rsplit(':').next().unwrap();
        let mut attributes = json!({});
        if name.ends_with(".fifo") {
            attributes = json!({ "FifoQueue": "true" });
        }
        let made = json!({ "QueueName": name, "Attributes": attributes });
        let made = endpoint.sqs("CreateQueue", &made).await;
        let url = made["QueueUrl"].as_str().unwrap().to_owned();
        let arn = format!("arn:aws:sqs:us-east-1:123456789012:{name}");
        let subscribed = endpoint
            .query(&[
                ("Action", "Subscribe"),
                ("TopicArn", topic),
                ("Protocol", "sqs"),
                ("Endpoint", &arn),
                ("Attributes.entry.1.key", "RawMessageDelivery"),
                ("Attributes.entry.1.value", "true"),
            ])
            .await;
        assert_eq!(subscribed.status, 200, "{}", subscribed.text);
        Self { endpoint, url }
    }

    /// All messages so far, in the order of delivery.
    pub async fn messages(&self) -> Vec<Value> {
        let mut all = Vec::new();
        loop {
            let asked = json!({
                "QueueUrl": self.url, "MaxNumberOfMessages": 10,
                "MessageAttributeNames": ["All"], "AttributeNames": ["All"],
            });
            let got = self.endpoint.sqs("ReceiveMessage", &asked).await;
            let Some(messages) = got["Messages"].as_array().filter(|some| !some.is_empty()) else {
                return all;
            };
            for message in messages {
                let handle = &message["ReceiptHandle"];
                let gone = json!({ "QueueUrl": self.url, "ReceiptHandle": handle });
                self.endpoint.sqs("DeleteMessage", &gone).await;
                all.push(message.clone());
            }
        }
    }
}

pub async fn moto() -> (Moto, Endpoint) {
    let server = Moto::start().await.unwrap();
    let endpoint = Endpoint::new(server.endpoint());
    (server, endpoint)
}

/// The endpoint of `up`. It ends when the tasks are dropped.
pub async fn embedded() -> (JoinSet<()>, Endpoint) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let mut tasks = JoinSet::new();
    tasks.spawn(async move {
        serve_sns(listener, &[], std::future::pending())
            .await
            .unwrap();
    });
    (tasks, Endpoint::new(url))
}
