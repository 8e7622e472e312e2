//! A topic of SNS. Messages that wait at the same time travel together, up to ten in a request.

use std::{
    collections::{HashMap, VecDeque},
    fmt,
    str::FromStr,
    sync::{Mutex, MutexGuard, PoisonError},
};

use aws_sdk_sns::{
    Client,
    error::ProvideErrorMetadata,
    types::{BatchResultErrorEntry, MessageAttributeValue, PublishBatchRequestEntry},
};
use millrace_projecting::EffectError;
use tokio::sync::{Semaphore, oneshot};

/// The most messages of one request: SNS takes no more.
const MAX_BATCH_MESSAGES: usize = 10;

/// The longest message, in bytes with its attributes, and the most of one request: SNS takes no
/// more.
pub const MAX_MESSAGE_BYTES: usize = 256 * 1024;

/// The most attributes of a message: a queue that gets messages raw drops one with more.
pub const MAX_ATTRIBUTES: usize = 10;

/// The most requests on their way at once. Messages that come meanwhile travel together.
const MAX_REQUESTS_AT_ONCE: usize = 4;

/// An attribute of a message, for the filters of subscribers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Attribute {
    /// A text.
    Text(String),
    /// A number, as its text.
    Number(String),
}

/// A message to a topic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Notice {
    /// Names the message for ever: the deduplication id of a FIFO topic.
    pub id: String,
    /// Whose order is kept: the message group of a FIFO topic.
    pub group: String,
    /// The message.
    pub message: String,
    /// What subscribers may filter by, at most [`MAX_ATTRIBUTES`]; none of them empty.
    pub attributes: Vec<(&'static str, Attribute)>,
}

impl Notice {
    fn bytes(&self) -> usize {
        let attributes = self.attributes.iter().map(|(name, value)| match value {
            Attribute::Text(value) => name.len() + value.len() + "String".len(),
            Attribute::Number(value) => name.len() + value.len() + "Number".len(),
        });
        self.message.len() + attributes.sum::<usize>()
    }
}

/// A text that names no topic.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} names no topic: an ARN is arn:aws:sns:<region>:<account>:<name>[.fifo]")]
pub struct BadTopic(String);

/// The name of a topic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TopicArn(String);

impl TopicArn {
    /// The ARN.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether the topic keeps the order of each group and drops repeats.
    #[must_use]
    pub fn is_fifo(&self) -> bool {
        self.0.ends_with(".fifo")
    }
}

impl FromStr for TopicArn {
    type Err = BadTopic;

    fn from_str(text: &str) -> Result<Self, BadTopic> {
        let parts: Vec<&str> = text.split(':').collect();
        let name = |text: &str| {
            let stem = text.strip_suffix(".fifo").unwrap_or(text);
            !stem.is_empty()
                && text.len() <= 256
                && stem
                    .bytes()
                    .all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
        };
        match parts[..] {
            ["arn", partition, "sns", region, account, topic]
                if partition.starts_with("aws")
                    && !region.is_empty()
                    && account.len() == 12
                    && account.bytes().all(|b| b.is_ascii_digit())
                    && name(topic) =>
            {
                Ok(Self(text.to_owned()))
            }
            _ => Err(BadTopic(text.to_owned())),
        }
    }
}

/// A message that waits for its request, and who waits for the message.
struct Waiting {
    notice: Notice,
    answer: oneshot::Sender<Result<(), EffectError>>,
}

/// A topic.
pub struct Topic {
    client: Client,
    arn: TopicArn,
    queue: Mutex<VecDeque<Waiting>>,
    requests: Semaphore,
}

impl Topic {
    /// A topic through a client of SNS.
    #[must_use]
    pub fn new(client: Client, arn: TopicArn) -> Self {
        Self {
            client,
            arn,
            queue: Mutex::default(),
            requests: Semaphore::new(MAX_REQUESTS_AT_ONCE),
        }
    }

    /// Which one it is.
    #[must_use]
    pub const fn arn(&self) -> &TopicArn {
        &self.arn
    }

