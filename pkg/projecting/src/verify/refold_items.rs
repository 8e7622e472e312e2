//! A second fold of some streams, and its items beside those of a generation in DynamoDB.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use aws_sdk_dynamodb::types::AttributeValue;
use millrace_es::Position;

use super::{
    against::{Difference, DifferenceKind, Differences},
    items::{Attributes, key_of, row, seen, shown},
    samples::Sample,
};
use crate::{
    dynamodb::{DynamoStore, DynamoView, ItemWrite, Table, key_text, store_failure},
    error::StoreError,
    generation::{Checkpoint, Generation},
    stores::{Item, TableDefinition},
};

pub(super) struct RefoldItems<'a> {
    pub(super) store: &'a DynamoStore,
    /// The generation that is compared with.
    pub(super) generation: &'a Generation,
    /// Its projection.
    pub(super) name: &'a str,
    pub(super) view: &'a Arc<dyn DynamoView>,
    pub(super) definition: TableDefinition,
    pub(super) table: Table,
}

/// What became of a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Refolded {
    Compared,
    /// It waits for dead letters.
    Parked,
    /// It has too many events, or they need another release.
    LeftOut,
}

impl RefoldItems<'_> {
    /// Folds a stream again and compares its items, and those that say they are made of it: `also`
    /// are their keys. The generation has passed the stream's events up to the sample's position, so
    /// its items show them; an item that shows more is compared with a fold up to there.
    pub(super) async fn stream(
        &self,
        sample: &Sample,
        also: &[Item],
        found: &mut Differences,
    ) -> Result<Refolded, StoreError> {
        let (lane, stream) = (&sample.lane, &sample.stream);
        let lacks = self.store.lacks_events(self.generation.id, lane, stream);
        if lacks.await? {
            return Ok(Refolded::Parked);
        }
        let Some(expected) = self.folded(sample, sample.through).await? else {
            return Ok(Refolded::LeftOut);
        };
        let mut keys: BTreeMap<String, Item> = BTreeMap::new();
        let folded = expected.iter().map(|write| &write.item);
        for item in folded.chain(also) {
            keys.insert(
                key_text(&self.definition, item),
                key_of(&self.definition, item),
            );
        }
        let mut expected: HashMap<String, ItemWrite> = expected
            .into_iter()
            .map(|write| (key_text(&self.definition, &write.item), write))
            .collect();
        let items = self.by_key(keys.values().cloned().collect()).await?;
        for (text, key) in &keys {
            let item = items.get(text);
            let newest = seen(item);
            let mut wanted = expected.remove(text);
            let folded = wanted.as_ref().map_or(sample.through, |one| one.position);
            if newest > folded {
                let further = self.folded(sample, newest).await?.unwrap_or_default();
                let mut further = further.into_iter();
                wanted = further.find(|one| key_text(&self.definition, &one.item) == *text);
            }
            found.rows += 1;
            if let Some((kind, columns)) = judge(wanted.as_ref(), item) {
                found.add(Difference {
                    key: Some(sample.stream.to_string()),
                    row: format!("{}/{}", self.name, shown(&self.definition, key)),
                    kind,
                    columns,
                    position: newest.max(folded),
                });
            }
        }
        Ok(Refolded::Compared)
    }

    /// Items of a generation by the texts of their keys.
    pub(super) async fn by_key(
        &self,
        keys: Vec<Item>,
    ) -> Result<HashMap<String, Item>, StoreError> {
        let items = self.table.load(keys).await.map_err(store_failure)?;
        Ok(items
            .into_iter()
            .map(|item| (key_text(&self.definition, &item), item))
            .collect())
    }

    /// None when the stream has too many events, or some cannot be folded.
    async fn folded(
        &self,
        sample: &Sample,
        through: Position,
    ) -> Result<Option<Vec<ItemWrite>>, StoreError> {
        let at = Checkpoint {
            lane: sample.lane.clone(),
            position: through,
            epoch: sample.epoch,
        };
        let Some(events) = sample.events(through).await? else {
            return Ok(None);
        };
        if events.is_empty() {
            return Ok(Some(Vec::new()));
        }
        Ok(self.view.fold_anew(&at, events))
    }
}

/// How an item differs from what the fold makes of it, and in which attributes.
fn judge(wanted: Option<&ItemWrite>, item: Option<&Item>) -> Option<(DifferenceKind, Vec<String>)> {
    let folded = row(wanted.map(|write| &write.item));
    match (folded, row(item)) {
        (None, None) => None,
        (Some(_), None) => Some((DifferenceKind::Missing, Vec::new())),
        (None, Some(_)) => Some((DifferenceKind::Extra, Vec::new())),
        (Some(folded), Some(found)) => {
            let columns = Attributes::differing(folded, found);
            let as_seen = wanted.is_some_and(|write| write.position == seen(item));
            (!columns.is_empty() || !as_seen).then_some((DifferenceKind::Changed, columns))
        }
    }
}

/// The text of an attribute.
pub(super) fn text_of<'a>(item: &'a Item, name: &str) -> Option<&'a str> {
    match item.get(name)? {
        AttributeValue::S(text) | AttributeValue::N(text) => Some(text),
        _ => None,
    }
}
