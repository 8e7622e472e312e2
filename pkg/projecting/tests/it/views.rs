//! Small projections: a row per stream with what it went through, and sums over all of them.

use std::{
    ops::AddAssign,
    sync::atomic::{AtomicBool, Ordering},
};

use millrace_es::{
    DecodeError, FoldError, Projection, Recorded, RecordedEvent, RowProjection, TallyProjection,
};
use millrace_projecting::{
    BadItem, DynamoRows, Item, KeyAttribute, LocalIndex, Origin, Origins, PgRows, PgTally,
    TableDefinition, UnchangedColumns, View,
};
use serde::Deserialize;
use sqlx::{PgConnection, Row};

/// While set, an amount of 666 is refused; unset, the release that can fold it is out.
pub static REFUSES: AtomicBool = AtomicBool::new(true);

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ItemEvent {
    Added { n: i64, note: Option<String> },
    Removed,
}

#[derive(Deserialize)]
struct Added {
    n: i64,
    note: Option<String>,
}

pub fn decode(event: &RecordedEvent) -> Result<Option<ItemEvent>, DecodeError> {
    match event.event_type.as_ref() {
        "item.added" => {
            let Added { n, note } =
                millrace_es::upcast("item.added", event.schema_version, &event.payload, &[])?;
            Ok(Some(ItemEvent::Added { n, note }))
        }
        "item.removed" => Ok(Some(ItemEvent::Removed)),
        "item.noticed" => Ok(None),
        other => Err(DecodeError::UnknownType {
            event_type: other.to_owned(),
        }),
    }
}

/// A row: the sum of what was added, and the positions it was made from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ItemRow {
    pub total: i64,
    pub trail: Vec<i64>,
    pub note: Option<String>,
}

pub fn fold(
    row: Option<ItemRow>,
    event: Recorded<'_, ItemEvent>,
) -> Result<Option<ItemRow>, FoldError> {
    let mut row = row.unwrap_or(ItemRow {
        total: 0,
        trail: Vec::new(),
        note: None,
    });
    match event.event {
        ItemEvent::Added { n: 666, .. } if REFUSES.load(Ordering::SeqCst) => {
            Err(FoldError::new("666 is not an amount"))
        }
        ItemEvent::Added { n, note } => {
            row.total += n;
            row.trail.push(event.envelope.position.as_i64());
            row.note = note.clone().or(row.note);
            Ok(Some(row))
        }
        ItemEvent::Removed => Ok(None),
    }
}

/// Rows in PostgreSQL.
pub struct Items;

impl Projection for Items {
    const NAME: &'static str = "items";
    const VERSION: u32 = 1;
    const CONTEXTS: &'static [&'static str] = &["ordering"];
    type Event = ItemEvent;
    fn decode(event: &RecordedEvent) -> Result<Option<ItemEvent>, DecodeError> {
        decode(event)
    }
}

impl RowProjection for Items {
    type Key = String;
    type Row = ItemRow;
    fn key(event: Recorded<'_, ItemEvent>) -> String {
        event.envelope.stream.as_str().to_owned()
    }
    fn fold(
        row: Option<ItemRow>,
        event: Recorded<'_, ItemEvent>,
    ) -> Result<Option<ItemRow>, FoldError> {
        fold(row, event)
    }
}

impl PgRows for Items {
    const ORIGINS: Origins = &[(
        "items",
        Origin {
            column: "id",
            prefix: "",
        },
    )];
    const TABLES: &'static str = "CREATE TABLE items (id text PRIMARY KEY, total bigint NOT NULL, trail bigint[] NOT NULL, note text CHECK (note <> 'forbidden'))";
    const INDEXES: &'static str = "CREATE INDEX items_total ON items (total)";

    async fn load(
        conn: &mut PgConnection,
        keys: &[String],
    ) -> Result<Vec<(String, ItemRow)>, sqlx::Error> {
        let rows = sqlx::query("SELECT id, total, trail, note FROM items WHERE id = ANY($1)")
            .bind(keys)
            .fetch_all(conn)
            .await?;
        rows.iter().map(read_row).collect()
    }

