use std::{
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use aws_sdk_dynamodb::types::AttributeValue;
use axum::{Router, body::Bytes, extract::State, http::HeaderMap, http::StatusCode, routing::post};
use millrace_es::RecordedEvent;
use millrace_eventlog::dynamodb::{Item, event_item};
use serde_json::{Value, json};
use tokio::{task::JoinSet, time::Instant};

/// How many shards one page of a description has, and how many records one page of a shard.
const SHARD_PAGE: usize = 2;
const RECORD_PAGE: usize = 20;

/// A DynamoDB that does what a test says: shards that split, end and lose their records, iterators
/// that expire, calls that are throttled. It speaks DynamoDB's protocol over HTTP, and keeps one
/// item, the checkpoint.
pub struct ScriptedStreams {
    pub url: String,
    script: Arc<Mutex<Script>>,
    _server: JoinSet<()>,
}

pub struct Script {
    /// The stream's name.
    pub stream: String,
    /// What its records are said to carry.
    pub view: &'static str,
    shards: Vec<Shard>,
    sequence: u128,
    /// Iterators of an earlier generation have expired.
    generation: u64,
    /// So many calls for records are throttled.
    pub throttled: u32,
    /// The item that was put last.
    pub checkpoint: Option<Value>,
    /// What was asked for.
    pub calls: Vec<Call>,
}

struct Shard {
    id: String,
    parent: Option<String>,
    records: Vec<(String, Value)>,
    /// The first record that is kept.
    kept: usize,
    closed: bool,
}

#[derive(Debug, Clone)]
pub struct Call {
    pub operation: String,
    pub shard: String,
    /// The kind of an iterator, and the sequence number it begins after.
    pub kind: String,
    pub after: Option<String>,
    pub at: Instant,
}

impl ScriptedStreams {
    pub async fn start(shards: &[&str]) -> Self {
        let script = Script {
            stream: "arn:aws:dynamodb:here:0:table/log/stream/1".to_owned(),
            view: "NEW_IMAGE",
            shards: Vec::new(),
            sequence: 100_000_000_000_000_000_000,
            generation: 0,
            throttled: 0,
            checkpoint: None,
            calls: Vec::new(),
        };
        let script = Arc::new(Mutex::new(script));
        let router = Router::new()
            .route("/", post(answer))
            .with_state(Arc::clone(&script));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let mut server = JoinSet::new();
        server.spawn(async move { axum::serve(listener, router).await.unwrap() });
        let endpoint = Self {
            url,
            script,
            _server: server,
        };
        for shard in shards {
            endpoint.script().open(shard, None);
        }
        endpoint
    }

    pub fn script(&self) -> MutexGuard<'_, Script> {
        self.script.lock().unwrap()
    }
}

impl Script {
    /// Adds a shard.
    pub fn open(&mut self, id: &str, parent: Option<&str>) {
        self.shards.push(Shard {
            id: id.to_owned(),
            parent: parent.map(str::to_owned),
            records: Vec::new(),
            kept: 0,
            closed: false,
        });
    }

    /// Takes no more records into a shard.
    pub fn close(&mut self, id: &str) {
        self.shard(id).closed = true;
    }

    /// Loses the oldest records of a shard, all but so many.
    pub fn trim(&mut self, id: &str, keep: usize) {
        let shard = self.shard(id);
        shard.kept = shard.records.len() - keep;
    }

    /// Forgets a shard.
    pub fn forget(&mut self, id: &str) {
        self.shards.retain(|shard| shard.id != id);
    }

    /// Lets every iterator expire that was given.
    pub fn expire(&mut self) {
        self.generation += 1;
    }

    /// Begins a new stream without shards; the old one is gone.
    pub fn begin_anew(&mut self) {
        self.stream.push('1');
        self.shards.clear();
    }

    pub fn put(&mut self, shard: &str, event: &RecordedEvent) {
        self.put_item(shard, &event_item(event).unwrap());
    }

    /// A record of an item that is no event.
    pub fn put_other(&mut self, shard: &str) {
        let item = [
            ("pk", AttributeValue::S("head".to_owned())),
            ("sk", number(0)),
        ];
        let item = item.map(|(name, value)| (name.to_owned(), value));
        self.put_item(shard, &Item::from(item));
    }

