//! Requests of the query protocol: a form whose names say where a value stands, such as
//! `PublishBatchRequestEntries.member.2.MessageAttributes.entry.1.Name`.

use std::collections::BTreeMap;

use super::answers::Failure;

/// A request.
#[derive(Debug)]
pub(super) struct Form(BTreeMap<String, String>);

/// A message that is to be published.
#[derive(Debug, Default)]
pub(super) struct Entry {
    pub(super) id: String,
    pub(super) message: String,
    pub(super) group: Option<String>,
    pub(super) deduplication: Option<String>,
    /// Values by name, without their types.
    pub(super) attributes: BTreeMap<String, String>,
    attribute_bytes: usize,
}

impl Entry {
    /// What counts against the limit.
    pub(super) fn bytes(&self) -> usize {
        self.message.len() + self.attribute_bytes
    }
}

impl Form {
    pub(super) fn parse(body: &[u8]) -> Self {
        Self(url::form_urlencoded::parse(body).into_owned().collect())
    }

    pub(super) fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str)
    }

    pub(super) fn topic_arn(&self) -> Result<&str, Failure> {
        let arn = self.get("TopicArn").unwrap_or_default();
        if arn.split(':').count() == 6 && arn.starts_with("arn:") {
            return Ok(arn);
        }
        Err(Failure::invalid(&format!(
            "TopicArn Reason: An ARN must have at least 6 elements, not {}",
            arn.split(':').count()
        )))
    }

    /// The message of a request for one.
    pub(super) fn publish(&self) -> Entry {
        self.entry("")
    }

    /// The messages of a request for several.
    pub(super) fn batch(&self) -> Vec<Entry> {
        (1..)
            .map(|nth| format!("PublishBatchRequestEntries.member.{nth}."))
            .take_while(|prefix| self.0.keys().any(|name| name.starts_with(prefix)))
            .map(|prefix| self.entry(&prefix))
            .collect()
    }

    fn entry(&self, prefix: &str) -> Entry {
        let text = |name: &str| self.get(&format!("{prefix}{name}")).map(str::to_owned);
        let mut entry = Entry {
            id: text("Id").unwrap_or_default(),
            message: text("Message").unwrap_or_default(),
            group: text("MessageGroupId"),
            deduplication: text("MessageDeduplicationId"),
            ..Entry::default()
        };
        for nth in 1.. {
            let place = format!("MessageAttributes.entry.{nth}.");
            let Some(name) = text(&format!("{place}Name")) else {
                break;
            };
            let kind = text(&format!("{place}Value.DataType")).unwrap_or_default();
            let value = text(&format!("{place}Value.StringValue")).unwrap_or_default();
            entry.attribute_bytes += name.len() + kind.len() + value.len();
            entry.attributes.insert(name, value);
        }
        entry
    }
}
