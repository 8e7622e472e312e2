-- Where the payment of each order stands, kept in the append's own transaction, and which of them are
-- due. `due_at` and `attempts` are the timer's: the events only make a payment due, or not due any
-- more. Nothing is lost with them; a payment that is unfinished may be made due at any time.
CREATE TABLE payments (
    order_id text COLLATE "C" PRIMARY KEY,
    account_id text COLLATE "C" NOT NULL,
    amount decimal(10,2) NOT NULL,
    currency text NOT NULL,
    status text NOT NULL,
    transaction_id text COLLATE "C" NOT NULL,
    refund_transaction_id text COLLATE "C" NOT NULL,
    reason text,
    version bigint NOT NULL,
    requested_at timestamptz NOT NULL,
    updated_at timestamptz NOT NULL,
    due_at timestamptz,
    attempts integer NOT NULL DEFAULT 0
);

CREATE INDEX payments_due ON payments (due_at) WHERE due_at IS NOT NULL;
CREATE INDEX payments_unfinished ON payments (updated_at)
    WHERE status IN ('PENDING', 'VOIDING', 'REFUNDING');
