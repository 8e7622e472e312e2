-- The event log of one context. Names are unqualified: the file is applied with the context's own
-- schema as search_path, so that every context has tables of the same names.

-- The lane: one row, which every append locks while it writes, so that positions are gapless and in
-- commit order. What stands in it changes seldom.
CREATE TABLE log_lane (
    one             boolean  PRIMARY KEY DEFAULT true CHECK (one),
    context         text     NOT NULL,
    partition_count smallint NOT NULL,
    epoch           bigint   NOT NULL DEFAULT 1,
    -- Rises when a writer settles an unknown outcome: a write of the time before cannot land later.
    guard           bigint   NOT NULL DEFAULT 0,
    -- Why appends are stopped, if they are.
    halted          text
);

-- The end of the log: one row, and every append puts another in its place. One row updated in place
-- would keep its old versions in the way of all readers for as long as any transaction of the
-- database is open; of these rows the newest stands at the end of the index, whatever is below it.
CREATE TABLE log_end (
    -- The position of the newest event, and of the newest one of each partition.
    position            bigint      PRIMARY KEY,
    partition_positions bigint[]    NOT NULL,
    -- The newest recorded_at, so that times never fall along positions.
    recorded_at         timestamptz NOT NULL
);
-- 256 partitions are still far from a page; compressing them at every append is not worth it.
ALTER TABLE log_end ALTER COLUMN partition_positions SET STORAGE PLAIN;

-- The head, as readers see it.
CREATE VIEW log_head AS
SELECT l.context, e.position, l.epoch, l.partition_count, e.partition_positions, e.recorded_at,
       l.guard, l.halted
FROM log_lane l
CROSS JOIN LATERAL (SELECT * FROM log_end ORDER BY position DESC LIMIT 1) e;

-- Fixed-width columns first: no padding between them.
CREATE TABLE events (
    position       bigint      NOT NULL,
    version        bigint      NOT NULL,
    previous       bigint      NOT NULL,
    recorded_at    timestamptz NOT NULL,
    event_id       uuid        NOT NULL,
    schema_version smallint    NOT NULL,
    partition      smallint    NOT NULL,
    -- Byte order: comparing by locale would cost every append.
    stream         text COLLATE "C" NOT NULL,
    event_type     text COLLATE "C" NOT NULL,
    -- json and not jsonb: a payload comes back byte for byte.
    payload        json        NOT NULL,
    metadata       json        NOT NULL,
    PRIMARY KEY (position),
    UNIQUE (stream, version)
);

-- Answers by idempotency key, kept until they expire.
CREATE TABLE answers (
    key_hash     bytea       PRIMARY KEY,
    request_hash bytea       NOT NULL,
    status       smallint    NOT NULL,
    headers      json        NOT NULL,
    body         bytea       NOT NULL,
    token        text        NOT NULL,
    expires_at   timestamptz NOT NULL
);
CREATE INDEX answers_by_expiry ON answers (expires_at);

-- Names that are unique in their scope.
CREATE TABLE reservations (
    scope  text COLLATE "C" NOT NULL,
    value  text COLLATE "C" NOT NULL,
    holder text NOT NULL,
    PRIMARY KEY (scope, value)
);

-- Aggregate states beside their streams; every one may be deleted at any time.
CREATE TABLE snapshots (
    stream           text COLLATE "C" PRIMARY KEY,
    version          bigint      NOT NULL,
    snapshot_version integer     NOT NULL,
    state            json        NOT NULL
);