    async fn store(
        conn: &mut PgConnection,
        rows: &[(String, Option<ItemRow>)],
    ) -> Result<(), sqlx::Error> {
        let gone: Vec<&str> = rows
            .iter()
            .filter(|(_, row)| row.is_none())
            .map(|(id, _)| id.as_str())
            .collect();
        let kept: Vec<(&str, &ItemRow)> = rows
            .iter()
            .filter_map(|(id, row)| Some((id.as_str(), row.as_ref()?)))
            .collect();
        if !gone.is_empty() {
            sqlx::query("DELETE FROM items WHERE id = ANY($1)")
                .bind(gone)
                .execute(&mut *conn)
                .await?;
        }
        sqlx::query(
            "INSERT INTO items SELECT id, total, string_to_array(trail, ',')::bigint[], note
             FROM UNNEST($1::text[], $2::bigint[], $3::text[], $4::text[]) AS t (id, total, trail, note)
             ON CONFLICT (id) DO UPDATE SET total = excluded.total, trail = excluded.trail, note = excluded.note",
        )
        .bind(kept.iter().map(|(id, _)| *id).collect::<Vec<_>>())
        .bind(kept.iter().map(|(_, row)| row.total).collect::<Vec<_>>())
        .bind(kept.iter().map(|(_, row)| join(&row.trail)).collect::<Vec<_>>())
        .bind(kept.iter().map(|(_, row)| row.note.as_deref()).collect::<Vec<_>>())
        .execute(conn)
        .await?;
        Ok(())
    }
}

fn join(trail: &[i64]) -> String {
    trail
        .iter()
        .map(ToString::to_string)
        .collect::<Vec<_>>()
        .join(",")
}

pub fn read_row(row: &sqlx::postgres::PgRow) -> Result<(String, ItemRow), sqlx::Error> {
    Ok((
        row.try_get("id")?,
        ItemRow {
            total: row.try_get("total")?,
            trail: row.try_get("trail")?,
            note: row.try_get("note")?,
        },
    ))
}

/// The same rows, with a version of their own.
pub struct ItemsNext;

impl Projection for ItemsNext {
    const NAME: &'static str = "items";
    const VERSION: u32 = 2;
    const CONTEXTS: &'static [&'static str] = &["ordering"];
    type Event = ItemEvent;
    fn decode(event: &RecordedEvent) -> Result<Option<ItemEvent>, DecodeError> {
        decode(event)
    }
}

impl RowProjection for ItemsNext {
    type Key = String;
    type Row = ItemRow;
    fn key(event: Recorded<'_, ItemEvent>) -> String {
        Items::key(event)
    }
    fn fold(
        row: Option<ItemRow>,
        event: Recorded<'_, ItemEvent>,
    ) -> Result<Option<ItemRow>, FoldError> {
        fold(row, event)
    }
}

impl PgRows for ItemsNext {
    const TABLES: &'static str = Items::TABLES;
    const INDEXES: &'static str = Items::INDEXES;
    async fn load(
        conn: &mut PgConnection,
        keys: &[String],
    ) -> Result<Vec<(String, ItemRow)>, sqlx::Error> {
        Items::load(conn, keys).await
    }
    async fn store(
        conn: &mut PgConnection,
        rows: &[(String, Option<ItemRow>)],
    ) -> Result<(), sqlx::Error> {
        Items::store(conn, rows).await
    }
}

/// A sum that every partition feeds.
pub struct Sums;

#[derive(Debug, Clone, Default)]
pub struct Sum {
    pub count: i64,
    pub total: i64,
}

impl AddAssign for Sum {
    fn add_assign(&mut self, other: Self) {
        self.count += other.count;
        self.total += other.total;
    }
}

impl Projection for Sums {
    const NAME: &'static str = "sums";
    const VERSION: u32 = 1;
    const CONTEXTS: &'static [&'static str] = &["ordering"];
    type Event = ItemEvent;
    fn decode(event: &RecordedEvent) -> Result<Option<ItemEvent>, DecodeError> {
        decode(event)
    }
}

