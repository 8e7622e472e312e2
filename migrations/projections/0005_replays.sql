-- Replays that were asked for without Kubernetes: what a Replay resource holds, as a row. Applied with
-- search_path = projections, beside processes of the release before, which do not know it.

CREATE TABLE replays (
    -- Whose generations and runs over dead letters are: never reused.
    uid        uuid        PRIMARY KEY,
    name       text        NOT NULL UNIQUE,
    spec       jsonb       NOT NULL,
    status     jsonb       NOT NULL,
    -- How often the spec was changed.
    generation bigint      NOT NULL DEFAULT 1,
    -- How often anything was changed: what a write is compared by.
    revision   bigint      NOT NULL DEFAULT 1,
    created_at timestamptz NOT NULL DEFAULT now(),
    -- Whether it is to go, and whether it has to be let go first.
    deleting   boolean     NOT NULL DEFAULT false,
    held       boolean     NOT NULL DEFAULT false
);
