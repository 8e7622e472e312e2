//! What of two generations in PostgreSQL is compared: tables, columns and keys, from the catalogue.

use std::collections::BTreeMap;

use sqlx::{AssertSqlSafe, PgConnection, Row};

use crate::{error::StoreError, stores::UnchangedColumns};

/// The pages of a table, of 8 KiB, that rows are sampled from.
const SAMPLED_PAGES: i64 = 200;

/// A column of a primary key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct KeyColumn {
    pub(super) name: String,
    /// Its type as SQL says it.
    pub(super) kind: String,
}

/// A table of a generation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Table {
    pub(super) name: String,
    /// All columns, by name.
    pub(super) columns: Vec<String>,
    /// The primary key's columns, in its order.
    pub(super) key: Vec<KeyColumn>,
}

/// The tables of a schema, by name.
pub(super) async fn read_tables(
    conn: &mut PgConnection,
    schema: &str,
) -> Result<BTreeMap<String, Table>, StoreError> {
    let rows = sqlx::query(
        "SELECT c.relname::text AS table_name, a.attname::text AS column_name,
                format_type(a.atttypid, a.atttypmod) AS kind,
                array_position(i.indkey::smallint[], a.attnum) AS nth
         FROM pg_catalog.pg_class c
         JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
         JOIN pg_catalog.pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
         LEFT JOIN pg_catalog.pg_index i ON i.indrelid = c.oid AND i.indisprimary
         WHERE n.nspname = $1 AND c.relkind IN ('r', 'p') AND NOT c.relispartition
         ORDER BY c.relname, nth NULLS LAST, a.attname",
    )
    .bind(schema)
    .fetch_all(conn)
    .await?;
    let mut tables: BTreeMap<String, Table> = BTreeMap::new();
    for row in rows {
        let name: String = row.try_get("table_name")?;
        let column: String = row.try_get("column_name")?;
        let table = tables.entry(name.clone()).or_insert_with(|| Table {
            name,
            columns: Vec::new(),
            key: Vec::new(),
        });
        if row.try_get::<Option<i32>, _>("nth")?.is_some() {
            table.key.push(KeyColumn {
                name: column.clone(),
                kind: row.try_get("kind")?,
            });
        }
        table.columns.push(column);
    }
    for table in tables.values_mut() {
        table.columns.sort_unstable();
        if table.key.is_empty() {
            return Err(StoreError::Unusable(
                format!(
                    "table {schema}.{} has no primary key, so its rows cannot be named: give it one, or verify nothing",
                    table.name
                )
                .into(),
            ));
        }
    }
    Ok(tables)
}

/// Tables of both generations that must be as they are declared: all of them, by one fold.
pub(super) fn of_one_fold(
    candidate: &BTreeMap<String, Table>,
    live: &BTreeMap<String, Table>,
) -> Result<Vec<Table>, StoreError> {
    let names = candidate.keys().chain(live.keys());
    for name in names {
        if candidate.get(name) != live.get(name) {
            return Err(StoreError::Unusable(
                format!(
                    "table {name} has other columns in one generation than in the other, although one version makes both: somebody changed it; rebuild"
                )
                .into(),
            ));
        }
    }
    Ok(candidate.values().cloned().collect())
}

/// What a changed fold declares unchanged: these columns of these tables, and which rows there are.
pub(super) fn declared(
    unchanged: UnchangedColumns,
    candidate: &BTreeMap<String, Table>,
    live: &BTreeMap<String, Table>,
) -> Result<Vec<Table>, StoreError> {
    let mut chosen = Vec::new();
    for (name, columns) in unchanged {
        let wrong = |why: &str| {
            StoreError::Invalid(format!(
                "the view declares {name} unchanged, but {why}: correct `UNCHANGED`"
            ))
        };
        let (Some(own), Some(theirs)) = (candidate.get(*name), live.get(*name)) else {
            return Err(wrong("not both generations have that table"));
        };
        if own.key != theirs.key {
            return Err(wrong("its primary key is another"));
        }
        let known = |table: &Table, column: &str| table.columns.iter().any(|one| one == column);
        if let Some(column) = columns
            .iter()
            .find(|column| !known(own, column) || !known(theirs, column))
        {
            return Err(wrong(&format!("not both have its column {column}")));
        }
        let mut columns: Vec<String> = columns.iter().map(|one| (*one).to_owned()).collect();
        columns.extend(own.key.iter().map(|key| key.name.clone()));
        columns.sort_unstable();
        columns.dedup();
        chosen.push(Table {
            columns,
            ..own.clone()
        });
    }
    Ok(chosen)
}

