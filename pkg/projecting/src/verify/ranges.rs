//! One table of two generations, compared by ranges of its key: a sum of row hashes per range, made
//! by the server, and where sums differ halves of the range, down to a few rows whose keys are told.

use std::collections::BTreeMap;

use sqlx::{AssertSqlSafe, PgConnection, Postgres, Row, postgres::PgArguments, query::Query};
use tokio::time::Instant;

use super::{Findings, rest, tables::Table};
use crate::error::StoreError;

/// Rows of the live generation whose hashes are summed up at once.
const RANGE_ROWS: i64 = 20_000;

/// A range that differs is read row by row when no side has more rows than this.
const LEAF_ROWS: i64 = 500;

/// A key as texts.
type Key = Vec<String>;

/// Keys after one and up to another; without them, from the first or to the last.
#[derive(Debug, Clone, Default)]
struct KeyRange {
    after: Option<Key>,
    until: Option<Key>,
}

/// How many rows a range has, and the sum of their hashes.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Digest {
    rows: i64,
    sum: String,
}

/// A table in both generations.
pub(super) struct Compared<'a> {
    table: &'a Table,
    live: String,
    candidate: String,
}

fn query(sql: String) -> Query<'static, Postgres, PgArguments> {
    // Made of quoted names from the catalogue and of types as the server spells them.
    sqlx::query(AssertSqlSafe(sql))
}

fn as_count(number: i64) -> u64 {
    u64::try_from(number).unwrap_or(0)
}

impl<'a> Compared<'a> {
    pub(super) fn new(table: &'a Table, live: &str, candidate: &str) -> Self {
        Self {
            table,
            live: table.in_schema(live),
            candidate: table.in_schema(candidate),
        }
    }

    /// Compares how many rows there are.
    pub(super) async fn counts(
        &self,
        conn: &mut PgConnection,
        findings: &mut Findings,
    ) -> Result<(), StoreError> {
        let sql = format!(
            "SELECT (SELECT count(*) FROM {}), (SELECT count(*) FROM {})",
            self.live, self.candidate
        );
        let row = query(sql).fetch_one(conn).await?;
        let (live, own): (i64, i64) = (row.try_get(0)?, row.try_get(1)?);
        findings.compared += as_count(live.max(own));
        if live != own {
            findings.mismatches += live.abs_diff(own);
            findings.name(&self.table.name);
        }
        Ok(())
    }

    /// Compares what the rows hold.
    pub(super) async fn checksums(
        &self,
        conn: &mut PgConnection,
        findings: &mut Findings,
    ) -> Result<(), StoreError> {
        let mut range = KeyRange::default();
        while !findings.are_enough() {
            let began = Instant::now();
            range.until = self.boundary(conn, &self.live, &range, RANGE_ROWS).await?;
            let (live, own) = self.digests(conn, &range).await?;
            findings.compared += as_count(live.rows.max(own.rows));
            if live != own {
                self.narrow(conn, range.clone(), live.rows, own.rows, findings)
                    .await?;
            }
            let Some(until) = range.until.take() else {
                return Ok(());
            };
            range.after = Some(until);
            rest(began).await;
        }
        Ok(())
    }

    /// Finds the keys that differ in a range that does. The halves that wait are at most one for
    /// each time that the range was halved.
    async fn narrow(
        &self,
        conn: &mut PgConnection,
        range: KeyRange,
        live_rows: i64,
        own_rows: i64,
        findings: &mut Findings,
    ) -> Result<(), StoreError> {
        let mut left = vec![(range, live_rows, own_rows)];
        while let Some((range, live_rows, own_rows)) = left.pop() {
            if findings.are_enough() {
                return Ok(());
            }
            let most = live_rows.max(own_rows);
            if most <= LEAF_ROWS {
                self.tell_apart(conn, &range, findings).await?;
                continue;
            }
            let began = Instant::now();
            let larger = if live_rows >= own_rows {
                &self.live
            } else {
                &self.candidate
            };
            let middle = self.boundary(conn, larger, &range, most / 2).await?;
            let low = KeyRange {
                after: range.after,
                until: middle.clone(),
            };
            let high = KeyRange {
                after: middle,
                until: range.until,
            };
            for half in [high, low] {
                let (live, own) = self.digests(conn, &half).await?;
                if live != own {
                    left.push((half, live.rows, own.rows));
                }
            }
            rest(began).await;
        }
        Ok(())
    }