impl TallyProjection for Sums {
    type Key = String;
    type Delta = Sum;
    fn tally(event: Recorded<'_, ItemEvent>) -> Result<Vec<(String, Sum)>, FoldError> {
        match event.event {
            ItemEvent::Added { n: 666, .. } if REFUSES.load(Ordering::SeqCst) => {
                Err(FoldError::new("666 is not an amount"))
            }
            ItemEvent::Added { n, .. } => {
                let sum = Sum {
                    count: 1,
                    total: *n,
                };
                Ok(vec![
                    ("all".to_owned(), sum.clone()),
                    (format!("parity-{}", n % 2), sum),
                ])
            }
            ItemEvent::Removed => Ok(Vec::new()),
        }
    }
}

impl PgTally for Sums {
    const TABLES: &'static str =
        "CREATE TABLE sums (id text PRIMARY KEY, count bigint NOT NULL, total bigint NOT NULL)";
    const INDEXES: &'static str = "";

    async fn add(conn: &mut PgConnection, deltas: &[(String, Sum)]) -> Result<(), sqlx::Error> {
        sqlx::query(
            "INSERT INTO sums SELECT * FROM UNNEST($1::text[], $2::bigint[], $3::bigint[])
             ON CONFLICT (id) DO UPDATE SET count = sums.count + excluded.count, total = sums.total + excluded.total",
        )
        .bind(deltas.iter().map(|(id, _)| id.as_str()).collect::<Vec<_>>())
        .bind(deltas.iter().map(|(_, sum)| sum.count).collect::<Vec<_>>())
        .bind(deltas.iter().map(|(_, sum)| sum.total).collect::<Vec<_>>())
        .execute(conn)
        .await?;
        Ok(())
    }
}

/// Rows in DynamoDB.
pub struct DynamoItems;

impl Projection for DynamoItems {
    const NAME: &'static str = "item-table";
    const VERSION: u32 = 1;
    const CONTEXTS: &'static [&'static str] = &["ordering"];
    type Event = ItemEvent;
    fn decode(event: &RecordedEvent) -> Result<Option<ItemEvent>, DecodeError> {
        decode(event)
    }
}

impl RowProjection for DynamoItems {
    type Key = String;
    type Row = ItemRow;
    fn key(event: Recorded<'_, ItemEvent>) -> String {
        Items::key(event)
    }
    fn fold(
        row: Option<ItemRow>,
        event: Recorded<'_, ItemEvent>,
    ) -> Result<Option<ItemRow>, FoldError> {
        fold(row, event)
    }
}

impl DynamoRows for DynamoItems {
    const ORIGIN: Option<Origin> = Some(Origin {
        column: "id",
        prefix: "",
    });
    const TABLE: TableDefinition = TableDefinition {
        partition_key: KeyAttribute::text("kind"),
        sort_key: Some(KeyAttribute::text("id")),
        local_indexes: &[LocalIndex {
            name: "by_total",
            sort_key: KeyAttribute::number("total"),
        }],
        global_indexes: &[],
    };

    fn item_key(key: &String) -> Item {
        use aws_sdk_dynamodb::types::AttributeValue::S;
        Item::from([
            ("kind".to_owned(), S("item".to_owned())),
            ("id".to_owned(), S(key.clone())),
        ])
    }

    fn to_item(_: &String, row: &ItemRow) -> Item {
        use aws_sdk_dynamodb::types::AttributeValue::{N, S};
        let mut item = Item::from([
            ("total".to_owned(), N(row.total.to_string())),
            ("trail".to_owned(), S(join(&row.trail))),
        ]);
        // An empty number is what the store refuses for good.
        if let Some(note) = &row.note {
            let value = if note == "forbidden" {
                N(String::new())
            } else {
                S(note.clone())
            };
            item.insert("note".to_owned(), value);
        }
        item
    }

    fn from_item(item: &Item) -> Result<ItemRow, BadItem> {
        let total = item
            .get("total")
            .and_then(|value| value.as_n().ok())
            .and_then(|n| n.parse().ok());
        let trail = item.get("trail").and_then(|value| value.as_s().ok());
        let trail = trail.ok_or_else(|| BadItem::at("trail"))?;
        Ok(ItemRow {
            total: total.ok_or_else(|| BadItem::at("total"))?,
            trail: trail.split(',').filter_map(|n| n.parse().ok()).collect(),
            note: item
                .get("note")
                .and_then(|value| value.as_s().ok())
                .cloned(),
        })
    }
}