    /// Publishes a message. Who publishes several of one group waits for each before the next.
    ///
    /// # Errors
    /// [`EffectError::Refused`] when the message itself is refused; everything else is taken for
    /// something that passes: an endpoint that is away, a topic that is not there yet, credentials.
    pub async fn publish(&self, notice: Notice) -> Result<(), EffectError> {
        check(&notice).map_err(EffectError::refused)?;
        let (answer, mut answered) = oneshot::channel();
        self.queue().push_back(Waiting { notice, answer });
        loop {
            tokio::select! {
                biased;
                answer = &mut answered => return answer.unwrap_or_else(|_| Err(abandoned())),
                request = self.requests.acquire() => {
                    let Ok(_request) = request else {
                        return Err(abandoned());
                    };
                    // Whoever's turn it is takes along what waits, whosever it is.
                    let batch = self.take();
                    if !batch.is_empty() {
                        self.send(batch).await;
                        continue;
                    }
                }
            }
            // Another request has it.
            return answered.await.unwrap_or_else(|_| Err(abandoned()));
        }
    }

    fn queue(&self) -> MutexGuard<'_, VecDeque<Waiting>> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The messages of the next request.
    fn take(&self) -> Vec<Waiting> {
        let mut queue = self.queue();
        let mut batch = Vec::new();
        let mut bytes = 0;
        while batch.len() < MAX_BATCH_MESSAGES {
            let Some(next) = queue.front() else {
                break;
            };
            // Nobody waits for it any more; whoever asked for it asks again.
            if next.answer.is_closed() {
                queue.pop_front();
                continue;
            }
            bytes += next.notice.bytes();
            if bytes > MAX_MESSAGE_BYTES && !batch.is_empty() {
                break;
            }
            batch.extend(queue.pop_front());
        }
        batch
    }

    /// Sends messages in one request, and each alone when the request itself is refused because of
    /// one of them.
    async fn send(&self, mut batch: Vec<Waiting>) {
        let together = batch.len() > 1;
        match self.request(&batch).await {
            Ok(refused) => answer(batch, refused),
            Err(error) if together && is_about_a_message(&error) => {
                for one in batch.drain(..) {
                    let alone = vec![one];
                    match self.request(&alone).await {
                        Ok(refused) => answer(alone, refused),
                        Err(error) => fail(alone, &error),
                    }
                }
            }
            Err(error) => fail(batch, &error),
        }
    }

    /// One request; the messages that were refused, by their index.
    async fn request(&self, batch: &[Waiting]) -> Result<HashMap<usize, Refusal>, Refusal> {
        let is_fifo = self.arn.is_fifo();
        let entries = batch
            .iter()
            .enumerate()
            .map(|(nth, one)| entry(nth, &one.notice, is_fifo))
            .collect::<Result<Vec<_>, _>>()?;
        let answer = self
            .client
            .publish_batch()
            .topic_arn(self.arn.as_str())
            .set_publish_batch_request_entries(Some(entries))
            .send()
            .await
            .map_err(|error| {
                let code = error.code().unwrap_or_default().to_owned();
                Refusal {
                    code,
                    text: with_sources(&error),
                }
            })?;
        let mut refused: HashMap<usize, Refusal> = HashMap::new();
        for one in answer.failed() {
            if let Ok(nth) = one.id().parse() {
                refused.insert(nth, Refusal::of(one));
            }
        }
        // What the answer does not speak of was not published, as far as anybody knows.
        let named: Vec<usize> = answer
            .successful()
            .iter()
            .filter_map(|one| one.id()?.parse().ok())
            .collect();
        for nth in 0..batch.len() {
            if !named.contains(&nth) {
                refused.entry(nth).or_insert_with(|| Refusal {
                    code: String::new(),
                    text: "the answer says nothing of this message".to_owned(),
                });
            }
        }
        Ok(refused)
    }
}

/// Why a request or a message was refused.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{text}")]
struct Refusal {
    code: String,
    text: String,
}

impl Refusal {
    fn of(entry: &BatchResultErrorEntry) -> Self {
        Self {
            code: entry.code().to_owned(),
            text: format!(
                "{}: {}",
                entry.code(),
                entry.message().unwrap_or("no reason given")
            ),
        }
    }

    fn into_error(self) -> EffectError {
        if is_about_a_message(&self) {
            EffectError::refused(self)
        } else {
            EffectError::unavailable(self)
        }
    }
}

/// Whether a refusal is about what a message says, and not about the topic, the rights or the
/// time. What is not known to be is taken for something that passes.
fn is_about_a_message(refusal: &Refusal) -> bool {
    const CODES: [&str; 6] = [
        "InvalidParameter",
        "InvalidParameterException",
        "InvalidParameterValue",
        "ParameterValueInvalid",
        "BatchRequestTooLong",
        "BatchRequestTooLongException",
    ];
    CODES.contains(&refusal.code.as_str()) && !refusal.text.contains("TopicArn")
}

