-- Holds: how far a generation may go while a verification brings it level with the live one.
-- Applied with search_path = projections, beside processes of the release before: they do not obey
-- a hold, so a verification beside them is tried again, and no more.

ALTER TABLE checkpoints
    -- The position that the lane must not pass.
    ADD COLUMN hold_at bigint,
    -- Until then: a verifier that died holds nothing for ever.
    ADD COLUMN hold_until timestamptz;