    fn put_item(&mut self, shard: &str, item: &Item) {
        self.sequence += 7;
        let sequence = self.sequence.to_string();
        let keys = json!({ "pk": plain(&item["pk"]), "sk": plain(&item["sk"]) });
        let image: Value = item
            .iter()
            .map(|(name, value)| (name.clone(), plain(value)))
            .collect();
        let record = json!({
            "eventID": sequence, "eventName": "INSERT", "eventVersion": "1.1",
            "eventSource": "aws:dynamodb", "awsRegion": "here",
            "dynamodb": {
                "Keys": keys, "NewImage": image, "SequenceNumber": sequence, "SizeBytes": 1,
                "StreamViewType": "NEW_IMAGE", "ApproximateCreationDateTime": 1_700_000_000,
            },
        });
        self.shard(shard).records.push((sequence, record));
    }

    /// The calls of one operation on a shard.
    pub fn calls(&self, operation: &str, shard: &str) -> Vec<Call> {
        let of = |call: &&Call| call.operation == operation && call.shard == shard;
        self.calls.iter().filter(of).cloned().collect()
    }

    /// The sequence number of a shard's newest record.
    pub fn newest(&mut self, shard: &str) -> String {
        self.shard(shard).records.last().unwrap().0.clone()
    }

    fn shard(&mut self, id: &str) -> &mut Shard {
        self.shards.iter_mut().find(|shard| shard.id == id).unwrap()
    }

    fn answer(&mut self, operation: &str, request: &Value) -> Result<Value, &'static str> {
        let shard = request["ShardId"].as_str().map(str::to_owned);
        let iterator = request["ShardIterator"].as_str().map(Token::parse);
        let mut call = Call {
            operation: operation.to_owned(),
            shard: shard.clone().unwrap_or_default(),
            kind: request["ShardIteratorType"]
                .as_str()
                .unwrap_or_default()
                .to_owned(),
            after: request["SequenceNumber"].as_str().map(str::to_owned),
            at: Instant::now(),
        };
        if let Some(token) = &iterator {
            call.shard.clone_from(&token.shard);
        }
        self.calls.push(call.clone());
        match operation {
            "DescribeTable" => Ok(json!({ "Table": {
                "LatestStreamArn": self.stream,
                "StreamSpecification": { "StreamEnabled": true, "StreamViewType": self.view },
            } })),
            "GetItem" => Ok(match &self.checkpoint {
                Some(item) => json!({ "Item": item }),
                None => json!({}),
            }),
            "PutItem" => {
                self.checkpoint = Some(request["Item"].clone());
                Ok(json!({}))
            }
            "DescribeStream" if request["StreamArn"] == self.stream.as_str() => {
                Ok(self.describe(request["ExclusiveStartShardId"].as_str()))
            }
            "GetShardIterator" if request["StreamArn"] == self.stream.as_str() => {
                self.iterator(&call)
            }
            "GetRecords" => self.records(&iterator.unwrap()),
            _ => Err("ResourceNotFoundException"),
        }
    }

    fn describe(&self, after: Option<&str>) -> Value {
        let place = after.map(|id| self.shards.iter().position(|s| s.id == id).unwrap() + 1);
        let rest = &self.shards[place.unwrap_or(0)..];
        let page = &rest[..rest.len().min(SHARD_PAGE)];
        let shards: Vec<_> = page
            .iter()
            .map(|shard| json!({ "ShardId": shard.id, "ParentShardId": shard.parent }))
            .collect();
        let last = page.last().filter(|_| rest.len() > page.len());
        json!({ "StreamDescription": {
            "StreamArn": self.stream, "Shards": shards,
            "LastEvaluatedShardId": last.map(|shard| &shard.id),
        } })
    }

    fn iterator(&mut self, call: &Call) -> Result<Value, &'static str> {
        let generation = self.generation;
        let found = self.shards.iter().find(|shard| shard.id == call.shard);
        let shard = found.ok_or("ResourceNotFoundException")?;
        let next = match call.kind.as_str() {
            "LATEST" => shard.records.len(),
            "TRIM_HORIZON" => shard.kept,
            _ => {
                let after = call.after.as_ref().unwrap();
                let at = shard
                    .records
                    .iter()
                    .position(|(sequence, _)| sequence == after);
                at.ok_or("ValidationException")? + 1
            }
        };
        if next < shard.kept {
            return Err("TrimmedDataAccessException");
        }
        let token = Token {
            generation,
            next,
            shard: call.shard.clone(),
        };
        Ok(json!({ "ShardIterator": token.text() }))
    }

    fn records(&mut self, token: &Token) -> Result<Value, &'static str> {
        if self.throttled > 0 {
            self.throttled -= 1;
            return Err("LimitExceededException");
        }
        if token.generation < self.generation {
            return Err("ExpiredIteratorException");
        }
        let found = self.shards.iter().find(|shard| shard.id == token.shard);
        let shard = found.ok_or("ResourceNotFoundException")?;
        if token.next < shard.kept {
            return Err("TrimmedDataAccessException");
        }
        let end = shard.records.len().min(token.next + RECORD_PAGE);
        let records: Vec<_> = shard.records[token.next..end]
            .iter()
            .map(|(_, record)| record)
            .collect();
        let next = Token {
            next: end,
            ..token.clone()
        };
        let over = shard.closed && end == shard.records.len();
        let next = (!over).then(|| next.text());
        Ok(json!({ "Records": records, "NextShardIterator": next }))
    }
}