pub fn items() -> View {
    View::postgres_rows::<Items>()
}

pub fn sums() -> View {
    View::postgres_tally::<Sums>()
}

pub fn item_table() -> View {
    View::dynamodb_rows::<DynamoItems>()
}

/// What a fold of these events gives, by stream.
pub fn folded(events: &[RecordedEvent]) -> std::collections::BTreeMap<String, ItemRow> {
    let mut rows = std::collections::BTreeMap::new();
    for envelope in events {
        let Ok(Some(event)) = decode(envelope) else {
            continue;
        };
        let key = envelope.stream.as_str().to_owned();
        let recorded = Recorded {
            event: &event,
            envelope,
        };
        if let Some(row) = fold(rows.remove(&key), recorded).unwrap() {
            rows.insert(key, row);
        }
    }
    rows
}

/// A changed fold: what was added counts twice, and the rest is as before.
fn fold_doubled(
    row: Option<ItemRow>,
    event: Recorded<'_, ItemEvent>,
) -> Result<Option<ItemRow>, FoldError> {
    let row = fold(row, event)?;
    let twice = match event.event {
        ItemEvent::Added { n, .. } => *n,
        ItemEvent::Removed => 0,
    };
    Ok(row.map(|row| ItemRow {
        total: row.total + twice,
        ..row
    }))
}

/// Rows in PostgreSQL by the changed fold.
pub struct ItemsDoubled;

impl Projection for ItemsDoubled {
    const NAME: &'static str = "items";
    const VERSION: u32 = 2;
    const CONTEXTS: &'static [&'static str] = &["ordering"];
    type Event = ItemEvent;
    fn decode(event: &RecordedEvent) -> Result<Option<ItemEvent>, DecodeError> {
        decode(event)
    }
}

impl RowProjection for ItemsDoubled {
    type Key = String;
    type Row = ItemRow;
    fn key(event: Recorded<'_, ItemEvent>) -> String {
        Items::key(event)
    }
    fn fold(
        row: Option<ItemRow>,
        event: Recorded<'_, ItemEvent>,
    ) -> Result<Option<ItemRow>, FoldError> {
        fold_doubled(row, event)
    }
}

impl PgRows for ItemsDoubled {
    const TABLES: &'static str = Items::TABLES;
    const INDEXES: &'static str = Items::INDEXES;
    const UNCHANGED: UnchangedColumns = &[("items", &["trail"])];
    async fn load(
        conn: &mut PgConnection,
        keys: &[String],
    ) -> Result<Vec<(String, ItemRow)>, sqlx::Error> {
        Items::load(conn, keys).await
    }
    async fn store(
        conn: &mut PgConnection,
        rows: &[(String, Option<ItemRow>)],
    ) -> Result<(), sqlx::Error> {
        Items::store(conn, rows).await
    }
}

/// Rows in DynamoDB by the changed fold.
pub struct DynamoItemsDoubled;

impl Projection for DynamoItemsDoubled {
    const NAME: &'static str = "item-table";
    const VERSION: u32 = 2;
    const CONTEXTS: &'static [&'static str] = &["ordering"];
    type Event = ItemEvent;
    fn decode(event: &RecordedEvent) -> Result<Option<ItemEvent>, DecodeError> {
        decode(event)
    }
}

impl RowProjection for DynamoItemsDoubled {
    type Key = String;
    type Row = ItemRow;
    fn key(event: Recorded<'_, ItemEvent>) -> String {
        Items::key(event)
    }
    fn fold(
        row: Option<ItemRow>,
        event: Recorded<'_, ItemEvent>,
    ) -> Result<Option<ItemRow>, FoldError> {
        fold_doubled(row, event)
    }
}

impl DynamoRows for DynamoItemsDoubled {
    const TABLE: TableDefinition = DynamoItems::TABLE;
    const UNCHANGED: &'static [&'static str] = &["trail"];
    fn item_key(key: &String) -> Item {
        DynamoItems::item_key(key)
    }
    fn to_item(key: &String, row: &ItemRow) -> Item {
        DynamoItems::to_item(key, row)
    }
    fn from_item(item: &Item) -> Result<ItemRow, BadItem> {
        DynamoItems::from_item(item)
    }
}
