-- Reactions: generations without rows, whose batches are effects. Applied with search_path =
-- projections, beside processes of the release before, which know no reaction and leave them alone.

ALTER TABLE dead_letters
    DROP CONSTRAINT dead_letters_reason_check,
    -- refused: the effect of the event can never be performed.
    ADD CONSTRAINT dead_letters_reason_check CHECK
        (reason IN ('malformed', 'fold', 'store', 'follows', 'refused'));