#[derive(Clone)]
struct Token {
    generation: u64,
    next: usize,
    shard: String,
}

impl Token {
    fn parse(text: &str) -> Self {
        let parts: Vec<_> = text.splitn(3, ' ').collect();
        Self {
            generation: parts[0].parse().unwrap(),
            next: parts[1].parse().unwrap(),
            shard: parts[2].to_owned(),
        }
    }

    fn text(&self) -> String {
        format!("{} {} {}", self.generation, self.next, self.shard)
    }
}

async fn answer(
    State(script): State<Arc<Mutex<Script>>>,
    headers: HeaderMap,
    body: Bytes,
) -> (StatusCode, [(&'static str, &'static str); 1], String) {
    let target = headers["x-amz-target"].to_str().unwrap();
    let operation = target.split('.').nth(1).unwrap();
    let request: Value = serde_json::from_slice(&body).unwrap();
    let answered = script.lock().unwrap().answer(operation, &request);
    let (status, body) = match answered {
        Ok(body) => (StatusCode::OK, body),
        Err(code) => {
            let body = json!({ "__type": format!("com.amazonaws.dynamodb#{code}"), "message": "scripted" });
            (StatusCode::BAD_REQUEST, body)
        }
    };
    let kind = [("content-type", "application/x-amz-json-1.0")];
    (status, kind, body.to_string())
}

fn number(value: u64) -> AttributeValue {
    AttributeValue::N(value.to_string())
}

fn plain(value: &AttributeValue) -> Value {
    match value {
        AttributeValue::S(text) => json!({ "S": text }),
        AttributeValue::N(digits) => json!({ "N": digits }),
        other => panic!("an event has no {other:?}"),
    }
}

/// Clients that ask an endpoint once, so that what is repeated is repeated by the processor.
pub fn clients(url: &str) -> (aws_sdk_dynamodb::Client, aws_sdk_dynamodbstreams::Client) {
    use aws_sdk_dynamodb::config::{
        BehaviorVersion, Credentials, Region, retry::RetryConfig, timeout::TimeoutConfig,
    };
    let http = aws_smithy_http_client::Builder::new().build_http();
    let once = RetryConfig::standard().with_max_attempts(1);
    let timeout = Duration::from_secs(10);
    let bound = TimeoutConfig::builder().operation_timeout(timeout).build();
    let credentials = Credentials::new("local", "local", None, None, "test");
    let tables = aws_sdk_dynamodb::Config::builder()
        .behavior_version(BehaviorVersion::latest())
        .region(Region::new("us-east-1"))
        .credentials_provider(credentials.clone())
        .http_client(http.clone())
        .retry_config(once.clone())
        .timeout_config(bound.clone())
        .endpoint_url(url)
        .build();
    let streams = aws_sdk_dynamodbstreams::Config::builder()
        .behavior_version(aws_sdk_dynamodbstreams::config::BehaviorVersion::latest())
        .region(Region::new("us-east-1"))
        .credentials_provider(credentials)
        .http_client(http)
        .retry_config(once)
        .timeout_config(bound)
        .endpoint_url(url)
        .build();
    (
        aws_sdk_dynamodb::Client::from_conf(tables),
        aws_sdk_dynamodbstreams::Client::from_conf(streams),
    )
}
