//! Verification of views in DynamoDB.

use std::{collections::HashMap, sync::Arc, time::Duration};

use millrace_es::Position;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::{
    Findings, Subjects, Verification, VerifyMode, VerifyOptions,
    against::Differences,
    items::{Attributes, Passed, Sides, Verdict, key_of, row, shown},
    log_error,
    refold_items::RefoldItems,
    rest,
    samples::pick,
    until_stopped,
};
use crate::{
    dynamodb::{DynamoStore, DynamoView, Table, key_text, store_failure},
    error::{StoreError, unavailable},
    generation::{Checkpoint, Generation},
    stores::{Item, TableDefinition},
};

/// Items of one page.
const PAGE_ITEMS: i32 = 500;

/// How often unequal items of a page are read again before the comparison gives up.
const MAX_REREADS: u32 = 60;

/// The pause before they are, in milliseconds.
const REREAD_PAUSE_MS: u64 = 200;

impl DynamoStore {
    /// Compares a candidate with the live generation while both go on: unequal items are read
    /// again, consistently, until both generations have passed what the newer one has seen. A
    /// tombstone is no row. Reads rest as long as they work; nothing is held.
    ///
    /// By one fold, all items have to be equal. By a changed one, see
    /// [`DynamoRows::UNCHANGED`](crate::DynamoRows::UNCHANGED).
    ///
    /// # Errors
    /// [`StoreError::Stopped`] when told to stop. [`StoreError::Unavailable`] when items do not come
    /// to rest within the bound: later it may succeed. [`StoreError::Invalid`] when the generations
    /// cannot be compared at all.
    pub async fn verify(
        &self,
        subjects: Subjects<'_>,
        options: &VerifyOptions,
        stop: &CancellationToken,
    ) -> Result<Verification, StoreError> {
        subjects.check()?;
        let view = subjects.view.dynamodb()?;
        let mut findings = Findings::new(options);
        if options.mode != VerifyMode::None {
            let comparing = Comparing {
                store: self,
                subjects,
                view,
                definition: view.table(),
                live: self.table(subjects.live),
                candidate: self.table(subjects.candidate),
            };
            let work = comparing.run(options.mode, &mut findings);
            Box::pin(until_stopped(stop, work)).await?;
        }
        let at = self.checkpoints(subjects.candidate.id).await?;
        Ok(findings.end(at, Duration::ZERO))
    }
}

struct Comparing<'a> {
    store: &'a DynamoStore,
    subjects: Subjects<'a>,
    view: &'a Arc<dyn DynamoView>,
    definition: TableDefinition,
    live: Table,
    candidate: Table,
}

/// Which table is read from end to end, and for what.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Pass {
    /// The live one: every row of it against the candidate's.
    Live,
    /// The candidate: for rows that the live one has not.
    Extra,
}

