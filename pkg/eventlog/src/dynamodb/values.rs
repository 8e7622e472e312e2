//! Attribute values in and out of items.

use std::collections::HashMap;

use aws_sdk_dynamodb::types::AttributeValue;
use millrace_kernel::Timestamp;

/// An item as the SDK has it.
pub type Item = HashMap<String, AttributeValue>;

/// An item of the log's table that is none this code writes.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the item {key} has no {attribute}, or none that can be read")]
pub struct BadItem {
    /// The item's keys, as far as it has them.
    pub key: String,
    /// The attribute that is missing or of another form.
    pub attribute: &'static str,
}

impl BadItem {
    pub(super) fn at(item: &Item, attribute: &'static str) -> Self {
        let key = [PK, SK].map(|name| match item.get(name) {
            Some(AttributeValue::S(text) | AttributeValue::N(text)) => text.as_str(),
            _ => "?",
        });
        Self {
            key: key.join("/"),
            attribute,
        }
    }
}

/// The table's partition key.
pub(super) const PK: &str = "pk";
/// The table's sort key.
pub(super) const SK: &str = "sk";

pub(super) fn text(value: impl Into<String>) -> AttributeValue {
    AttributeValue::S(value.into())
}

pub(super) fn number(value: impl std::fmt::Display) -> AttributeValue {
    AttributeValue::N(value.to_string())
}

pub(super) fn get_text<'a>(item: &'a Item, name: &'static str) -> Result<&'a str, BadItem> {
    match item.get(name) {
        Some(AttributeValue::S(text)) => Ok(text),
        _ => Err(BadItem::at(item, name)),
    }
}

pub(super) fn get_parsed<T: std::str::FromStr>(
    item: &Item,
    name: &'static str,
) -> Result<T, BadItem> {
    get_text(item, name)?
        .parse()
        .map_err(|_| BadItem::at(item, name))
}

pub(super) fn get_number<T: std::str::FromStr>(
    item: &Item,
    name: &'static str,
) -> Result<T, BadItem> {
    match item.get(name) {
        Some(AttributeValue::N(digits)) => digits.parse().map_err(|_| BadItem::at(item, name)),
        _ => Err(BadItem::at(item, name)),
    }
}

pub(super) fn get_time(item: &Item, name: &'static str) -> Result<Timestamp, BadItem> {
    get_parsed(item, name)
}

/// How many bytes DynamoDB counts for an item: names and values, and a little for each of a list
/// or map.
pub(super) fn item_bytes(item: &Item) -> usize {
    item.iter()
        .map(|(name, value)| name.len() + value_bytes(value))
        .sum()
}

fn value_bytes(value: &AttributeValue) -> usize {
    match value {
        AttributeValue::S(text) => text.len(),
        // At most: two digits a byte, and one for sign and exponent.
        AttributeValue::N(digits) => digits.len().div_ceil(2) + 1,
        AttributeValue::B(blob) => blob.as_ref().len(),
        AttributeValue::L(values) => {
            3 + values.iter().map(|one| 1 + value_bytes(one)).sum::<usize>()
        }
        AttributeValue::M(map) => {
            let entries = map
                .iter()
                .map(|(key, one)| 1 + key.len() + value_bytes(one));
            3 + entries.sum::<usize>()
        }
        AttributeValue::Ss(texts) => texts.iter().map(String::len).sum(),
        AttributeValue::Ns(numbers) => numbers.iter().map(|n| n.len().div_ceil(2) + 1).sum(),
        AttributeValue::Bs(blobs) => blobs.iter().map(|blob| blob.as_ref().len()).sum(),
        _ => 1,
    }
}
