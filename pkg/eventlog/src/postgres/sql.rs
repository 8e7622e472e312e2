//! The statements, with the context's schema written into them.
//!
//! A schema's name cannot be a bind parameter. It is a [`Context`], which is `a-z 0-9 _` only, so
//! writing it into a statement is safe.

use std::sync::Arc;

use millrace_es::Context;
use sqlx::{AssertSqlSafe, SqlSafeStr};

/// The quoted schema of a context.
pub(super) fn schema_of(context: &Context) -> String {
    format!("\"{context}\"")
}

/// A statement whose text was put together here.
#[derive(Clone)]
pub(super) struct Statement(Arc<str>);

impl Statement {
    fn new(text: &str, schema: &str) -> Self {
        Self(text.replace("{s}", schema).into())
    }

    pub(super) fn as_str(&self) -> &str {
        &self.0
    }
}

impl SqlSafeStr for &Statement {
    fn into_sql_str(self) -> sqlx::SqlStr {
        AssertSqlSafe(Arc::clone(&self.0)).into_sql_str()
    }
}

/// Every statement of one context's log.
pub(super) struct Statements {
    pub probe: Statement,
    pub lock: Statement,
    pub write: Statement,
    pub copy: Statement,
    pub fence: Statement,
    pub event_at: Statement,
    pub answers: Statement,
    pub drop_expired: Statement,
    pub holders: Statement,
    pub release: Statement,
    pub claim: Statement,
    pub head: Statement,
    pub stream: Statement,
    pub log: Statement,
    pub partitions: Statement,
    pub load_snapshot: Statement,
    pub save_snapshot: Statement,
    pub end_sleepers: Statement,
    pub halt: Statement,
    pub resume: Statement,
    pub start_epoch: Statement,
    pub drop_end: Statement,
    pub import_end: Statement,
    pub import_lane: Statement,
    pub sweep: Statement,
}

/// The head, and in the same snapshot the newest event of every stream of the batch and which of
/// its keys are known. One row, arrays for what was found.
const PROBE: &str = "
SELECT h.position, h.epoch, h.guard, h.halted, h.partition_positions, h.recorded_at,
       clock_timestamp() AS now, s.numbers, s.versions, s.ids,
       (SELECT array_agg(a.key_hash) FROM {s}.answers a WHERE a.key_hash = ANY ($2)) AS keys
FROM {s}.log_head h
CROSS JOIN LATERAL (
    SELECT array_agg(w.number) AS numbers, array_agg(e.version) AS versions,
           array_agg(e.event_id) AS ids
    FROM unnest($1::text[]) WITH ORDINALITY AS w (stream, number)
    CROSS JOIN LATERAL (
        SELECT version, event_id FROM {s}.events
        WHERE stream = w.stream ORDER BY version DESC LIMIT 1
    ) e
) s";

/// The lane. Where the log ends is read after it, in a statement of its own: this one's snapshot is
/// from before the wait.
const LOCK: &str = "SELECT FROM {s}.log_lane FOR NO KEY UPDATE";

/// Locks the lane, moves the end of the log, if it is where the batch was decided, and writes events
/// and answers with it. Whoever waited here for another process finds that the row it wants to
/// replace is gone, and has written nothing. The end being there, the statement sees every event up
/// to it, so that streams and keys that were guessed are checked against the whole log.
const WRITE: &str = "
WITH lane AS (
    SELECT FROM {s}.log_lane WHERE epoch = $2 AND guard = $3 AND halted IS NULL
      AND NOT EXISTS (
        SELECT FROM unnest($24::text[], $25::bigint[], $26::uuid[]) AS g (stream, version, id)
        LEFT JOIN LATERAL (
            SELECT version, event_id FROM {s}.events
            WHERE stream = g.stream ORDER BY version DESC LIMIT 1
        ) e ON true
        WHERE coalesce(e.version, 0) <> g.version OR e.event_id <> g.id
      )
      AND NOT EXISTS (SELECT FROM {s}.answers WHERE key_hash = ANY ($17))
    FOR NO KEY UPDATE
), gone AS (
    DELETE FROM {s}.log_end USING lane WHERE position = $1 RETURNING true AS moved
), head AS (
    INSERT INTO {s}.log_end (position, partition_positions, recorded_at)
    SELECT $4, $5, $6 FROM gone
    RETURNING true AS moved
), written AS (
    INSERT INTO {s}.events (position, version, previous, recorded_at, event_id, schema_version,
                            partition, stream, event_type, payload, metadata)
    SELECT e.position, e.version, e.previous, $6, e.id, e.schema_version,
           e.partition, e.stream, e.event_type, e.payload::json, e.metadata::json
    FROM head, unnest($7::bigint[], $8::bigint[], $9::bigint[], $10::uuid[], $11::smallint[],
                      $12::smallint[], $13::text[], $14::text[], $15::text[], $16::text[])
         AS e (position, version, previous, id, schema_version, partition, stream, event_type,
               payload, metadata)
), kept AS (
    INSERT INTO {s}.answers (key_hash, request_hash, status, headers, body, token, expires_at)
    SELECT a.key_hash, a.request_hash, a.status, a.headers::json, a.body, a.token,
           $6 + make_interval(hours => $23)
    FROM head, unnest($17::bytea[], $18::bytea[], $19::smallint[], $20::text[], $21::bytea[],
                      $22::text[])
         AS a (key_hash, request_hash, status, headers, body, token)
)
SELECT moved FROM head";

