//! Events out of the records of a stream.

use aws_sdk_dynamodb::types::AttributeValue;
use aws_sdk_dynamodbstreams::types::{AttributeValue as Streamed, Record};
use millrace_es::{Context, RecordedEvent};
use millrace_kernel::Timestamp;

use crate::dynamodb::{
    BadItem, Item, event_from, is_event,
    values::{PK, SK},
};

/// The event whose item a record tells of; `None` for the other items of the table, and where an
/// item was removed.
pub(super) fn event_in(
    context: &Context,
    record: Record,
) -> Option<Result<RecordedEvent, BadItem>> {
    let change = record.dynamodb?;
    let keys: Item = change
        .keys?
        .into_iter()
        .filter_map(|(name, value)| Some((name, plain(value)?)))
        .collect();
    if !is_event(&keys) {
        return None;
    }
    let image = change.new_image?;
    let attributes = image
        .into_iter()
        .filter(|(name, _)| name != PK && name != SK)
        .filter_map(|(name, value)| Some((name, plain(value)?)));
    let mut item: Item = attributes.collect();
    item.extend(keys);
    Some(event_from(context, &item))
}

/// When a record was written, to the second.
pub(super) fn written_at(record: &Record) -> Option<Timestamp> {
    let at = record.dynamodb.as_ref()?.approximate_creation_date_time?;
    Timestamp::from_unix_micros(at.secs().checked_mul(1_000_000)?)
}

/// A text or number in the other SDK's type. An event has nothing else.
fn plain(value: Streamed) -> Option<AttributeValue> {
    match value {
        Streamed::S(text) => Some(AttributeValue::S(text)),
        Streamed::N(digits) => Some(AttributeValue::N(digits)),
        _ => None,
    }
}
