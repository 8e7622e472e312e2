//! What a view says about its store, beside the pure fold: its tables and how rows go in and out.
//!
//! A view names its tables without a schema or a prefix. In PostgreSQL every generation is a
//! schema, and every connection that works on one has that schema as its only `search_path` for
//! life: SQL texts stay constants, prepared statements stay cached, and none of them can meet
//! another generation's tables. In DynamoDB every generation is a table.

use std::{collections::HashMap, future::Future, str::FromStr};

use aws_sdk_dynamodb::types::AttributeValue;
use millrace_es::{RowProjection, TallyProjection};
use sqlx::PgConnection;

/// The rows that [`PgRows::load`] found, with their keys.
pub type Loaded<P> = Vec<(<P as RowProjection>::Key, <P as RowProjection>::Row)>;

/// Tables of a view, each with columns of it.
pub type UnchangedColumns = &'static [(&'static str, &'static [&'static str])];

/// Where the events of a row come from: a row whose `column` is X is made of the events of the stream
/// `<prefix>X`, and of no other. A check of some streams against the log finds rows by it that no
/// event made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Origin {
    /// The column, or the attribute of an item: a text.
    pub column: &'static str,
    /// What the names of the streams begin with, such as `order-`.
    pub prefix: &'static str,
}

/// The origins of tables, by table.
pub type Origins = &'static [(&'static str, Origin)];

/// A row projection kept in PostgreSQL.
///
/// Both methods are called once per batch, whatever its size (a few thousand rows at most), inside
/// the transaction that also moves the checkpoint. They take all rows at once, so that a batch
/// costs one or two statements: `… = ANY($1)` to load, `INSERT … SELECT … FROM UNNEST(…) ON
/// CONFLICT … DO UPDATE` to store.
pub trait PgRows: RowProjection {
    /// DDL of the tables with their primary keys, unqualified, statements separated by `;`.
    const TABLES: &'static str;
    /// DDL of everything else that makes reads fast, apart from the tables so that a rebuild can
    /// make it after the load. Primary keys do not belong here: upserts need them.
    const INDEXES: &'static str;
    /// What holds the same as in the version before, row by row: which rows there are, and the
    /// columns that are named. A verification compares it when the fold has changed; what is not
    /// named it judges by folding some streams a second time.
    const UNCHANGED: UnchangedColumns = &[];
    /// Where the rows of each table come from, unless they are
    /// [`SHARED`](RowProjection::SHARED). Without it, rows that no event made are not found by a
    /// check against the log.
    const ORIGINS: Origins = &[];

    /// Reads the rows of these keys, sorted and each once; keys without a row are left out.
    ///
    /// Where rows are [`SHARED`](RowProjection::SHARED) it first makes those that are missing and
    /// then locks all, both in one order of the keys, until the transaction ends: `INSERT … ORDER BY
    /// … ON CONFLICT DO NOTHING`, then `SELECT … ORDER BY … FOR UPDATE`. What another partition
    /// folded in is then read and not lost, and two that fold the same rows cannot deadlock.
    fn load(
        conn: &mut PgConnection,
        keys: &[Self::Key],
    ) -> impl Future<Output = Result<Loaded<Self>, sqlx::Error>> + Send;

    /// Writes these rows, sorted by key and each once; `None` deletes.
    fn store(
        conn: &mut PgConnection,
        rows: &[(Self::Key, Option<Self::Row>)],
    ) -> impl Future<Output = Result<(), sqlx::Error>> + Send;
}

/// A tally kept in PostgreSQL.
pub trait PgTally: TallyProjection {
    /// DDL of the tables with their primary keys, unqualified, statements separated by `;`.
    const TABLES: &'static str;
    /// DDL of other indexes; see [`PgRows::INDEXES`].
    const INDEXES: &'static str;
    /// What holds the same as in the version before; see [`PgRows::UNCHANGED`]. Sums cannot be
    /// folded a second time from some streams: of a changed fold nothing else is compared.
    const UNCHANGED: UnchangedColumns = &[];

    /// Adds the changes (`count = t.count + excluded.count`). They come summed up per key and
    /// sorted by key; they must be written in that order, so that the transactions of different
    /// partitions lock the sums in one order and cannot deadlock.
    fn add(
        conn: &mut PgConnection,
        deltas: &[(Self::Key, Self::Delta)],
    ) -> impl Future<Output = Result<(), sqlx::Error>> + Send;
}