/// An identifier as SQL takes it whatever it holds.
pub(super) fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// A text as SQL takes it whatever it holds.
fn text_literal(text: &str) -> String {
    format!("E'{}'", text.replace('\\', "\\\\").replace('\'', "''"))
}

impl Table {
    /// The table in a schema.
    pub(super) fn in_schema(&self, schema: &str) -> String {
        format!("{}.{}", quoted(schema), quoted(&self.name))
    }

    /// The compared columns of a row as one text, in one order, whatever the table's own is.
    pub(super) fn row_text(&self, alias: &str) -> String {
        let columns: Vec<String> = self
            .columns
            .iter()
            .map(|column| format!("{alias}.{}", quoted(column)))
            .collect();
        format!("ROW({})::text COLLATE \"C\"", columns.join(", "))
    }

    /// The key's columns, to compare and to sort by.
    pub(super) fn key_columns(&self, alias: &str) -> String {
        let columns: Vec<String> = self
            .key
            .iter()
            .map(|key| format!("{alias}.{}", quoted(&key.name)))
            .collect();
        columns.join(", ")
    }

    /// The first column of the key; it is never null.
    pub(super) fn first_key_column(&self, alias: &str) -> String {
        let first = self.key.first().map_or("", |key| key.name.as_str());
        format!("{alias}.{}", quoted(first))
    }

    /// A column as a text; without one, no text.
    pub(super) fn text_of(&self, alias: &str, column: Option<&str>) -> String {
        column.map_or_else(
            || "NULL::text".to_owned(),
            |column| format!("{alias}.{}::text", quoted(column)),
        )
    }

    /// The names of the compared columns in which two rows differ, as an array of texts.
    pub(super) fn differing(&self, one: &str, other: &str) -> String {
        let names = self.columns.iter().map(|column| {
            let name = quoted(column);
            let text = text_literal(column);
            format!(
                "CASE WHEN {one}.{name}::text IS DISTINCT FROM {other}.{name}::text THEN {text} END"
            )
        });
        let names: Vec<String> = names.collect();
        format!("array_remove(ARRAY[{}]::text[], NULL)", names.join(", "))
    }

    /// Some values of a column in a schema, as texts and each once: from pages that a seed picks.
    pub(super) async fn some_texts(
        &self,
        conn: &mut PgConnection,
        (schema, column): (&str, &str),
        wanted: usize,
        seed: u64,
    ) -> Result<Vec<String>, StoreError> {
        let place = self.in_schema(schema);
        let column = self.text_of("t", Some(column));
        let row = sqlx::query(
            "SELECT least(100.0, 100.0 * $2 / greatest(1, pg_relation_size($1::text::regclass) / 8192))::float8",
        )
        .bind(&place)
        .bind(SAMPLED_PAGES)
        .fetch_one(&mut *conn)
        .await?;
        let percent: f64 = row.try_get(0)?;
        let sql = format!(
            "SELECT id FROM (
                 SELECT DISTINCT {column} AS id
                 FROM {place} t TABLESAMPLE SYSTEM ($1::float8::real) REPEATABLE ($2::bigint)
             ) found WHERE id IS NOT NULL ORDER BY hashtextextended(id, $2::bigint) LIMIT $3"
        );
        let rows = sqlx::query(AssertSqlSafe(sql))
            .bind(percent)
            // Any number will do, the same one for the same seed.
            .bind(i64::from_le_bytes(seed.to_le_bytes()))
            .bind(i64::try_from(wanted).unwrap_or(i64::MAX))
            .fetch_all(conn)
            .await?;
        let ids = rows.iter().map(|row| row.try_get(0));
        Ok(ids.collect::<Result<_, _>>()?)
    }

    /// The key as an array of texts.
    pub(super) fn key_texts(&self, alias: &str) -> String {
        let texts: Vec<String> = self
            .key
            .iter()
            .map(|key| format!("{alias}.{}::text", quoted(&key.name)))
            .collect();
        format!("ARRAY[{}]", texts.join(", "))
    }

    /// Parameters that stand for a key, from the one with this number on.
    pub(super) fn key_parameters(&self, first: usize) -> String {
        let parameters: Vec<String> = self
            .key
            .iter()
            .zip(first..)
            .map(|(key, number)| format!("${number}::text::{}", key.kind))
            .collect();
        parameters.join(", ")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_cannot_leave_its_quotes() {
        assert_eq!(quoted(r#"a" FROM b; --"#), r#""a"" FROM b; --""#);
        assert_eq!(text_literal(r"a\' b"), r"E'a\\'' b'");
    }
}
