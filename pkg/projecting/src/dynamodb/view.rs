use std::{collections::HashMap, marker::PhantomData, ops::Range};

use async_trait::async_trait;
use aws_sdk_dynamodb::types::AttributeValue;
use millrace_es::{DecodeError, Epoch, Position, RecordedEvent};

use super::{
    items::Table,
    values::{DynamoFailure, get_position, number},
};
use crate::{
    batch::{Batch, Chunk, Entry, NewLetter, Parked, Slot, Slots, fold_rows, keys_to_load},
    generation::{Checkpoint, Lane},
    stores::{DynamoRows, Item, Origin, POSITION_ATTRIBUTE, TOMBSTONE_ATTRIBUTE, TableDefinition},
};

/// A view in DynamoDB with its types erased.
#[async_trait]
pub(crate) trait DynamoView: Send + Sync {
    fn table(&self) -> TableDefinition;

    /// See [`DynamoRows::UNCHANGED`].
    fn unchanged(&self) -> &'static [&'static str];

    /// See [`DynamoRows::ORIGIN`].
    fn origin(&self) -> Option<Origin>;

    /// Folds the events of a stream, from its first, into items from nothing. None when some of
    /// them cannot be folded.
    fn fold_anew(&self, at: &Checkpoint, events: Vec<RecordedEvent>) -> Option<Vec<ItemWrite>>;

    /// See [`Chunk::decode`].
    fn decode(
        &self,
        lane: Lane,
        epoch: Epoch,
        previous: Position,
        events: Vec<RecordedEvent>,
    ) -> (Option<Chunk>, Option<DecodeError>);

    /// Loads and folds a range of the batch: the items to write, one per key however many events
    /// touched it, and the events that could not be folded.
    async fn fold(
        &self,
        table: &Table,
        batch: &Batch,
        range: Range<usize>,
        parked: &Parked,
    ) -> Result<(Vec<ItemWrite>, Vec<NewLetter>), DynamoFailure>;
}

/// An item to be written unless a newer one is there.
#[derive(Debug, Clone)]
pub(crate) struct ItemWrite {
    /// The item with its key and its position.
    pub(crate) item: Item,
    /// The position of the newest event in it.
    pub(crate) position: Position,
}

pub(crate) struct RowsOf<P>(PhantomData<fn() -> P>);

impl<P> RowsOf<P> {
    pub(crate) const fn new() -> Self {
        Self(PhantomData)
    }
}

impl<P: DynamoRows> RowsOf<P> {
    async fn load(
        table: &Table,
        entries: &[Entry<'_, P::Event>],
        parked: &Parked,
    ) -> Result<Slots<P>, DynamoFailure> {
        let mut by_text: HashMap<String, P::Key> = HashMap::new();
        let mut wanted = Vec::new();
        for key in keys_to_load::<P>(entries, parked) {
            let item_key = P::item_key(&key);
            by_text.insert(key_text(&P::TABLE, &item_key), key);
            wanted.push(item_key);
        }
        let mut rows = Slots::<P>::with_capacity(entries.len());
        for item in table.load(wanted).await? {
            let Some(key) = by_text.remove(&key_text(&P::TABLE, &item)) else {
                continue;
            };
            let broken = |error| DynamoFailure::Data(Box::new(error));
            let seen = get_position(&item, POSITION_ATTRIBUTE).map_err(broken)?;
            let row = if item.contains_key(TOMBSTONE_ATTRIBUTE) {
                None
            } else {
                Some(P::from_item(&item).map_err(broken)?)
            };
            rows.insert(key, Slot::loaded(row, seen));
        }
        Ok(rows)
    }

    fn writes(rows: Slots<P>) -> Vec<ItemWrite> {
        rows.into_iter()
            .filter(|(_, slot)| slot.dirty)
            .map(|(key, slot)| Self::write(&key, &slot))
            .collect()
    }

    fn write(key: &P::Key, slot: &Slot<P::Row>) -> ItemWrite {
        let mut item = P::item_key(key);
        match &slot.row {
            Some(row) => item.extend(P::to_item(key, row)),
            None => {
                item.insert(TOMBSTONE_ATTRIBUTE.to_owned(), AttributeValue::Bool(true));
            }
        }
        item.insert(POSITION_ATTRIBUTE.to_owned(), number(slot.seen));
        ItemWrite {
            item,
            position: slot.seen,
        }
    }
}

/// An item's primary key as one text, to find which key a loaded item answers.
pub(crate) fn key_text(table: &TableDefinition, item: &Item) -> String {
    let names = [
        Some(table.partition_key.name),
        table.sort_key.map(|key| key.name),
    ];
    let mut text = String::new();
    for value in names
        .into_iter()
        .flatten()
        .filter_map(|name| item.get(name))
    {
        let part = value.as_s().or_else(|_| value.as_n());
        text.push_str(part.map_or("", String::as_str));
        text.push('\u{1f}');
    }
    text
}

#[async_trait]
impl<P: DynamoRows> DynamoView for RowsOf<P> {
    fn table(&self) -> TableDefinition {
        P::TABLE
    }

    fn unchanged(&self) -> &'static [&'static str] {
        P::UNCHANGED
    }

    fn origin(&self) -> Option<Origin> {
        P::ORIGIN
    }

    fn fold_anew(&self, at: &Checkpoint, events: Vec<RecordedEvent>) -> Option<Vec<ItemWrite>> {
        let previous = events.first()?.previous;
        let (chunk, too_new) = Chunk::decode::<P>(at.lane.clone(), at.epoch, previous, events);
        let (Some(chunk), None) = (chunk, too_new) else {
            return None;
        };
        let mut batch = Batch::default();
        batch.push(chunk);
        let entries = batch.entries::<P>(0..batch.len());
        let nothing_parked = Parked::default();
        let mut rows = Slots::<P>::new();
        let letters = fold_rows::<P>(&entries, &nothing_parked, &mut rows, false).ok()?;
        letters.is_empty().then(|| Self::writes(rows))
    }

    fn decode(
        &self,
        lane: Lane,
        epoch: Epoch,
        previous: Position,
        events: Vec<RecordedEvent>,
    ) -> (Option<Chunk>, Option<DecodeError>) {
        Chunk::decode::<P>(lane, epoch, previous, events)
    }

    async fn fold(
        &self,
        table: &Table,
        batch: &Batch,
        range: Range<usize>,
        parked: &Parked,
    ) -> Result<(Vec<ItemWrite>, Vec<NewLetter>), DynamoFailure> {
        let entries = batch.entries::<P>(range);
        let mut rows = Self::load(table, &entries, parked).await?;
        let letters = match fold_rows::<P>(&entries, parked, &mut rows, false) {
            Ok(letters) => letters,
            Err(_) => {
                rows = Self::load(table, &entries, parked).await?;
                fold_rows::<P>(&entries, parked, &mut rows, true).unwrap_or_default()
            }
        };
        Ok((Self::writes(rows), letters))
    }
}