/// An item as the SDK has it.
pub type Item = HashMap<String, AttributeValue>;

/// The attribute of every item that holds the position of the newest event it has seen. Kept by
/// the runner; a view neither writes nor needs it.
pub const POSITION_ATTRIBUTE: &str = "position";

/// The attribute that marks an item whose row is gone. Such an item has its key, its position and
/// this, so that it falls out of every index that is sorted by another attribute; a query on the
/// table's own key filters it out with `attribute_not_exists(tombstone)`.
pub const TOMBSTONE_ATTRIBUTE: &str = "tombstone";

/// A row projection kept in DynamoDB.
///
/// An item is guarded by the position it has seen, so its row must be made from one stream (or
/// from streams that are always in one partition of one context), and cannot be
/// [`SHARED`](RowProjection::SHARED): such a view does not build.
pub trait DynamoRows: RowProjection {
    /// The table's keys and indexes.
    const TABLE: TableDefinition;
    /// The attributes that hold the same as in the version before, item by item. With any of them
    /// named, a verification of a changed fold compares which items there are, and these; what is
    /// not named it judges by folding some streams a second time.
    const UNCHANGED: &'static [&'static str] = &[];
    /// Where its items come from; see [`PgRows::ORIGINS`].
    const ORIGIN: Option<Origin> = None;

    /// The primary key's attributes.
    fn item_key(key: &Self::Key) -> Item;

    /// The other attributes of a row. Not [`POSITION_ATTRIBUTE`], not [`TOMBSTONE_ATTRIBUTE`].
    fn to_item(key: &Self::Key, row: &Self::Row) -> Item;

    /// Reads a row back.
    ///
    /// # Errors
    /// [`BadItem`] when the item is none that [`DynamoRows::to_item`] makes.
    fn from_item(item: &Item) -> Result<Self::Row, BadItem>;
}

/// An item that is not as its view writes it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("item attribute {attribute:?} is missing or not of its type")]
pub struct BadItem {
    /// The attribute.
    pub attribute: String,
}

impl BadItem {
    /// Names the attribute.
    pub fn at(attribute: impl Into<String>) -> Self {
        Self {
            attribute: attribute.into(),
        }
    }
}

/// Reads an attribute of an item, a text or a number, as what its text says.
///
/// # Errors
/// [`BadItem`] when it is missing, of another type, or says something else.
pub fn attribute<T: FromStr>(item: &Item, name: &str) -> Result<T, BadItem> {
    item.get(name)
        .and_then(|value| value.as_s().or_else(|_| value.as_n()).ok())
        .and_then(|text| text.parse().ok())
        .ok_or_else(|| BadItem::at(name))
}

/// A DynamoDB table's keys and indexes. All indexes project all attributes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TableDefinition {
    /// The partition key.
    pub partition_key: KeyAttribute,
    /// The sort key.
    pub sort_key: Option<KeyAttribute>,
    /// Other orders inside a partition key. Can be read consistently, so a query that waited for
    /// a position may answer from one.
    pub local_indexes: &'static [LocalIndex],
    /// Other keys. Always eventually consistent: not for queries that wait for a position.
    pub global_indexes: &'static [GlobalIndex],
}

/// A key attribute and its type.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KeyAttribute {
    /// The attribute's name.
    pub name: &'static str,
    /// Its type.
    pub kind: KeyKind,
}

impl KeyAttribute {
    /// A text key.
    #[must_use]
    pub const fn text(name: &'static str) -> Self {
        Self {
            name,
            kind: KeyKind::Text,
        }
    }

    /// A numeric key.
    #[must_use]
    pub const fn number(name: &'static str) -> Self {
        Self {
            name,
            kind: KeyKind::Number,
        }
    }
}

/// The types of key attributes in use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeyKind {
    /// `S`
    Text,
    /// `N`
    Number,
}

/// A local secondary index.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LocalIndex {
    /// Its name, at least 3 characters.
    pub name: &'static str,
    /// What it sorts by.
    pub sort_key: KeyAttribute,
}

/// A global secondary index.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GlobalIndex {
    /// Its name, at least 3 characters.
    pub name: &'static str,
    /// Its partition key.
    pub partition_key: KeyAttribute,
    /// Its sort key.
    pub sort_key: Option<KeyAttribute>,
}
