-- Runs: a redrive or a discard of all dead letters that a selector names, with an owner. Applied
-- with search_path = projections. Processes of the release before see its requests as their own
-- kind and do them without counting: roll the projectors out before a run is begun.

CREATE TABLE letter_runs (
    owner            text PRIMARY KEY,
    projection       text        NOT NULL,
    -- Its letters are those of generations of this version.
    version          integer     NOT NULL,
    action           text        NOT NULL CHECK (action IN ('redrive', 'discard')),
    -- Which letters, as JSON.
    selector         text        NOT NULL,
    on_failure       text        NOT NULL CHECK (on_failure IN ('park', 'stop')),
    max_messages     bigint,
    status           text        NOT NULL DEFAULT 'running' CHECK (status IN ('running', 'done', 'stopped', 'cancelled')),
    matched          bigint      NOT NULL,
    -- Written in the transactions of the letters that they count.
    redriven         bigint      NOT NULL DEFAULT 0,
    discarded        bigint      NOT NULL DEFAULT 0,
    failed           bigint      NOT NULL DEFAULT 0,
    -- The last stream that was begun; they are gone through once, in this order.
    after_generation bigint      NOT NULL DEFAULT 0,
    after_context    text        NOT NULL DEFAULT '',
    after_stream     text        NOT NULL DEFAULT '',
    begun_at         timestamptz NOT NULL DEFAULT now(),
    finished_at      timestamptz
);

ALTER TABLE dead_letter_requests
    -- The run that it belongs to.
    ADD COLUMN run text REFERENCES letter_runs,
    -- How many letters it may still take.
    ADD COLUMN max_letters bigint;
CREATE INDEX dead_letter_requests_of_run ON dead_letter_requests (run) WHERE run IS NOT NULL AND finished_at IS NULL;
