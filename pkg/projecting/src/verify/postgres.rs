//! Verification of views in PostgreSQL.

use std::sync::Arc;

use sqlx::Connection;
use tokio_util::sync::CancellationToken;

use super::{
    Findings, Subjects, Verification, VerifyMode, VerifyOptions,
    against::{Differences, Passed},
    level::{Level, Pair},
    ranges::Compared,
    refold::Refold,
    samples::{Chosen, pick},
    tables::{Table, declared, of_one_fold, read_tables},
    until_stopped,
};
use crate::{
    error::StoreError,
    postgres::{PgStore, PgView},
    stores::UnchangedColumns,
};

impl PgStore {
    /// Compares a candidate with the live generation at equal checkpoints in every lane. The live
    /// one is held still for an instant (see [`Verification::stood_still_ms`]) if events come in,
    /// and no longer than a second; the candidate is held back a little longer. Nothing is locked
    /// while rows are read, and the reading rests as long as it works.
    ///
    /// By one fold, all rows have to be equal. By a changed one, the columns that the view declares
    /// unchanged (`UNCHANGED`) are compared, and the rows of some streams, folded a second time from
    /// the log. A stream with letters that were not redriven is left out of those.
    ///
    /// # Errors
    /// [`StoreError::Stopped`] when told to stop. [`StoreError::Behind`] when the candidate does not
    /// come to where the live generation is, [`StoreError::Unavailable`] when they cannot be brought
    /// level: later it may succeed. [`StoreError::Invalid`] when they cannot be compared at all.
    pub async fn verify(
        &self,
        subjects: Subjects<'_>,
        options: &VerifyOptions,
        stop: &CancellationToken,
    ) -> Result<Verification, StoreError> {
        subjects.check()?;
        let view = subjects.view.postgres()?;
        let mut findings = Findings::new(options);
        if options.mode == VerifyMode::None {
            let at = self.checkpoints(subjects.candidate.id).await?;
            return Ok(findings.end(at, std::time::Duration::ZERO));
        }
        let pair = Pair {
            store: self,
            candidate: subjects.candidate,
            live: subjects.live,
        };
        let level = match Box::pin(until_stopped(stop, pair.level())).await {
            Ok(level) => level,
            Err(error) => {
                pair.release().await;
                return Err(error);
            }
        };
        let Level {
            conn,
            at,
            stood_still,
        } = level;
        let mut comparing = Comparing {
            subjects,
            view,
            conn,
            mode: options.mode,
        };
        let compared = until_stopped(stop, comparing.run(&at, &mut findings)).await;
        comparing.conn.close().await.ok();
        compared?;
        Ok(findings.end(at, stood_still))
    }
}

/// A comparison in its snapshot.
struct Comparing<'a> {
    subjects: Subjects<'a>,
    view: &'a Arc<dyn PgView>,
    conn: sqlx::PgConnection,
    mode: VerifyMode,
}

impl Comparing<'_> {
    async fn run(
        &mut self,
        at: &[crate::generation::Checkpoint],
        findings: &mut Findings,
    ) -> Result<(), StoreError> {
        let own = self.subjects.candidate.place.as_str();
        let theirs = self.subjects.live.place.as_str();
        let own_tables = read_tables(&mut self.conn, own).await?;
        let their_tables = read_tables(&mut self.conn, theirs).await?;
        let same_fold = self.subjects.same_fold();
        let tables: Vec<Table> = if same_fold {
            of_one_fold(&own_tables, &their_tables)?
        } else {
            declared(self.unchanged(), &own_tables, &their_tables)?
        };
        for table in &tables {
            let compared = Compared::new(table, theirs, own);
            match self.mode {
                VerifyMode::Counts => compared.counts(&mut self.conn, findings).await?,
                _ => compared.checksums(&mut self.conn, findings).await?,
            }
        }
        if !same_fold && self.mode == VerifyMode::Checksum && self.view.is_by_key() {
            let refold = Refold {
                generation: self.subjects.candidate,
                view: self.view,
                tables: &own_tables,
            };
            refold.begin(&mut self.conn).await?;
            let chosen = pick(self.subjects.logs, at).await?;
            let chosen = chosen.into_iter().map(Chosen::from).collect();
            // A stream that waits for dead letters, or is too long, is left out.
            let mut passed = Passed::default();
            let scope = refold.fold_streams(&mut self.conn, chosen, &mut passed);
            let scope = scope.await?;
            let mut found = Differences::default();
            refold.compare(&mut self.conn, &scope, &mut found).await?;
            findings.add(&found);
        }
        Ok(())
    }

    /// What the view declares unchanged, if that speaks of this live generation.
    fn unchanged(&self) -> UnchangedColumns {
        if self.subjects.declaration_holds() {
            self.view.unchanged()
        } else {
            &[]
        }
    }
}
