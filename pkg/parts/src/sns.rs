//! The embedded SNS: the part of its query protocol that Millrace speaks, in memory. What was
//! published can be seen at `GET /`.
//!
//! It is for a laptop. Topics keep what a real one keeps where a sender can tell the difference:
//! names, limits, the deduplication of a FIFO topic, error codes. It delivers to nobody.

mod answers;
mod form;

use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use axum::{Json, Router, body::Bytes, extract::State, response::Response, routing::get};
use serde_json::{Value, json};

use self::{
    answers::{Failure, answer},
    form::{Entry, Form},
};
use crate::PartsError;

/// The most messages that are kept to be seen; the oldest go first.
const MAX_SHOWN_MESSAGES: usize = 1_000;

/// The most topics, subscriptions of a topic, and deduplication ids that are remembered.
const MAX_TOPICS: usize = 100;
const MAX_SUBSCRIPTIONS: usize = 100;
const MAX_REMEMBERED_IDS: usize = 100_000;

/// How long a FIFO topic drops repeats of a deduplication id.
const DEDUPLICATION_TIME: Duration = Duration::from_secs(300);

/// The longest message, and the most of one request, in bytes.
const MAX_MESSAGE_BYTES: usize = 256 * 1024;

/// The most messages of one request.
const MAX_BATCH_ENTRIES: usize = 10;

/// The account and the region in the names of topics.
const ACCOUNT: &str = "000000000000";
const REGION: &str = "us-east-1";

/// The ARN of a topic of the embedded SNS.
#[must_use]
pub fn topic_arn(name: &str) -> String {
    format!("arn:aws:sns:{REGION}:{ACCOUNT}:{name}")
}