fn answer(batch: Vec<Waiting>, mut refused: HashMap<usize, Refusal>) {
    for (nth, one) in batch.into_iter().enumerate() {
        let result = refused.remove(&nth).map_or(Ok(()), |r| Err(r.into_error()));
        // Who asked may have gone.
        let _ = one.answer.send(result);
    }
}

fn fail(batch: Vec<Waiting>, refusal: &Refusal) {
    for one in batch {
        let _ = one.answer.send(Err(refusal.clone().into_error()));
    }
}

/// The request that had the message ended without a word: its task was dropped.
fn abandoned() -> EffectError {
    EffectError::unavailable("the request was given up before it was answered")
}

#[derive(Debug, thiserror::Error)]
enum BadNotice {
    #[error("the message has {0} bytes with its attributes, SNS takes {MAX_MESSAGE_BYTES}")]
    TooLong(usize),
    #[error("the message has {0} attributes, at most {MAX_ATTRIBUTES} reach every subscriber")]
    TooManyAttributes(usize),
}

fn check(notice: &Notice) -> Result<(), BadNotice> {
    let bytes = notice.bytes();
    if bytes > MAX_MESSAGE_BYTES {
        return Err(BadNotice::TooLong(bytes));
    }
    if notice.attributes.len() > MAX_ATTRIBUTES {
        return Err(BadNotice::TooManyAttributes(notice.attributes.len()));
    }
    Ok(())
}

fn entry(nth: usize, notice: &Notice, is_fifo: bool) -> Result<PublishBatchRequestEntry, Refusal> {
    let incomplete = |error: aws_sdk_sns::error::BuildError| Refusal {
        code: String::new(),
        text: error.to_string(),
    };
    let mut entry = PublishBatchRequestEntry::builder()
        .id(nth.to_string())
        .message(&notice.message);
    for (name, value) in &notice.attributes {
        let (kind, value) = match value {
            Attribute::Text(value) => ("String", value),
            Attribute::Number(value) => ("Number", value),
        };
        let value = MessageAttributeValue::builder()
            .data_type(kind)
            .string_value(value)
            .build()
            .map_err(incomplete)?;
        entry = entry.message_attributes(*name, value);
    }
    if is_fifo {
        entry = entry
            .message_group_id(&notice.group)
            .message_deduplication_id(&notice.id);
    }
    entry.build().map_err(incomplete)
}

/// An error of the SDK with its sources: alone it only says that a service failed.
fn with_sources(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(inner) = source {
        text.push_str(": ");
        text.push_str(&inner.to_string());
        source = inner.source();
    }
    text
}

impl fmt::Debug for Topic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Topic({})", self.arn.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn topics_are_named_by_arns() {
        for (right, fifo) in [
            ("arn:aws:sns:us-east-1:000000000000:orders", false),
            ("arn:aws-cn:sns:cn-north-1:123456789012:orders_1.fifo", true),
        ] {
            assert_eq!(right.parse::<TopicArn>().unwrap().is_fifo(), fifo);
        }
        for wrong in [
            "",
            "orders",
            "arn:aws:sqs:us-east-1:000000000000:orders",
            "arn:aws:sns:us-east-1:12:orders",
            "arn:aws:sns:us-east-1:000000000000:",
            "arn:aws:sns:us-east-1:000000000000:.fifo",
            "arn:aws:sns:us-east-1:000000000000:orders:sub",
        ] {
            assert!(wrong.parse::<TopicArn>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn only_what_is_about_a_message_is_refused_for_good() {
        let refusal = |code: &str, text: &str| Refusal {
            code: code.to_owned(),
            text: text.to_owned(),
        };
        assert!(is_about_a_message(&refusal(
            "InvalidParameter",
            "Invalid parameter: Message too long"
        )));
        for passes in [
            refusal("InvalidParameter", "Invalid parameter: TopicArn"),
            refusal("NotFound", "Topic does not exist"),
            refusal("AuthorizationError", "not you"),
            refusal("Throttled", "slower"),
            refusal("", "connection refused"),
        ] {
            assert!(!is_about_a_message(&passes), "{passes:?}");
        }
    }
}
