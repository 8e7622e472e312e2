use std::{collections::BTreeMap, marker::PhantomData, ops::Range};

use async_trait::async_trait;
use millrace_es::{DecodeError, Epoch, Position, RecordedEvent};
use sqlx::PgConnection;

use crate::{
    batch::{
        Batch, Chunk, Entry, NewLetter, Parked, Slot, Slots, Sorting, fold_rows, keys_to_load,
    },
    generation::Lane,
    letters::Reason,
    stores::{Origins, PgRows, PgTally, UnchangedColumns},
};

/// A view in PostgreSQL with its types erased.
#[async_trait]
pub(crate) trait PgView: Send + Sync {
    fn tables(&self) -> &'static str;
    fn indexes(&self) -> &'static str;

    /// See [`PgRows::UNCHANGED`].
    fn unchanged(&self) -> UnchangedColumns;

    /// See [`PgRows::ORIGINS`].
    fn origins(&self) -> Origins;

    /// Whether a row is made from the events of one key in one partition, so that a stream can be
    /// folded alone.
    fn is_by_key(&self) -> bool;

    /// Locks every row that the batch touches and that others may touch meanwhile. A batch that is
    /// written in parts needs them all before: part by part they would be locked in no one order.
    async fn lock(
        &self,
        conn: &mut PgConnection,
        batch: &Batch,
        parked: &Parked,
    ) -> Result<(), sqlx::Error>;

    /// See [`Chunk::decode`].
    fn decode(
        &self,
        lane: Lane,
        epoch: Epoch,
        previous: Position,
        events: Vec<RecordedEvent>,
    ) -> (Option<Chunk>, Option<DecodeError>);

    /// Folds a range of the batch into the tables, inside the caller's transaction, and gives the
    /// events that could not be folded.
    async fn write(
        &self,
        conn: &mut PgConnection,
        batch: &Batch,
        range: Range<usize>,
        parked: &Parked,
    ) -> Result<Vec<NewLetter>, sqlx::Error>;
}

pub(crate) struct RowsOf<P>(PhantomData<fn() -> P>);

impl<P> RowsOf<P> {
    pub(crate) const fn new() -> Self {
        Self(PhantomData)
    }
}

impl<P: PgRows> RowsOf<P> {
    async fn load(
        conn: &mut PgConnection,
        entries: &[Entry<'_, P::Event>],
        parked: &Parked,
    ) -> Result<Slots<P>, sqlx::Error> {
        let keys = keys_to_load::<P>(entries, parked);
        let mut rows = Slots::<P>::with_capacity(entries.len());
        if !keys.is_empty() {
            for (key, row) in P::load(conn, &keys).await? {
                rows.insert(key, Slot::loaded(Some(row), Position::ZERO));
            }
        }
        Ok(rows)
    }
}

#[async_trait]
impl<P: PgRows> PgView for RowsOf<P> {
    fn tables(&self) -> &'static str {
        P::TABLES
    }

    fn indexes(&self) -> &'static str {
        P::INDEXES
    }

    fn unchanged(&self) -> UnchangedColumns {
        P::UNCHANGED
    }

    fn origins(&self) -> Origins {
        P::ORIGINS
    }

    fn is_by_key(&self) -> bool {
        !P::SHARED
    }

    async fn lock(
        &self,
        conn: &mut PgConnection,
        batch: &Batch,
        parked: &Parked,
    ) -> Result<(), sqlx::Error> {
        if P::SHARED {
            let entries = batch.entries::<P>(0..batch.len());
            Self::load(conn, &entries, parked).await?;
        }
        Ok(())
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

    async fn write(
        &self,
        conn: &mut PgConnection,
        batch: &Batch,
        range: Range<usize>,
        parked: &Parked,
    ) -> Result<Vec<NewLetter>, sqlx::Error> {
        let entries = batch.entries::<P>(range);
        let mut rows = Self::load(conn, &entries, parked).await?;
        let letters = match fold_rows::<P>(&entries, parked, &mut rows, false) {
            Ok(letters) => letters,
            Err(_) => {
                rows = Self::load(conn, &entries, parked).await?;
                fold_rows::<P>(&entries, parked, &mut rows, true).unwrap_or_default()
            }
        };
        let mut changed: Vec<_> = rows
            .into_iter()
            .filter_map(|(key, slot)| slot.dirty.then_some((key, slot.row)))
            .collect();
        if !changed.is_empty() {
            changed.sort_unstable_by(|a, b| a.0.cmp(&b.0));
            P::store(conn, &changed).await?;
        }
        Ok(letters)
    }
}

pub(crate) struct TallyOf<P>(PhantomData<fn() -> P>);

impl<P> TallyOf<P> {
    pub(crate) const fn new() -> Self {
        Self(PhantomData)
    }
}

#[async_trait]
impl<P: PgTally> PgView for TallyOf<P> {
    fn tables(&self) -> &'static str {
        P::TABLES
    }

    fn indexes(&self) -> &'static str {
        P::INDEXES
    }

    fn unchanged(&self) -> UnchangedColumns {
        P::UNCHANGED
    }

    fn origins(&self) -> Origins {
        &[]
    }

    fn is_by_key(&self) -> bool {
        false
    }

    async fn lock(&self, _: &mut PgConnection, _: &Batch, _: &Parked) -> Result<(), sqlx::Error> {
        Ok(())
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

    async fn write(
        &self,
        conn: &mut PgConnection,
        batch: &Batch,
        range: Range<usize>,
        parked: &Parked,
    ) -> Result<Vec<NewLetter>, sqlx::Error> {
        let entries = batch.entries::<P>(range);
        let mut sorting = Sorting::new(parked);
        let mut sums: BTreeMap<P::Key, P::Delta> = BTreeMap::new();
        for entry in &entries {
            let Some(recorded) = sorting.admit(entry) else {
                continue;
            };
            match P::tally(recorded) {
                Ok(deltas) => {
                    for (key, delta) in deltas {
                        *sums.entry(key).or_default() += delta;
                    }
                }
                Err(error) => sorting.refuse(entry, Reason::Fold, &error),
            }
        }
        if !sums.is_empty() {
            let deltas: Vec<_> = sums.into_iter().collect();
            P::add(conn, &deltas).await?;
        }
        Ok(sorting.letters)
    }
}
