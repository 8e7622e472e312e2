-- Generations that were gone back to by force. Applied with search_path = projections, beside processes
-- of the release before, which do not know it.

ALTER TABLE generations
    -- Whether readers may go back in time when they come to it; otherwise they stay where they were
    -- until it is nowhere behind.
    ADD COLUMN forced boolean NOT NULL DEFAULT false;
