//! A second fold of some streams, into tables of the session, and its rows beside a generation's: a
//! candidate's, whose changed fold has nobody else to agree with, or the live one's, to see whether
//! it is what the log makes of it.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use sqlx::{AssertSqlSafe, Connection, PgConnection, Row};

use super::{
    against::{Difference, DifferenceKind, Differences, MAX_DIFFERENCES, Passed},
    samples::{Chosen, Sample},
    tables::Table,
};
use crate::{
    batch::{Batch, Chunk, NewLetter, Parked},
    error::{PgClass, StoreError, classify},
    generation::{Checkpoint, Generation},
    letters::LetterStatus,
    postgres::PgView,
    stores::Origin,
};

/// The schema of the session's own tables.
const OWN_SCHEMA: &str = "pg_temp";

pub(super) struct Refold<'a> {
    /// The generation that is compared with.
    pub(super) generation: &'a Generation,
    pub(super) view: &'a Arc<dyn PgView>,
    /// Its tables.
    pub(super) tables: &'a BTreeMap<String, Table>,
}

/// Which rows are compared.
pub(super) enum Scope {
    /// Those of these streams, each with the position it was folded up to.
    Streams(BTreeMap<String, millrace_es::Position>),
    /// All.
    Everything(Vec<Checkpoint>),
}

impl Scope {
    fn position(&self, key: Option<&str>) -> millrace_es::Position {
        let found = match self {
            Self::Streams(streams) => key.and_then(|key| streams.get(key).copied()),
            Self::Everything(at) => at.iter().map(|one| one.position).max(),
        };
        found.unwrap_or_default()
    }

    /// What stands in the column of an origin in the rows of these streams; none for all rows.
    fn ids(&self, origin: Origin) -> Option<Vec<&str>> {
        let Self::Streams(streams) = self else {
            return None;
        };
        let names = streams.keys();
        let ids = names.filter_map(|name| name.strip_prefix(origin.prefix));
        Some(ids.collect())
    }
}

