//! A check of the live generation in PostgreSQL against the log: its rows and its checkpoints are
//! read in one snapshot, and some streams are folded again up to exactly these checkpoints. Nothing
//! is locked and nothing stands still; a view that moves meanwhile moves behind the snapshot.

use std::sync::Arc;

use millrace_es::Position;
use millrace_eventlog::EventLog;
use sqlx::{Connection as _, PgConnection};

use super::{
    against::{
        Check, CheckOptions, Checked, Difference, DifferenceKind, Differences, MAX_CHECKED_KEYS,
        Passed,
    },
    level::{begin, compare_session},
    refold::{Refold, Scope},
    samples::{Chosen, draw, find},
    tables::read_tables,
    whole::Whole,
};
use crate::{
    error::StoreError,
    generation::{Checkpoint, Generation, of_this_life},
    heads::context_heads,
    postgres::{PgStore, PgView, read_checkpoints},
    view::View,
};

/// What is checked.
pub(super) struct Live<'a> {
    pub(super) generation: &'a Generation,
    pub(super) view: &'a View,
    /// The logs that the view reads.
    pub(super) logs: Vec<Arc<dyn EventLog>>,
    pub(super) options: &'a CheckOptions,
}

impl PgStore {
    /// Compares rows of the generation that answers with a fold of the log up to its checkpoints.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] when the store or a log does not answer; else see [`StoreError`].
    pub async fn check(
        &self,
        view: &View,
        logs: &[Arc<dyn EventLog>],
        options: &CheckOptions,
    ) -> Result<Check, StoreError> {
        let rows = view.postgres()?;
        let known = self.generations(view.name()).await?;
        let live = match Live::of(&known, view, logs, options) {
            Ok(live) => live,
            Err(why) => return Ok(Check::Skipped(why)),
        };
        let mut conn = self.connect(&compare_session()).await?;
        let checked = live.rows(rows, &mut conn).await;
        conn.close().await.ok();
        checked
    }
}

impl<'a> Live<'a> {
    /// What a check is of; or why there is nothing to check.
    pub(super) fn of(
        known: &'a [Generation],
        view: &'a View,
        logs: &[Arc<dyn EventLog>],
        options: &'a CheckOptions,
    ) -> Result<Self, String> {
        let live = Generation::answering(known, view.version());
        let generation = live.ok_or_else(|| "no generation of it answers yet".to_owned())?;
        if generation.version != view.version() {
            return Err(format!(
                "generation {} answers, which version {} folds; this release folds version {}",
                generation.id,
                generation.version,
                view.version()
            ));
        }
        let reads = |log: &&Arc<dyn EventLog>| view.contexts().contains(log.context());
        Ok(Self {
            generation,
            view,
            logs: logs.iter().filter(reads).cloned().collect(),
            options,
        })
    }
}

impl Live<'_> {
    async fn rows(
        &self,
        rows: &Arc<dyn PgView>,
        conn: &mut PgConnection,
    ) -> Result<Check, StoreError> {
        if !rows.is_by_key() && self.options.keys == 0 {
            let why = "its rows are made of many keys: verify it without --key";
            return Ok(Check::Skipped(why.to_owned()));
        }
        begin(conn).await?;
        let at = read_checkpoints(conn, self.generation.id).await?;
        let mut found = Differences::default();
        if let Some(why) = self.standing(&at, &mut found).await? {
            return Ok(Check::Skipped(why));
        }
        let tables = read_tables(conn, &self.generation.place).await?;
        let refold = Refold {
            generation: self.generation,
            view: rows,
            tables: &tables,
        };
        let mut passed = Passed::default();
        let scope = if rows.is_by_key() {
            let of_rows = self.options.keys.div_ceil(4);
            let named = refold
                .streams_of_rows(conn, of_rows, self.options.seed)
                .await?;
            let chosen = self.choose(&at, named).await?;
            refold.begin(conn).await?;
            refold.fold_streams(conn, chosen, &mut passed).await?
        } else {
            refold.begin(conn).await?;
            let (logs, most) = (&self.logs, self.options.max_events);
            let whole = refold.fold_everything(conn, logs, &at, most, &mut passed);
            match whole.await? {
                Whole::Folded(scope) => scope,
                Whole::Skipped(why) => return Ok(Check::Skipped(why)),
            }
        };
        refold.compare(conn, &scope, &mut found).await?;
        let keys = match &scope {
            Scope::Streams(streams) => as_u64(streams.len()),
            Scope::Everything(_) => found.rows,
        };
        Ok(self.done(keys, found, passed, at))
    }

    pub(super) fn done(
        &self,
        keys: u64,
        found: Differences,
        passed: Passed,
        at: Vec<Checkpoint>,
    ) -> Check {
        Check::Done(Checked {
            generation: self.generation.id,
            keys,
            rows: found.rows,
            differences: found.count,
            named: found.named,
            parked: passed.parked,
            parked_keys: passed.parked_keys,
            left_out: passed.left_out,
            at,
        })
    }

    /// Why the generation cannot be compared with its logs at all; and whether it has seen more than
    /// they have. The checkpoints were read before.
    pub(super) async fn standing(
        &self,
        at: &[Checkpoint],
        found: &mut Differences,
    ) -> Result<Option<String>, StoreError> {
        if at.is_empty() {
            return Err(StoreError::Gone(self.generation.id));
        }
        let heads = context_heads(&self.logs, self.view.contexts()).await?;
        if !of_this_life(at, &heads) {
            return Ok(Some(format!(
                "generation {} follows an earlier life of its log: rebuild {}",
                self.generation.id,
                self.view.name()
            )));
        }
        for one in at {
            let head = heads.iter().find(|head| head.context == one.lane.context);
            let newest = head.map_or(Position::ZERO, |head| {
                let all = head.partition_positions.iter();
                all.copied().max().unwrap_or_default()
            });
            if head.is_some() && one.position > newest {
                found.add(Difference {
                    key: None,
                    row: format!("checkpoint of {}", one.lane),
                    kind: DifferenceKind::Ahead,
                    columns: Vec::new(),
                    position: one.position,
                });
            }
        }
        Ok(None)
    }

    /// The streams to look at: those that are asked for in any case, those of some rows, and a
    /// sample of the log. None twice.
    pub(super) async fn choose(
        &self,
        at: &[Checkpoint],
        of_rows: impl IntoIterator<Item = String>,
    ) -> Result<Vec<Chosen>, StoreError> {
        let drawn = draw(&self.logs, at, self.options).await?;
        let mut chosen: Vec<Chosen> = drawn.into_iter().map(Chosen::from).collect();
        let mut names: Vec<String> = self.options.also.clone();
        names.extend(of_rows);
        names.sort_unstable();
        names.dedup();
        names.retain(|name| chosen.iter().all(|one| one.name != *name));
        names.truncate(MAX_CHECKED_KEYS);
        chosen.extend(find(&self.logs, at, names).await?);
        Ok(chosen)
    }
}

pub(super) fn as_u64(count: usize) -> u64 {
    u64::try_from(count).unwrap_or(u64::MAX)
}
