//! How far the shards were read, kept as an item of the log's own table. A stored format.
//!
//! The item has the key `pk` = `shards`, `sk` = 0 and the attributes `stream` (the stream's name),
//! `position` (everything up to it was handed out) and `shards` (a map from a shard's name to the
//! sequence number to go on after, or to `TRIM_HORIZON` or `LATEST`). It spares work after a
//! restart and is not needed for correctness: what was published is known by the published stream,
//! and what the shards do not give is read from the log. So it is written without a condition.

use std::collections::{BTreeMap, HashMap};

use aws_sdk_dynamodb::{Client, types::AttributeValue};
use millrace_es::Position;

use super::shards::{Place, ShardId};
use crate::dynamodb::{
    BadItem, Item,
    values::{PK, SK, get_number, get_text, number, text},
};

/// The most shards that are kept; it keeps the item far below the largest that DynamoDB takes. The
/// rest begins with what is new.
const MAX_KEPT_SHARDS: usize = 2_000;

const STREAM: &str = "stream";
const POSITION: &str = "position";
const SHARDS: &str = "shards";
const HORIZON: &str = "TRIM_HORIZON";
const LATEST: &str = "LATEST";

/// How far the shards were read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Checkpoint {
    /// The stream's name.
    pub(super) stream: String,
    /// Everything up to here was handed out.
    pub(super) position: Position,
    /// Where each shard goes on.
    pub(super) shards: BTreeMap<ShardId, Place>,
}

type Source = Box<dyn std::error::Error + Send + Sync>;

impl Checkpoint {
    /// Reads the checkpoint of a table; `None` where there is none that can be used.
    pub(super) async fn load(client: &Client, table: &str) -> Result<Option<Self>, Source> {
        let got = client
            .get_item()
            .table_name(table)
            .set_key(Some(key()))
            .consistent_read(true)
            .send()
            .await
            .map_err(Box::new)?;
        let Some(item) = got.item else {
            return Ok(None);
        };
        match Self::from_item(&item) {
            Ok(checkpoint) => Ok(Some(checkpoint)),
            Err(error) => {
                tracing::warn!(%table, %error, "the shards' checkpoint cannot be read and is left out");
                Ok(None)
            }
        }
    }

    pub(super) async fn save(&self, client: &Client, table: &str) -> Result<(), Source> {
        client
            .put_item()
            .table_name(table)
            .set_item(Some(self.item()))
            .send()
            .await
            .map(|_| ())
            .map_err(|error| Box::new(error).into())
    }

    fn item(&self) -> Item {
        let shards: HashMap<_, _> = self
            .shards
            .iter()
            .take(MAX_KEPT_SHARDS)
            .map(|(id, place)| (id.clone(), text(place_text(place))))
            .collect();
        let mut item = key();
        item.insert(STREAM.to_owned(), text(self.stream.as_str()));
        item.insert(POSITION.to_owned(), number(self.position));
        item.insert(SHARDS.to_owned(), AttributeValue::M(shards));
        item
    }

    fn from_item(item: &Item) -> Result<Self, BadItem> {
        let Some(AttributeValue::M(shards)) = item.get(SHARDS) else {
            return Err(BadItem::at(item, SHARDS));
        };
        let place = |(id, value): (&String, &AttributeValue)| match value {
            AttributeValue::S(place) => Ok((id.clone(), place_from(place))),
            _ => Err(BadItem::at(item, SHARDS)),
        };
        Ok(Self {
            stream: get_text(item, STREAM)?.to_owned(),
            position: Position::new(get_number(item, POSITION)?),
            shards: shards.iter().map(place).collect::<Result<_, _>>()?,
        })
    }
}

fn key() -> Item {
    Item::from([(PK.to_owned(), text("shards")), (SK.to_owned(), number(0))])
}

fn place_text(place: &Place) -> &str {
    match place {
        Place::Latest => LATEST,
        Place::Horizon => HORIZON,
        Place::After(sequence) => sequence,
    }
}

fn place_from(text: &str) -> Place {
    match text {
        LATEST => Place::Latest,
        HORIZON => Place::Horizon,
        sequence => Place::After(sequence.to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_checkpoint_comes_back_as_it_was() {
        let places = [
            ("a", Place::After("100".to_owned())),
            ("b", Place::Horizon),
            ("c", Place::Latest),
        ];
        let checkpoint = Checkpoint {
            stream: "arn".to_owned(),
            position: Position::new(7),
            shards: places.map(|(id, place)| (id.to_owned(), place)).into(),
        };
        let item = checkpoint.item();
        assert_eq!(Checkpoint::from_item(&item), Ok(checkpoint));
        assert!(!crate::dynamodb::is_event(&item));
        for name in [STREAM, POSITION, SHARDS] {
            let mut torn = item.clone();
            torn.remove(name);
            assert_eq!(Checkpoint::from_item(&torn).unwrap_err().attribute, name);
        }
    }
}
