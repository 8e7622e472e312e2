-- The projector's own records, in the read database beside the rows they speak of: a backup of the
-- one is a backup of the other. Applied with search_path = projections.

-- A generation is a whole copy of a projection's tables, in a schema of its own.
CREATE TABLE generations (
    id          bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    projection  text        NOT NULL,
    version     integer     NOT NULL,
    -- candidate: being filled; active: answers queries; retained: answered before and is kept
    -- current for a rollback; retired: nobody works on it.
    status      text        NOT NULL CHECK (status IN ('candidate', 'active', 'retained', 'retired')),
    schema_name text        NOT NULL UNIQUE,
    created_at  timestamptz NOT NULL DEFAULT now(),
    switched_at timestamptz
);
CREATE UNIQUE INDEX generations_one_active ON generations (projection, version) WHERE status = 'active';
CREATE UNIQUE INDEX generations_one_candidate ON generations (projection, version) WHERE status = 'candidate';

-- How far a generation is in each partition. Rewritten with every batch, so there is room for it
-- in the page and no index on what changes.
CREATE TABLE checkpoints (
    generation bigint      NOT NULL REFERENCES generations,
    context    text        NOT NULL,
    partition  smallint    NOT NULL,
    position   bigint      NOT NULL,
    epoch      bigint      NOT NULL,
    updated_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (generation, context, partition)
) WITH (fillfactor = 20, autovacuum_vacuum_scale_factor = 0.0, autovacuum_vacuum_threshold = 5000);

-- A stream whose events go to the dead letters until its first letter is dealt with.
CREATE TABLE parked_keys (
    generation bigint      NOT NULL REFERENCES generations,
    context    text        NOT NULL,
    partition  smallint    NOT NULL,
    stream     text        NOT NULL,
    since      bigint      NOT NULL,
    parked_at  timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (generation, context, partition, stream)
);

-- Events that could not be folded, and those of the same stream behind them.
CREATE TABLE dead_letters (
    generation    bigint      NOT NULL REFERENCES generations,
    context       text        NOT NULL,
    position      bigint      NOT NULL,
    partition     smallint    NOT NULL,
    stream        text        NOT NULL,
    event_type    text        NOT NULL,
    -- The whole recorded event as JSON text: what made it poison may be what jsonb refuses.
    event         text        NOT NULL,
    reason        text        NOT NULL CHECK (reason IN ('malformed', 'fold', 'store', 'follows')),
    error         text        NOT NULL,
    attempts      integer     NOT NULL DEFAULT 1,
    first_failure timestamptz NOT NULL DEFAULT now(),
    last_failure  timestamptz NOT NULL DEFAULT now(),
    status        text        NOT NULL DEFAULT 'pending' CHECK (status IN ('pending', 'redriven', 'discarded')),
    PRIMARY KEY (generation, context, position)
);
CREATE INDEX dead_letters_pending ON dead_letters (generation, context, stream, position) WHERE status = 'pending';

-- What an operator asked for; the owner of the partition does it between two batches.
CREATE TABLE dead_letter_requests (
    id           bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    generation   bigint      NOT NULL REFERENCES generations,
    context      text        NOT NULL,
    partition    smallint    NOT NULL,
    stream       text        NOT NULL,
    action       text        NOT NULL CHECK (action IN ('redrive', 'discard')),
    -- Only this letter (discard), or all of the stream.
    position     bigint,
    requested_at timestamptz NOT NULL DEFAULT now(),
    finished_at  timestamptz,
    outcome      text
);
CREATE INDEX dead_letter_requests_open ON dead_letter_requests (generation, context, partition, id) WHERE finished_at IS NULL;
