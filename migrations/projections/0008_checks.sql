-- Checks: what the last check of a live view, or of a stream, against its log came to. Applied with
-- search_path = projections, beside processes of the release before, which do not know it.

CREATE TABLE checks (
    -- Whose view or stream it is.
    context     text        NOT NULL,
    -- The projection; empty for the context's stream.
    projection  text        NOT NULL,
    -- Keys of a view, or positions of a stream, that were compared.
    checked     bigint      NOT NULL,
    differences bigint      NOT NULL,
    -- What differed, to be looked at again by the next check: streams of a view, or positions.
    differing   text[]      NOT NULL,
    checked_at  timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (context, projection)
);
