//! Rows in PostgreSQL's binary COPY format.

use std::sync::Arc;

use bytes::BufMut;
use millrace_es::Metadata;
use millrace_kernel::Timestamp;

use crate::lane::plan::Row;

const SIGNATURE: &[u8] = b"PGCOPY\n\xff\r\n\0\0\0\0\0\0\0\0\0";
const TRAILER: i16 = -1;
const COLUMNS: i16 = 11;
/// The widths of the columns before the texts, their lengths included.
const FIXED_ROW_BYTES: usize = 2 + 4 * 12 + 16 + 2 * 6 + 4 * 4;
/// 2000-01-01T00:00:00Z, from which PostgreSQL counts its microseconds.
const POSTGRES_EPOCH_US: i128 = 946_684_800_000_000;

/// The rows as the body of a `COPY … FROM STDIN (FORMAT binary)`.
///
/// # Errors
/// When a metadata value has no JSON form.
pub(super) fn encode(rows: &[Row<'_>]) -> serde_json::Result<Vec<u8>> {
    let texts: usize = rows.iter().map(|row| row.event.payload.get().len()).sum();
    let mut out = Vec::with_capacity(texts + rows.len() * (FIXED_ROW_BYTES + 256) + 32);
    out.put_slice(SIGNATURE);
    let mut metadata = MetadataText::default();
    for row in rows {
        out.put_i16(COLUMNS);
        put_i64(&mut out, row.position.as_i64());
        put_i64(&mut out, row.version.as_i64());
        put_i64(&mut out, row.previous.as_i64());
        put_i64(&mut out, postgres_us(row.recorded_at));
        put_bytes(&mut out, row.event.id.get().as_bytes());
        put_i16(&mut out, small(row.event.schema_version));
        put_i16(&mut out, small(row.partition.get()));
        put_bytes(&mut out, row.stream.as_str().as_bytes());
        put_bytes(&mut out, row.event.event_type.as_bytes());
        put_bytes(&mut out, row.event.payload.get().as_bytes());
        put_bytes(&mut out, metadata.of(&row.event.metadata)?.as_bytes());
    }
    out.put_i16(TRAILER);
    Ok(out)
}

/// The JSON of metadata, which the events of one append share.
#[derive(Default)]
pub(super) struct MetadataText {
    last: Option<Arc<Metadata>>,
    text: String,
}

impl MetadataText {
    pub(super) fn of(&mut self, metadata: &Arc<Metadata>) -> serde_json::Result<&str> {
        if !self
            .last
            .as_ref()
            .is_some_and(|last| Arc::ptr_eq(last, metadata))
        {
            self.text = serde_json::to_string(metadata.as_ref())?;
            self.last = Some(Arc::clone(metadata));
        }
        Ok(&self.text)
    }
}

/// Partitions and schema versions are far below; the lane checks the latter before.
pub(super) fn small(number: u16) -> i16 {
    i16::try_from(number).unwrap_or(i16::MAX)
}

fn postgres_us(at: Timestamp) -> i64 {
    let us = at.get().unix_timestamp_nanos() / 1_000 - POSTGRES_EPOCH_US;
    i64::try_from(us).unwrap_or(i64::MAX)
}

fn put_i64(out: &mut Vec<u8>, value: i64) {
    out.put_i32(8);
    out.put_i64(value);
}

fn put_i16(out: &mut Vec<u8>, value: i16) {
    out.put_i32(2);
    out.put_i16(value);
}

fn put_bytes(out: &mut Vec<u8>, value: &[u8]) {
    // The lane's limits keep every text far below 2 GiB.
    out.put_i32(i32::try_from(value.len()).unwrap_or(i32::MAX));
    out.put_slice(value);
}