impl Refold<'_> {
    /// Makes the session's own tables. What comes without a schema is made and found there from
    /// here on; they go with the transaction.
    pub(super) async fn begin(&self, conn: &mut PgConnection) -> Result<(), StoreError> {
        let ddl = format!(
            "SET LOCAL search_path = {OWN_SCHEMA}, public; {}",
            self.view.tables()
        );
        sqlx::raw_sql(AssertSqlSafe(ddl)).execute(conn).await?;
        Ok(())
    }

    /// Folds streams from nothing, and says which of them can be compared.
    pub(super) async fn fold_streams(
        &self,
        conn: &mut PgConnection,
        chosen: Vec<Chosen>,
        passed: &mut Passed,
    ) -> Result<Scope, StoreError> {
        let mut folded = BTreeMap::new();
        for one in chosen {
            let Some(sample) = &one.sample else {
                // No event: whatever rows there are, are extra.
                folded.insert(one.name, millrace_es::Position::ZERO);
                continue;
            };
            let began = tokio::time::Instant::now();
            if self.lacks_events(conn, sample).await? {
                passed.park(&one.name);
            } else if self.fold(conn, sample).await? {
                folded.insert(one.name, sample.through);
            } else {
                passed.left_out += 1;
            }
            super::rest(began).await;
        }
        Ok(Scope::Streams(folded))
    }

    /// Whether the generation lacks events of the stream, as its dead letters say.
    async fn lacks_events(
        &self,
        conn: &mut PgConnection,
        sample: &Sample,
    ) -> Result<bool, StoreError> {
        let found = sqlx::query(
            "SELECT 1 FROM projections.dead_letters
             WHERE generation = $1 AND context = $2 AND stream = $3 AND status <> $4 LIMIT 1",
        )
        .bind(self.generation.id.get())
        .bind(sample.lane.context.as_str())
        .bind(sample.stream.as_str())
        .bind(LetterStatus::Redriven.as_str())
        .fetch_optional(conn)
        .await?;
        Ok(found.is_some())
    }

    /// Folds a stream from nothing. One that cannot be folded whole leaves no row.
    async fn fold(&self, conn: &mut PgConnection, sample: &Sample) -> Result<bool, StoreError> {
        let Some(events) = sample.events(sample.through).await? else {
            return Ok(false);
        };
        let Some(first) = events.first() else {
            return Ok(true);
        };
        let (lane, previous) = (sample.lane.clone(), first.previous);
        let (chunk, too_new) = self.view.decode(lane, sample.epoch, previous, events);
        let (Some(chunk), None) = (chunk, too_new) else {
            return Ok(false);
        };
        let written = self.write(conn, vec![chunk], true).await?;
        Ok(written.is_some_and(|letters| letters.is_empty()))
    }

    /// Folds chunks into the session's own tables. None, and nothing written, when the tables refuse
    /// a row, or the fold an event that has to be folded.
    pub(super) async fn write(
        &self,
        conn: &mut PgConnection,
        chunks: Vec<Chunk>,
        whole: bool,
    ) -> Result<Option<Vec<NewLetter>>, StoreError> {
        let mut batch = Batch::default();
        for chunk in chunks {
            batch.push(chunk);
        }
        let mut savepoint = conn.begin().await?;
        let written = self
            .view
            .write(&mut savepoint, &batch, 0..batch.len(), &Parked::default())
            .await;
        match written {
            Ok(letters) if letters.is_empty() || !whole => {
                savepoint.commit().await?;
                Ok(Some(letters))
            }
            Ok(_) => {
                savepoint.rollback().await?;
                Ok(None)
            }
            Err(error) if classify(&error) == PgClass::Data => {
                savepoint.rollback().await?;
                Ok(None)
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Every row of the second fold has to be in the generation just so; and within the scope the
    /// generation has no others.
    pub(super) async fn compare(
        &self,
        conn: &mut PgConnection,
        scope: &Scope,
        found: &mut Differences,
    ) -> Result<(), StoreError> {
        for table in self.tables.values() {
            let origin = self.origin(table);
            self.compare_folded(conn, table, origin, scope, found)
                .await?;
            match (scope, origin) {
                (Scope::Streams(_), None) => {}
                _ => self.find_extra(conn, table, origin, scope, found).await?,
            }
        }
        Ok(())
    }

    fn origin(&self, table: &Table) -> Option<Origin> {
        let mut origins = self.view.origins().iter();
        let own = origins.find(|(name, _)| *name == table.name);
        own.map(|(_, origin)| *origin)
    }

    async fn compare_folded(
        &self,
        conn: &mut PgConnection,
        table: &Table,
        origin: Option<Origin>,
        scope: &Scope,
        found: &mut Differences,
    ) -> Result<(), StoreError> {
        let folded = table.in_schema(OWN_SCHEMA);
        let row = sqlx::query(AssertSqlSafe(format!("SELECT count(*) FROM {folded}")))
            .fetch_one(&mut *conn)
            .await?;
        found.rows += as_count(row.try_get(0)?);
        let sql = format!(
            "SELECT {}, {}, ({}) IS NULL, {}, count(*) OVER ()
             FROM {folded} s LEFT JOIN {} c ON ({}) = ({})
             WHERE {} IS DISTINCT FROM {} ORDER BY {} LIMIT {MAX_DIFFERENCES}",
            table.key_texts("s"),
            table.text_of("s", origin.map(|origin| origin.column)),
            table.first_key_column("c"),
            table.differing("s", "c"),
            table.in_schema(&self.generation.place),
            table.key_columns("s"),
            table.key_columns("c"),
            table.row_text("s"),
            table.row_text("c"),
            table.key_columns("s"),
        );
        let rows = sqlx::query(AssertSqlSafe(sql)).fetch_all(conn).await?;
        if let Some(row) = rows.first() {
            found.count += as_count(row.try_get(4)?);
        }
        for row in &rows {
            let missing: bool = row.try_get(2)?;
            let (kind, columns) = if missing {
                (DifferenceKind::Missing, Vec::new())
            } else {
                (DifferenceKind::Changed, row.try_get(3)?)
            };
            found.name(named(table, origin, scope, row, kind, columns)?);
        }
        Ok(())
    }

    async fn find_extra(
        &self,
        conn: &mut PgConnection,
        table: &Table,
        origin: Option<Origin>,
        scope: &Scope,
        found: &mut Differences,
    ) -> Result<(), StoreError> {
        let ids = origin.and_then(|origin| scope.ids(origin));
        let of_these = origin.filter(|_| ids.is_some()).map_or_else(
            || "$1::text[] IS NULL".to_owned(),
            |origin| {
                format!(
                    "{} = ANY($1::text[])",
                    table.text_of("c", Some(origin.column))
                )
            },
        );
        let sql = format!(
            "SELECT {}, {}, count(*) OVER ()
             FROM {} c LEFT JOIN {} s ON ({}) = ({})
             WHERE {of_these} AND ({}) IS NULL ORDER BY {} LIMIT {MAX_DIFFERENCES}",
            table.key_texts("c"),
            table.text_of("c", origin.map(|origin| origin.column)),
            table.in_schema(&self.generation.place),
            table.in_schema(OWN_SCHEMA),
            table.key_columns("s"),
            table.key_columns("c"),
            table.first_key_column("s"),
            table.key_columns("c"),
        );
        let rows = sqlx::query(AssertSqlSafe(sql)).bind(ids);
        let rows = rows.fetch_all(conn).await?;
        if let Some(row) = rows.first() {
            found.count += as_count(row.try_get(2)?);
            found.rows += as_count(row.try_get(2)?);
        }
        for row in &rows {
            let kind = DifferenceKind::Extra;
            found.name(named(table, origin, scope, row, kind, Vec::new())?);
        }
        Ok(())
    }

    /// The names of streams that some rows of the generation say they are made of.
    pub(super) async fn streams_of_rows(
        &self,
        conn: &mut PgConnection,
        wanted: usize,
        seed: u64,
    ) -> Result<BTreeSet<String>, StoreError> {
        let mut names = BTreeSet::new();
        let tables = self.tables.values();
        let with_origin: Vec<_> = tables
            .filter_map(|table| Some((table, self.origin(table)?)))
            .collect();
        for (table, origin) in &with_origin {
            let share = wanted.div_ceil(with_origin.len());
            let place = (self.generation.place.as_str(), origin.column);
            let ids = table.some_texts(conn, place, share, seed).await?;
            names.extend(ids.iter().map(|id| format!("{}{id}", origin.prefix)));
        }
        Ok(names)
    }
}

/// The difference that a row says: its key is in the first column, its origin in the second.
fn named(
    table: &Table,
    origin: Option<Origin>,
    scope: &Scope,
    row: &sqlx::postgres::PgRow,
    kind: DifferenceKind,
    columns: Vec<String>,
) -> Result<Difference, StoreError> {
    let parts: Vec<String> = row.try_get(0)?;
    let id: Option<String> = row.try_get(1)?;
    let key = origin
        .zip(id)
        .map(|(origin, id)| format!("{}{id}", origin.prefix));
    Ok(Difference {
        row: format!("{}/{}", table.name, parts.join(",")),
        kind,
        columns,
        position: scope.position(key.as_deref()),
        key,
    })
}

fn as_count(number: i64) -> u64 {
    u64::try_from(number).unwrap_or(0)
}
