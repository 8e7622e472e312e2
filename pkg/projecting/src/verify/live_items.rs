//! A check of the live generation in DynamoDB against the log. Nothing can be read of one moment
//! there; every item says which events it has seen, and is compared with a fold of exactly these. What
//! seems to differ is looked at once more, from the start.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use millrace_eventlog::EventLog;
use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};
use tokio::time::Instant;

use super::{
    against::{Check, CheckOptions, Difference, DifferenceKind, Differences, Passed},
    items::{key_of, row, shown},
    live::Live,
    refold_items::{RefoldItems, Refolded, text_of},
    rest,
    samples::{Chosen, find},
};
use crate::{
    dynamodb::DynamoStore,
    error::StoreError,
    generation::Checkpoint,
    stores::{Item, Origin},
    view::View,
};

/// Items that are read of the table at once, to find some that no event made.
const PAGE_ITEMS: u64 = 100;

/// The most such pages of one check.
const MAX_PAGES: u64 = 20;

/// The most segments of a table, by DynamoDB's own limit.
const MAX_SEGMENTS: u64 = 1_000_000;

/// The pause before what seems to differ is looked at again, in milliseconds.
const LOOK_AGAIN_MS: u64 = 500;

impl DynamoStore {
    /// See [`crate::PgStore::check`].
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] when the store or a log does not answer; else see [`StoreError`].
    pub async fn check(
        &self,
        view: &View,
        logs: &[Arc<dyn EventLog>],
        options: &CheckOptions,
    ) -> Result<Check, StoreError> {
        let items = view.dynamodb()?;
        let known = self.generations(view.name()).await?;
        let live = match Live::of(&known, view, logs, options) {
            Ok(live) => live,
            Err(why) => return Ok(Check::Skipped(why)),
        };
        let generation = live.generation;
        let refold = RefoldItems {
            store: self,
            generation,
            name: view.name(),
            view: items,
            definition: items.table(),
            table: self.table(generation),
        };
        live.items(&refold).await
    }
}

/// The keys of items that say which stream they are made of.
type ByStream = BTreeMap<String, Vec<Item>>;

impl Live<'_> {
    async fn items(&self, refold: &RefoldItems<'_>) -> Result<Check, StoreError> {
        let at = refold.store.checkpoints(self.generation.id).await?;
        let mut found = Differences::default();
        if let Some(why) = self.standing(&at, &mut found).await? {
            return Ok(Check::Skipped(why));
        }
        let items = match refold.view.origin() {
            Some(origin) if self.options.keys > 0 => {
                some_items(refold, origin, &at, self.options).await?
            }
            _ => ByStream::new(),
        };
        // Items first, then how far the generation is: what it has passed then is in the log.
        let at_later = refold.store.checkpoints(self.generation.id).await?;
        let chosen = self.choose(&at_later, items.keys().cloned()).await?;
        let mut passed = Passed::default();
        let mut keys = 0;
        for one in &chosen {
            let began = Instant::now();
            let also = items.get(&one.name).map_or(&[][..], Vec::as_slice);
            match self.look(refold, one, also, &mut found).await? {
                Refolded::Compared => keys += 1,
                Refolded::Parked => passed.park(&one.name),
                Refolded::LeftOut => passed.left_out += 1,
            }
            rest(began).await;
        }
        Ok(self.done(keys, found, passed, at_later))
    }

    /// Compares a stream's items; twice, where the first look finds something.
    async fn look(
        &self,
        refold: &RefoldItems<'_>,
        one: &Chosen,
        also: &[Item],
        found: &mut Differences,
    ) -> Result<Refolded, StoreError> {
        let mut first = Differences::default();
        let refolded = stream(refold, one, also, &mut first).await?;
        if first.count == 0 {
            found.take(first);
            return Ok(refolded);
        }
        tokio::time::sleep(Duration::from_millis(LOOK_AGAIN_MS)).await;
        let at = refold.store.checkpoints(self.generation.id).await?;
        let again = find(&self.logs, &at, [one.name.clone()]).await?;
        let mut second = Differences::default();
        let mut refolded = refolded;
        for one in &again {
            refolded = stream(refold, one, also, &mut second).await?;
        }
        found.take(second);
        Ok(refolded)
    }
}

async fn stream(
    refold: &RefoldItems<'_>,
    one: &Chosen,
    also: &[Item],
    found: &mut Differences,
) -> Result<Refolded, StoreError> {
    if let Some(sample) = &one.sample {
        return refold.stream(sample, also, found).await;
    }
    // No event: whatever items there are, are extra.
    for item in refold.by_key(also.to_vec()).await?.values() {
        found.rows += 1;
        if row(Some(item)).is_some() {
            found.add(Difference {
                key: Some(one.name.clone()),
                row: format!("{}/{}", refold.name, shown(&refold.definition, item)),
                kind: DifferenceKind::Extra,
                columns: Vec::new(),
                position: super::items::seen(Some(item)),
            });
        }
    }
    Ok(Refolded::Compared)
}

/// Some items of the table, by the streams that they say they are made of: from segments of it that
/// the seed draws, each of about a page.
async fn some_items(
    refold: &RefoldItems<'_>,
    origin: Origin,
    at: &[Checkpoint],
    options: &CheckOptions,
) -> Result<ByStream, StoreError> {
    let wanted = options.keys.div_ceil(4);
    // A view has at most as many items as its log has events; often a little fewer.
    let events = at.iter().map(|one| one.position.get()).max().unwrap_or(0);
    let segments = events.div_ceil(PAGE_ITEMS).clamp(1, MAX_SEGMENTS);
    let mut random = StdRng::seed_from_u64(options.seed);
    let mut drawn: BTreeSet<u64> = (0..segments.min(MAX_PAGES)).collect();
    if segments > MAX_PAGES {
        drawn = (0..MAX_PAGES)
            .map(|_| random.random_range(0..segments))
            .collect();
    }
    let mut items = ByStream::new();
    for segment in drawn {
        let began = Instant::now();
        let page = refold.table.segment(segment, segments, PAGE_ITEMS).await?;
        for item in page.iter().filter(|item| row(Some(item)).is_some()) {
            let Some(id) = text_of(item, origin.column) else {
                continue;
            };
            let name = format!("{}{id}", origin.prefix);
            if items.len() < wanted || items.contains_key(&name) {
                let key = key_of(&refold.definition, item);
                items.entry(name).or_default().push(key);
            }
        }
        if items.len() >= wanted {
            break;
        }
        rest(began).await;
    }
    Ok(items)
}