impl Comparing<'_> {
    async fn run(&self, mode: VerifyMode, findings: &mut Findings) -> Result<(), StoreError> {
        self.require_one_life().await?;
        let same_fold = self.subjects.same_fold();
        let attributes = match (same_fold, mode) {
            (true, VerifyMode::Checksum) => Some(Attributes::All),
            (true, _) => Some(Attributes::Only(&[])),
            (false, _) if !self.subjects.declaration_holds() => None,
            (false, _) if self.view.unchanged().is_empty() => None,
            (false, VerifyMode::Checksum) => Some(Attributes::Only(self.view.unchanged())),
            (false, _) => Some(Attributes::Only(&[])),
        };
        if let Some(attributes) = attributes {
            self.pass(Pass::Live, attributes, findings).await?;
            self.pass(Pass::Extra, attributes, findings).await?;
        }
        if !same_fold && mode == VerifyMode::Checksum {
            self.refold(findings).await?;
        }
        Ok(())
    }

    async fn require_one_life(&self) -> Result<(), StoreError> {
        let own = self.checkpoints(self.subjects.candidate).await?;
        let theirs = self.checkpoints(self.subjects.live).await?;
        if crate::generation::of_one_life(&own, &theirs) {
            return Ok(());
        }
        Err(StoreError::Invalid(format!(
            "generations {} and {} of {} follow different lives of their logs: there is nothing to compare",
            self.subjects.candidate.id, self.subjects.live.id, self.subjects.live.projection
        )))
    }

    async fn checkpoints(&self, generation: &Generation) -> Result<Vec<Checkpoint>, StoreError> {
        let found = self.store.checkpoints(generation.id).await?;
        if found.is_empty() {
            return Err(StoreError::Gone(generation.id));
        }
        Ok(found)
    }

    /// Reads one table page by page, and of the other one the items of the same keys.
    async fn pass(
        &self,
        pass: Pass,
        attributes: Attributes,
        findings: &mut Findings,
    ) -> Result<(), StoreError> {
        let (read, beside) = match pass {
            Pass::Live => (&self.live, &self.candidate),
            Pass::Extra => (&self.candidate, &self.live),
        };
        let mut from: Option<Item> = None;
        while !findings.are_enough() {
            let began = Instant::now();
            let (page, next) = read.page(from, PAGE_ITEMS).await?;
            let rows: Vec<Item> = page
                .into_iter()
                .filter(|item| row(Some(item)).is_some())
                .collect();
            let keys = rows.iter().map(|item| key_of(&self.definition, item));
            let mut others = self.by_key(beside, keys.collect()).await?;
            let mut unequal = Vec::new();
            for item in rows {
                let key = key_of(&self.definition, &item);
                let other = others.remove(&key_text(&self.definition, &key));
                let (sides, counted) = match pass {
                    Pass::Live => (sides(Some(item), other), true),
                    Pass::Extra if row(other.as_ref()).is_some() => continue,
                    Pass::Extra => (sides(other, Some(item)), false),
                };
                findings.compared += u64::from(counted);
                if !attributes.agree(sides.live.as_ref(), sides.candidate.as_ref()) {
                    unequal.push((key, sides));
                }
            }
            self.settle(unequal, attributes, findings).await?;
            from = next;
            if from.is_none() {
                return Ok(());
            }
            rest(began).await;
        }
        Ok(())
    }

    async fn by_key(
        &self,
        table: &Table,
        keys: Vec<Item>,
    ) -> Result<HashMap<String, Item>, StoreError> {
        let items = table.load(keys).await.map_err(store_failure)?;
        Ok(items
            .into_iter()
            .map(|item| (key_text(&self.definition, &item), item))
            .collect())
    }

    /// Reads unequal items again until each is equal, or certainly different.
    async fn settle(
        &self,
        mut open: Vec<(Item, Sides)>,
        attributes: Attributes,
        findings: &mut Findings,
    ) -> Result<(), StoreError> {
        let same_fold = self.subjects.same_fold();
        for _ in 0..MAX_REREADS {
            if open.is_empty() {
                return Ok(());
            }
            tokio::time::sleep(Duration::from_millis(REREAD_PAUSE_MS)).await;
            // How far both are comes first: what they have passed then is in what is read now.
            let passed = self.passed().await?;
            let keys: Vec<Item> = open.iter().map(|(key, _)| key.clone()).collect();
            let mut live = self.by_key(&self.live, keys.clone()).await?;
            let mut own = self.by_key(&self.candidate, keys).await?;
            let mut still = Vec::new();
            for (key, before) in open {
                let text = key_text(&self.definition, &key);
                let now = sides(live.remove(&text), own.remove(&text));
                match now.judge(&before, passed, attributes, same_fold) {
                    Verdict::Equal => {}
                    Verdict::Open => still.push((key, now)),
                    Verdict::Different => {
                        findings
                            .mismatch(self.subjects.view.name(), &shown(&self.definition, &key));
                    }
                }
            }
            open = still;
        }
        if open.is_empty() {
            return Ok(());
        }
        Err(unavailable(format!(
            "{} items of {} were still on their way after {MAX_REREADS} reads: see that projectors keep both generations current, and verify again",
            open.len(),
            self.subjects.view.name()
        )))
    }

    /// How far both generations certainly are: a lane without newer events in the log is behind
    /// nothing.
    async fn passed(&self) -> Result<Passed, StoreError> {
        let mut heads = HashMap::new();
        for log in self.subjects.logs {
            let head = log.head().await.map_err(log_error)?;
            heads.insert(log.context().clone(), head);
        }
        let reached = |checkpoints: Vec<Checkpoint>| {
            let lagging = checkpoints.into_iter().filter_map(|one| {
                let newest = heads.get(&one.lane.context).and_then(|head| {
                    let number = usize::from(one.lane.partition.get());
                    head.partition_positions.get(number).copied()
                });
                // Without its log nothing is known beyond the checkpoint.
                let waits = newest.is_none_or(|newest| one.position < newest);
                waits.then_some(one.position)
            });
            lagging.min().unwrap_or(Position::new(u64::MAX))
        };
        Ok(Passed {
            live: reached(self.checkpoints(self.subjects.live).await?),
            candidate: reached(self.checkpoints(self.subjects.candidate).await?),
        })
    }

    /// Folds sampled streams a second time and compares their items with the candidate's.
    async fn refold(&self, findings: &mut Findings) -> Result<(), StoreError> {
        let at = self.checkpoints(self.subjects.candidate).await?;
        let refold = RefoldItems {
            store: self.store,
            generation: self.subjects.candidate,
            name: self.subjects.view.name(),
            view: self.view,
            definition: self.definition,
            table: self.candidate.clone(),
        };
        for sample in pick(self.subjects.logs, &at).await? {
            let began = Instant::now();
            let mut found = Differences::default();
            // One that waits for dead letters, or is too long, is left out.
            refold.stream(&sample, &[], &mut found).await?;
            findings.add(&found);
            if findings.are_enough() {
                return Ok(());
            }
            rest(began).await;
        }
        Ok(())
    }
}

const fn sides(live: Option<Item>, candidate: Option<Item>) -> Sides {
    Sides { live, candidate }
}
