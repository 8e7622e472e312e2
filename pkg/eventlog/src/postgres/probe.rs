//! Reading what a batch has to know of the log.

use std::collections::HashMap;

use millrace_es::{Epoch, EventId, Position, StreamVersion};
use millrace_kernel::Timestamp;
use sqlx::{PgConnection, Row, postgres::PgRow};
use time::OffsetDateTime;

use super::{failure::Failure, read, store::Store};
use crate::lane::plan::{Head, Probed, Wanted};

impl Store {
    pub(super) async fn probe(
        &self,
        conn: &mut PgConnection,
        wanted: &Wanted<'_>,
    ) -> Result<Probed, Failure> {
        let streams: Vec<&str> = wanted.streams.iter().map(|(s, _)| s.as_str()).collect();
        let keys: Vec<&[u8]> = wanted.keys.iter().map(<[u8; 32]>::as_slice).collect();
        let row = sqlx::query(&self.statements.probe)
            .bind(streams)
            .bind(keys)
            .fetch_one(&mut *conn)
            .await
            .map_err(Failure::of)?;
        let (mut probed, known) = probed(&row, wanted).map_err(Failure::of)?;
        if !known.is_empty() {
            let rows = sqlx::query(&self.statements.answers)
                .bind(known)
                .fetch_all(&mut *conn)
                .await
                .map_err(Failure::of)?;
            for row in &rows {
                let (stored, expired) = read::answer(row).map_err(Failure::Fatal)?;
                if expired {
                    probed.expired.push(stored.key.key_hash);
                } else {
                    probed.answers.insert(stored.key.key_hash, stored);
                }
            }
        }
        if !wanted.names.is_empty() {
            let (scopes, values): (Vec<&str>, Vec<&str>) = wanted.names.iter().copied().unzip();
            let rows = sqlx::query(&self.statements.holders)
                .bind(scopes)
                .bind(values)
                .fetch_all(&mut *conn)
                .await
                .map_err(Failure::of)?;
            for row in &rows {
                let name = || -> Result<_, sqlx::Error> {
                    Ok(((row.try_get(0)?, row.try_get(1)?), row.try_get(2)?))
                };
                let (name, holder) = name().map_err(Failure::of)?;
                probed.holders.insert(name, holder);
            }
        }
        Ok(probed)
    }
}

fn head(row: &PgRow) -> Result<Head, sqlx::Error> {
    let at = |column| -> Result<Timestamp, sqlx::Error> {
        Ok(Timestamp::new(row.try_get::<OffsetDateTime, _>(column)?))
    };
    Ok(Head {
        position: Position::from_i64(row.try_get("position")?),
        epoch: Epoch::from_i64(row.try_get("epoch")?),
        guard: row.try_get("guard")?,
        halted: row.try_get("halted")?,
        partitions: row
            .try_get::<Vec<i64>, _>("partition_positions")?
            .into_iter()
            .map(Position::from_i64)
            .collect(),
        recorded_at: at("recorded_at")?,
        now: at("now")?,
    })
}

/// A probe's row, and the keys that have a row in `answers`.
fn probed(row: &PgRow, wanted: &Wanted<'_>) -> Result<(Probed, Vec<Vec<u8>>), sqlx::Error> {
    let numbers: Option<Vec<i64>> = row.try_get("numbers")?;
    let versions: Option<Vec<i64>> = row.try_get("versions")?;
    let ids: Option<Vec<uuid::Uuid>> = row.try_get("ids")?;
    let found = numbers
        .unwrap_or_default()
        .into_iter()
        .zip(versions.unwrap_or_default())
        .zip(ids.unwrap_or_default());
    let mut streams = HashMap::new();
    for ((number, version), id) in found {
        let index = usize::try_from(number - 1).unwrap_or(usize::MAX);
        if let Some((stream, _)) = wanted.streams.get(index) {
            streams.insert(
                (*stream).clone(),
                (StreamVersion::from_i64(version), EventId::new(id)),
            );
        }
    }
    let probed = Probed {
        head: head(row)?,
        streams,
        answers: HashMap::new(),
        expired: Vec::new(),
        holders: HashMap::new(),
    };
    let keys: Option<Vec<Vec<u8>>> = row.try_get("keys")?;
    Ok((probed, keys.unwrap_or_default()))
}
