//! What of two generations in PostgreSQL is compared: tables, columns and keys, from the catalogue.

use std::collections::BTreeMap;

use sqlx::{PgConnection, Row};

use crate::{error::StoreError, stores::UnchangedColumns};

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
    }
}
