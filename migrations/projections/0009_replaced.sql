-- Who may drop a generation that answered before. Applied with search_path = projections, beside processes
-- of the release before, which do not know it.

ALTER TABLE generations
    -- The generation that took over from it last, while it does not answer: it is kept for that one's
    -- rollback, and dropped with it. Not set by the release before; then whoever took over may drop it.
    ADD COLUMN replaced_by bigint;
