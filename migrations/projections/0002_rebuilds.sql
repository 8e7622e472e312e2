-- Rebuilds: generations that are filled because somebody asked for it. Applied with
-- search_path = projections, beside processes of the release before: to them the two new words are
-- unknown, and what they do not know they neither fill nor switch to.

ALTER TABLE generations
    DROP CONSTRAINT generations_status_check,
    -- loading: being filled from the log by its rebuild, and by nobody else.
    -- rebuilt: a candidate that a rebuild owns: kept current, switched to when its owner says so.
    ADD CONSTRAINT generations_status_check CHECK
        (status IN ('loading', 'rebuilt', 'candidate', 'active', 'retained', 'retired')),
    -- Whose rebuild made it; it keeps its owner for life.
    ADD COLUMN owner text,
    -- How fast the load may be, all its workers together; as fast as it can without.
    ADD COLUMN max_events_per_second bigint CHECK (max_events_per_second > 0),
    ADD COLUMN suspended boolean NOT NULL DEFAULT false,
    -- What answered queries before this one did.
    ADD COLUMN previous bigint;
CREATE UNIQUE INDEX generations_one_owner ON generations (projection, owner) WHERE owner IS NOT NULL;

ALTER TABLE checkpoints
    -- How far the load goes: the newest event of the lane when the rebuild began.
    ADD COLUMN target bigint,
    -- How many events the load has folded.
    ADD COLUMN events bigint NOT NULL DEFAULT 0;