    /// Names the rows of a small range that differ.
    async fn tell_apart(
        &self,
        conn: &mut PgConnection,
        range: &KeyRange,
        findings: &mut Findings,
    ) -> Result<(), StoreError> {
        let live = self.rows(conn, &self.live, range).await?;
        let mut own = self.rows(conn, &self.candidate, range).await?;
        for (key, hash) in live {
            if own.remove(&key) != Some(hash) {
                findings.mismatch(&self.table.name, &key.join(","));
            }
        }
        for key in own.into_keys() {
            findings.mismatch(&self.table.name, &key.join(","));
        }
        Ok(())
    }

    async fn digests(
        &self,
        conn: &mut PgConnection,
        range: &KeyRange,
    ) -> Result<(Digest, Digest), StoreError> {
        let live = self.digest(conn, &self.live, range).await?;
        let own = self.digest(conn, &self.candidate, range).await?;
        Ok((live, own))
    }

    async fn digest(
        &self,
        conn: &mut PgConnection,
        place: &str,
        range: &KeyRange,
    ) -> Result<Digest, StoreError> {
        let sql = format!(
            "SELECT count(*), coalesce(sum(hashtextextended({}, 0)), 0)::text FROM {place} t{}",
            self.table.row_text("t"),
            self.condition(range)
        );
        let row = bound(query(sql), range).fetch_one(conn).await?;
        Ok(Digest {
            rows: row.try_get(0)?,
            sum: row.try_get(1)?,
        })
    }

    /// The key of the nth row of a range, if it has so many.
    async fn boundary(
        &self,
        conn: &mut PgConnection,
        place: &str,
        range: &KeyRange,
        nth: i64,
    ) -> Result<Option<Key>, StoreError> {
        let sql = format!(
            "SELECT {} FROM {place} t{} ORDER BY {} OFFSET {} LIMIT 1",
            self.table.key_texts("t"),
            self.condition(range),
            self.table.key_columns("t"),
            (nth - 1).max(0)
        );
        let row = bound(query(sql), range).fetch_optional(conn).await?;
        Ok(row.map(|row| row.try_get(0)).transpose()?)
    }

    async fn rows(
        &self,
        conn: &mut PgConnection,
        place: &str,
        range: &KeyRange,
    ) -> Result<BTreeMap<Key, i64>, StoreError> {
        let sql = format!(
            "SELECT {}, hashtextextended({}, 0) FROM {place} t{}",
            self.table.key_texts("t"),
            self.table.row_text("t"),
            self.condition(range)
        );
        let rows = bound(query(sql), range).fetch_all(conn).await?;
        rows.iter()
            .map(|row| Ok((row.try_get(0)?, row.try_get(1)?)))
            .collect()
    }

    fn condition(&self, range: &KeyRange) -> String {
        let key = self.table.key_columns("t");
        let mut parts = Vec::new();
        let mut next = 1;
        if range.after.is_some() {
            let after = self.table.key_parameters(next);
            parts.push(format!("({key}) > ({after})"));
            next += self.table.key.len();
        }
        if range.until.is_some() {
            let until = self.table.key_parameters(next);
            parts.push(format!("({key}) <= ({until})"));
        }
        if parts.is_empty() {
            return String::new();
        }
        format!(" WHERE {}", parts.join(" AND "))
    }
}

fn bound(
    mut query: Query<'static, Postgres, PgArguments>,
    range: &KeyRange,
) -> Query<'static, Postgres, PgArguments> {
    for part in [&range.after, &range.until].into_iter().flatten().flatten() {
        query = query.bind(part.clone());
    }
    query
}
