-- The write model's orders, kept in the append's own transaction. Ids are text: a caller may choose
-- its own. A deleted order leaves this table; its history stays in the log.
CREATE TABLE orders (
    id text COLLATE "C" PRIMARY KEY,
    user_id text COLLATE "C" NOT NULL,
    total_amount decimal(10,2) NOT NULL,
    status varchar(20) NOT NULL,
    created_at timestamptz NOT NULL,
    updated_at timestamptz NOT NULL,
    shipping_address text,
    notes text
);
