-- What people did about a payment that cannot be given back (`REFUND_REFUSED`), in a sentence of theirs.
-- No event says it and nothing reads it, but that nobody has to be told of it any more.
ALTER TABLE payments ADD COLUMN settled text;

CREATE INDEX payments_owed ON payments (updated_at)
    WHERE status = 'REFUND_REFUSED' AND settled IS NULL;