/// Serves SNS on `listener` until `shutdown` resolves, with these topics from the start.
///
/// # Errors
/// When the server fails.
pub async fn serve_sns(
    listener: tokio::net::TcpListener,
    topics: &[String],
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> Result<(), PartsError> {
    let topics_there = Topics::default();
    for name in topics {
        topics_there
            .lock()
            .create(name)
            .map_err(|failure| not_started(&failure.message))?;
    }
    let router = Router::new()
        .route("/", get(show).post(act))
        .with_state(topics_there);
    axum::serve(listener, router)
        .with_graceful_shutdown(shutdown)
        .await
        .map_err(|error| not_started(&error.to_string()))
}

fn not_started(reason: &str) -> PartsError {
    PartsError::NotStarted {
        part: "SNS",
        reason: reason.to_owned(),
        log: String::new(),
    }
}

#[derive(Clone, Default)]
struct Topics(Arc<Mutex<Inner>>);

impl Topics {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[derive(Default)]
struct Inner {
    topics: BTreeMap<String, Topic>,
    /// What was sent, newest last.
    sent: VecDeque<Value>,
}

#[derive(Default)]
struct Topic {
    subscriptions: Vec<(String, String, String)>,
    /// What a repeat is answered with, by deduplication id.
    published: HashMap<String, (Instant, Published)>,
    sequence: u64,
    sent: u64,
}

/// What a message is answered with.
#[derive(Debug, Clone)]
struct Published {
    message_id: String,
    sequence_number: Option<String>,
}

async fn show(State(topics): State<Topics>) -> Json<Value> {
    let inner = topics.lock();
    let listed: Vec<Value> = inner
        .topics
        .iter()
        .map(|(arn, topic)| {
            let subscriptions = topic.subscriptions.iter();
            let subscriptions: Vec<Value> = subscriptions
                .map(|(arn, protocol, endpoint)| {
                    json!({ "subscription_arn": arn, "protocol": protocol, "endpoint": endpoint })
                })
                .collect();
            json!({ "topic_arn": arn, "messages_sent": topic.sent, "subscriptions": subscriptions })
        })
        .collect();
    // The newest first: what people look for.
    let messages: Vec<&Value> = inner.sent.iter().rev().collect();
    Json(json!({ "topics": listed, "messages": messages }))
}

async fn act(State(topics): State<Topics>, body: Bytes) -> Response {
    let form = Form::parse(&body);
    let action = form.get("Action").unwrap_or_default().to_owned();
    let result = perform(&mut topics.lock(), &action, &form);
    answer(&action, result)
}

/// Does what a request asks, and gives the inside of its result.
fn perform(inner: &mut Inner, action: &str, form: &Form) -> Result<String, Failure> {
    match action {
        "CreateTopic" => {
            let arn = inner.create(form.get("Name").unwrap_or_default())?;
            Ok(answers::element("TopicArn", &arn))
        }
        "Subscribe" => inner.subscribe(form),
        "Publish" => {
            let entry = form.publish();
            let arn = form.topic_arn()?;
            let published = inner.publish(arn, &entry)?;
            Ok(answers::published(&published))
        }
        "PublishBatch" => inner.publish_batch(form),
        _ => Err(Failure::new(
            "InvalidAction",
            format!("The action {action} is not valid for this endpoint."),
        )),
    }
}

impl Inner {
    fn create(&mut self, name: &str) -> Result<String, Failure> {
        let stem = name.strip_suffix(".fifo").unwrap_or(name);
        let ok = !stem.is_empty()
            && name.len() <= 256
            && stem
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_');
        if !ok {
            return Err(Failure::invalid("Topic Name"));
        }
        let arn = topic_arn(name);
        if self.topics.len() >= MAX_TOPICS && !self.topics.contains_key(&arn) {
            return Err(Failure::new("TopicLimitExceeded", "too many topics"));
        }
        self.topics.entry(arn.clone()).or_default();
        Ok(arn)
    }

    fn topic(&mut self, arn: &str) -> Result<&mut Topic, Failure> {
        self.topics
            .get_mut(arn)
            .ok_or_else(|| Failure::new("NotFound", "Topic does not exist"))
    }

    fn subscribe(&mut self, form: &Form) -> Result<String, Failure> {
        let arn = form.topic_arn()?.to_owned();
        let topic = self.topic(&arn)?;
        let protocol = form.get("Protocol").unwrap_or_default().to_owned();
        let endpoint = form.get("Endpoint").unwrap_or_default().to_owned();
        if protocol.is_empty() || endpoint.is_empty() {
            return Err(Failure::invalid("Protocol and Endpoint are required"));
        }
        let known = topic
            .subscriptions
            .iter()
            .find(|(_, p, e)| *p == protocol && *e == endpoint);
        if let Some((arn, ..)) = known {
            return Ok(answers::element("SubscriptionArn", arn));
        }
        if topic.subscriptions.len() >= MAX_SUBSCRIPTIONS {
            return Err(Failure::new(
                "SubscriptionLimitExceeded",
                "too many subscriptions",
            ));
        }
        let subscription = format!("{arn}:{}", id());
        topic
            .subscriptions
            .push((subscription.clone(), protocol, endpoint));
        Ok(answers::element("SubscriptionArn", &subscription))
    }

    fn publish_batch(&mut self, form: &Form) -> Result<String, Failure> {
        let arn = form.topic_arn()?.to_owned();
        self.topic(&arn)?;
        let entries = form.batch();
        check_batch(&entries)?;
        if arn.ends_with(".fifo") && entries.iter().any(|entry| entry.group.is_none()) {
            return Err(no_group());
        }
        let mut successful = String::new();
        let mut failed = String::new();
        for entry in &entries {
            match self.publish(&arn, entry) {
                Ok(published) => {
                    let id = answers::element("Id", &entry.id);
                    let inside = format!("{id}{}", answers::published(&published));
                    successful.push_str(&answers::raw("member", &inside));
                }
                Err(failure) => failed.push_str(&failure.member(&entry.id)),
            }
        }
        Ok(format!(
            "{}{}",
            answers::raw("Successful", &successful),
            answers::raw("Failed", &failed)
        ))
    }

    fn publish(&mut self, arn: &str, entry: &Entry) -> Result<Published, Failure> {
        let topic = self.topic(arn)?;
        if entry.message.is_empty() {
            return Err(Failure::invalid("Empty message"));
        }
        if entry.bytes() > MAX_MESSAGE_BYTES {
            return Err(Failure::invalid("Message too long"));
        }
        let is_fifo = arn.ends_with(".fifo");
        let group = entry.group.as_deref();
        if is_fifo && group.is_none() {
            return Err(no_group());
        }
        if is_fifo && entry.deduplication.is_none() {
            return Err(Failure::invalid(
                "The topic should either have ContentBasedDeduplication enabled or \
                 MessageDeduplicationId provided explicitly",
            ));
        }
        if !is_fifo && entry.deduplication.is_some() {
            return Err(Failure::invalid(
                "MessageDeduplicationId Reason: The request includes MessageDeduplicationId \
                 parameter that is not valid for this topic type",
            ));
        }
        let now = Instant::now();
        if let Some(repeated) = entry
            .deduplication
            .as_ref()
            .and_then(|id| topic.repeated(id, now))
        {
            return Ok(repeated);
        }
        let published = topic.next(is_fifo);
        if let Some(id) = &entry.deduplication {
            topic.remember(id.clone(), now, published.clone());
        }
        self.keep(arn, entry, &published);
        Ok(published)
    }

    fn keep(&mut self, arn: &str, entry: &Entry, published: &Published) {
        if self.sent.len() == MAX_SHOWN_MESSAGES {
            self.sent.pop_front();
        }
        // A message that is JSON is shown as what it says.
        let message = serde_json::from_str(&entry.message)
            .unwrap_or_else(|_| Value::String(entry.message.clone()));
        self.sent.push_back(json!({
            "topic_arn": arn,
            "message_id": published.message_id,
            "sequence_number": published.sequence_number,
            "message_group_id": entry.group,
            "message_deduplication_id": entry.deduplication,
            "attributes": entry.attributes,
            "message": message,
        }));
    }
}

impl Topic {
    fn repeated(&self, id: &str, now: Instant) -> Option<Published> {
        let (at, published) = self.published.get(id)?;
        (now - *at < DEDUPLICATION_TIME).then(|| published.clone())
    }

    fn remember(&mut self, id: String, now: Instant, published: Published) {
        if self.published.len() >= MAX_REMEMBERED_IDS {
            self.published
                .retain(|_, (at, _)| now - *at < DEDUPLICATION_TIME);
        }
        self.published.insert(id, (now, published));
    }

    fn next(&mut self, is_fifo: bool) -> Published {
        self.sent += 1;
        let sequence_number = is_fifo.then(|| {
            self.sequence += 1;
            format!("{:020}", self.sequence)
        });
        Published {
            message_id: id(),
            sequence_number,
        }
    }
}

fn no_group() -> Failure {
    Failure::invalid("The MessageGroupId parameter is required for FIFO topics")
}

fn check_batch(entries: &[Entry]) -> Result<(), Failure> {
    if entries.is_empty() {
        return Err(Failure::new(
            "EmptyBatchRequest",
            "The batch request doesn't contain any entries.",
        ));
    }
    if entries.len() > MAX_BATCH_ENTRIES {
        return Err(Failure::new(
            "TooManyEntriesInBatchRequest",
            "The batch request contains more entries than permissible.",
        ));
    }
    let mut ids: Vec<&str> = entries.iter().map(|entry| entry.id.as_str()).collect();
    ids.sort_unstable();
    if ids.windows(2).any(|pair| pair[0] == pair[1]) {
        return Err(Failure::new(
            "BatchEntryIdsNotDistinct",
            "Two or more batch entries in the request have the same Id.",
        ));
    }
    if entries.iter().map(Entry::bytes).sum::<usize>() > MAX_MESSAGE_BYTES {
        return Err(Failure::new(
            "BatchRequestTooLong",
            "The length of all the batch messages put together is more than the limit.",
        ));
    }
    Ok(())
}

/// An id in the form of a UUID; it names a message for people.
fn id() -> String {
    let random: u128 = rand::random();
    let hex = format!("{random:032x}");
    format!(
        "{}-{}-{}-{}-{}",
        &hex[..8],
        &hex[8..12],
        &hex[12..16],
        &hex[16..20],
        &hex[20..]
    )
}
