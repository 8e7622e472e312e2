//! A second fold of sampled streams, into tables of the session, and its rows beside the
//! candidate's. A changed fold has nobody else to agree with.

use std::{collections::BTreeMap, sync::Arc};

use sqlx::{AssertSqlSafe, Connection, PgConnection, Row};

use super::{
    Findings, Subjects,
    samples::{Sample, pick},
    tables::Table,
};
use crate::{
    batch::{Batch, Parked},
    error::{PgClass, StoreError, classify},
    generation::Checkpoint,
    letters::LetterStatus,
    postgres::PgView,
};

/// The most keys that are named per table.
const MAX_KEYS_PER_TABLE: i64 = 10;

pub(super) struct Refold<'a> {
    pub(super) subjects: Subjects<'a>,
    pub(super) view: &'a Arc<dyn PgView>,
    /// The candidate's tables.
    pub(super) tables: &'a BTreeMap<String, Table>,
}

impl Refold<'_> {
    /// Folds, compares, and leaves nothing: the tables go with the transaction.
    pub(super) async fn run(
        &self,
        conn: &mut PgConnection,
        at: &[Checkpoint],
        findings: &mut Findings,
    ) -> Result<(), StoreError> {
        // What comes without a schema is made and found in the session's own from here on.
        let ddl = format!(
            "SET LOCAL search_path = pg_temp, public; {}",
            self.view.tables()
        );
        sqlx::raw_sql(AssertSqlSafe(ddl))
            .execute(&mut *conn)
            .await?;
        for sample in pick(self.subjects.logs, at).await? {
            if !self.has_letters(conn, &sample).await? {
                self.fold(conn, &sample).await?;
            }
        }
        for table in self.tables.values() {
            self.compare(conn, table, findings).await?;
        }
        Ok(())
    }

    /// Whether the candidate lacks events of the stream, as its dead letters say.
    async fn has_letters(
        &self,
        conn: &mut PgConnection,
        sample: &Sample,
    ) -> Result<bool, StoreError> {
        let found = sqlx::query(
            "SELECT 1 FROM projections.dead_letters
             WHERE generation = $1 AND context = $2 AND stream = $3 AND status <> $4 LIMIT 1",
        )
        .bind(self.subjects.candidate.id.get())
        .bind(sample.lane.context.as_str())
        .bind(sample.stream.as_str())
        .bind(LetterStatus::Redriven.as_str())
        .fetch_optional(conn)
        .await?;
        Ok(found.is_some())
    }

    /// Folds a stream from nothing. One that cannot be folded whole leaves no row.
    async fn fold(&self, conn: &mut PgConnection, sample: &Sample) -> Result<(), StoreError> {
        let Some(events) = sample.events(sample.through).await? else {
            return Ok(());
        };
        let Some(first) = events.first() else {
            return Ok(());
        };
        let (lane, previous) = (sample.lane.clone(), first.previous);
        let (chunk, too_new) = self.view.decode(lane, sample.epoch, previous, events);
        let (Some(chunk), None) = (chunk, too_new) else {
            return Ok(());
        };
        let mut batch = Batch::default();
        batch.push(chunk);
        let mut savepoint = conn.begin().await?;
        let written = self
            .view
            .write(&mut savepoint, &batch, 0..batch.len(), &Parked::default())
            .await;
        match written {
            Ok(letters) if letters.is_empty() => savepoint.commit().await?,
            Ok(_) => savepoint.rollback().await?,
            Err(error) if classify(&error) == PgClass::Data => savepoint.rollback().await?,
            Err(error) => return Err(error.into()),
        }
        Ok(())
    }

    /// Every row of the second fold has to be in the candidate just so.
    async fn compare(
        &self,
        conn: &mut PgConnection,
        table: &Table,
        findings: &mut Findings,
    ) -> Result<(), StoreError> {
        let sampled = table.in_schema("pg_temp");
        let row = sqlx::query(AssertSqlSafe(format!("SELECT count(*) FROM {sampled}")))
            .fetch_one(&mut *conn)
            .await?;
        findings.compared += u64::try_from(row.try_get::<i64, _>(0)?).unwrap_or(0);
        let sql = format!(
            "SELECT {}, count(*) OVER () FROM {sampled} s LEFT JOIN {} c ON ({}) = ({})
             WHERE {} IS DISTINCT FROM {} ORDER BY {} LIMIT {MAX_KEYS_PER_TABLE}",
            table.key_texts("s"),
            table.in_schema(&self.subjects.candidate.place),
            table.key_columns("s"),
            table.key_columns("c"),
            table.row_text("s"),
            table.row_text("c"),
            table.key_columns("s"),
        );
        let rows = sqlx::query(AssertSqlSafe(sql)).fetch_all(conn).await?;
        for row in &rows {
            let key: Vec<String> = row.try_get(0)?;
            findings.name(&format!("{}/{}", table.name, key.join(",")));
        }
        if let Some(row) = rows.first() {
            findings.mismatches += u64::try_from(row.try_get::<i64, _>(1)?).unwrap_or(0);
        }
        Ok(())
    }
}