const COPY: &str = "
COPY {s}.events (position, version, previous, recorded_at, event_id, schema_version, partition,
                 stream, event_type, payload, metadata)
FROM STDIN WITH (FORMAT binary)";

/// Waits for whoever holds the lane, and makes sure that no write decided before can land after.
const FENCE: &str = "UPDATE {s}.log_lane SET guard = guard + 1";

/// Ends the sessions of this name that hold the head and have waited for their process for long.
const END_SLEEPERS: &str = "
SELECT count(*) FILTER (WHERE pg_terminate_backend(a.pid))
FROM pg_stat_activity a
WHERE a.application_name = $1 AND a.datname = current_database() AND a.pid <> pg_backend_pid()
  AND a.wait_event = 'ClientRead'
  AND a.state_change < clock_timestamp() - make_interval(secs => $2 / 1000)
  AND EXISTS (SELECT FROM pg_locks l
              WHERE l.pid = a.pid AND l.granted AND l.relation = '{s}.log_lane'::regclass)";

const EVENT_AT: &str = "SELECT event_id FROM {s}.events WHERE position = $1";

const ANSWERS: &str = "
SELECT key_hash, request_hash, status, headers::text AS headers, body, token,
       expires_at <= clock_timestamp() AS expired
FROM {s}.answers WHERE key_hash = ANY ($1)";

const DROP_EXPIRED: &str = "
DELETE FROM {s}.answers WHERE key_hash = ANY ($1) AND expires_at <= clock_timestamp()";

const HOLDERS: &str = "
SELECT r.scope, r.value, r.holder
FROM {s}.reservations r
JOIN unnest($1::text[], $2::text[]) AS w (scope, value)
  ON r.scope = w.scope AND r.value = w.value";

const RELEASE: &str = "
DELETE FROM {s}.reservations r
USING unnest($1::text[], $2::text[], $3::text[]) AS w (scope, value, holder)
WHERE r.scope = w.scope AND r.value = w.value AND r.holder = w.holder";

const CLAIM: &str = "
INSERT INTO {s}.reservations (scope, value, holder)
SELECT * FROM unnest($1::text[], $2::text[], $3::text[])";

const HEAD: &str = "
SELECT context, position, epoch, partition_count, partition_positions, halted
FROM {s}.log_head";

const COLUMNS: &str = "
SELECT e.position, e.version, e.previous, e.recorded_at, e.event_id, e.schema_version,
       e.partition, e.stream, e.event_type, e.payload::text AS payload,
       e.metadata::text AS metadata, (SELECT epoch FROM {s}.log_lane) AS epoch
FROM {s}.events e";

const SAVE_SNAPSHOT: &str = "
INSERT INTO {s}.snapshots AS s (stream, version, snapshot_version, state)
VALUES ($1, $2, $3, $4::json)
ON CONFLICT (stream) DO UPDATE
SET version = excluded.version, snapshot_version = excluded.snapshot_version,
    state = excluded.state
WHERE (s.snapshot_version, s.version) < (excluded.snapshot_version, excluded.version)";

const SWEEP: &str = "
DELETE FROM {s}.answers
WHERE key_hash IN (SELECT key_hash FROM {s}.answers WHERE expires_at <= clock_timestamp()
                   ORDER BY expires_at LIMIT $1 FOR UPDATE SKIP LOCKED)";

impl Statements {
    pub(super) fn new(context: &Context) -> Self {
        let schema = schema_of(context);
        let of = |text: &str| Statement::new(text, &schema);
        let select = |tail: &str| of(&format!("{COLUMNS} {tail}"));
        Self {
            probe: of(PROBE),
            lock: of(LOCK),
            write: of(WRITE),
            copy: of(COPY),
            fence: of(FENCE),
            event_at: of(EVENT_AT),
            answers: of(ANSWERS),
            drop_expired: of(DROP_EXPIRED),
            holders: of(HOLDERS),
            release: of(RELEASE),
            claim: of(CLAIM),
            head: of(HEAD),
            stream: select("WHERE e.stream = $1 AND e.version > $2 ORDER BY e.version LIMIT $3"),
            log: select("WHERE e.position > $1 ORDER BY e.position LIMIT $2"),
            partitions: select(
                "WHERE e.partition = ANY($1) AND e.position > $2 AND e.position <= $3
                 ORDER BY e.position LIMIT $4",
            ),
            load_snapshot: of("SELECT version, snapshot_version, state::text AS state
                 FROM {s}.snapshots WHERE stream = $1"),
            save_snapshot: of(SAVE_SNAPSHOT),
            end_sleepers: of(END_SLEEPERS),
            halt: of("UPDATE {s}.log_lane SET halted = $1 WHERE halted IS NULL"),
            resume: of("UPDATE {s}.log_lane SET halted = NULL WHERE halted IS NOT NULL"),
            start_epoch: of("UPDATE {s}.log_lane SET epoch = epoch + 1, halted = NULL"),
            drop_end: of("DELETE FROM {s}.log_end"),
            import_end: of(
                "INSERT INTO {s}.log_end (position, partition_positions, recorded_at)
                 VALUES ($1, $2, $3)",
            ),
            import_lane: of("UPDATE {s}.log_lane SET halted = NULL, guard = guard + 1"),
            sweep: of(SWEEP),
        }
    }
}
